"""Makes a custom task from a question file: checks every row, then writes an lm-eval task.

STORE/.tasks/NAME.yaml        the task
             NAME.HASH.jsonl  its documents; the hash is that of their content
             data.py          the starter suite's loader, with which lm-eval reads them

The folder is complete: `lm_eval run --include_path STORE/.tasks` works, too. The task names its
documents' fields instead of templates, because lm-eval evaluates a rendered template that looks
like a list or a number as Python.

    explorer tasks add questions.csv --name my-questions
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from explorer import paths
from explorer.errors import BadInput
from explorer.files import durable_files, text_files
from explorer.tasks import answer_keys
from explorer.tasks.answer_keys import Asked, Reading
from explorer.tasks.index import SHIPPED, shipped_names
from explorer.tasks.preview import Question
from explorer.tasks.question_columns import TaskColumns, unused_columns
from explorer.tasks.question_files import Row, columns_of, parse_all

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
MIN_ANSWER_TOKENS = 64
"""Tokens that a model may write, or more if an expected text may need more."""
MAX_ANSWER_BYTES = 512
"""An expected text may need as many tokens, which are no longer there for the prompt."""

Documents = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Questions:
    """A question file's documents, and how it was understood."""

    documents: Documents
    """Question, choices and answer (an index); or prompt and target."""
    columns: TaskColumns
    answer_as: Reading | None
    """How answers name a choice; None if the model writes its answer."""
    unused: list[str]
    """Columns that the task leaves out."""

    def in_words(self) -> str:
        """How the file was understood: the columns, the answers, and what is left out."""
        columns = self.columns
        answers = f" ({answer_keys.READINGS[self.answer_as]})" if self.answer_as else ""
        sentences = [f"Question from {columns.question}, answer from {columns.answer}{answers}"]
        if columns.choices:
            sentences[0] += f", choices from {', '.join(columns.choices)}"
        if self.unused:
            sentences.append(f"Not used: {', '.join(self.unused)}")
        texts = [text for doc in self.documents for text in doc.get("choices", [])]
        if num := sum(text != text.strip() for text in texts):
            sentences.append(
                f"{num} of {len(texts)} choices begin or end with a space, which the model sees"
            )
        return ". ".join(sentences) + "."


def read_questions(name: str, rows: Sequence[Row], columns: TaskColumns) -> Questions:
    """Convert rows to a task's documents, each text as the file has it.

    Raises:
        AmbiguousAnswers: Answers can be read in several ways that disagree.
        BadInput: A column is missing or rows are invalid; the message names the first few.
    """
    known = columns_of(rows)
    wanted = [columns.question, columns.answer, *columns.choices]
    for column in wanted:
        if column not in known:
            raise BadInput(f"{name!r} has no column {column!r}; it has {', '.join(known)[:300]}.")
    if twice := [column for column in wanted if wanted.count(column) > 1]:
        raise BadInput(f"{name!r}: the column {twice[0]!r} can't have two roles. Choose another.")
    if columns.way == "choices" and not columns.choices:
        raise BadInput(
            "A multiple-choice task needs a column with lists of choices, or a column per choice."
        )
    numbered = [(row.line, row) for row in rows]
    reading, documents = None, []
    if columns.way == "choices":
        asked = parse_all(name, numbered, lambda row: _asked(row, columns))
        questions = parse_all(name, numbered, lambda row: _text(row, columns.question))
        labelled = len(columns.choices) == 1 and all(each.names for each in asked)
        answer_as = columns.answer_as or ("column" if labelled else None)
        reading, places = answer_keys.read_answers(name, asked, answer_as)
        for question, each, place in zip(questions, asked, places, strict=True):
            # An empty cell means that the question has fewer choices.
            kept = [i for i, cell in enumerate(each.cells) if cell.strip()]
            choices = [each.cells[i] for i in kept]
            documents.append(
                {"question": question, "choices": choices, "answer": kept.index(place)}
            )
    else:
        documents = parse_all(name, numbered, lambda row: _written(row, columns))
    return Questions(documents, columns, reading, unused_columns(rows, columns))


def _written(row: Row, columns: TaskColumns) -> dict[str, Any]:
    target = _text(row, columns.answer)
    if "\n" in target.strip():
        raise ValueError(
            f"expected an answer of one line in {columns.answer!r}, found {target!r:.80}: the "
            "model writes to the end of the line, so it could never match"
        )
    if (num := len(target.encode())) > MAX_ANSWER_BYTES:
        raise ValueError(
            f"expected a short answer in {columns.answer!r}, of at most {MAX_ANSWER_BYTES} bytes, "
            f"found {num}: exact_match compares the whole text"
        )
    return {"prompt": _text(row, columns.question), "target": target}


def _asked(row: Row, columns: TaskColumns) -> Asked:
    names = columns.choices
    if len(names) > 1:
        cells = [_text(row, column, may_be_empty=True) for column in names]
    else:
        cells, names = _list(row, columns.choices[0])
    choices = [cell for cell in cells if cell.strip()]
    if len(choices) < 2 or len(set(choices)) < len(choices):
        raise ValueError(f"should have two or more different choices, got {choices!r:.200}")
    return Asked(row.line, row.cells.get(columns.answer), tuple(cells), names)


def _text(row: Row, column: str, *, may_be_empty: bool = False) -> str:
    value = row.cells.get(column)
    if value is None and may_be_empty:
        return ""
    if not isinstance(value, str) or not (may_be_empty or value.strip()):
        raise ValueError(f"should have text in {column!r}, got {_shown(value)}")
    return _whole(value)


def _shown(value: Any) -> str:
    return "nothing" if value in (None, "") else f"{value!r:.80}"


def _whole(text: str) -> str:
    """The text itself; half a surrogate pair, which UTF-8 can't encode, is refused."""
    if text_files.has_half_character(text):
        raise ValueError(f"has half a character (a lone surrogate) in {ascii(text)[:80]}")
    return text


def _list(row: Row, column: str) -> tuple[list[str], tuple[str, ...]]:
    """The choices in a column, and their labels if it has them, as ARC's files do."""
    value, labels = row.cells.get(column), []
    if isinstance(value, str):
        try:
            value = text_files.parse_json(value, numbers_as_text=True)
        except ValueError:
            value = None
    if isinstance(value, dict) and value.keys() == {"text", "label"}:
        value, labels = value["text"], value["label"]
        if not _are_texts(labels) or not _are_texts(value) or len(labels) != len(value):
            raise ValueError(
                f"should have a label for each choice in {column!r}, got "
                f"{_shown(row.cells.get(column))}"
            )
        if len({label.strip().casefold() for label in labels}) < len(labels):
            raise ValueError(f"should have different labels in {column!r}, got {labels!r:.200}")
    if not _are_texts(value):
        raise ValueError(
            f'should have a list in {column!r}, as in ["a", "b"], got '
            f"{_shown(row.cells.get(column))}"
        )
    if not all(choice.strip() for choice in value):
        raise ValueError(f"should have text in each choice of {column!r}, got {value!r:.200}")
    return [_whole(choice) for choice in value], tuple(labels)


def _are_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def preview_questions(documents: Documents, num: int = 3) -> list[Question]:
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
    name: str,
    documents: Documents,
    *,
    origin: str,
    taken: Collection[str] = (),
    replace: bool = False,
) -> Path:
    """Write a task into the store's folder of custom tasks.

    The YAML file is written last, in one rename. If the process dies, either the old task or the
    new one is there, with its documents.

    Args:
        name: The task's name in specs.
        documents: From `read_questions`.
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
    durable_files.write_text(folder / "data.py", (SHIPPED / "data.py").read_text(encoding="utf-8"))
    durable_files.write_text(folder / file, lines)
    durable_files.write_text(path, _yaml(name, documents, version, origin, file))
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


def _yaml(name: str, documents: Documents, version: float, origin: str, file: str) -> str:
    metadata: dict[str, Any] = {
        "version": version,
        "origin": origin.encode("utf-8", "replace").decode(),
    }
    config: dict[str, Any] = {"dataset_kwargs": {"file": file}, "test_split": "test"}
    mean = {"aggregation": "mean", "higher_is_better": True}
    if "choices" in documents[0]:
        metadata |= {
            "headline_metric": "acc_norm",
            "chance": sum(1 / len(doc["choices"]) for doc in documents) / len(documents),
        }
        config |= {
            "output_type": "multiple_choice",
            "doc_to_text": "question",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "metric_list": [{"metric": "acc", **mean}, {"metric": "acc_norm", **mean}],
        }
    else:
        metadata |= {"headline_metric": "exact_match", "chance": 0.0}
        # No token is shorter than a byte.
        longest = max(len(doc["target"].encode()) for doc in documents)
        around = [r"^\s+", r"\s+$"]
        exact = {"metric": "exact_match", **mean, "ignore_case": True, "regexes_to_ignore": around}
        config |= {
            "output_type": "generate_until",
            "doc_to_text": "prompt",
            "doc_to_target": "target",
            "generation_kwargs": {
                "until": ["\n"],
                "do_sample": False,
                "max_gen_toks": max(MIN_ANSWER_TOKENS, longest),
            },
            "metric_list": [exact],
        }
    rest = yaml.safe_dump(
        {**config, "num_fewshot": 0, "metadata": metadata}, sort_keys=False, allow_unicode=True
    )
    # safe_dump can't write lm-eval's !function tag.
    # Quoted where YAML would read the name as something else, such as no.
    task = yaml.safe_dump({"task": name})
    return f"{task}custom_dataset: !function data.load\n{rest}"
