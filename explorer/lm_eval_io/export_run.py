"""A run as files that other tools read: lm-eval's output folder, a model card, the Hub's YAML.

explorer export RUN --format lm-eval --out FOLDER
"""

import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from explorer.errors import BadInput
from explorer.files import durable_files
from explorer.lm_eval_io import hub_card, results, samples
from explorer.records import Capability, RunRecord, TaskScore
from explorer.store import disk

FORMATS = {
    "lm-eval": "application/zip",
    "model-index": "application/yaml",
    "eval-results": "application/yaml",
}
"""Formats of one run, with their MIME types."""


def export_bytes(root: Path, run_id: str, format: str) -> bytes:
    """A run as the bytes of one file: a zip of `lm_eval_files`, or YAML.

    Raises:
        BadInput: There is no such run, it has no scores, or the format has no place for them.
    """
    if format == "lm-eval":
        return zip_files(lm_eval_files(root, run_id))
    record, _ = _load_scored(root, run_id)
    return hub_card.WRITERS[format](record, _task_configs(root, run_id)).encode()


def lm_eval_files(root: Path, run_id: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file that lm-eval would have written for this run.

    One results file for all tasks, and the stored samples. Settings and samples that are missing
    from the run's folder are left out; scores never are.

    Raises:
        BadInput: There is no such run, or it has no scores.
    """
    record, capability = _load_scored(root, run_id)
    stored = disk.run_folder(root, run_id) / disk.CAPABILITY
    about, sections = results.read_results_files(stored)
    about = about or _about(record, capability)
    by_task: dict[str, list[TaskScore]] = {}
    for score in capability.scores:
        by_task.setdefault(score.task, []).append(score)
    sections = {
        task: sections.get(task) or _sections(task, scores) for task, scores in by_task.items()
    }
    folder = re.sub(r"[\"<>:/\\|?*\[\]]+", "__", str(about.get("model_name") or run_id))
    date = results.file_date(record.finished_at)
    text = json.dumps(results.results_document(about, sections), indent=2, ensure_ascii=True)
    yield f"{folder}/results_{date}.json", text.encode()
    wanted = {samples.file_part(task) for task in by_task}
    for task, path in samples.newest_files(stored).items():
        if task in wanted:
            yield f"{folder}/samples_{task}_{date}.jsonl", path.read_bytes()


def zip_files(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Files in one zip. The same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            # An entry without a date gets the earliest that the format knows.
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return buffer.getvalue()


def write_files(files: Iterable[tuple[str, bytes]], folder: Path) -> list[Path]:
    """Write files under a folder, which is created if needed; return their paths."""
    written = []
    for name, data in files:
        path = folder / PurePosixPath(name)
        durable_files.write_bytes(path, data)
        written.append(path)
    return written


def _load_scored(root: Path, run_id: str) -> tuple[RunRecord, Capability]:
    record = disk.load(root, run_id)
    if record.capability is None or not record.capability.scores:
        raise BadInput(f"The run {run_id} has no scores, so there is nothing to export.")
    return record, record.capability


def _task_configs(root: Path, run_id: str) -> dict[str, dict[str, Any]]:
    """Each task's settings, if the run's folder has them."""
    stored = disk.run_folder(root, run_id) / disk.CAPABILITY
    _, sections = results.read_results_files(stored)
    configs = {task: entries.get("configs") for task, entries in sections.items()}
    return {task: config for task, config in configs.items() if isinstance(config, dict)}


def _about(record: RunRecord, capability: Capability) -> dict[str, Any]:
    """What a results file says about the model, from the record alone."""
    name = record.model_name
    weights, spec = record.model or record.imported, record.spec.capability
    return {
        "config": {
            "model": "explorer-hf" if record.model else "imported",
            "model_args": {"pretrained": name},
            "model_dtype": weights.dtype if weights else None,
            "apply_chat_template": bool(spec and spec.apply_chat_template),
        },
        "model_name": name,
        "lm_eval_version": capability.lm_eval_version,
        "total_evaluation_time_seconds": capability.seconds,
    }


def _sections(task: str, scores: list[TaskScore]) -> dict[str, Any]:
    """What a results file says about a task, from the record alone; what is unknown is left out."""
    values: dict[str, Any] = {"alias": task}
    for score in scores:
        metric, _, filter_name = score.metric.partition(",")
        key = f"{metric},{score.filter or filter_name or 'none'}"
        values |= {key: score.score, key.replace(",", "_stderr,"): score.stderr}
    first = scores[0]
    headlines = [score.metric for score in scores if score.headline]
    counts = {"original": first.num_documents_total, "effective": first.num_documents}
    config = {
        "task": task,
        "num_fewshot": first.num_fewshot,
        "metadata": {
            "version": first.task_version,
            "headline_metric": next(iter(headlines), None),
            "chance": _chance_levels(scores),
        },
    }
    sections: dict[str, Any] = {
        "results": values,
        "configs": config,
        "versions": first.task_version,
        "higher_is_better": {
            score.metric.partition(",")[0]: score.higher_is_better for score in scores
        },
        "n-samples": {name: count for name, count in counts.items() if count is not None},
        "task_hashes": first.task_hash,
    }
    return sections | ({} if first.num_fewshot is None else {"n-shot": first.num_fewshot})


def _chance_levels(scores: list[TaskScore]) -> dict[str, float]:
    """Chance levels as a task's metadata states them."""
    return {
        score.metric.partition(",")[0]: score.chance for score in scores if score.chance is not None
    }
