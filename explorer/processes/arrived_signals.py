"""The signals that this process was sent, whichever of its threads the system gave them to.

Python runs a signal's handler in the main thread. Where another thread gets the signal, the main
thread does not notice while it waits in the kernel. A pipe tells it, or a thread that looks.

    with arrived_signals.pipe() as arrived:
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        os.read(arrived, 1)  # returns at the first signal
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def pipe() -> Iterator[int]:
    """A file descriptor that gets the number of each signal with a handler, one byte each.

    Needs the main thread.
    """
    arrived, writing = os.pipe()
    os.set_blocking(writing, False)
    written_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield arrived
    finally:
        signal.set_wakeup_fd(written_before)
        os.close(arrived)
        os.close(writing)
