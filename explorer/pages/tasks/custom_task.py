"""Add a custom task: upload a file, name its columns, preview its questions, add it."""

from collections.abc import Collection, Sequence

import streamlit as st

from explorer.errors import ExplorerError
from explorer.pages.shared import answer_card, glossary, text_format
from explorer.tasks import custom

WAYS = {"choices": "One of several choices", "written": "Generated text"}


def custom_task_form(existing: Collection[str]) -> None:
    """The form. A task that was added is shown in detail next.

    Args:
        existing: Names that other tasks have.
    """
    with st.expander("Add your own task", icon=":material/add:", key="own_task"):
        upload = st.file_uploader(
            "Questions as .jsonl or .csv, one row per question",
            type=list(custom.KINDS),
            max_upload_size=custom.MAX_MB,
            key="own_file",
            help=glossary.TERMS["own_task"],
        )
        if upload is None:
            st.caption(
                'One row per question, such as {"question": "2 + 2 =", "choices": ["3", "4"], '
                '"answer": "4"} or {"prompt": "The capital of France is", "target": "Paris"}.'
            )
            return
        try:
            _configure(upload.name, upload.getvalue(), existing)
        except ExplorerError as error:
            st.error(text_format.md(str(error)), icon=":material/error:")


def _configure(file: str, content: bytes, existing: Collection[str]) -> None:
    rows = custom.read_rows(file, content)
    names = custom.columns_of(rows)
    left, right = st.columns([2, 3], gap="large")
    with left:
        columns = _columns(file, names, custom.guess_columns(names))
        default_name = custom.suggest_name(file)[:60]
        name = st.text_input("Task name", default_name, key=f"own_name_{file}", max_chars=60)
        exists = custom.task_exists(name)
        replace = exists and st.checkbox(
            f"Replace your task {text_format.md(name)}",
            key="own_replace",
            help=glossary.TERMS["replace"],
        )
        place = st.empty()
    with right:
        documents = custom.documents(file, rows, columns)
        st.caption(
            f"{text_format.plural(len(documents), 'document')}. The first as a model sees them:"
        )
        st.html(
            "".join(answer_card.question_card(q) for q in custom.preview_questions(documents, 2))
        )
    if exists and not replace:
        place.info("You already have a task of that name. Choose another name, or replace it.")
    elif place.button("Add the task", key="own_add", type="primary", icon=":material/add:"):
        custom.add_task(name, documents, origin=file, taken=existing, replace=bool(replace))
        st.session_state["find"] = st.session_state["named"] = name
        st.session_state["tasks_chosen"] = []
        st.toast(f"{text_format.md(name)} was added.", icon=":material/check:")
        st.rerun()


def _columns(file: str, names: Sequence[str], guessed: custom.TaskColumns) -> custom.TaskColumns:
    """Ask what the columns mean. Keys contain the file name, so that each file gets its guess."""

    def column(label: str, key: str, value: str) -> str:
        return str(
            st.selectbox(
                label,
                names,
                index=names.index(value) if value in names else 0,
                key=f"own_{key}_{file}",
                help=glossary.TERMS[f"own_{key}"],
            )
        )

    way = st.segmented_control(
        "The answer is",
        list(WAYS),
        default=guessed.way,
        required=True,
        format_func=lambda key: WAYS[key],
        key=f"own_way_{file}",
        wrap=True,
    )
    question = column("Question", "question", guessed.question)
    choices: list[str] = []
    if way == "choices":
        choices = st.multiselect(
            "Choices",
            names,
            list(guessed.choices),
            key=f"own_choices_{file}",
            help=glossary.TERMS["own_choices"],
        )
    answer = column("Answer", "answer", guessed.answer)
    return custom.TaskColumns(way=way, question=question, choices=tuple(choices), answer=answer)
