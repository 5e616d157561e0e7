"""Hide, delete and restore runs on a page."""

from pathlib import Path

import streamlit as st

from explorer import jobs
from explorer.pages.shared import text_format, widgets
from explorer.store import trash

HIDE, SHOW, DELETE = "Hide", "Show again", "Delete"
ICONS = {HIDE: "visibility_off", SHOW: "visibility", DELETE: "delete"}
JUST_DELETED = "just_deleted"
"""Session key of the run that was deleted last, for the offer to undo it."""
MAX_LISTED = 50


def run_menu(root: Path, run_id: str, *, place: str) -> None:
    """A menu that hides, shows or deletes a run; absent from a read-only dashboard.

    Args:
        root: The store.
        run_id: A run that is not active.
        place: Where the menu stands; part of its key.
    """
    if widgets.read_only():
        return
    hidden = run_id in widgets.load(root).hidden
    key = f"{place}_remove_{run_id}"
    st.menu_button(
        "More",
        [SHOW if hidden else HIDE, DELETE],
        key=key,
        format_func=lambda action: f":material/{ICONS[action]}: {action}",
        help="Hide this run, or delete it. Both can be undone.",
        on_click=lambda: _act(root, run_id, st.session_state[key]),
    )


def _act(root: Path, run_id: str, action: str | None) -> None:
    """Do what was chosen, before the page is drawn again."""
    if action == HIDE:
        widgets.attempt(lambda: trash.hide(root, [run_id]))
    elif action == SHOW:
        widgets.attempt(lambda: trash.unhide(root, [run_id]))
    elif action == DELETE:
        delete(root, run_id)
    if action == HIDE and widgets.picked_run() == run_id:
        widgets.pick_run(None)
    widgets.index(root).refresh()


def delete(root: Path, run_id: str) -> None:
    """Move a run to the trash; the page then offers to undo it."""
    if widgets.attempt(lambda: jobs.delete(root, [run_id])):
        st.session_state[JUST_DELETED] = run_id
    if widgets.picked_run() == run_id:
        widgets.pick_run(None)
    widgets.index(root).refresh()


def undo_offer(root: Path) -> None:
    """After a deletion: what was deleted, and a button that restores it."""
    run_id = st.session_state.get(JUST_DELETED)
    if run_id is None or all(entry.run_id != run_id for entry in trash.deleted_runs(root)):
        return
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.markdown(f"Deleted **{text_format.md(run_id)}**.{_effect_on_students(root, run_id)}")
        st.button(
            "Undo",
            key=f"undo_{run_id}",
            icon=":material/undo:",
            on_click=_restore,
            args=(root, run_id),
        )


def _effect_on_students(root: Path, run_id: str) -> str:
    """A sentence on the students that lose their teacher; empty if there are none."""
    runs = widgets.load_runs(root)
    num_students = int((runs["teacher_run_id"] == run_id).sum())
    if not num_students:
        return ""
    them = "It" if num_students == 1 else "They"
    return (
        f" It was the teacher of {text_format.plural(num_students, 'run')}. {them} can't be "
        "compared without it."
    )


def _restore(root: Path, run_id: str) -> None:
    widgets.attempt(lambda: trash.restore(root, run_id))
    widgets.index(root).refresh()


def trash_list(root: Path) -> None:
    """The deleted runs, each with a button that restores it; nothing if the trash is empty."""
    entries = trash.deleted_runs(root)
    if not entries:
        return
    title = f"Trash: {text_format.plural(len(entries), 'deleted run')}"
    with st.expander(title, icon=":material/delete:", key="trash"):
        for entry in entries[:MAX_LISTED]:
            name, action = st.columns([6, 2], vertical_alignment="center")
            name.markdown(
                f"**{text_format.md(entry.run_id)}** deleted {text_format.ago(entry.deleted_at)}"
            )
            if not widgets.read_only():
                action.button(
                    "Restore",
                    key=f"restore_{entry.folder.name}",
                    icon=":material/undo:",
                    width="stretch",
                    on_click=_restore,
                    args=(root, entry.run_id),
                )
        if len(entries) > MAX_LISTED:
            st.caption(
                f"and {len(entries) - MAX_LISTED:,} earlier ones: `explorer trash` lists all."
            )
        st.caption("To delete them for good: `explorer trash --empty`.")
