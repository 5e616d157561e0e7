"""Finds the role of each column of a question file, by names that leave no doubt.

What the names don't say is a doubt: a sentence that the page or command shows, so that the user
says it. Nothing is guessed from a column's position.
"""

import collections
import dataclasses
import re
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from explorer.tasks.answer_keys import LETTERS, Reading
from explorer.tasks.question_files import Row, columns_of

Way = Literal["choices", "written"]
Role = Literal["header", "question", "choices", "answer"]
USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "question": (
        *("question", "prompt", "query", "text", "stem", "input", "problem", "context", "passage"),
        *("instruction", "questiontext", "q"),
    ),
    "choices": ("choices", "options", "candidates"),
    "answer": (
        *("answer", "target", "label", "gold", "solution", "output", "completion", "correct"),
        *("answerkey", "correctanswer", "rightanswer", "correctchoice", "correctoption", "a"),
    ),
}
"""Names that say a column's role, in lower case without spaces and signs."""
SINGLE_CHOICE = re.compile(r"(choice|option|opt|answer|ans)?[ _-]?([a-p]|\d{1,2})", re.IGNORECASE)
NUMBERED = re.compile(r"(.+?)(\d{1,2}|[ _-][a-z])", re.IGNORECASE)


class TaskColumns(BaseModel):
    """The role of each column."""

    model_config = ConfigDict(frozen=True)

    way: Way
    """Whether the model ranks given choices or writes the answer."""
    question: str
    choices: tuple[str, ...] = ()
    """One column of lists, or several columns with a choice each."""
    answer: str
    """The column with the correct choice, or with the text to write."""
    answer_as: Reading | None = None
    """How answers name a choice; None finds it from the whole file."""


@dataclasses.dataclass(frozen=True)
class Guess:
    """What the columns' names say, and what they leave open."""

    columns: TaskColumns
    """An empty name where the role is open."""
    doubts: dict[Role, str]
    """A sentence for each open role."""


def guess_columns(file: str, rows: Sequence[Row], *, question: str = "", answer: str = "") -> Guess:
    """Find the role of each column from its name.

    Args:
        file: The file's name.
        rows: All of its rows.
        question: The column that the user named; empty to find it.
        answer: The same for the answer.
    """
    names = columns_of(rows)
    doubts: dict[Role, str] = {}
    listed = [name for name in names if _plain(name) in USUAL_NAMES["choices"]]
    single = [
        name for name in names if SINGLE_CHOICE.fullmatch(name) and name not in (question, answer)
    ]
    groups = [*([name] for name in listed), *([single] if len(single) > 1 else [])]
    choices = tuple(groups[0]) if len(groups) == 1 else ()
    if len(groups) > 1:
        doubts["choices"] = f"{_list([*listed, *single])} could all hold choices."
    taken = {question, answer, *choices, *(single if len(single) > 1 else ())}

    def find(role: Literal["question", "answer"]) -> str:
        usual = USUAL_NAMES[role]
        found = [name for name in names if name not in taken and _plain(name) in usual]
        if len(found) == 1:
            return found[0]
        doubts[role] = (
            f"{_list(found)} could each hold the {role}."
            if found
            else f"No column is called {', '.join(usual[:4])} or another usual name for the {role}."
        )
        return ""

    question, answer = question or find("question"), answer or find("answer")
    left = [name for name in names if name not in (*taken, question, answer)]
    if not choices and question and answer and (alike := _like_choices(left, rows, answer)):
        doubts["choices"] = f"{_list(alike)} could hold choices, but no name says so."
    if not question and _is_table(file) and _look_like_data(names):
        doubts = {
            "header": "The first row should name the columns, such as question, A, B, C, D, "
            f"answer; but it looks like a question itself: {_list(names)}."
        }
    way: Way = "choices" if choices else "written"
    columns = TaskColumns(way=way, question=question, choices=choices, answer=answer)
    return Guess(columns, doubts)


def may_lack_header(file: str, guess: Guess) -> bool:
    """Whether a table's first row may be a question: no name in it says what it is."""
    return _is_table(file) and {"question", "answer"} <= guess.doubts.keys()


def unused_columns(rows: Sequence[Row], columns: TaskColumns) -> list[str]:
    """The columns without a role, which the task leaves out."""
    used = {columns.question, columns.answer, *columns.choices}
    return [name for name in columns_of(rows) if name not in used]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(f"{name!r:.40}" for name in names[:6])
    return f"{shown}, …" if len(names) > 6 else shown


def _is_table(file: str) -> bool:
    return not file.lower().endswith(".jsonl")


def _look_like_data(names: Sequence[str]) -> bool:
    """Whether a first row is a question: a sentence, or a number."""
    return any(
        name.endswith(("?", ".", ":", "…"))
        or len(name.split()) > 3
        or re.fullmatch(r"[\d.,]+", name)
        for name in names
    )


def _like_choices(left: Sequence[str], rows: Sequence[Row], answer: str) -> list[str]:
    """The columns of these that may hold choices, although no name says so.

    The evidence: they are numbered alike, they hold lists, or each answer is one of their texts,
    letters or numbers.
    """
    lists = [name for name in left if all(isinstance(row.cells.get(name), list) for row in rows)]
    if lists:
        return lists
    stems = collections.defaultdict(list)
    for name in left:
        if match := NUMBERED.fullmatch(name):
            stems[match[1].casefold()].append(name)
    numbered = [name for alike in stems.values() if len(alike) > 1 for name in alike]
    if numbered or len(left) < 2:
        return numbered
    letters = LETTERS[: len(left)]

    def is_key(row: Row) -> bool:
        text = str(row.cells.get(answer)).strip()
        texts = {str(row.cells.get(name)).strip() for name in left}
        number = int(text) if re.fullmatch(r"[0-9]", text) else -1
        return bool(text) and (
            text in texts
            or (len(text) == 1 and text.upper() in letters)
            or 0 <= number <= len(left)
        )

    return list(left) if all(is_key(row) for row in rows) else []
