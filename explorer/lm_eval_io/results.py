"""An output folder of lm-evaluation-harness, any version since 0.4.0, as scores and answers.

Scores, standard errors, numbers of documents and samples come from one evaluation: see
`evaluations`. Every score is held against its own samples. What is damaged is left out and named in
one sentence; the rest is read. Nothing in a file is trusted to have the type it should have.

Since 0.4.3 a run leaves `results_DATE.json` and `samples_TASK_DATE.jsonl`. Before, it left
`results.json` and, for each task, a `MODEL_ARGS_TASK.jsonl` with one JSON array.

Source: github.com/EleutherAI/lm-evaluation-harness, `loggers/evaluation_tracker.py`, and
`__main__.py` of 0.4.0.
"""

import codecs
import dataclasses
import datetime
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pydantic

from explorer.errors import BadInput, reason_of
from explorer.files import text_files
from explorer.lm_eval_io import evaluations, metrics, samples
from explorer.lm_eval_io.evaluations import ResultsFile
from explorer.paths import files_below
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
RESULTS = re.compile(rf"(results|.*{samples.DATE.pattern}).*\.json", re.IGNORECASE)
"""Names under which lm-eval writes results unless it is told another."""
NOT_MEANS = frozenset(
    {"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "bleu", "chrf", "ter"}
    | {"f1", "mcc", "matthews_corrcoef", "brier_score"}
)
"""Metrics that lm-eval aggregates in another way unless the task's settings say."""
SHARES = re.compile(r"(acc(_norm|_bytes|_mutual_info)?|exact_match),")
"""Metrics that are a share of the documents."""
MEAN_TOLERANCE = 1e-4
"""As in `pairing`, which compares no score further than this from the mean of its answers."""
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
    """What was left out or does not fit together, one sentence each."""

    def add_file(self, path: Path, digest: str) -> None:
        """Note a file that was read; its folder is part of the name if the name occurs twice."""
        clash = self.files.get(path.name, digest) != digest
        self.files[f"{path.parent.name}/{path.name}" if clash else path.name] = digest


def read_output_folder(folder: Path, only: str = "", *, combine: bool = False) -> OutputFolder:
    """Read one evaluation out of a folder.

    Args:
        folder: What lm-eval wrote, or one results file of it.
        only: A part of the path of the results file that is meant, if there are several.
        combine: Whether several evaluations of one model under the same settings make one run.

    Raises:
        SeveralEvaluations: The folder holds several, and it is not clear which is meant.
        BadInput: There is no such folder, or not one readable score in it.
    """
    output = OutputFolder()
    if folder.is_file():
        one = _results_file(folder, folder.name, output)
        files = [one] if one else []
    elif folder.is_dir():
        files = _results_files(folder, output)
    else:
        raise BadInput(
            f"{folder} is not a folder. Name the one that lm-eval wrote (--output_path)."
        )
    files, left_out = evaluations.one_evaluation(files, only, combine=combine)
    output.problems += left_out
    for file in files:
        output.add_file(file.path, file.digest)
        if not output.about:
            output.about = _without_sections(file.document)
            output.about["date"] = file.path.stat().st_mtime if file.date is None else file.date
        for task in file.tasks:
            if task not in output.sections:
                output.sections[task] = _sections(file.document, task)
                _read_task(task, file, output)
    if len(files) > 1:
        output.about["total_evaluation_time_seconds"] = _total_seconds(files)
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
    files = _results_files(folder, OutputFolder())
    for file in sorted(files, key=lambda file: (file.date or 0.0, file.name), reverse=True):
        about = about or _without_sections(file.document)
        for task in _tasks(file.document):
            sections.setdefault(task, _sections(file.document, task))
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


def _results_files(folder: Path, output: OutputFolder) -> list[ResultsFile]:
    """The readable results files under a folder, whatever their names; hidden files are none."""
    below = files_below(folder)
    paths = sorted(path for path in below if path.suffix.lower() == ".json" and path.is_file())
    paths = [path for path in paths if not path.name.startswith(".")]
    read = [_results_file(path, path.relative_to(folder).as_posix(), output) for path in paths]
    return [file for file in read if file is not None]


def _results_file(path: Path, name: str, output: OutputFolder) -> ResultsFile | None:
    """A results file; None, and perhaps a problem, if it is not one or has no number."""
    # lm-eval takes any name for its --output_path; other JSON files are not spoken of.
    expected = RESULTS.match(path.name) is not None
    try:
        data = path.read_bytes()
        document = _json(data.decode(json.detect_encoding(data)), text_files.parse_json)
    except (OSError, ValueError, RecursionError) as error:
        if expected:
            what = "it cannot be read" if isinstance(error, OSError) else "it is not JSON"
            output.problems.append(f"{path.name} is left out: {what} ({_short(error)}).")
        return None
    if not isinstance(document, dict) or not isinstance(document.get("results"), dict):
        if expected:
            output.problems.append(f"{path.name} is left out: it has no mapping of results.")
        return None
    if not expected and not {"configs", "versions"} & document.keys():
        return None
    tasks = tuple(
        task
        for task in _tasks(document)
        if _is_name(task, path, output) and _has_number(task, document, path, output)
    )
    digest = hashlib.sha256(data).hexdigest()
    return ResultsFile(path, name, document, digest, tasks) if tasks else None


def _is_name(task: str, path: Path, output: OutputFolder) -> bool:
    if len(task) <= MAX_TASK_NAME and task.isprintable():
        return True
    output.problems.append(
        f"A task of {path.name} is left out: {task[:40]!r} cannot be a task's name."
    )
    return False


def _has_number(task: str, document: Mapping[str, Any], path: Path, output: OutputFolder) -> bool:
    values = document["results"][task]
    numbers = _numbers(values)
    if impossible := next((key for key in numbers if not _is_possible(key, numbers[key])), None):
        output.problems.append(
            f"{task} is left out: {impossible} is {numbers[impossible]:g} in {path.name}, and a "
            "share of right answers lies between 0 and 1."
        )
        return False
    if numbers:
        return True
    others = [name for name in values if name != "alias" and _number(values[name]) is not None]
    what = (
        f"names {others[0]} without a filter, where lm-eval since 0.4.0 writes {others[0]},none"
        if others
        else "has no number for it"
    )
    output.problems.append(f"{task} is left out: {path.name} {what}.")
    return False


def _is_possible(key: str, number: float) -> bool:
    """Whether a metric can have this value, as far as its name says."""
    return not SHARES.match(key) or 0 <= number <= 1


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """lm-eval's `metric,filter` to the score."""
    keys = [key for key in values if "," in key and "_stderr," not in key]
    return {key: number for key in keys if (number := _number(values[key])) is not None}


def _total_seconds(files: Sequence[ResultsFile]) -> float | None:
    """The time of several evaluations together; None if one does not say."""
    total = 0.0
    for file in files:
        try:
            total += float(file.document["total_evaluation_time_seconds"])
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
    return total


def _without_sections(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in BY_TASK}


def _sections(document: Mapping[str, Any], task: str) -> dict[str, Any]:
    """A task's entries in a results file, by section."""
    sections = {name: _mapping(document.get(name)) for name in BY_TASK}
    return {name: section[task] for name, section in sections.items() if task in section}


def _json(text: str, parse: Callable[[str], Any] = json.loads) -> Any:
    """JSON, in which half of a surrogate pair becomes `?`: no text can hold one."""
    data = parse(text)
    if "\\ud" not in text.lower():
        return data
    return json.loads(json.dumps(data, ensure_ascii=False).encode("utf-8", "replace"))


def _short(error: Exception) -> str:
    if isinstance(error, OSError):
        return reason_of(error)
    return str(error).splitlines()[0][:80] if str(error) else type(error).__name__


def _tasks(document: Mapping[str, Any]) -> list[str]:
    """Tasks of a results file, without its groups: a group's mean is not a task."""
    configs, groups = _mapping(document.get("configs")), _mapping(document.get("group_subtasks"))
    return [
        task
        for task, values in document["results"].items()
        if isinstance(values, dict) and (task in configs or not groups.get(task))
    ]


def _read_task(task: str, file: ResultsFile, output: OutputFolder) -> None:
    document, values = file.document, file.document["results"][task]
    config = _mapping(_mapping(document.get("configs")).get(task))
    scores = _numbers(values)
    lines = _samples(task, file, output)
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
    found = []
    for key, name in names.items():
        metric, _, filter_name = key.partition(",")
        try:
            score = TaskScore(
                task=task,
                metric=name,
                filter=filter_name,
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
        except pydantic.ValidationError as error:
            wrong = error.errors()[0]
            output.problems.append(
                f"{task} is left out: {wrong['loc'][0]} of {key} is {wrong['input']!r:.80}. "
                f"{wrong['msg']}. Evaluate it again."
            )
            return
        found.append(score)
    output.scores += found
    if lines:
        output.samples[task] = lines
        output.answers.append(answers_frame(task, lines, names, config))
        effective = _count(counts.get("effective"))
        output.problems += _mismatches(task, lines, scores, effective, config)


def _num_fewshot(document: Mapping[str, Any], task: str, config: Mapping[str, Any]) -> int | None:
    """Examples before each question. Some versions write 0 in one place, the number in another."""
    stated = (_mapping(document.get("n-shot")).get(task), config.get("num_fewshot"))
    return max((count for n in stated if (count := _count(n)) is not None), default=None)


def _mismatches(
    task: str,
    lines: Sequence[Mapping[str, Any]],
    scores: Mapping[str, float],
    num_documents: int | None,
    config: Mapping[str, Any],
) -> list[str]:
    """A sentence for each score that its own samples do not give."""
    sentences = []
    by_filter: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        by_filter.setdefault(str(line.get("filter")), []).append(line)
    for filter_name, of_filter in by_filter.items():
        ids = {line["doc_id"] for line in of_filter}
        through = f" through {filter_name}" if len(by_filter) > 1 else ""
        if len(ids) < len(of_filter):
            sentences.append(
                f"{task}: {len(of_filter) - len(ids)} documents stand twice in its samples"
                f"{through}, so they cannot be paired with another run's."
            )
        if num_documents is not None and len(ids) != num_documents:
            cut = len(ids) < num_documents
            asked = "Was the file cut?" if cut else "Do they belong to another evaluation?"
            sentences.append(
                f"{task}: its score is of {num_documents} documents, and its samples{through} "
                f"hold {len(ids)}. {asked} Copy it again from where lm-eval wrote it."
            )
    for key, score in scores.items():
        metric, _, filter_name = key.partition(",")
        if not _is_mean(metric, config):
            continue
        values = [
            value
            for line in lines
            if line.get("filter", filter_name) == filter_name
            and (value := _number(line.get(metric))) is not None
        ]
        if values and abs(math.fsum(values) / len(values) - score) > MEAN_TOLERANCE:
            sentences.append(
                f"{task}: {key} is {score:.4g} in the results file, and the mean of its "
                f"{len(values)} samples is {math.fsum(values) / len(values):.4g}. The two are not "
                "from one evaluation, so this score is not compared with others."
            )
    return sentences


def _is_mean(metric: str, config: Mapping[str, Any]) -> bool:
    """Whether lm-eval averages a metric over documents, as far as the task's settings say."""
    entries = config.get("metric_list")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("metric") == metric:
            return entry.get("aggregation", "mean") in ("mean", "nanmean")
    return metric not in NOT_MEANS


def _samples(task: str, file: ResultsFile, output: OutputFolder) -> list[dict[str, Any]]:
    """The task's samples of the same evaluation, in the current form; empty if there are none."""
    path = samples.file_of(task, file.path, file.document)
    if path is None:
        return []
    try:
        data = path.read_bytes()
        parsed = list(_json_lines(data))
    except (OSError, UnicodeDecodeError) as error:
        output.problems.append(f"{path.name} is left out: {_short(error)}.")
        return []
    read = [_sample(line) for line in parsed]
    lines = [sample for sample in read if sample is not None]
    if num_damaged := len(read) - len(lines):
        output.problems.append(
            f"{path.name}: {num_damaged} lines are not samples and are left out."
        )
    if not read:
        output.problems.append(
            f"{path.name} is empty, so {task} cannot be compared answer by answer. Copy it again "
            "from where lm-eval wrote it."
        )
    if lines:
        output.add_file(path, hashlib.sha256(data).hexdigest())
    return lines


def _json_lines(data: bytes) -> Iterator[Any]:
    """The data of each line, None for a damaged one; before 0.4.3 the file is one array.

    Raises:
        UnicodeDecodeError: The file is in two or four bytes a character, and damaged.
    """
    encoding = json.detect_encoding(data)
    if encoding not in ("utf-8", "utf-8-sig"):
        data = data.decode(encoding).encode()
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        whole = _json(data.decode()) if data.lstrip().startswith(b"[") else None
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, list):
        yield from whole
        return
    # Not splitlines: a document may hold other line ends (U+2028), which JSON need not escape.
    for line in data.split(b"\n"):
        if line.strip():
            try:
                yield _json(line.decode())
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


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
