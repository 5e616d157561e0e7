"""The tasks to evaluate on; the page's address can fill them in."""

from typing import Any

import streamlit as st

from explorer import paths
from explorer.consent import user_config
from explorer.index import Snapshot
from explorer.pages.run.students_form import COLUMN_WIDTHS
from explorer.pages.shared import glossary, text_format

HELP = glossary.TERMS
TASKS_PARAMETER, FOLDER_PARAMETER = "test_with", "more_tasks"
"""Query parameters with which the Tasks page opens this page."""


def tasks_and_limit(snapshot: Snapshot) -> dict[str, Any]:
    """Ask for the tasks and the number of documents per task."""
    left, right = st.columns(COLUMN_WIDTHS)
    _warn_of_unlisted_folder()
    _fill_from_address("run_tasks", st.query_params.get_all(TASKS_PARAMETER))
    chosen = st.session_state.setdefault("run_tasks", ["starter"])
    tasks = left.multiselect(
        "Evaluate on",
        list(dict.fromkeys(["starter", *chosen, *snapshot.tasks])),
        key="run_tasks",
        accept_new_options=True,
        help=HELP["tasks"],
    )
    limit = right.number_input(
        "Documents per task",
        min_value=1,
        value=None,
        key="run_limit",
        placeholder="all",
        help=HELP["limit"],
    )
    return {"tasks": tasks, "limit": limit}


def task_folder() -> str:
    """Ask for a folder with more tasks: a configured one, or a typed path; empty for none.

    The address can only name a configured folder.
    """
    folders = user_config.task_folders()
    name = st.query_params.get(FOLDER_PARAMETER, "")
    if name in folders:
        _fill_from_address("run_include_path", name)
    chosen = st.selectbox(
        "Folder with more tasks",
        list(folders),
        index=None,
        key="run_include_path",
        accept_new_options=True,
        placeholder="None",
        help=HELP["include_path"],
    )
    return str(folders.get(chosen or "", chosen or ""))


def _warn_of_unlisted_folder() -> None:
    name = st.query_params.get(FOLDER_PARAMETER, "")
    if name and name not in user_config.task_folders():
        st.warning(
            text_format.md(
                f"The address names the task folder {name!r:.80}, which is not listed under "
                f"task_folders in {paths.config_file()}. It was not read."
            ),
            icon=":material/shield:",
        )


def _fill_from_address(key: str, value: list[str] | str) -> None:
    """Let the address fill a widget once, so that later changes by hand stay."""
    if value and st.session_state.get(f"{key}_from_address") != value:
        st.session_state[key] = st.session_state[f"{key}_from_address"] = value
