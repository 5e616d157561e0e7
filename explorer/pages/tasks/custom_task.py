"""Add a custom task: upload a file, name its columns, preview its questions, add it."""

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

import streamlit as st

from explorer.errors import BadInput, ExplorerError
from explorer.pages.shared import answer_card, glossary, text_format
from explorer.processes import limited_process
from explorer.tasks import custom, question_columns, question_files
from explorer.tasks.answer_keys import READINGS, AmbiguousAnswers, Reading
from explorer.tasks.custom import Questions
from explorer.tasks.question_columns import Guess, TaskColumns
from explorer.tasks.question_files import BadHeader, Row

WAYS = {"choices": "One of several choices", "written": "Generated text"}
FORGET_S = 600
SHOWN = 3
"""Documents in the preview."""
ADDED = "own_added"
"""Session key of the file and the task that were added last."""


def custom_task_form(existing: Collection[str]) -> None:
    """The form. A task that was added is shown in detail next.

    Args:
        existing: Names that other tasks have.
    """
    with st.expander("Add your own task", icon=":material/add:", key="own_task"):
        upload = st.file_uploader(
            "Questions as .jsonl, .csv or .tsv, one row per question",
            type=list(question_files.KINDS),
            max_upload_size=question_files.MAX_MB,
            key="own_file",
            help=glossary.TERMS["own_task"],
        )
        if upload is None:
            st.caption(
                'One row per question, such as {"question": "2 + 2 =", "choices": ["3", "4"], '
                '"answer": "4"} or {"prompt": "The capital of France is", "target": "Paris"}.'
            )
            return
        left, right = st.columns([2, 3], gap="large")
        try:
            with left:
                rows, guess = _rows(upload.name, upload.getvalue())
                columns = _columns(upload.name, rows, guess)
                questions = _questions(upload.name, rows, columns) if columns else None
            with right:
                if questions is None:
                    _first_rows(rows)
                    return
                _preview(questions)
            with left:
                _add(upload.name, questions, existing)
        except ExplorerError as error:
            with left:
                _say(str(error))


def _say(sentence: str) -> None:
    st.error(text_format.md(sentence), icon=":material/error:")


def _rows(file: str, content: bytes) -> tuple[list[Row], Guess]:
    """The file's rows, and what their columns' names say. Asks whether there is a header.

    Raises:
        BadInput: The file can't be read.
    """
    try:
        rows = _read_rows(file, content, header=True)
        guess = question_columns.guess_columns(file, rows)
        problem = guess.doubts.pop("header", "")
        if not problem and not question_columns.may_lack_header(file, guess):
            return rows, guess
    except BadHeader as error:
        problem = str(error)
    if not st.checkbox("The first row is a question", key=f"own_no_header_{file}"):
        if not problem:
            return rows, guess
        raise BadInput(f"{problem} Write a row of names above it, or tick that it is a question.")
    rows = _read_rows(file, content, header=False)
    return rows, question_columns.guess_columns(file, rows)


@st.cache_data(show_spinner="Reading the questions…", max_entries=4, ttl=FORGET_S)
def _read_rows(file: str, content: bytes, *, header: bool) -> list[Row]:
    """The rows of the uploaded file, read in a process of its own.

    Raises:
        BadInput: The file can't be read.
    """
    with tempfile.TemporaryDirectory(prefix="explorer-questions-") as folder:
        path = Path(folder) / "questions"  # a name of our own: theirs may be anything
        path.write_bytes(content)
        rows = limited_process.call(
            "explorer.tasks.question_files:rows_of",
            file,
            folder=folder,
            path=str(path),
            name=file,
            header=header,
        )
    return [Row(line, cells) for line, cells in rows]


def _columns(file: str, rows: Sequence[Row], guess: Guess) -> TaskColumns | None:
    """Ask for what the names leave open. None until all is said.

    Keys contain the file name, so that each file gets its guess.
    """
    names = question_files.columns_of(rows)

    def column(label: str, role: Literal["question", "answer"]) -> str:
        value = getattr(guess.columns, role)
        chosen = st.selectbox(
            label,
            names,
            index=names.index(value) if value in names else None,
            placeholder="Choose a column",
            key=f"own_{role}_{file}",
            help=glossary.TERMS[f"own_{role}"],
        )
        if chosen is None:
            _say(f"{guess.doubts[role]} Choose it here.")
        return chosen or ""

    question, answer = column("Question", "question"), column("Answer", "answer")
    if not (question and answer):
        return None
    guess = question_columns.guess_columns(file, rows, question=question, answer=answer)
    way = st.segmented_control(
        "The answer is",
        list(WAYS),
        default=None if "choices" in guess.doubts else guess.columns.way,
        required=True,
        format_func=lambda key: WAYS[key],
        key=f"own_way_{file}",
        wrap=True,
    )
    if way is None:
        _say(f"{guess.doubts['choices']} Say whether the model chooses or writes.")
        return None
    choices: list[str] = []
    if way == "choices":
        choices = st.multiselect(
            "Choices",
            names,
            list(guess.columns.choices),
            key=f"own_choices_{file}",
            help=glossary.TERMS["own_choices"],
        )
        if not choices:
            _say("Name the columns of the choices: one with lists, or one for each choice.")
            return None
    return TaskColumns(way=way, question=question, choices=tuple(choices), answer=answer)


def _questions(file: str, rows: Sequence[Row], columns: TaskColumns) -> Questions | None:
    """The file's questions. Asks how answers name a choice if the file leaves it open.

    Raises:
        BadInput: Rows are invalid.
    """
    try:
        return custom.read_questions(file, rows, columns)
    except AmbiguousAnswers as error:
        ambiguous = error
    reading: Reading | None = st.selectbox(
        "Answers are",
        ambiguous.readings,
        index=None,
        placeholder="Choose one",
        format_func=lambda key: READINGS[key],
        key=f"own_answer_as_{file}",
        help=glossary.TERMS["own_answer_as"],
    )
    if reading is None:
        _say(str(ambiguous))
        return None
    return custom.read_questions(file, rows, columns.model_copy(update={"answer_as": reading}))


def _first_rows(rows: Sequence[Row]) -> None:
    """The file as it is, for whoever has to name its columns."""
    st.caption("The first rows of the file:")
    st.dataframe(
        [{column: str(cell) for column, cell in row.cells.items()} for row in rows[:SHOWN]],
        hide_index=True,
    )


def _preview(questions: Questions) -> None:
    num = text_format.plural(len(questions.documents), "document")
    st.caption(text_format.md(f"{num}. {questions.in_words()} The first as a model sees them:"))
    shown = custom.preview_questions(questions.documents, SHOWN)
    st.html("".join(map(answer_card.question_card, shown)))


def _add(file: str, questions: Questions, existing: Collection[str]) -> None:
    """Ask for the task's name, and add it on request."""
    default_name = custom.suggest_name(file)[:60]
    name = st.text_input("Task name", default_name, key=f"own_name_{file}", max_chars=60)
    exists = custom.task_exists(name)
    just_added = exists and st.session_state.get(ADDED) == (file, name)
    if just_added:
        num = text_format.plural(len(questions.documents), "document")
        st.success(
            f"**{text_format.md(name)}** was added with {num}. *Use in a run* is below.",
            icon=":material/check:",
        )
    if exists and not st.checkbox(
        f"Replace your task {text_format.md(name)}",
        key="own_replace",
        help=glossary.TERMS["replace"],
    ):
        if not just_added:
            st.info("You already have a task of that name. Choose another name, or replace it.")
        return
    if not st.button("Add the task", key="own_add", type="primary", icon=":material/add:"):
        return
    custom.add_task(name, questions.documents, origin=file, taken=existing, replace=exists)
    st.session_state["find"] = st.session_state["named"] = name
    st.session_state["tasks_chosen"] = []
    st.session_state[ADDED] = (file, name)
    st.toast(f"{text_format.md(name)} was added.", icon=":material/check:")
    st.rerun()
