"""Makes a custom task from a JSONL or CSV file: checks every row, then writes an lm-eval task.

STORE/.tasks/NAME.yaml        the task
             NAME.HASH.jsonl  its documents; the hash is that of their content
             data.py          the starter suite's loader, with which lm-eval reads them

The folder is complete: `lm_eval run --include_path STORE/.tasks` works, too.

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
"""How many rows an error names; the rest are counted."""
MAX_ANSWER_TOKENS = 64
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
USUAL_NAMES = {
    "question": ("question", "prompt", "query", "text", "stem", "input", "problem", "context"),
    "choices": ("choices", "options", "candidates"),
    "answer": ("answer", "target", "label", "gold", "correct", "solution", "output", "completion"),
}
"""Common column names by role, the likeliest first."""

Rows = list[dict[str, Any]]


class TaskColumns(BaseModel):
    """The role of each column."""

    model_config = ConfigDict(frozen=True)

    way: Literal["choices", "written"]
    """Whether the model ranks given choices or writes the answer."""
    question: str
    choices: tuple[str, ...] = ()
    """One column of lists, or several columns with a choice each."""
    answer: str
    """The correct choice as text, letter or index from 0; or the text to write."""


def read_rows(name: str, content: bytes) -> Rows:
    """Read the rows of a JSONL or CSV file, as mappings from column to value.

    Raises:
        BadInput: The file is of another kind, empty or too large, or has invalid rows.
    """
    kind = Path(name).suffix.lower().lstrip(".")
    if kind not in KINDS:
        raise BadInput(f"A custom task needs a .jsonl or .csv file, got {name!r}.")
    if len(content) > MAX_MB * 2**20:
        raise BadInput(f"{name!r} is larger than {MAX_MB} MB. Use a sample of its rows.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{name!r} is not UTF-8 text (byte {error.start}). Save it as UTF-8."
        ) from error
    rows = _from_jsonl(name, text) if kind == "jsonl" else _from_csv(name, text)
    if not rows:
        raise BadInput(f"{name!r} has no rows. Add one row per question.")
    return rows


def _from_jsonl(name: str, text: str) -> Rows:
    def parse(line: str) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"is not JSON ({str(error).partition(': line')[0]})") from error
        if not isinstance(row, dict):
            raise ValueError(f"should be a JSON object, got {type(row).__name__}")
        return row

    # Not splitlines(): texts may contain the other characters at which it splits.
    lines = [(i, line) for i, line in enumerate(text.split("\n"), start=1) if line.strip()]
    return _parse_all(name, "line", lines, parse)


def _from_csv(name: str, text: str) -> Rows:
    try:
        table = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise BadInput(
            f"{name!r} is not CSV: {error}. Separate the columns with commas."
        ) from error
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

    return _parse_all(name, "row", list(enumerate(table[1:], start=2)), parse)


def _parse_all(
    name: str, what: str, numbered: Sequence[tuple[int, Any]], parse: Callable[[Any], Any]
) -> list[Any]:
    """Parse every item, and report all errors together, so the user can fix them in one go.

    Raises:
        BadInput: Some items are invalid; the message names the first few.
    """
    parsed, errors = [], []
    for number, item in numbered:
        try:
            parsed.append(parse(item))
        except ValueError as error:
            errors.append(f"{what} {number} {error}")
    if errors:
        more = f"; and {len(errors) - NAMED} more" if len(errors) > NAMED else ""
        raise BadInput(f"{name!r}: {'; '.join(errors[:NAMED])}{more}.")
    return parsed


def columns_of(rows: Rows) -> list[str]:
    """Every column of any row, in order of first appearance."""
    return list(dict.fromkeys(str(key) for row in rows for key in row))


def guess_columns(columns: Sequence[str]) -> TaskColumns:
    """Guess the role of each column from its name."""
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
    """Convert rows to the task's documents: question, choices and answer; or prompt and target.

    Raises:
        BadInput: A column is missing or rows are invalid; the message names the first few.
    """
    known = columns_of(rows)
    wanted = [columns.question, columns.answer, *columns.choices]
    for column in wanted:
        if column not in known:
            raise BadInput(f"{name!r} has no column {column!r}; it has {', '.join(known)[:300]}.")
    if columns.way == "choices" and not columns.choices:
        raise BadInput(
            "A multiple-choice task needs a column with lists of choices, or a column per choice."
        )
    parse = _choices if columns.way == "choices" else _written
    return _parse_all(
        name, "document", list(enumerate(rows, start=1)), lambda row: parse(row, columns)
    )


def _written(row: dict[str, Any], columns: TaskColumns) -> dict[str, Any]:
    return {"prompt": _text(row, columns.question), "target": _text(row, columns.answer)}


def _choices(row: dict[str, Any], columns: TaskColumns) -> dict[str, Any]:
    if len(columns.choices) == 1:
        choices = _list(row, columns.choices[0])
    else:
        # An empty cell means that the question has fewer choices.
        cells = [row.get(column) for column in columns.choices]
        choices = [_clean(cell) for cell in cells if cell is not None and str(cell).strip()]
    if len(choices) < 2 or len(set(choices)) < len(choices) or not all(choices):
        raise ValueError(f"should have two or more different choices, got {choices!r:.200}")
    answer = row.get(columns.answer)
    index = choice_index(answer, choices)
    if index is None:
        raise ValueError(
            f"has the answer {answer!r:.80}, which is not among its {len(choices)} choices: write "
            "the choice's text, its letter, or its index from 0"
        )
    return {"question": _text(row, columns.question), "choices": choices, "answer": index}


def choice_index(answer: Any, choices: Sequence[str]) -> int | None:
    """The index of the correct choice; None if the answer is not among the choices.

    An answer that equals a choice's text means that choice. Otherwise a letter counts from A and
    a number from 0.
    """
    if isinstance(answer, bool) or answer is None:
        return None
    if isinstance(answer, int):
        return answer if 0 <= answer < len(choices) else None
    text = str(answer).strip()
    if text in choices:
        return choices.index(text)
    if len(text) == 1 and text.upper() in LETTERS:
        index = LETTERS.index(text.upper())
    elif re.fullmatch(r"[0-9]{1,4}", text):
        index = int(text)
    else:
        return None
    return index if index < len(choices) else None


def _text(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    text = _clean(value) if isinstance(value, str | int | float) else ""
    if not text:
        raise ValueError(f"should have text in {column!r}, got {value!r:.80}")
    return text


def _clean(value: object) -> str:
    """The value as text, stripped.

    Raises:
        ValueError: It has a lone surrogate, which UTF-8 can't encode.
    """
    text = str(value).strip()
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"has half a character at position {error.start} of a text") from error
    return text


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
    return [_clean(choice) for choice in value]


def preview_questions(documents: Rows, num: int = 3) -> list[Question]:
    """The first documents as a model will see them."""
    return [
        Question(
            doc_id=i,
            prompt=doc["question"],
            choices=[f" {choice}" for choice in doc["choices"]],
            right=[doc["answer"]],
        )
        if "choices" in doc
        else Question(doc_id=i, prompt=doc["prompt"], target=doc["target"], until=["\n"])
        for i, doc in enumerate(documents[:num])
    ]


def suggest_name(file: str) -> str:
    """A default name for a task made from this file."""
    return re.sub(r"[^a-z0-9_-]+", "-", Path(file).stem.lower()).strip("-")


def task_exists(name: str) -> bool:
    """Whether the store has a custom task with this name."""
    return bool(NAME.fullmatch(name)) and (paths.own_tasks() / f"{name}.yaml").exists()


def add_task(
    name: str, documents: Rows, *, origin: str, taken: Collection[str] = (), replace: bool = False
) -> Path:
    """Write a task into the store's folder of custom tasks.

    The YAML file is written last, in one rename. If the process dies, either the old task or the
    new one is there, with its documents.

    Args:
        name: The task's name in specs.
        documents: From `documents`.
        origin: The file from which the task was made.
        taken: Names of other tasks.
        replace: Replace the custom task with this name, and raise its version.

    Returns:
        The path of the YAML file.

    Raises:
        BadInput: The name is invalid or taken.
        NoRoom: The task can't be written.
    """
    if not NAME.fullmatch(name):
        raise BadInput(f"A task's name has lower-case letters, digits, - and _, got {name!r:.80}.")
    folder = paths.own_tasks()
    path = folder / f"{name}.yaml"
    version, replaced = 1.0, None
    if task_exists(name) and name not in shipped_names():
        if not replace:
            raise BadInput(
                f"You already have a task {name!r} ({path}). Choose another name, or replace it."
            )
        version, replaced = _version(path) + 1, _documents_file(path)
    elif name in taken or name in shipped_names():
        raise BadInput(
            f"lm-eval or a task folder already has a task {name!r}. Choose another name."
        )
    # ASCII, so line ends inside a text are escaped.
    lines = "".join(json.dumps(document) + "\n" for document in documents)
    file = f"{name}.{hashlib.sha256(lines.encode()).hexdigest()[:8]}.jsonl"
    atomic.write_text(folder / "data.py", (SHIPPED / "data.py").read_text(encoding="utf-8"))
    atomic.write_text(folder / file, lines)
    atomic.write_text(path, _yaml(name, documents, version, origin, file))
    if replaced not in (None, file):
        (folder / str(replaced)).unlink(missing_ok=True)
    return path


def _version(path: Path) -> float:
    match = re.search(r"^  version: ([\d.]+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return float(match[1]) if match else 1.0


def _documents_file(path: Path) -> str | None:
    """The name of the documents' file of a task that `add_task` wrote."""
    match = re.search(r"^  file: ([a-z0-9_.-]+\.jsonl)$", path.read_text("utf-8"), re.MULTILINE)
    return match[1] if match else None


def _yaml(name: str, documents: Rows, version: float, origin: str, file: str) -> str:
    metadata: dict[str, Any] = {"version": version, "origin": origin}
    config: dict[str, Any] = {"dataset_kwargs": {"file": file}, "test_split": "test"}
    mean = {"aggregation": "mean", "higher_is_better": True}
    if "choices" in documents[0]:
        metadata |= {
            "headline_metric": "acc_norm",
            "chance": sum(1 / len(doc["choices"]) for doc in documents) / len(documents),
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
    # safe_dump can't write lm-eval's !function tag.
    return f"task: {name}\ncustom_dataset: !function data.load\n{rest}"
