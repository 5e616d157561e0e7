"""Scores for a model's page on the Hugging Face Hub: `model-index` and `.eval_results` YAML.

Written with huggingface_hub's own functions.

Source: huggingface.co/docs/hub/model-cards and huggingface.co/docs/hub/eval-results.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from explorer.errors import BadInput
from explorer.records import RunRecord, TaskScore
from explorer.specs import RunSpec

TaskConfigs = Mapping[str, Mapping[str, Any]]
"""Task to its settings, from lm-eval's results file."""
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
BUILDERS = ("json", "csv", "parquet", "text", "arrow", "pandas", "xml", "webdataset")
"""lm-eval's `dataset_path` of tasks whose data are local files."""
SOURCE = ("lm-evaluation-harness", "https://github.com/EleutherAI/lm-evaluation-harness")


def model_index(record: RunRecord, configs: TaskConfigs) -> str:
    """A model card's front matter with every score of a run, as lm-eval reports it.

    A task on a Hub dataset has the dataset's id, configuration, split and revision. For any other
    task the task's name stands for the data.
    """
    from huggingface_hub.repocard_data import eval_results_to_model_index

    assert record.capability is not None, "only a run with scores has a card"
    name = record.model_name
    entries: list[Any] = []
    by_task: dict[str, list[TaskScore]] = {}
    for score in record.capability.scores:
        by_task.setdefault(score.task, []).append(score)
    for task, scores in by_task.items():
        # One task at a time: two tasks on one dataset would be merged under the first's name.
        rows = [_result(score, configs.get(task, {}), record) for score in scores]
        entries += eval_results_to_model_index(name, rows)[0]["results"]
    index = [{"name": name, "results": entries}]
    return (
        f"---\n{_yaml(origin(record.spec, record.teacher_licence) | {'model-index': index})}---\n"
    )


def origin(spec: RunSpec, licence: str | None) -> dict[str, Any]:
    """The front matter about where a model comes from: its teacher and the teacher's licence.

    Args:
        spec: The run's.
        licence: The teacher's, if it is known; an id that the Hub does not know has a name.
    """
    facts: dict[str, Any] = {}
    if licence is not None and re.fullmatch(r"[a-z0-9.-]+", licence):
        facts["license"] = licence
    elif licence is not None:
        facts |= {"license": "other", "license_name": licence}
    is_public = HUB_ID.fullmatch(spec.teacher) and "/" in spec.teacher
    if spec.student is not None and is_public and not Path(spec.teacher).exists():
        facts["base_model"] = spec.teacher
    return facts


def student_card(spec: RunSpec, licence: str | None, clause: str | None) -> str:
    """A student's README.md: what it was made from, and under which licence its teacher is.

    Args:
        spec: The student's run.
        licence: The teacher's, if it is known.
        clause: A sentence about a clause that restricts training on the teacher's output.
    """
    assert spec.student is not None, "only a student's run has a student"
    facts = origin(spec, licence)
    lines = [
        f"# A student of {spec.teacher}: {spec.student.label()}",
        "",
        "Made by Distill Explorer.",
        "",
        f"Licence of the teacher: {licence or 'unknown; its files on this machine do not say'}.",
    ]
    if clause:
        lines += ["", clause]
    front = f"---\n{_yaml(facts)}---\n\n" if facts else ""
    return front + "\n".join(lines) + "\n"


def eval_results(record: RunRecord, configs: TaskConfigs) -> str:
    """A file for `.eval_results/` of a model's repository: each task's headline score.

    The Hub accepts only datasets of its own; other tasks are left out.

    Raises:
        BadInput: No task of the run uses a Hub dataset.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    assert record.capability is not None, "only a run with scores has a card"
    rows = []
    for score in record.capability.scores:
        config = configs.get(score.task, {})
        dataset = hub_dataset(config)
        if dataset is None or not score.headline:
            continue
        rows.append(
            EvalResultEntry(
                dataset_id=dataset,
                # As in the benchmark's eval.yaml, which is usually the configuration.
                task_id=str(config.get("dataset_name") or "default"),
                value=score.score,
                dataset_revision=_revision(config),
                date=record.finished_at,
                source_name=SOURCE[0],
                source_url=SOURCE[1],
                notes=_conditions(score, record),
            )
        )
    if not rows:
        raise BadInput(
            "The Hub's evaluation results must name a Hub dataset, and no task of this run is "
            "known to use one. The format model-index takes every task."
        )
    return _yaml(eval_result_entries_to_yaml(rows))


WRITERS: dict[str, Callable[[RunRecord, TaskConfigs], str]] = {
    "model-index": model_index,
    "eval-results": eval_results,
}


def hub_dataset(config: Mapping[str, Any]) -> str | None:
    """The id of the Hub dataset that a task uses; None if its data are elsewhere."""
    path, kwargs = config.get("dataset_path"), config.get("dataset_kwargs")
    own_files = isinstance(kwargs, dict) and "data_files" in kwargs
    if not isinstance(path, str) or path in BUILDERS or own_files:
        return None
    return path if HUB_ID.fullmatch(path) else None


def _result(score: TaskScore, config: Mapping[str, Any], record: RunRecord) -> Any:
    from huggingface_hub import EvalResult

    dataset = hub_dataset(config)
    split = config.get("test_split") or config.get("validation_split")
    return EvalResult(
        task_type="text-generation",
        dataset_type=dataset or score.task,
        dataset_name=score.task,
        dataset_config=_text(config.get("dataset_name")) if dataset else None,
        dataset_split=_text(split) if dataset else None,
        dataset_revision=_revision(config) if dataset else None,
        dataset_args=None if score.num_fewshot is None else {"num_few_shot": score.num_fewshot},
        metric_type=score.metric,
        metric_value=score.score,
        metric_name=_conditions(score, record),
        source_name=SOURCE[0],
        source_url=SOURCE[1],
    )


def _conditions(score: TaskScore, record: RunRecord) -> str:
    """What must agree for two scores to be comparable, in words."""
    assert record.capability is not None, "only a run with scores has a card"
    version, spec = record.capability.lm_eval_version, record.spec.capability
    total = "" if score.num_documents_total is None else f" of {score.num_documents_total}"
    parts = [
        f"lm-eval {version}" if version else "lm-eval",
        f"task version {score.task_version}" if score.task_version else "",
        f"{score.num_fewshot}-shot" if score.num_fewshot is not None else "",
        "chat template" if spec and spec.apply_chat_template else "",
        f"{score.num_documents}{total} documents",
        f"standard error {score.stderr:.2g}" if score.stderr is not None else "",
    ]
    return ", ".join(part for part in (score.metric, *parts) if part)


def _revision(config: Mapping[str, Any]) -> str | None:
    kwargs = config.get("dataset_kwargs")
    return _text(kwargs.get("revision")) if isinstance(kwargs, dict) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
