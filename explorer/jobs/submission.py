"""Something on its way to the queue, in the background: what, how far, what became of it.

The first submission starts the queue's engine, which can take half a minute. A page must
answer at once, and what it runs is interrupted whenever a widget changes. So the work is
done by a thread of its own, and every page of the process can see how far it is:

    submission.begin(root, "start", "3 runs", lambda on_progress: jobs.submit(specs, root,
                                                                              on_progress))
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
from explorer.jobs.queue import WRITING, OnProgress

log = logging.getLogger("explorer")

Action = Callable[[OnProgress], Any]
"""Hands something to the queue and tells how far it is."""


@dataclass(eq=False)
class Submission:
    """One press of a button, from the press to what came of it."""

    key: str
    """What was pressed: of one key only one is under way at a time."""
    title: str
    """What is handed over, as in `3 runs`."""
    step: str = WRITING
    done: int = 0
    total: int = 0
    error: str | None = None
    """Why it failed, in one sentence; None while it is under way and where it went well."""
    began_s: float = field(default_factory=time.monotonic)
    _over: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def is_running(self) -> bool:
        """Whether it is still under way."""
        return not self._over.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Block until it is over, at most so long; whether it is."""
        return self._over.wait(timeout_s)

    def in_words(self) -> str:
        """The step and the seconds since the press: `Handed over 2 of 3, 7 s so far`."""
        return f"{self.step}, {time.monotonic() - self.began_s:.0f}\u00a0s so far"

    def on_progress(self, step: str, done: int, total: int) -> None:
        """Take down how far it is."""
        self.step, self.done, self.total = step, done, total

    def run(self, action: Action) -> None:
        """Do the action and keep what becomes of it."""
        try:
            action(self.on_progress)
        except ExplorerError as error:
            self.error = str(error)
        except Exception as error:
            log.exception("Could not submit %s", self.title)
            self.error = (
                f"{self.title} could not be submitted: {type(error).__name__}: {error}. This is a "
                "bug in the explorer; what the dashboard printed has more of it."
            )
        finally:
            self._over.set()


_known: dict[tuple[Path, str], Submission] = {}
_lock = threading.Lock()


def begin(root: Path, key: str, title: str, action: Action) -> Submission:
    """Start submitting in the background, and return at once.

    Args:
        root: The store.
        key: What was pressed; one of this key that is under way is left alone and returned.
        title: What is handed over, as in `3 runs`.
        action: Does it.
    """
    with _lock:
        current = _known.get((root, key))
        if current and current.is_running:
            return current
        mine = _known[root, key] = Submission(key, title)
    in_background(lambda: mine.run(action))
    return mine


def in_background(work: Callable[[], None]) -> None:
    """Do something in a thread; a process that is told to end finishes it first."""
    threading.Thread(target=work, name="submission").start()


def find(root: Path, key: str) -> Submission | None:
    """The latest submission of a key; None where there was none or it was forgotten."""
    return _known.get((root, key))


def running(root: Path) -> list[Submission]:
    """The submissions of a store that are not over, in the order of their presses."""
    return [each for each in _of(root) if each.is_running]


def failed(root: Path) -> list[Submission]:
    """The submissions of a store that ended in an error and were not forgotten."""
    return [each for each in _of(root) if not each.is_running and each.error]


def dismiss(root: Path, key: str) -> None:
    """Take a submission that is over out of the list."""
    with _lock:
        current = _known.get((root, key))
        if current and not current.is_running:
            del _known[root, key]


def _of(root: Path) -> list[Submission]:
    with _lock:
        return [each for (where, _), each in _known.items() if where == root]
