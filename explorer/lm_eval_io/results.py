"""An output folder of lm-evaluation-harness, any version since 0.4.0, as scores and answers.

What is damaged is left out and named in one sentence; the rest is read. Nothing in a file is
trusted to have the type it should have.

Since 0.4.3 a run leaves `results_DATE.json` and `samples_TASK_DATE.jsonl`. Before, it left
`results.json` and, for each task, a `MODEL_ARGS_TASK.jsonl` with one JSON array.

Source: github.com/EleutherAI/lm-evaluation-harness, `loggers/evaluation_tracker.py`, and
`__main__.py` of 0.4.0.
"""

import dataclasses
import datetime
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from explorer.errors import BadInput
from explorer.lm_eval_io import metrics, samples
from explorer.records import TaskScore

HASH = re.compile(r"[0-9a-f]{8,128}")
ANSWER_COLUMNS = ["task", "metric", "doc_id", "doc_hash", "value", "chance", "cluster"]
BY_TASK = (
    "results",
    "groups",
    "group_subtasks",
    "configs",
    "versions",
    "n-shot",
    "higher_is_better",
    "n-samples",
    "task_hashes",
)
"""Sections of a results file that have an entry per task."""
MAX_TASK_NAME = 150
MAX_COUNT = 10**12


@dataclasses.dataclass
class OutputFolder:
    """What a folder holds."""

    scores: list[TaskScore] = dataclasses.field(default_factory=list)
    answers: list[pd.DataFrame] = dataclasses.field(default_factory=list)
    samples: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    """Task to its samples, in the newest lm-eval's form."""
    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The newest results file without its sections by task: model, settings, versions, date."""
    sections: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """Task to its entries in the sections of its results file."""
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    """Name of each file that was read, to its SHA-256."""
    problems: list[str] = dataclasses.field(default_factory=list)
    """What was left out, one sentence each."""


def read_output_folder(folder: Path) -> OutputFolder:
    """Read all results and samples under a folder. Of a task in several files, the newest counts.

    Raises:
        BadInput: There is no such folder, or not one readable score in it.
    """
    if not folder.is_dir():
        raise BadInput(
            f"{folder} is not a folder. Name the one that lm-eval wrote (--output_path)."
        )
    output = OutputFolder()
    for path, document in _documents(folder, output):
        if not output.about:
            output.about = _without_sections(document)
            if not _is_date(output.about.get("date")):
                output.about["date"] = path.stat().st_mtime
        for task in _tasks(document):
            if task not in output.sections:
                output.sections[task] = _sections(document, task)
                _read_task(task, document, path, output)
    if not output.scores:
        why = " ".join(output.problems[:3]) or "There is no results_*.json in it."
        raise BadInput(f"Nothing could be imported from {folder.resolve().name}. {why}")
    return output


def read_results_files(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The results files of a folder, without its samples; empty if there are none.

    Returns:
        As `OutputFolder.about` and `OutputFolder.sections`.
    """
    about: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {}
    if not folder.is_dir():
        return about, sections
    for _, document in _documents(folder, OutputFolder()):
        about = about or _without_sections(document)
        for task in _tasks(document):
            sections.setdefault(task, _sections(document, task))
    return about, sections


def results_document(
    about: Mapping[str, Any], sections: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """One results file for several tasks: the opposite of `read_results_files`."""
    by_name = {
        name: {task: entries[name] for task, entries in sections.items() if name in entries}
        for name in BY_TASK
    }
    return {name: section for name, section in by_name.items() if section} | dict(about)


def file_date(when: str) -> str:
    """A record's time as lm-eval writes it in file names."""
    return datetime.datetime.fromisoformat(when).strftime("%Y-%m-%dT%H-%M-%S.%f")


def _documents(folder: Path, output: OutputFolder) -> list[tuple[Path, dict[str, Any]]]:
    """The readable results files under a folder, the newest first."""
    paths = [*folder.rglob("results_*.json"), *folder.rglob("results.json")]
    documents = [(path, _document(path, output)) for path in sorted(paths, key=lambda p: p.name)]
    return [(path, document) for path, document in reversed(documents) if document]


def _document(path: Path, output: OutputFolder) -> dict[str, Any]:
    """A results file as a mapping; empty, and a problem, if it is not one."""
    try:
        data = path.read_bytes()
        document = _json(data.decode(json.detect_encoding(data)))
    except (OSError, ValueError, RecursionError) as error:
        output.problems.append(f"{path.name} is left out: it is not JSON ({_short(error)}).")
        return {}
    if not isinstance(document, dict) or not isinstance(document.get("results"), dict):
        output.problems.append(f"{path.name} is left out: it has no mapping of results.")
        return {}
    output.files[path.name] = hashlib.sha256(data).hexdigest()
    return document


def _without_sections(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in BY_TASK}


def _sections(document: Mapping[str, Any], task: str) -> dict[str, Any]:
    """A task's entries in a results file, by section."""
    sections = {name: _mapping(document.get(name)) for name in BY_TASK}
    return {name: section[task] for name, section in sections.items() if task in section}


def _json(text: str) -> Any:
    """JSON, in which half of a surrogate pair becomes `?`: no text can hold one."""
    data = json.loads(text)
    if "\\ud" not in text.lower():
        return data
    return json.loads(json.dumps(data, ensure_ascii=False).encode("utf-8", "replace"))


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:80] if str(error) else type(error).__name__


def _tasks(document: Mapping[str, Any]) -> list[str]:
    """Tasks of a results file, without its groups: a group's mean is not a task."""
    configs, groups = _mapping(document.get("configs")), _mapping(document.get("group_subtasks"))
    return [
        task
        for task, values in document["results"].items()
        if isinstance(values, dict) and (task in configs or not groups.get(task))
    ]


def _read_task(task: str, document: Mapping[str, Any], path: Path, output: OutputFolder) -> None:
    values = document["results"][task]
    config = _mapping(_mapping(document.get("configs")).get(task))
    if len(task) > MAX_TASK_NAME or not task.isprintable():
        output.problems.append(
            f"A task of {path.name} is left out: {task[:40]!r} cannot be a task's name."
        )
        return
    lines = _samples(task, path, output)
    keys = [key for key in values if "," in key and "_stderr," not in key]
    scores = {key: number for key in keys if (number := _number(values[key])) is not None}
    if not scores:
        output.problems.append(f"{task} is left out: {path.name} has no number for it.")
        return
    counts = _mapping(_mapping(document.get("n-samples")).get(task))
    num_documents = _count(counts.get("effective")) or len({line["doc_id"] for line in lines})
    if not num_documents:
        output.problems.append(
            f"{task} is left out: neither n-samples nor a samples file says how many documents it "
            "has. Run lm-eval with --log_samples."
        )
        return
    names = metrics.short_names(scores)
    higher = _mapping(_mapping(document.get("higher_is_better")).get(task))
    headline = metrics.headline_metric(config, list(names.values()))
    for key, name in names.items():
        metric, _, filter_name = key.partition(",")
        output.scores.append(
            TaskScore(
                task=task,
                metric=name,
                score=scores[key],
                chance=metrics.mean_chance(config, metric, lines),
                stderr=_number(values.get(f"{metric}_stderr,{filter_name}")),
                higher_is_better=higher.get(metric) is not False,
                headline=name == headline,
                num_documents=num_documents,
                num_documents_total=_count(counts.get("original")) or None,
                num_fewshot=_num_fewshot(document, task, config),
                task_version=_version(document, task),
                task_hash=_text(_mapping(document.get("task_hashes")).get(task)),
            )
        )
    if lines:
        output.samples[task] = lines
        output.answers.append(answers_frame(task, lines, names, config))


def _num_fewshot(document: Mapping[str, Any], task: str, config: Mapping[str, Any]) -> int | None:
    """Examples before each question. Some versions write 0 in one place, the number in another."""
    stated = (_mapping(document.get("n-shot")).get(task), config.get("num_fewshot"))
    return max((count for n in stated if (count := _count(n)) is not None), default=None)


def _samples(task: str, results_file: Path, output: OutputFolder) -> list[dict[str, Any]]:
    """The task's samples beside a results file, in the current form; empty if there are none."""
    part = samples.file_part(task)
    newest = samples.newest_files(results_file.parent).get(part)
    older = [p for p in results_file.parent.glob("*.jsonl") if p.stem.endswith(f"_{part}")]
    path = newest or (older[0] if older else None)
    if path is None:
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        output.problems.append(f"{path.name} is left out: {_short(error)}.")
        return []
    lines, num_damaged = [], 0
    for data in _json_lines(text):
        sample = _sample(data)
        if sample is None:
            num_damaged += 1
        else:
            lines.append(sample)
    if num_damaged:
        output.problems.append(
            f"{path.name}: {num_damaged} lines are not samples and are left out."
        )
    if lines:
        output.files[path.name] = hashlib.sha256(text.encode()).hexdigest()
    return lines


def _json_lines(text: str) -> Iterator[Any]:
    """The data of each line, None for a damaged one; before 0.4.3 the file is one array."""
    try:
        whole = _json(text) if text.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, list):
        yield from whole
        return
    # Not splitlines: a document may hold other line ends (U+2028), which JSON need not escape.
    for line in text.split("\n"):
        if line.strip():
            try:
                yield _json(line)
            except (ValueError, RecursionError):
                yield None


def _sample(data: Any) -> dict[str, Any] | None:
    """A sample, with what its version did not write filled in; None if it is not one."""
    if not isinstance(data, dict) or _count(data.get("doc_id")) is None:
        return None
    sample = {**data, "doc_id": int(data["doc_id"])}
    if not HASH.fullmatch(str(sample.get("doc_hash"))):
        text = json.dumps(sample.get("doc"), indent=2, ensure_ascii=False)
        # lm-eval's own hash of a document, which older versions did not write.
        sample["doc_hash"] = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    return sample


def answers_frame(
    task: str,
    lines: list[dict[str, Any]],
    names: Mapping[str, str],
    config: Mapping[str, Any],
) -> pd.DataFrame:
    """One row per document and metric, with the columns `ANSWER_COLUMNS`.

    Args:
        task: Its name.
        lines: Its samples.
        names: lm-eval's `metric,filter` to our name of the metric.
        config: The task's settings, from a results file.
    """
    field, rows = _text(_mapping(config.get("metadata")).get("cluster")), []
    for line in lines:
        cluster = samples.cluster_of(line.get("doc"), field)
        for key, name in names.items():
            metric, _, filter_name = key.partition(",")
            value = _number(line.get(metric))
            if value is None or line.get("filter", filter_name) != filter_name:
                continue
            chance = metrics.chance_of_document(config, metric, line)
            rows.append((task, name, line["doc_id"], line["doc_hash"], value, chance, cluster))
    return pd.DataFrame(rows, columns=ANSWER_COLUMNS)


def _version(document: Mapping[str, Any], task: str) -> str | None:
    version = _mapping(document.get("versions")).get(task)
    return None if version is None or isinstance(version, dict | list) else str(version)[:80]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    """A finite number; a flag counts as 0 or 1."""
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None
    return None


def _count(value: Any) -> int | None:
    number = None if isinstance(value, bool) else _number(value)
    return int(number) if number is not None and 0 <= number < MAX_COUNT else None


def _is_date(value: Any) -> bool:
    """Whether a value can be seconds since 1970."""
    number = None if isinstance(value, bool) else _number(value)
    return number is not None and 0 <= number < 4e9


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
