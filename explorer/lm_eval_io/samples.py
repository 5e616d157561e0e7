"""samples_*.jsonl of lm-evaluation-harness: what a model was asked and what it answered.

A file has a line per document and filter. It is scanned once for the offsets of its lines; after
that only the lines that are shown are read again.

Source: github.com/EleutherAI/lm-evaluation-harness, `loggers/evaluation_tracker.py`.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?")
"""The date in a file's name: the local time of the machine that wrote it."""
FILE = re.compile(rf"samples_(?P<task>.+)_(?P<date>{DATE.pattern})(?: ?\(\d+\))?(?i:\.jsonl)")
"""A samples file; a browser that saves it again adds a number in brackets."""
OLD_UNSAFE = (r"/|=", r"[\"<>:/\|\\?*\[\]]+")
"""What 0.4.0, and 0.4.1 and 0.4.2, replaced by two underscores in the names of samples files."""
PASSAGES = ("passage", "context", "article", "story", "paragraph")
"""Fields of a document that several documents may share."""
BY_LENGTH = ("acc_norm", "acc_bytes")
"""Metrics that divide a choice's log-likelihood by its length."""

SampleLine = Mapping[str, Any]
"""One line of a samples file."""


@dataclasses.dataclass(frozen=True)
class AnswerChoice:
    """One answer that the model could choose."""

    text: str
    loglikelihood: float | None
    """Of the whole answer, in nats."""
    right: bool
    chosen: bool


@dataclasses.dataclass(frozen=True)
class SampleAnswer:
    """One document and the model's answer."""

    prompt: str
    choices: tuple[AnswerChoice, ...]
    """Empty if the model wrote freely."""
    target: str
    response: str
    """What the model wrote or chose."""
    margin: float | None
    """Log-likelihood of the right answer minus that of the best wrong one, in nats (per character
    if the metric divides by length). Above 0 is right. None without choices."""


def newest_files(folder: Path) -> dict[str, Path]:
    """Task, as `file_part` spells it, to its newest samples file in a run's own folder."""
    newest: dict[str, tuple[str, Path]] = {}
    for path in folder.glob("samples_*.jsonl"):
        match = FILE.fullmatch(path.name)
        if match and path.is_file():
            part = file_part(match["task"])
            newest[part] = max(newest.get(part, ("", path)), (match["date"], path))
    return {part: path for part, (_, path) in newest.items()}


def file_of(task: str, results_file: Path, document: Mapping[str, Any]) -> Path | None:
    """The samples file of a task that belongs to a results file; None if there is none.

    lm-eval gives the two one date in their names. Where the results file's name has no date, as
    before 0.4.3, the samples file is named by the model's arguments and the task. A file belongs
    to a task by its whole name: `arc_easy` is not `easy`.

    Args:
        task: Its name.
        results_file: Where the results are; samples lie beside them.
        document: The results.
    """
    folder = results_file.parent
    paths = sorted(filter(Path.is_file, folder.glob("*.[jJ][sS][oO][nN][lL]")))
    dated = [match for path in paths if (match := FILE.fullmatch(path.name))]
    date = DATE.search(results_file.name)
    # A results file that was renamed has the samples that lie beside it alone.
    dates = {date[0]} if date else {match["date"] for match in dated}
    if date or (len(dates) == 1 and len(list(folder.glob("*.json"))) <= 1):
        of_date = {match["task"]: folder / match[0] for match in dated if match["date"] in dates}
        same = [path for name, path in of_date.items() if file_part(name) == file_part(task)]
        return of_date.get(task) or (same[0] if len(same) == 1 else None)
    named = {path.stem: path for path in paths}
    config = document.get("config")
    arguments = config.get("model_args") if isinstance(config, dict) else None
    if isinstance(arguments, dict):
        arguments = ",".join(f"{key}={value}" for key, value in arguments.items())
    parts = str(arguments or "").split(",")
    for count in range(len(parts), 0, -1):
        model = ",".join(parts[:count])
        for unsafe in OLD_UNSAFE:
            path = named.get(f"{re.sub(unsafe, '__', model)}_{task}")
            if path is not None:
                return path
    return None


def cluster_of(document: Any, field: str | None = None) -> str | None:
    """A short hash of what a document may share with others, such as a passage; None for nothing.

    Args:
        document: As the sample has it.
        field: The field that the task names; None looks for a passage.
    """
    known = document if isinstance(document, dict) else {}
    if field is not None:
        shared = [known[field]] if known.get(field) is not None else []
    else:
        passages = (known.get(name) for name in PASSAGES)
        shared = [passage for passage in passages if isinstance(passage, str) and passage]
    if not shared:
        return None
    return hashlib.sha256(str(shared[0]).encode("utf-8", "replace")).hexdigest()[:16]


def file_part(task: str) -> str:
    """A task's name as a part of a file's: group::task and org/task are names too."""
    return re.sub(r"[^\w.-]", "_", task)


def line_offsets(path: Path, filter_name: str | None = None) -> dict[int, int]:
    """Document id to the byte where its line begins; lines that are not samples are skipped.

    Args:
        path: A samples file.
        filter_name: Which of lm-eval's filters counts. None takes the first of each document.

    Raises:
        OSError: The file cannot be read.
    """
    offsets: dict[int, int] = {}
    with path.open("rb") as file:
        offset = 0
        for line in file:
            sample = _parse(line)
            wanted = filter_name is None or sample.get("filter") == filter_name
            if isinstance(sample.get("doc_id"), int) and wanted:
                offsets.setdefault(sample["doc_id"], offset)
            offset += len(line)
    return offsets


def read_lines(path: Path, offsets: Iterable[int]) -> list[SampleLine]:
    """The samples whose lines begin at these bytes, in this order.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return [_read_line(file, offset) for offset in offsets]


def _read_line(file: IO[bytes], offset: int) -> SampleLine:
    file.seek(offset)
    return _parse(file.readline())


def _parse(line: bytes) -> dict[str, Any]:
    """The line as a sample; empty if it is not one."""
    try:
        sample = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return sample if isinstance(sample, dict) else {}


def parse_answer(sample: SampleLine, metric: str) -> SampleAnswer:
    """What a sample says, under the metric that stands for its task."""
    calls = list(_calls(sample))
    if "acc_mutual_info" in _as_list(sample.get("metrics")):
        calls = calls[: len(calls) // 2]  # the second half omits the question
    prompt = calls[0][0] if calls else ""
    target = str(sample.get("target", ""))
    responses = _as_list(sample.get("filtered_resps"))
    likelihoods = [_likelihood(response) for response in responses]
    is_choice = len(calls) > 1 and len(likelihoods) >= len(calls)
    if is_choice and all(known is not None for known, _ in likelihoods[: len(calls)]):
        values = [value for value, _ in likelihoods[: len(calls)]]
        return _answer_of_choices(sample, metric, prompt, calls, values)
    if len(calls) == 1 and likelihoods and likelihoods[0][0] is not None:
        value, greedy = likelihoods[0]
        response = "the right continuation" if greedy else "something else"
        only = AnswerChoice(calls[0][1], value, right=True, chosen=greedy)
        return SampleAnswer(prompt, (only,), target, response, None)
    return SampleAnswer(prompt, (), target, str(responses[0]) if responses else "", None)


def _answer_of_choices(
    sample: SampleLine,
    metric: str,
    prompt: str,
    calls: list[tuple[str, str]],
    likelihoods: list[float | None],
) -> SampleAnswer:
    """A multiple-choice answer; minimal pairs have whole sentences as choices."""
    texts = [text for _, text in calls]
    values = [-math.inf if value is None else value for value in likelihoods]
    if metric.partition(",")[0] in BY_LENGTH:
        in_bytes = metric.startswith("acc_bytes")
        stripped = [text.removeprefix(" ") for text in texts]
        lengths = [len(text.encode() if in_bytes else text) for text in stripped]
        scores = [value / max(1, length) for value, length in zip(values, lengths, strict=True)]
    else:
        scores = values
    best = scores.index(max(scores))
    right = _right_choices(sample, texts)
    choices = tuple(
        AnswerChoice(text.strip(), likelihoods[i], i in right, i == best)
        for i, text in enumerate(texts)
    )
    wrong = [score for i, score in enumerate(scores) if i not in right]
    margin = max(scores[i] for i in right) - max(wrong) if right and wrong else None
    target = "; ".join(choices[i].text for i in sorted(right))
    return SampleAnswer(prompt, choices, target, choices[best].text, margin)


def _right_choices(sample: SampleLine, texts: list[str]) -> set[int]:
    """Indices of the right choices. The target is an index, a list of them, or a text."""
    target = sample.get("target")
    parts = target if isinstance(target, list) else re.findall(r"\d+", str(target))
    if isinstance(target, list) or re.fullmatch(r"\[?[\d,\s]+\]?", str(target)):
        return {int(part) for part in parts if str(part).isdigit() and int(part) < len(texts)}
    return {i for i, text in enumerate(texts) if text.strip() == str(target).strip()}


def _calls(sample: SampleLine) -> Iterator[tuple[str, str]]:
    """Prompt and continuation of each request: a list before lm-eval 0.4.3, a mapping since."""
    arguments = sample.get("arguments")
    if isinstance(arguments, dict):
        for call in arguments.values():
            parts = list(call.values()) if isinstance(call, dict) else _as_list(call)
            yield _two_texts(parts)
    else:
        for call in _as_list(arguments):
            yield _two_texts(_as_list(call))


def _two_texts(parts: list[Any]) -> tuple[str, str]:
    """Prompt and continuation; empty if one is a chat or the settings of a generation."""
    texts = [part if isinstance(part, str) else "" for part in parts]
    return (*texts, "", "")[0], (*texts, "", "")[1]


def _likelihood(response: Any) -> tuple[float | None, bool]:
    """Log-likelihood, and whether it was the most likely answer. Numbers may come as text."""
    if not isinstance(response, list) or len(response) != 2:
        return None, False
    try:
        value = float(response[0])
    except (TypeError, ValueError):
        return None, False
    return (value if math.isfinite(value) else None), str(response[1]) == "True"


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def searchable_text(sample: SampleLine) -> str:
    """What a search looks at: the document, the prompt and the answers."""
    parts = [json.dumps(sample.get("doc", ""), ensure_ascii=False)]
    parts += [part for call in _calls(sample) for part in call]
    responses = _as_list(sample.get("filtered_resps"))
    parts += [response for response in responses if isinstance(response, str)]
    return "\n".join(parts)
