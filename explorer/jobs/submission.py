"""Submits to the queue in the background of a page, with progress and outcome.

The first submission starts the queue's engine, which can take half a minute. A page has to answer
at once, and Streamlit interrupts its script whenever a widget changes. So a thread does the work,
and every page of the process can show its progress:

    def submit(on_progress): jobs.submit(specs, root, on_progress)

    submission.begin(root, "start", "3 runs", submit)
    submission.find(root, "start").in_words()
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from explorer.errors import ExplorerError
from explorer.jobs.queue import SAVING, OnProgress

log = logging.getLogger("explorer")

Action = Callable[[OnProgress], Any]
"""Submits something and reports its progress."""


@dataclass(eq=False)
class Submission:
    """One press of a button, from the press to its outcome."""

    key: str
    """The button; only one submission per key runs at a time."""
    title: str
    """What is submitted, such as `3 runs`."""
    step: str = SAVING
    done: int = 0
    total: int = 0
    error: str | None = None
    """Why it failed, in one sentence; None while it runs and if it succeeded."""
    began_s: float = field(default_factory=time.monotonic)
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return not self._ended.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Block until it ends, at most `timeout_s`; returns whether it has ended."""
        return self._ended.wait(timeout_s)

    def in_words(self) -> str:
        """The step and the seconds since the press: `Submitted 2 of 3, 7 s so far`."""
        return f"{self.step}, {time.monotonic() - self.began_s:.0f}\u00a0s so far"

    def on_progress(self, step: str, done: int, total: int) -> None:
        """Remember the present step."""
        self.step, self.done, self.total = step, done, total

    def run(self, action: Action) -> None:
        """Run the action and keep its outcome."""
        try:
            action(self.on_progress)
        except ExplorerError as error:
            self.error = str(error)
        except Exception as error:
            log.exception("Could not submit %s", self.title)
            self.error = (
                f"{self.title} could not be submitted: {type(error).__name__}: {error}. This is a "
                "bug in the explorer; the dashboard's own output has the traceback."
            )
        finally:
            self._ended.set()


_submissions: dict[tuple[Path, str], Submission] = {}
_lock = threading.Lock()


def begin(root: Path, key: str, title: str, action: Action) -> Submission:
    """Start submitting in the background, and return at once.

    Args:
        root: The store.
        key: The button; a submission of this key that still runs is left alone and returned.
        title: What is submitted, such as `3 runs`.
        action: Submits it.
    """
    with _lock:
        current = _submissions.get((root, key))
        if current and current.is_running:
            return current
        submission = _submissions[root, key] = Submission(key, title)
    in_background(lambda: submission.run(action))
    return submission


def in_background(work: Callable[[], None]) -> None:
    """Run something in a thread; the process ends only after it."""
    threading.Thread(target=work, name="submission").start()


def find(root: Path, key: str) -> Submission | None:
    """The latest submission of a key; None if there was none or it was dismissed."""
    return _submissions.get((root, key))


def running(root: Path) -> list[Submission]:
    """The submissions of a store that still run, in the order of their presses."""
    return [submission for submission in _of(root) if submission.is_running]


def failed(root: Path) -> list[Submission]:
    """The submissions of a store that failed and were not dismissed."""
    return [
        submission for submission in _of(root) if submission.error and not submission.is_running
    ]


def dismiss(root: Path, key: str) -> None:
    """Remove a submission that has ended from the list."""
    with _lock:
        current = _submissions.get((root, key))
        if current and not current.is_running:
            del _submissions[root, key]


def _of(root: Path) -> list[Submission]:
    with _lock:
        return [submission for (store, _), submission in _submissions.items() if store == root]
