"""Buttons that hand something to the queue: the page answers at once and shows how far it is.

The work is done in the background (`jobs.submission`), so neither a changed widget nor a closed
tab breaks it off, and every tab shows it.
"""

from collections.abc import Collection
from pathlib import Path

import streamlit as st

from explorer import jobs
from explorer.jobs import submission
from explorer.jobs.submission import Action
from explorer.pages.shared import text_format
from explorer.specs import RunSpec

START = "start"
"""The key of the Run page's order, and of the starter sweep, which is one."""
TOURNAMENT = "tournament"
POLL_S = 0.5
DRAWN_S = 0.15
"""What the browser gets to show a part of the page before all of it is drawn anew."""
PRESSED = "submitting_pressed"
"""What this session has pressed and not yet heard of, by key."""


def begin(root: Path, key: str, title: str, action: Action) -> None:
    """Start handing something to the queue; a second press of the same button does nothing.

    Args:
        root: The store.
        key: What was pressed.
        title: What is handed over, as in `3 runs`.
        action: Does it.
    """
    submission.begin(root, key, title, action)
    st.session_state.setdefault(PRESSED, set()).add(key)


def begin_runs(root: Path, key: str, specs: list[RunSpec]) -> None:
    """Start handing runs to the queue."""
    title = text_format.plural(len(specs), "run")
    begin(root, key, title, lambda on_progress: jobs.submit(specs, root, on_progress))


def begin_again(root: Path, run_id: str) -> None:
    """Start putting a run back into the queue."""
    begin(root, key_of(run_id), run_id, lambda on_progress: jobs.resume(root, run_id, on_progress))


def key_of(run_id: str) -> str:
    """The key of the buttons that put this run or tournament back into the queue."""
    return f"again {run_id}"


def is_running(root: Path, key: str | None = None) -> bool:
    """Whether what this key stands for is under way; without a key, whether anything is."""
    return any(key in (None, each.key) for each in submission.running(root))


def start_button(root: Path, specs: list[RunSpec], label: str, *, ready: bool) -> None:
    """The Run page's button, which says what it does from the press to the end.

    Args:
        root: The store.
        specs: The runs that it starts.
        label: What it says before it is pressed.
        ready: Whether it may be pressed.
    """
    running = is_running(root, START)
    fragment = st.fragment(_start_button, run_every=POLL_S if running else None)
    fragment(root, specs, label, ready, running)


def _start_button(
    root: Path, specs: list[RunSpec], label: str, ready: bool, was_running: bool
) -> None:
    running = is_running(root, START)
    st.button(
        "Starting…" if running else label,
        key="run_start",
        type="primary",
        width="stretch",
        disabled=running or not ready,
        icon=":material/hourglass_top:" if running else ":material/play_arrow:",
        on_click=begin_runs,
        args=(root, START, specs),
    )
    lines(root, only=(START,))
    if running != was_running:
        redraw(root)


def lines(root: Path, *, only: Collection[str] = (), but: Collection[str] = ()) -> None:
    """A line for each submission that is under way or has failed.

    Args:
        root: The store.
        only: Keys to show; empty shows all.
        but: Keys that are shown elsewhere.
    """
    _toasts(root)
    for each in submission.running(root):
        if (not only or each.key in only) and each.key not in but:
            share = each.done / each.total if each.total else 0.0
            title = "" if each.key in only else f"{each.title}: "
            st.progress(share, text_format.md(f"{title}{each.in_words()}"))
    for each in submission.failed(root):
        if (not only or each.key in only) and each.key not in but:
            with st.container(key=f"submitting_{each.key.replace(' ', '-').replace('.', '-')}"):
                st.error(text_format.md(str(each.error)), icon=":material/error:")
                st.button(
                    "Close",
                    key=f"submitting_close_{each.key}",
                    icon=":material/close:",
                    type="tertiary",
                    on_click=submission.dismiss,
                    args=(root, each.key),
                )


def redraw(root: Path) -> None:
    """Draw the whole page anew, once the browser had time to show what this part has drawn."""
    for each in submission.running(root)[:1]:
        each.wait(DRAWN_S)
    st.rerun()


def _toasts(root: Path) -> None:
    """Say of what this session pressed that it is in the queue, once."""
    pressed: set[str] = st.session_state.get(PRESSED, set())
    for key in list(pressed):
        latest = submission.find(root, key)
        if latest is None or not latest.is_running:
            pressed.discard(key)
        if latest and not latest.is_running and not latest.error:
            st.toast(f"In the queue: {text_format.md(latest.title)}", icon=":material/check:")
