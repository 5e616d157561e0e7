"""An output folder of lm-evaluation-harness, any version since 0.4.0, as scores and answers.

What is damaged is left out and named in one sentence; the rest is kept. Nothing in a file is
trusted to be of the type it should be.

Since 0.4.3 a run leaves `results_DATE.json` and `samples_TASK_DATE.jsonl`; before, it left
`results.json` and, for each task, a `MODEL_ARGS_TASK.jsonl` that holds one JSON array.

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
from explorer.lm_eval_io import metrics as known_metrics
from explorer.lm_eval_io import samples
from explorer.lm_eval_io.metrics import CHOICE_METRICS, EXACT_METRICS
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
"""Sections of a results file that say something of each task."""


@dataclasses.dataclass
class OutputFolder:
    """What a folder holds."""

    scores: list[TaskScore] = dataclasses.field(default_factory=list)
    answers: list[pd.DataFrame] = dataclasses.field(default_factory=list)
    samples: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    """Task to its samples, in the form of the newest lm-eval."""
    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The newest results file without what it says of tasks: model, settings, versions, date."""
    said: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """Task to what its results file says of it, by section."""
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    """Name of each file that was read to its SHA-256."""
    problems: list[str] = dataclasses.field(default_factory=list)


def read_output_folder(folder: Path) -> OutputFolder:
    """Read all results and samples under a folder; of a task in several files, the newest.

    Raises:
        BadInput: No such folder, or not one readable score in it.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder. Name the one that lm-eval wrote (--output_path).")
    found = OutputFolder()
    for path, document in _documents(folder, found):
        if not found.about:
            about = {key: value for key, value in document.items() if key not in BY_TASK}
            found.about = {"date": path.stat().st_mtime} | about
        for task in _tasks(document):
            if task not in found.said:
                found.said[task] = _sections(document, task)
                _read_task(task, document, path, found)
    if not found.scores:
        why = " ".join(found.problems[:3]) or "There is no results_*.json in it."
        raise BadInput(f"Nothing could be imported from {folder.resolve().name}. {why}")
    return found


def read_results_files(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What the results files of a folder say, without a look at the samples.

    Returns:
        The newest file without what it says of tasks, and for each task `Found.said`.
    """
    about: dict[str, Any] = {}
    said: dict[str, dict[str, Any]] = {}
    for _, document in _documents(folder, OutputFolder()):
        about = about or {key: value for key, value in document.items() if key not in BY_TASK}
        for task in _tasks(document):
            said.setdefault(task, _sections(document, task))
    return about, said


def results_document(
    about: Mapping[str, Any], said: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """One results file of what several say: `kept` the other way round."""
    by_task = {name: {t: of[name] for t, of in said.items() if name in of} for name in BY_TASK}
    return {name: section for name, section in by_task.items() if section} | dict(about)


def file_date(when: str) -> str:
    """A time of a record as lm-eval writes it in the names of files."""
    return datetime.datetime.fromisoformat(when).strftime("%Y-%m-%dT%H-%M-%S.%f")


def _documents(folder: Path, found: OutputFolder) -> list[tuple[Path, dict[str, Any]]]:
    """The readable results files under a folder, the newest first."""
    paths = [*folder.rglob("results_*.json"), *folder.rglob("results.json")]
    read = [(path, _document(path, found)) for path in sorted(paths, key=lambda p: p.name)]
    return [(path, document) for path, document in reversed(read) if document]


def _sections(document: Mapping[str, Any], task: str) -> dict[str, Any]:
    """What a results file says of one task, section by section."""
    found = {name: _mapping(document.get(name)) for name in BY_TASK}
    return {name: section[task] for name, section in found.items() if task in section}


def _document(path: Path, found: OutputFolder) -> dict[str, Any]:
    """A results file as a mapping; an empty one, and a sentence, where it is none."""
    try:
        data = path.read_bytes()
        document = _json(data.decode(json.detect_encoding(data)))
    except (OSError, ValueError, RecursionError) as error:
        found.problems.append(f"{path.name} is left out: it is not JSON ({_short(error)}).")
        return {}
    if not isinstance(document, dict) or not isinstance(document.get("results"), dict):
        found.problems.append(f"{path.name} is left out: it has no mapping of results.")
        return {}
    found.files[path.name] = hashlib.sha256(data).hexdigest()
    return document


def _json(text: str) -> Any:
    """As JSON says, but for half of a surrogate pair: no text holds one, so it becomes `?`."""
    read = json.loads(text)
    if "\\ud" not in text.lower():
        return read
    return json.loads(json.dumps(read, ensure_ascii=False).encode("utf-8", "replace"))


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:80] if str(error) else type(error).__name__


def _tasks(document: Mapping[str, Any]) -> list[str]:
    """Tasks of a results file: groups have a mean of their own, which is no task."""
    configs, groups = _mapping(document.get("configs")), _mapping(document.get("group_subtasks"))
    return [
        task
        for task, values in document["results"].items()
        if isinstance(values, dict) and (task in configs or not groups.get(task))
    ]


def _read_task(task: str, document: Mapping[str, Any], path: Path, found: OutputFolder) -> None:
    values = document["results"][task]
    config = _mapping(_mapping(document.get("configs")).get(task))
    if len(task) > 150 or not task.isprintable():
        found.problems.append(
            f"A task of {path.name} is left out: {task[:40]!r} is no task's name."
        )
        return
    lines = _samples(task, path, found)
    keys = [key for key in values if "," in key and "_stderr," not in key]
    metrics = {key: number for key in keys if (number := _number(values[key])) is not None}
    if not metrics:
        found.problems.append(f"{task} is left out: {path.name} has no number for it.")
        return
    counts = _mapping(_mapping(document.get("n-samples")).get(task))
    documents = len({line["doc_id"] for line in lines})
    asked = _count(counts.get("effective")) or documents
    if not asked:
        found.problems.append(
            f"{task} is left out: neither n-samples nor a samples file says how many documents it "
            "has. Run lm-eval with --log_samples."
        )
        return
    shots = [_mapping(document.get("n-shot")).get(task), config.get("num_fewshot")]
    # Some versions write 0 in one place and the real number in the other.
    num_fewshot = max((count for n in shots if (count := _count(n)) is not None), default=None)
    names = _named(metrics)
    higher = _mapping(_mapping(document.get("higher_is_better")).get(task))
    headline = _headline(config, list(names.values()))
    for key, name in names.items():
        metric, _, filter_name = key.partition(",")
        level = chance(config, metric, lines)
        found.scores.append(
            TaskScore(
                task=task,
                metric=name,
                score=metrics[key],
                chance=level,
                stderr=_number(values.get(f"{metric}_stderr,{filter_name}")),
                higher_is_better=higher.get(metric) is not False,
                headline=name == headline,
                num_documents=asked,
                num_documents_total=_count(counts.get("original")) or None,
                num_fewshot=num_fewshot,
                task_version=_version(document, task),
                task_hash=_text(_mapping(document.get("task_hashes")).get(task)),
            )
        )
    if lines:
        found.samples[task] = lines
        found.answers.append(answers_frame(task, lines, names, config))


def _samples(task: str, results: Path, found: OutputFolder) -> list[dict[str, Any]]:
    """The task's samples beside a results file, in today's form; none where there are none."""
    part = samples.file_part(task)
    newest = samples.newest_files(results.parent).get(part)
    older = [p for p in results.parent.glob("*.jsonl") if p.stem.endswith(f"_{part}")]
    path = newest or (older[0] if older else None)
    if path is None:
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        found.problems.append(f"{path.name} is left out: {_short(error)}.")
        return []
    kept, damaged = [], 0
    for line in _lines(text):
        sample = _sample(line)
        if sample is None:
            damaged += 1
        else:
            kept.append(sample)
    if damaged:
        found.problems.append(f"{path.name}: {damaged} lines are no samples and are left out.")
    if kept:
        found.files[path.name] = hashlib.sha256(text.encode()).hexdigest()
    return kept


def _lines(text: str) -> Iterator[Any]:
    """Each line read; before 0.4.3 the whole file is one array."""
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


def _sample(line: Any) -> dict[str, Any] | None:
    """A sample with what is later than its version filled in; None where it is none."""
    if not isinstance(line, dict) or _count(line.get("doc_id")) is None:
        return None
    sample = {**line, "doc_id": int(line["doc_id"])}
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
    """A row a document and metric: as `disk.answers`, with chance level and passage.

    Args:
        task: Its name.
        lines: Its samples.
        names: lm-eval's `metric,filter` to our name of the metric.
        config: The task's own settings, from a results file.
    """
    field, rows = _text(_mapping(config.get("metadata")).get("cluster")), []
    for line in lines:
        cluster = samples.cluster_of(line.get("doc"), field)
        for key, name in names.items():
            metric, _, filter_name = key.partition(",")
            value = _number(line.get(metric))
            if value is None or line.get("filter", filter_name) != filter_name:
                continue
            rows.append(
                (
                    task,
                    name,
                    line["doc_id"],
                    line["doc_hash"],
                    value,
                    _chance_of(config, metric, line),
                    cluster,
                )
            )
    return pd.DataFrame(rows, columns=ANSWER_COLUMNS)


def chance(config: Mapping[str, Any], metric: str, lines: list[dict[str, Any]]) -> float | None:
    """Score of somebody who guesses, the mean over documents; None where it is not known.

    What the task's file says (`metadata: chance`, a number or one for each metric) goes
    first. Multiple choice: correct choices by choices. Greedy continuations and exact matches
    of free text: 0.
    """
    known = [_chance_of(config, metric, line) for line in lines] or [_chance_of(config, metric, {})]
    numbers = [value for value in known if value is not None]
    return math.fsum(numbers) / len(numbers) if len(numbers) == len(known) else None


def _chance_of(config: Mapping[str, Any], metric: str, line: Mapping[str, Any]) -> float | None:
    """Correct choices by choices; 0 for free text that must match; what the file says first."""
    if metric not in CHOICE_METRICS | EXACT_METRICS:
        return None
    said = _mapping(config.get("metadata")).get("chance")
    said = _number(said.get(metric) if isinstance(said, dict) else said)
    if said is not None:
        return said
    if config.get("process_results"):
        return None  # the task scores by its own rules, which we do not know
    if config.get("output_type") == "multiple_choice" and metric in CHOICE_METRICS:
        choices = samples.parse_answer(line, metric).choices if line else ()
        # Where the target cannot be told from the choices, one of them is right.
        return max(1, sum(choice.right for choice in choices)) / len(choices) if choices else None
    return 0.0 if metric in EXACT_METRICS and config.get("output_type") else None


def _named(metrics: Mapping[str, float]) -> dict[str, str]:
    """lm-eval's key to the metric's name: the filter is named where there are several."""
    plain = [key.partition(",")[0] for key in metrics]
    return {
        key: name if plain.count(name) == 1 else key
        for key, name in zip(metrics, plain, strict=True)
    }


def _headline(config: Mapping[str, Any], names: list[str]) -> str:
    """The metric that stands for the task: what its file says, else acc_norm, acc, the first."""
    said = _mapping(config.get("metadata")).get("headline_metric")
    return known_metrics.first_of((said, *known_metrics.HEADLINES), names) or names[0]


def _version(document: Mapping[str, Any], task: str) -> str | None:
    version = _mapping(document.get("versions")).get(task)
    return None if version is None or isinstance(version, dict | list) else str(version)[:80]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    if isinstance(value, int | float):  # a flag counts as 0 or 1
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None
    return None


def _count(value: Any) -> int | None:
    number = None if isinstance(value, bool) else _number(value)
    return int(number) if number is not None and 0 <= number < 1e12 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
