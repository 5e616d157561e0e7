"""Finds which choice an answer means, by evidence from the whole file.

An answer may be the choice's text, its letter, its column's name, or its number from 0 or from 1.
One way of reading must fit every question. If several fit and disagree, as with 1, 2 and 3 of four
choices, nothing in the file decides, so the user is asked.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Literal, get_args

from explorer.errors import BadInput
from explorer.tasks.question_files import NAMED, parse_all

Reading = Literal["text", "letter", "column", "from-0", "from-1"]
READINGS: dict[Reading, str] = {
    "text": "texts of choices",
    "letter": "letters from A",
    "column": "names of columns or labels of choices",
    "from-0": "numbers from 0",
    "from-1": "numbers from 1",
}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question's answer and choices as the file has them."""

    line: int
    answer: Any
    cells: tuple[str, ...]
    """The choices; an empty one is a cell without a choice."""
    names: tuple[str, ...] = ()
    """The choices' columns, or their labels; empty if one column holds a list without labels."""


class AmbiguousAnswers(BadInput):
    """Several ways of reading fit every answer, and give different choices."""

    def __init__(self, message: str, readings: Sequence[Reading]) -> None:
        """Remember the ways that fit, for a page that asks."""
        super().__init__(message)
        self.readings = tuple(readings)


def place(asked: Asked, reading: Reading) -> int | None:
    """The index of the cell that the answer means, read in this way; None if it means none."""
    if not isinstance(asked.answer, str) or not asked.answer.strip():
        return None
    text = asked.answer.strip()
    places: list[int] = []
    match reading:
        case "text":
            places = [i for i, cell in enumerate(asked.cells) if cell == asked.answer]
            places = places or [i for i, cell in enumerate(asked.cells) if cell.strip() == text]
        case "letter" if len(text) == 1 and text.upper() in LETTERS:
            places = [LETTERS.index(text.upper())]
        case "column":
            wanted = text.casefold()
            places = [i for i, name in enumerate(asked.names) if wanted in _labels(name)]
        case "from-0" | "from-1" if re.fullmatch(r"[0-9]{1,4}", text):
            places = [int(text) - int(reading[-1])]
    fits = len(places) == 1 and 0 <= places[0] < len(asked.cells)
    return places[0] if fits and asked.cells[places[0]].strip() else None


def _labels(column: str) -> tuple[str, ...]:
    """What an answer may call a column: choice_b is also b."""
    name = column.strip().casefold()
    end = re.search(r"(?:^|[ _-]|(?<=\D)(?=\d))([a-z]|\d{1,2})$", name)
    return (name, end[1]) if end else (name,)


def read_answers(
    file: str, asked: Sequence[Asked], reading: Reading | None = None
) -> tuple[Reading, list[int]]:
    """The way in which the file's answers are written, and the index of each one's cell.

    Args:
        file: The file's name, for errors.
        asked: Every question of the file.
        reading: The way that the user chose; None finds it.

    Raises:
        AmbiguousAnswers: Several ways fit and disagree.
        BadInput: An answer means none of its choices, or answers are written in different ways.
    """
    ways: tuple[Reading, ...] = (reading,) if reading else get_args(Reading)
    places = {way: [place(question, way) for question in asked] for way in ways}

    def refuse_unknown(numbered: tuple[int, Asked]) -> None:
        i, question = numbered
        if all(found[i] is None for found in places.values()):
            expected = (
                f"answers should be {READINGS[reading]}"
                if reading
                else "write the choice's text, its letter, or its number"
            )
            raise ValueError(
                f"has the answer {question.answer!r:.80}, which is not among its "
                f"{sum(bool(cell.strip()) for cell in question.cells)} choices: {expected}"
            )

    numbered = list(enumerate(asked))
    parse_all(file, [(question.line, (i, question)) for i, question in numbered], refuse_unknown)
    fitting = {way: found for way, found in places.items() if None not in found}
    if not fitting:
        raise BadInput(_mixed(file, asked, places))
    if len({tuple(found) for found in fitting.values()}) > 1:
        raise AmbiguousAnswers(_ambiguous(file, asked, fitting), list(fitting))
    way, found = next(iter(fitting.items()))
    return way, [index for index in found if index is not None]


def _mixed(file: str, asked: Sequence[Asked], places: dict[Reading, list[int | None]]) -> str:
    """What to say of answers that no single way of reading fits."""
    usual = max(places, key=lambda way: sum(index is not None for index in places[way]))
    others = [q for q, index in zip(asked, places[usual], strict=True) if index is None]
    named = ", ".join(f"{q.answer!r:.40} in line {q.line}" for q in others[:NAMED])
    more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
    return (
        f"{file!r}: expected all answers in one way, found {READINGS[usual]} but also {named}"
        f"{more}. Write each as the choice's text, its letter, or its number."
    )


def _ambiguous(file: str, asked: Sequence[Asked], fitting: dict[Reading, list[int | None]]) -> str:
    """What to say of answers that can be read in several ways, with an example."""
    meanings = [[found[i] for found in fitting.values()] for i in range(len(asked))]
    number = max(range(len(asked)), key=lambda i: len(set(meanings[i])))
    question = asked[number]
    means = [
        f"{question.cells[index or 0].strip()!r:.40} if answers are {READINGS[way]}"
        for way, index in zip(fitting, meanings[number], strict=True)
    ]
    return (
        f"{file!r}: the answers can be read in {len(means)} ways, and nothing in the file says "
        f"which: in line {question.line}, {question.answer!r:.40} is {', '.join(means)}. Choose "
        "one, or write each answer as the choice's text."
    )
