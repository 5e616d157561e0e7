"""A run as the files that others read: lm-eval's output folder, a model card, the Hub's YAML.

explorer export RUN --format lm-eval --out FOLDER
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from explorer.errors import BadInput
from explorer.lm_eval_io import hub_card, results, samples
from explorer.records import RunRecord, TaskScore
from explorer.store import disk

FORMATS = {
    "lm-eval": "application/zip",
    "model-index": "application/yaml",
    "eval-results": "application/yaml",
}
"""Formats of one run, with their MIME types."""


def export_bytes(root: Path, run_id: str, format: str) -> bytes:
    """A run as the bytes of a file: a zip of `files`, or YAML.

    Raises:
        BadInput: No such run, one without scores, or one that the format has no place for.
    """
    if format == "lm-eval":
        return zip_files(lm_eval_files(root, run_id))
    record = _measured(root, run_id)
    return hub_card.WRITERS[format](record, _configs(root, record)).encode()


def lm_eval_files(root: Path, run_id: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file that lm-eval would have left, in a folder of the model's.

    One results file for all tasks, and the samples as they are kept. What the run's folder no
    longer says of a task (its settings, its samples) is left out; its scores never are.

    Raises:
        BadInput: No such run, or one without scores.
    """
    record = _measured(root, run_id)
    assert record.capability is not None, "a run without scores was refused"
    kept = disk.run_folder(root, run_id) / "capability"
    about, said = results.read_results_files(kept) if kept.is_dir() else ({}, {})
    about = about or _about(record)
    tasks = dict.fromkeys(score.task for score in record.capability.scores)
    found = {task: said.get(task) or _from_record(record, task) for task in tasks}
    folder = re.sub(r"[\"<>:/\\|?*\[\]]+", "__", str(about.get("model_name") or run_id))
    date = results.file_date(record.finished_at)
    text = json.dumps(results.results_document(about, found), indent=2, ensure_ascii=True)
    yield f"{folder}/results_{date}.json", text.encode()
    for task, path in samples.newest_files(kept).items():
        if task in {samples.file_part(name) for name in tasks}:
            yield f"{folder}/samples_{task}_{date}.jsonl", path.read_bytes()


def zip_files(content: Iterator[tuple[str, bytes]]) -> bytes:
    """Files in one zip; the same files, the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content:
            # Without a date of its own, an entry has the first that the format knows.
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return buffer.getvalue()


def write_files(content: Iterator[tuple[str, bytes]], folder: Path) -> list[Path]:
    """Files under a folder, which is made where it is not there."""
    written = []
    for name, data in content:
        path = folder / PurePosixPath(name)
        disk.write_text(path, data.decode("utf-8"))
        written.append(path)
    return written


def _measured(root: Path, run_id: str) -> RunRecord:
    record = disk.load(root, run_id)
    if record.capability is None or not record.capability.scores:
        raise BadInput(f"The run {run_id} has no scores, so there is nothing to export.")
    return record


def _configs(root: Path, record: RunRecord) -> dict[str, dict[str, Any]]:
    """Each task's own settings, as far as the run's folder has them."""
    kept = disk.run_folder(root, record.run_id) / "capability"
    said = results.read_results_files(kept)[1] if kept.is_dir() else {}
    configs = {task: of.get("configs") for task, of in said.items()}
    return {task: config for task, config in configs.items() if isinstance(config, dict)}


def _about(record: RunRecord) -> dict[str, Any]:
    """What a results file says of the model, from the record alone."""
    assert record.capability is not None, "a run without scores was refused"
    name = record.model.name if record.model else record.spec.teacher
    known = record.model or record.imported
    asked = record.spec.capability
    return {
        "config": {
            "model": "explorer-hf" if record.model else "imported",
            "model_args": {"pretrained": name},
            "model_dtype": known.dtype if known else None,
            "apply_chat_template": bool(asked and asked.apply_chat_template),
        },
        "model_name": name,
        "lm_eval_version": record.capability.lm_eval_version,
        "total_evaluation_time_seconds": record.capability.seconds,
    }


def _from_record(record: RunRecord, task: str) -> dict[str, Any]:
    """What a results file says of a task, from the record alone."""
    assert record.capability is not None, "a run without scores was refused"
    scores = [score for score in record.capability.scores if score.task == task]
    values: dict[str, Any] = {"alias": task}
    for score in scores:
        metric, _, filter_name = score.metric.partition(",")
        key = f"{metric},{filter_name or 'none'}"
        values |= {key: score.score, key.replace(",", "_stderr,"): score.stderr}
    one = scores[0]
    headlines = [score.metric for score in scores if score.headline]
    return {
        "results": values,
        "configs": {
            "task": task,
            "num_fewshot": one.num_fewshot,
            "metadata": {
                "version": one.task_version,
                "headline_metric": next(iter(headlines), None),
                "chance": _chances(scores),
            },
        },
        "versions": one.task_version,
        "n-shot": one.num_fewshot,
        "higher_is_better": {
            score.metric.partition(",")[0]: score.higher_is_better for score in scores
        },
        "n-samples": {"original": one.num_documents_total, "effective": one.num_documents},
        "task_hashes": one.task_hash,
    }


def _chances(scores: list[TaskScore]) -> dict[str, float]:
    """Chance levels as a task's metadata has them."""
    return {
        score.metric.partition(",")[0]: score.chance for score in scores if score.chance is not None
    }
