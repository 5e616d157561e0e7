"""A task of one's own: a file dropped, its columns named, its first questions seen, then added."""

from collections.abc import Collection, Sequence

import streamlit as st

from explorer.errors import ExplorerError
from explorer.pages.shared import answer_card, glossary, text_format
from explorer.tasks import custom

WAYS = {"choices": "One of several choices", "written": "A text that the model writes"}


def show(taken: Collection[str]) -> None:
    """The form; a task that was added is looked at next."""
    with st.expander("Add a task of your own", icon=":material/add:", key="own_task"):
        upload = st.file_uploader(
            "Questions as .jsonl or .csv, a row each",
            type=list(custom.KINDS),
            max_upload_size=custom.MAX_MB,
            key="own_file",
            help=glossary.TERMS["own_task"],
        )
        if upload is None:
            st.caption(
                'For example {"question": "2 + 2 =", "choices": ["3", "4"], "answer": "4"} or '
                '{"prompt": "The capital of France is", "target": "Paris"} in a line.'
            )
            return
        try:
            _ask(upload.name, upload.getvalue(), taken)
        except ExplorerError as error:
            st.error(text_format.md(str(error)), icon=":material/error:")


def _ask(file: str, content: bytes, taken: Collection[str]) -> None:
    rows = custom.read(file, content)
    names = custom.columns_of(rows)
    left, right = st.columns([2, 3], gap="large")
    with left:
        columns = _columns(file, names, custom.guess(names))
        usual = custom.name_of(file)[:60]
        name = st.text_input("Name of the task", usual, key=f"own_name_{file}", max_chars=60)
        mine = custom.exists(name)
        replace = mine and st.checkbox(
            f"Replace your task {text_format.md(name)}",
            key="own_replace",
            help=glossary.TERMS["replace"],
        )
        place = st.empty()
    with right:
        found = custom.documents(file, rows, columns)
        st.caption(
            f"{text_format.plural(len(found), 'document')}; the first as a model is asked them:"
        )
        st.html("".join(answer_card.question(one) for one in custom.questions(found, 2)))
    if mine and not replace:
        place.info("There is a task of that name. Choose another, or replace it.")
    elif place.button("Add the task", key="own_add", type="primary", icon=":material/add:"):
        custom.add(name, found, origin=file, taken=taken, replace=bool(replace))
        st.session_state["find"] = st.session_state["named"] = name
        st.session_state["tasks_chosen"] = []
        st.toast(f"{text_format.md(name)} is in the list.", icon=":material/check:")
        st.rerun()


def _columns(file: str, names: Sequence[str], guessed: custom.Columns) -> custom.Columns:
    """The columns' meaning; keys carry the file, so that another file is guessed anew."""

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
    return custom.Columns(way=way, question=question, choices=tuple(choices), answer=answer)
