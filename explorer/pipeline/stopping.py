"""Stops a run within seconds, also in a stage that does not ask whether it should.

A stage asks at each progress update and then stops with a checkpoint. Between two updates it may
load a model, wait for a lock or take a long step. So a thread asks, too: a run that has not heard
of a request after `GRACE_S` is interrupted in its main thread, as by Ctrl-C. What it was doing is
undone or done again later; every file of a store appears whole or not at all.

The system may hand a signal to any thread. Python acts on it in the main one, which does not notice
while it waits in the kernel: the thread wakes it up.

The thread also touches the run's status file, so that other hosts know that the run lives.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from explorer.distill import distributed
from explorer.processes import arrived_signals
from explorer.store import heartbeat
from explorer.store.progress import Progress

LOOK_EVERY_S = 1.0
GRACE_S = 3.0
"""From a request to the interruption of a stage that has not asked."""
GRACE_OF_RANKS_S = 30.0
"""The same with several processes: an interrupted rank ends the others without a checkpoint."""
WAKE = signal.SIGURG
"""Ends a wait of the main thread and means nothing else; nobody else sends it to a run."""
SIGTERM = "The process was told to end (SIGTERM). Resume the run to continue."

_under_way: list[Progress] = []
"""The runs of this process: one, or a student's and inside it that of its teacher."""


@contextmanager
def stoppable(progress: Progress) -> Iterator[None]:
    """Let SIGTERM and requests to cancel stop the run inside.

    Raises:
        RunCancelled: Instead of the KeyboardInterrupt of a requested stop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers, or be interrupted
        return
    _under_way.append(progress)
    try:
        with stop_in_words(progress):
            if len(_under_way) > 1:
                yield
                return
            with _watched():
                yield
    finally:
        _under_way.remove(progress)


@contextmanager
def stop_in_words(progress: Progress) -> Iterator[None]:
    """Tell a requested stop from a Ctrl-C.

    Raises:
        RunCancelled: Instead of KeyboardInterrupt where the run should stop.
    """
    try:
        yield
    except KeyboardInterrupt:
        progress.raise_if_stopped()
        raise


@contextmanager
def _watched() -> Iterator[None]:
    """Handle SIGTERM, and have a thread look after the runs under way."""
    with arrived_signals.pipe() as arrived:
        thread = _Watch(arrived)

        def on_sigterm(number: int, frame: Any) -> None:
            if thread.interrupts and not thread.ended.is_set():
                thread.interrupts = False
                raise KeyboardInterrupt
            for run in list(_under_way):
                run.stop_reason = SIGTERM

        after: Any = signal.signal(signal.SIGTERM, on_sigterm)
        woken: Any = signal.signal(WAKE, lambda number, frame: None)
        thread.start()
        try:
            yield
        except BaseException:
            # A launcher that has lost one process tells the others to end, just as they notice it
            # by themselves; they should still be able to say so.
            after = signal.SIG_IGN if distributed.num_launched() > 1 else after
            raise
        finally:
            thread.ended.set()
            thread.join()
            signal.signal(signal.SIGTERM, after)
            signal.signal(WAKE, woken)


class _Watch(threading.Thread):
    """Looks for requests to stop until `ended` is set."""

    def __init__(self, arrived: int) -> None:
        super().__init__(name="stopping", daemon=True)
        self.ended = threading.Event()
        self.interrupts = False
        """Whether the next SIGTERM is ours, which interrupts the main thread."""
        self._arrived = arrived
        os.set_blocking(arrived, False)

    def _wake_main_thread(self) -> None:
        """Wake it up if a signal has arrived: it may wait in the kernel and not know."""
        with contextlib.suppress(BlockingIOError):  # none has
            if set(os.read(self._arrived, 4096)) - {WAKE}:
                signal.pthread_kill(threading.main_thread().ident or 0, WAKE)

    def run(self) -> None:
        grace_s = GRACE_S if distributed.num_launched() == 1 else GRACE_OF_RANKS_S
        has_interrupted = False
        requested_at = beat_at = None
        while not self.ended.wait(LOOK_EVERY_S):
            self._wake_main_thread()
            runs, now = list(_under_way), time.monotonic()
            if beat_at is None or now - beat_at >= heartbeat.BEAT_EVERY_S:
                beat_at = now
                for run in runs:
                    run.beat()
            if has_interrupted or any(run.is_stopping for run in runs):
                continue  # It has heard, and may be saving a checkpoint.
            if not any(run.why_stop() for run in runs):
                requested_at = None
            elif requested_at is None:
                requested_at = now
            elif now - requested_at >= grace_s and not self.ended.is_set():
                self.interrupts = has_interrupted = True
                # A signal also ends the system call in which the main thread may be waiting.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
