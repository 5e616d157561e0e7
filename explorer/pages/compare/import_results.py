"""Results from elsewhere: files dropped on the page become a run, as by `explorer import`."""

from pathlib import Path

import streamlit as st

from explorer.errors import ExplorerError
from explorer.lm_eval_io import import_run, upload
from explorer.pages.shared import glossary, text_format, widgets

NO_TEACHER = "none: it is a teacher itself"
SAID = "import_said"
"""What became of the last import, in the session: a sentence, and what was left out."""


def button(root: Path, runs: list[str]) -> None:
    """The form behind one button; nothing where the dashboard is read-only.

    Args:
        root: The store.
        runs: Ids of the runs that the imported model may be a student of.
    """
    if widgets.read_only():
        return
    with st.popover("Import", icon=":material/upload:", key="import_open"):
        uploads = st.file_uploader(
            text_format.md(
                "lm-eval's results_*.json and samples_*.jsonl, or a zip of its output folder"
            ),
            type=["json", "jsonl", "zip"],
            accept_multiple_files=True,
            key="import_files",
        )
        name = st.text_input(
            "Name", "imported", key="import_name", help=glossary.TERMS["import_name"]
        )
        teacher = st.selectbox(
            "Teacher", [NO_TEACHER, *runs], key="import_teacher", help=glossary.TERMS["teacher"]
        )
        if uploads:
            st.button(
                "Import",
                type="primary",
                key="import_go",
                on_click=lambda: _bring(root, name, None if teacher == NO_TEACHER else teacher),
            )


def outcome() -> None:
    """What the import that was just asked for has done, in the page's own width."""
    said = st.session_state.pop(SAID, None)
    if said is None:
        return
    error, run_id, problems = said
    if error:
        st.error(text_format.md(error), icon=":material/error:")
        return
    st.success(f"Imported as **{text_format.md(run_id)}**.", icon=":material/check:")
    for problem in problems[:20]:
        st.caption(text_format.md(problem))
    if len(problems) > 20:
        st.caption(f"and {len(problems) - 20:,} more; the opened run lists them all.")


def _bring(root: Path, name: str, teacher: str | None) -> None:
    """Before the page is drawn again, so that the new run is in its choices."""
    uploads = {one.name: one for one in st.session_state["import_files"]}
    try:
        with upload.unpacked(uploads) as folder:
            run_id, problems = import_run.import_folder(root, folder, name.strip(), teacher)
    except ExplorerError as error:
        st.session_state[SAID] = (str(error), "", [])
        return
    widgets.index(root).look_again()
    st.session_state[SAID] = ("", run_id, problems)
    st.session_state["runs"] = [*st.session_state.get("runs", []), run_id]
