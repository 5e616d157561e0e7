"""Import lm-eval results: uploaded files become a run, as with `explorer import`."""

import tempfile
from pathlib import Path

import streamlit as st

from explorer.errors import ExplorerError
from explorer.pages.shared import glossary, text_format, widgets
from explorer.processes import limited_process

NO_TEACHER = "None: this model is a teacher"
OUTCOME = "import_outcome"
"""Session key of the last import's outcome: error, run id, files that were left out."""
CHOICES = "import_choices"
"""Session key of the evaluations that the last files hold, if they hold several."""
COMBINED = "All of them, as one run"


def import_popover(root: Path, runs: list[str]) -> None:
    """A popover with the import form; absent from a read-only dashboard.

    Args:
        root: The store.
        runs: Ids of possible teachers of the imported model.
    """
    if widgets.read_only():
        return
    with st.popover("Import", icon=":material/upload:", key="import_open"):
        uploads = st.file_uploader(
            text_format.md(
                "lm-eval's results_*.json and samples_*.jsonl, or a zip of its output folder; "
                "perhaps timings of the same model (guidellm, AIPerf or vLLM's bench)"
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
        device = st.text_input(
            "Device of the timings", key="import_device", help=glossary.TERMS["import_device"]
        )
        choices = st.session_state.get(CHOICES)
        chosen = (
            st.selectbox(
                "Evaluation",
                choices,
                key="import_only",
                help=glossary.TERMS["import_only"],
            )
            if choices and uploads
            else ""
        )
        if uploads:
            st.button(
                "Import",
                type="primary",
                key="import_go",
                on_click=lambda: _import(
                    root, name, None if teacher == NO_TEACHER else teacher, chosen or "", device
                ),
            )


def show_outcome() -> None:
    """Report, once, what the last import did."""
    outcome = st.session_state.pop(OUTCOME, None)
    if outcome is None:
        return
    error, run_id, problems = outcome
    if error:
        st.error(text_format.md(error), icon=":material/error:")
        return
    st.success(f"Imported as **{text_format.md(run_id)}**.", icon=":material/check:")
    for problem in problems[:20]:
        st.caption(text_format.md(problem))
    if len(problems) > 20:
        st.caption(f"and {len(problems) - 20:,} more, all listed when you open the run.")


def _import(root: Path, name: str, teacher: str | None, chosen: str, device: str) -> None:
    """Import before the page is drawn again, so that the new run is among its choices."""
    uploads = st.session_state["import_files"]
    st.session_state.pop(CHOICES, None)
    combine = chosen == COMBINED
    shown = uploads[0].name if len(uploads) == 1 else text_format.plural(len(uploads), "file")
    with tempfile.TemporaryDirectory(prefix="explorer-import-") as folder:
        files = []
        for i, upload in enumerate(uploads):
            path = Path(folder) / f"upload-{i}"  # a name of our own: theirs may be anything
            path.write_bytes(upload.getbuffer())
            files.append((upload.name, str(path)))
        try:
            outcome = limited_process.call(
                "explorer.lm_eval_io.upload:import_uploads",
                shown,
                folder=folder,
                root=str(root),
                files=files,
                run_name=name.strip(),
                teacher=teacher,
                only="" if combine else chosen,
                combine=combine,
                device=device.strip() or None,
            )
        except ExplorerError as error:
            st.session_state[OUTCOME] = (str(error), "", [])
            return
    if "choices" in outcome:
        st.session_state[CHOICES] = [
            *outcome["choices"],
            *([COMBINED] if outcome["can_combine"] else []),
        ]
        advice = "Choose one under Import, or other files."
        st.session_state[OUTCOME] = (f"{outcome['found']} {advice}", "", [])
        return
    run_id = outcome["run_id"]
    widgets.index(root).refresh()
    st.session_state[OUTCOME] = ("", run_id, outcome["problems"])
    st.session_state["runs"] = [*st.session_state.get("runs", []), run_id]
