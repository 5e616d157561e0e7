"""samples_*.jsonl of lm-evaluation-harness: what a model was asked and what it said.

A file has a line a document and filter. It is walked through once for the places of its
lines; after that only the lines that are shown are read again.

Source: github.com/EleutherAI/lm-evaluation-harness, `loggers/evaluation_tracker.py`.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

FILE = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.jsonl")
PASSAGES = ("passage", "context", "article", "story", "paragraph")
"""Fields of a document that several documents may share."""
BY_LENGTH = ("acc_norm", "acc_bytes")
"""Metrics that divide a choice's log-likelihood by its length."""

Sample = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Choice:
    """One answer that a model could have given."""

    text: str
    loglikelihood: float | None
    """Of the whole answer, in nats."""
    right: bool
    chosen: bool


@dataclasses.dataclass(frozen=True)
class Answer:
    """One document and what a model made of it."""

    prompt: str
    choices: tuple[Choice, ...]
    """Empty where the model wrote freely."""
    target: str
    said: str
    """What the model wrote or chose."""
    margin: float | None
    """Log-likelihood of the right answer less that of the best wrong one, in nats (per
    character where the metric divides by length); above 0 is right. None without choices."""


def files(folder: Path) -> dict[str, Path]:
    """Task, as file names spell it, to its newest samples file; empty where none is kept."""
    found: dict[str, tuple[str, Path]] = {}
    for path in folder.glob("samples_*.jsonl"):
        match = FILE.fullmatch(path.name)
        if match:
            newest = found.get(match["task"], ("", path))
            found[match["task"]] = max(newest, (match["date"], path))
    return {task: path for task, (_, path) in found.items()}


def cluster(document: Any, field: str | None = None) -> str | None:
    """What several documents may share, as a short hash; None where there is no such thing.

    Args:
        document: As the sample has it.
        field: Which field the task names; None looks for a passage.
    """
    known = document if isinstance(document, dict) else {}
    if field is not None:
        shared = [known[field]] if known.get(field) is not None else []
    else:
        shared = [known[one] for one in PASSAGES if isinstance(known.get(one), str) and known[one]]
    if not shared:
        return None
    return hashlib.sha256(str(shared[0]).encode("utf-8", "replace")).hexdigest()[:16]


def file_part(task: str) -> str:
    """A task's name as a part of a file's: group::task and org/task are names too."""
    return re.sub(r"[^\w.-]", "_", task)


def places(path: Path, filter_name: str | None = None) -> dict[int, int]:
    """Document id to where its line begins; lines that are no samples are passed over.

    Args:
        path: A samples file.
        filter_name: Which of lm-eval's filters counts; None takes the first of each document.

    Raises:
        OSError: The file cannot be read.
    """
    found: dict[int, int] = {}
    with path.open("rb") as file:
        place = 0
        for line in file:
            sample = _sample(line)
            wanted = filter_name is None or sample.get("filter") == filter_name
            if isinstance(sample.get("doc_id"), int) and wanted:
                found.setdefault(sample["doc_id"], place)
            place += len(line)
    return found


def at(path: Path, wanted: Iterable[int]) -> list[Sample]:
    """The samples whose lines begin at these places, in this order.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return [_line_at(file, place) for place in wanted]


def _line_at(file: Any, place: int) -> Sample:
    file.seek(place)
    return _sample(file.readline())


def _sample(line: bytes) -> dict[str, Any]:
    """The line as a sample; an empty one where it is none."""
    try:
        read = json.loads(line)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def answer(sample: Sample, metric: str) -> Answer:
    """What a sample says, under the metric that stands for its task."""
    calls = list(_calls(sample))
    if "acc_mutual_info" in _listed(sample.get("metrics")):
        calls = calls[: len(calls) // 2]  # the second half asks without the question
    prompt = calls[0][0] if calls else ""
    target = str(sample.get("target", ""))
    likelihoods = [_likelihood(one) for one in _listed(sample.get("filtered_resps"))]
    several = len(calls) > 1 and len(likelihoods) >= len(calls)
    if several and all(known is not None for known, _ in likelihoods[: len(calls)]):
        return _of_choices(sample, metric, prompt, calls, [n for n, _ in likelihoods[: len(calls)]])
    if len(calls) == 1 and likelihoods and likelihoods[0][0] is not None:
        value, greedy = likelihoods[0]
        said = "the right continuation" if greedy else "something else"
        only = Choice(calls[0][1], value, right=True, chosen=greedy)
        return Answer(prompt, (only,), target, said, None)
    written = _listed(sample.get("filtered_resps"))
    return Answer(prompt, (), target, str(written[0]) if written else "", None)


def _of_choices(
    sample: Sample,
    metric: str,
    prompt: str,
    calls: list[tuple[str, str]],
    likelihoods: list[float | None],
) -> Answer:
    """A multiple-choice sample; minimal pairs put whole sentences in the choices."""
    texts = [text for _, text in calls]
    values = [-math.inf if value is None else value for value in likelihoods]
    if metric.partition(",")[0] in BY_LENGTH:
        byte = metric.startswith("acc_bytes")
        lengths = [
            len(t.removeprefix(" ").encode() if byte else t.removeprefix(" ")) for t in texts
        ]
        scores = [value / max(1, length) for value, length in zip(values, lengths, strict=True)]
    else:
        scores = values
    best = scores.index(max(scores))
    right = _right(sample, texts)
    choices = tuple(
        Choice(text.strip(), likelihoods[i], i in right, i == best) for i, text in enumerate(texts)
    )
    wrong = [score for i, score in enumerate(scores) if i not in right]
    margin = max(scores[i] for i in right) - max(wrong) if right and wrong else None
    target = "; ".join(choices[i].text for i in sorted(right))
    return Answer(prompt, choices, target, choices[best].text, margin)


def _right(sample: Sample, texts: list[str]) -> set[int]:
    """Places of the right choices: the target is an index, a list of them, or a text."""
    target = sample.get("target")
    parts = target if isinstance(target, list) else re.findall(r"\d+", str(target))
    if isinstance(target, list) or re.fullmatch(r"\[?[\d,\s]+\]?", str(target)):
        return {int(one) for one in parts if str(one).isdigit() and int(one) < len(texts)}
    return {i for i, text in enumerate(texts) if text.strip() == str(target).strip()}


def _calls(sample: Sample) -> Iterator[tuple[str, str]]:
    """Prompt and continuation of each request; a list before lm-eval 0.4.3, a mapping since."""
    arguments = sample.get("arguments")
    if isinstance(arguments, dict):
        for call in arguments.values():
            parts = list(call.values()) if isinstance(call, dict) else _listed(call)
            yield _two(parts)
    else:
        for call in _listed(arguments):
            yield _two(_listed(call))


def _two(parts: list[Any]) -> tuple[str, str]:
    """A prompt may be a chat, a continuation settings of a generation."""
    texts = [part if isinstance(part, str) else "" for part in parts]
    return (*texts, "", "")[0], (*texts, "", "")[1]


def _likelihood(response: Any) -> tuple[float | None, bool]:
    """Log-likelihood and whether it was the most likely answer; numbers may come as text."""
    if not isinstance(response, list) or len(response) != 2:
        return None, False
    try:
        value = float(response[0])
    except (TypeError, ValueError):
        return None, False
    return (value if math.isfinite(value) else None), str(response[1]) == "True"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def text_of(sample: Sample) -> str:
    """All that a person may search for: the document, the prompt and the answers."""
    parts = [json.dumps(sample.get("doc", ""), ensure_ascii=False)]
    parts += [part for call in _calls(sample) for part in call]
    parts += [str(one) for one in _listed(sample.get("filtered_resps")) if isinstance(one, str)]
    return "\n".join(parts)
