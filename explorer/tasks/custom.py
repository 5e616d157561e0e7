"""A custom task from JSONL or CSV: read, checked row by row, written as an lm-eval task.

STORE/.tasks/NAME.yaml        the task
             NAME.HASH.jsonl  its documents, under a name that their content decides
             data.py          how lm-eval reads them, as in the starter suite

The folder is complete: `lm_eval run --include_path STORE/.tasks` reads it too.

    explorer tasks add questions.csv --name my-questions
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from explorer import paths
from explorer.errors import BadInput
from explorer.store import atomic
from explorer.tasks.index import SHIPPED, shipped_names
from explorer.tasks.preview import Question

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
KINDS = ("jsonl", "csv")
MAX_MB = 50
NAMED = 5
"""Rows that an error names; the others are counted."""
MAX_ANSWER_TOKENS = 64
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
USUAL_NAMES = {
    "question": ("question", "prompt", "query", "text", "stem", "input", "problem", "context"),
    "choices": ("choices", "options", "candidates"),
    "answer": ("answer", "target", "label", "gold", "correct", "solution", "output", "completion"),
}
"""Names of columns that mean what they say, the likeliest first."""

Rows = list[dict[str, Any]]


class TaskColumns(BaseModel):
    """Which column means what."""

    model_config = ConfigDict(frozen=True)

    way: Literal["choices", "written"]
    """The likeliest of several choices, or a text that the model writes."""
    question: str
    choices: tuple[str, ...] = ()
    """One column that holds lists, or several that hold a choice each."""
    answer: str
    """The right choice: its text, its letter or its number from 0; or the text to write."""


def read_rows(name: str, content: bytes) -> Rows:
    """The rows of a file, each a mapping of the same kind of columns.

    Raises:
        BadInput: Another kind of file, none or too much in it, or rows that are none.
    """
    kind = Path(name).suffix.lower().lstrip(".")
    if kind not in KINDS:
        raise BadInput(f"A task is made of a .jsonl or .csv file, got {name!r}.")
    if len(content) > MAX_MB * 2**20:
        raise BadInput(f"{name!r} is larger than {MAX_MB} MB. A task needs no more than a sample.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{name!r} is not UTF-8 text (byte {error.start}). Save it as UTF-8."
        ) from error
    rows = _from_jsonl(name, text) if kind == "jsonl" else _from_csv(name, text)
    if not rows:
        raise BadInput(f"{name!r} has no rows. Put a question in each.")
    return rows


def _from_jsonl(name: str, text: str) -> Rows:
    def parse(line: str) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"is not JSON ({str(error).partition(': line')[0]})") from error
        if not isinstance(row, dict):
            raise ValueError(f"should be an object with columns, got {type(row).__name__}")
        return row

    # Only a line feed ends a line: a text may hold the other characters that split lines.
    lines = [(i, line) for i, line in enumerate(text.split("\n"), start=1) if line.strip()]
    return _each(name, "line", lines, parse)


def _from_csv(name: str, text: str) -> Rows:
    try:
        table = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise BadInput(f"{name!r} is not CSV: {error}. Separate columns by commas.") from error
    table = [row for row in table if any(cell.strip() for cell in row)]
    if not table:
        return []
    head = [cell.strip() for cell in table[0]]
    if len(set(head)) < len(head) or not all(head):
        raise BadInput(
            f"The first row of {name!r} should name each column once, got {', '.join(head)!r:.200}."
        )

    def parse(row: list[str]) -> dict[str, Any]:
        if len(row) != len(head):
            raise ValueError(f"has {len(row)} columns where the first row names {len(head)}")
        return dict(zip(head, row, strict=True))

    return _each(name, "row", list(enumerate(table[1:], start=2)), parse)


def _each(
    name: str, what: str, numbered: Sequence[tuple[int, Any]], parse: Callable[[Any], Any]
) -> list[Any]:
    """Parse each; refuse them together, so that all can be corrected at once.

    Raises:
        BadInput: Some are wrong; it names the first.
    """
    found, wrong = [], []
    for number, one in numbered:
        try:
            found.append(parse(one))
        except ValueError as error:
            wrong.append(f"{what} {number} {error}")
    if wrong:
        more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise BadInput(f"{name!r}: {'; '.join(wrong[:NAMED])}{more}.")
    return found


def columns_of(rows: Rows) -> list[str]:
    """Every column that a row has, in the order of their first sight."""
    return list(dict.fromkeys(str(key) for row in rows for key in row))


def guess_columns(columns: Sequence[str]) -> TaskColumns:
    """What the columns probably mean, by their names."""
    lower = {column.casefold(): column for column in columns}

    def first(part: str) -> str:
        return next((lower[word] for word in USUAL_NAMES[part] if word in lower), "")

    listed = first("choices")
    single = [c for c in columns if re.fullmatch(r"(choice|option)?[ _-]?([a-f]|\d)", c, re.I)]
    choices = (listed,) if listed else tuple(single) if len(single) > 1 else ()
    taken = {*choices}
    question = first("question") or next((c for c in columns if c not in taken), "")
    answer = first("answer") or next((c for c in columns if c not in {*taken, question}), "")
    way: Literal["choices", "written"] = "choices" if choices else "written"
    return TaskColumns(way=way, question=question, choices=choices, answer=answer)


def documents(name: str, rows: Rows, columns: TaskColumns) -> Rows:
    """The task's documents: question, choices and answer, or prompt and target.

    Raises:
        BadInput: A column is missing, or rows that do not fit; it names the first of them.
    """
    known = columns_of(rows)
    wanted = [columns.question, columns.answer, *columns.choices]
    for column in wanted:
        if column not in known:
            raise BadInput(f"{name!r} has no column {column!r}; it has {', '.join(known)[:300]}.")
    if columns.way == "choices" and not columns.choices:
        raise BadInput("A task of choices needs a column with lists of them, or one column each.")
    parse = _choices if columns.way == "choices" else _written
    return _each(name, "document", list(enumerate(rows, start=1)), lambda row: parse(row, columns))


def _written(row: dict[str, Any], columns: TaskColumns) -> dict[str, Any]:
    return {"prompt": _text(row, columns.question), "target": _text(row, columns.answer)}


def _choices(row: dict[str, Any], columns: TaskColumns) -> dict[str, Any]:
    if len(columns.choices) == 1:
        choices = _list(row, columns.choices[0])
    else:
        # An empty cell is a question with fewer choices.
        cells = [row.get(column) for column in columns.choices]
        choices = [_clean(cell) for cell in cells if cell is not None and str(cell).strip()]
    if len(choices) < 2 or len(set(choices)) < len(choices) or not all(choices):
        raise ValueError(f"should have two or more different choices, got {choices!r:.200}")
    answer = row.get(columns.answer)
    place = choice_index(answer, choices)
    if place is None:
        raise ValueError(
            f"has the answer {answer!r:.80}, which is none of its {len(choices)} choices: write "
            "the choice's text, its letter, or its number from 0"
        )
    return {"question": _text(row, columns.question), "choices": choices, "answer": place}


def choice_index(answer: Any, choices: Sequence[str]) -> int | None:
    """Where the right choice is: a number counts from 0; a text goes before a letter or number."""
    if isinstance(answer, bool) or answer is None:
        return None
    if isinstance(answer, int):
        return answer if 0 <= answer < len(choices) else None
    said = str(answer).strip()
    if said in choices:
        return choices.index(said)
    if len(said) == 1 and said.upper() in LETTERS:
        place = LETTERS.index(said.upper())
    elif re.fullmatch(r"[0-9]{1,4}", said):
        place = int(said)
    else:
        return None
    return place if place < len(choices) else None


def _text(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    said = _clean(value) if isinstance(value, str | int | float) else ""
    if not said:
        raise ValueError(f"should have a text in {column!r}, got {value!r:.80}")
    return said


def _clean(value: object) -> str:
    """The text without space around it.

    Raises:
        ValueError: It has halves of characters, which no file of UTF-8 can hold.
    """
    said = str(value).strip()
    try:
        said.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"has half a character at letter {error.start} of a text") from error
    return said


def _list(row: dict[str, Any], column: str) -> list[str]:
    value = row.get(column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, list) or not all(isinstance(v, str | int | float) for v in value):
        raise ValueError(
            f'should have a list in {column!r}, as in ["a", "b"], got {row.get(column)!r:.80}'
        )
    return [_clean(one) for one in value]


def preview_questions(found: Rows, num: int = 3) -> list[Question]:
    """The first documents as a model will be asked them."""
    return [
        Question(
            doc_id=i,
            prompt=one["question"],
            choices=[f" {c}" for c in one["choices"]],
            right=[one["answer"]],
        )
        if "choices" in one
        else Question(doc_id=i, prompt=one["prompt"], target=one["target"], until=["\n"])
        for i, one in enumerate(found[:num])
    ]


def suggest_name(file: str) -> str:
    """What a task that is made of this file may be called, where nobody says."""
    return re.sub(r"[^a-z0-9_-]+", "-", Path(file).stem.lower()).strip("-")


def task_exists(name: str) -> bool:
    """Whether the store has an own task of that name."""
    return bool(NAME.fullmatch(name)) and (paths.own_tasks() / f"{name}.yaml").exists()


def add_task(
    name: str, found: Rows, *, origin: str, taken: Collection[str] = (), replace: bool = False
) -> Path:
    """Write a task into the store's folder of custom tasks.

    The YAML file is written last, in one rename: a task is replaced with its documents or not at
    all, whatever ends the process.

    Args:
        name: What specs will call it.
        found: From `documents`.
        origin: The file that it was made from.
        taken: Names of other tasks.
        replace: Replace the custom task of that name, under the next version.

    Raises:
        BadInput: The name is not possible or taken.
        NoRoom: The task cannot be written.
    """
    if not NAME.fullmatch(name):
        raise BadInput(
            f"A task's name has small letters, digits, dashes and underscores, got {name!r:.80}."
        )
    folder = paths.own_tasks()
    path = folder / f"{name}.yaml"
    version, replaced = 1.0, None
    if task_exists(name) and name not in shipped_names():
        if not replace:
            raise BadInput(
                f"There is a task {name!r} of yours already ({path}). Choose another name, or say "
                "that it should be replaced."
            )
        version, replaced = _version(path) + 1, _documents_file(path)
    elif name in taken or name in shipped_names():
        raise BadInput(f"lm-eval or a task folder has a task {name!r}. Choose another name.")
    # In ASCII: every line end within a text is escaped.
    lines = "".join(json.dumps(document) + "\n" for document in found)
    file = f"{name}.{hashlib.sha256(lines.encode()).hexdigest()[:8]}.jsonl"
    atomic.write_text(folder / "data.py", (SHIPPED / "data.py").read_text(encoding="utf-8"))
    atomic.write_text(folder / file, lines)
    atomic.write_text(path, _yaml(name, found, version, origin, file))
    if replaced not in (None, file):
        (folder / str(replaced)).unlink(missing_ok=True)
    return path


def _version(path: Path) -> float:
    found = re.search(r"^  version: ([\d.]+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return float(found[1]) if found else 1.0


def _documents_file(path: Path) -> str | None:
    """The documents' file name in a task that `add` wrote."""
    match = re.search(r"^  file: ([a-z0-9_.-]+\.jsonl)$", path.read_text("utf-8"), re.MULTILINE)
    return match[1] if match else None


def _yaml(name: str, found: Rows, version: float, origin: str, file: str) -> str:
    metadata: dict[str, Any] = {"version": version, "origin": origin}
    config: dict[str, Any] = {"dataset_kwargs": {"file": file}, "test_split": "test"}
    mean = {"aggregation": "mean", "higher_is_better": True}
    if "choices" in found[0]:
        metadata |= {
            "headline_metric": "acc_norm",
            "chance": sum(1 / len(one["choices"]) for one in found) / len(found),
        }
        config |= {
            "output_type": "multiple_choice",
            "doc_to_text": "{{question}}",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "metric_list": [{"metric": "acc", **mean}, {"metric": "acc_norm", **mean}],
        }
    else:
        metadata |= {"headline_metric": "exact_match", "chance": 0.0}
        around = [r"^\s+", r"\s+$"]
        exact = {"metric": "exact_match", **mean, "ignore_case": True, "regexes_to_ignore": around}
        config |= {
            "output_type": "generate_until",
            "doc_to_text": "{{prompt}}",
            "doc_to_target": "{{target}}",
            "generation_kwargs": {
                "until": ["\n"],
                "do_sample": False,
                "max_gen_toks": MAX_ANSWER_TOKENS,
            },
            "metric_list": [exact],
        }
    rest = yaml.safe_dump(
        {**config, "num_fewshot": 0, "metadata": metadata}, sort_keys=False, allow_unicode=True
    )
    # The tag is lm-eval's own, which safe_dump cannot write.
    return f"task: {name}\ncustom_dataset: !function data.load\n{rest}"
