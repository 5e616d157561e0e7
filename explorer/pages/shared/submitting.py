"""Buttons that submit runs to the queue: the page responds at once and shows progress.

Submission runs in the background (`jobs.submission`): changing a widget or closing the tab does
not interrupt it, and every tab shows it.
"""

from collections.abc import Collection
from pathlib import Path

import streamlit as st

from explorer import jobs
from explorer.jobs import submission
from explorer.jobs.queue import OnProgress
from explorer.jobs.submission import Action
from explorer.pages.shared import findings, text_format, widgets
from explorer.specs import RunSpec

START = "start"
"""Key of the runs that the Run page's form or the starter sweep submits."""
TOURNAMENT = "tournament"
CHECKING = "Checking files, tasks and endpoints"
POLL_S = 0.5
REDRAW_DELAY_S = 0.15
"""Time for the browser to show a fragment before the whole page is drawn again."""
PRESSED = "submitting_pressed"
"""Session key of the submissions that this session has started and not yet reported."""


def begin(root: Path, key: str, title: str, action: Action) -> None:
    """Start a submission in the background; a second press of the same button does nothing.

    Args:
        root: The store.
        key: Identifies the button.
        title: What is submitted, such as `3 runs`.
        action: Submits it.
    """
    submission.begin(root, key, title, action)
    st.session_state.setdefault(PRESSED, set()).add(key)


def begin_runs(root: Path, key: str, specs: list[RunSpec]) -> None:
    """Start checking runs and submitting them to the queue."""

    def submit(on_progress: OnProgress) -> None:
        on_progress(CHECKING, 0, 0)
        findings.refuse(specs, root)
        jobs.submit(specs, root, on_progress)

    begin(root, key, text_format.plural(len(specs), "run"), submit)


def begin_again(root: Path, run_id: str) -> None:
    """Start putting a run back in the queue."""
    begin(root, key_of(run_id), run_id, lambda on_progress: jobs.resume(root, run_id, on_progress))


def run_again(root: Path, run_id: str) -> None:
    """Put a run back in the queue and go to the Run page, which shows its progress."""
    begin_again(root, run_id)
    # Streamlit refuses to leave a page whose widgets are bound to its address, unless the address
    # is given.
    st.switch_page(widgets.RUN, query_params={})


def key_of(run_id: str) -> str:
    """Key of the buttons that put this run or tournament back in the queue."""
    return f"again {run_id}"


def is_running(root: Path, key: str | None = None) -> bool:
    """Whether the submission with this key is in progress; without a key, whether any is."""
    return any(key in (None, item.key) for item in submission.running(root))


def start_button(root: Path, specs: list[RunSpec], label: str, *, ready: bool) -> None:
    """The Run page's Start button; it shows progress from the press until all runs are queued.

    Args:
        root: The store.
        specs: The runs to start.
        label: The label before it is pressed.
        ready: Whether it is enabled.
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
    progress_lines(root, only=(START,))
    if running != was_running:
        redraw(root)


def progress_lines(
    root: Path, *, only: Collection[str] = (), exclude: Collection[str] = ()
) -> None:
    """A line for each submission that is in progress or has failed.

    Args:
        root: The store.
        only: Keys to show; empty shows all.
        exclude: Keys that are shown elsewhere.
    """
    _toasts(root)
    for item in submission.running(root):
        if (not only or item.key in only) and item.key not in exclude:
            share = item.done / item.total if item.total else 0.0
            title = "" if item.key in only else f"{item.title}: "
            st.progress(share, text_format.md(f"{title}{item.in_words()}"))
    for item in submission.failed(root):
        if (not only or item.key in only) and item.key not in exclude:
            with st.container(key=f"submitting_{item.key.replace(' ', '-').replace('.', '-')}"):
                st.error(text_format.md(str(item.error)), icon=":material/error:")
                st.button(
                    "Close",
                    key=f"submitting_close_{item.key}",
                    icon=":material/close:",
                    type="tertiary",
                    on_click=submission.dismiss,
                    args=(root, item.key),
                )


def redraw(root: Path) -> None:
    """Draw the whole page again, once the browser had time to show the current fragment."""
    for item in submission.running(root)[:1]:
        item.wait(REDRAW_DELAY_S)
    st.rerun()


def _toasts(root: Path) -> None:
    """Report once that what this session submitted is in the queue."""
    pressed: set[str] = st.session_state.get(PRESSED, set())
    for key in list(pressed):
        latest = submission.find(root, key)
        if latest is None or not latest.is_running:
            pressed.discard(key)
        if latest and not latest.is_running and not latest.error:
            st.toast(f"In the queue: {text_format.md(latest.title)}", icon=":material/check:")
