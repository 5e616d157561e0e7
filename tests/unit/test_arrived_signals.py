"""A signal is noticed whichever thread gets it."""

import os
import signal
import threading

import pytest

from explorer.processes import arrived_signals


@pytest.fixture
def handled():
    """A signal with a handler that does nothing."""
    number = signal.SIGUSR1
    before = signal.signal(number, lambda number, frame: None)
    yield number
    signal.signal(number, before)


def test_a_signal_for_another_thread_ends_the_wait_of_this_one(handled):
    """The main thread reads the signal's number, though the system woke up the other thread."""
    with arrived_signals.pipe() as arrived:
        other = threading.Timer(0.2, lambda: signal.pthread_kill(threading.get_ident(), handled))
        other.start()
        assert os.read(arrived, 1) == bytes([handled])
        other.join()


def test_a_signal_from_before_the_look_is_there(handled):
    """Nothing is lost between two looks; and whoever was told before is told again afterwards."""
    with arrived_signals.pipe() as outer:
        with arrived_signals.pipe() as inner:
            signal.raise_signal(handled)
            signal.raise_signal(handled)
            assert os.read(inner, 9) == bytes([handled, handled])
        signal.raise_signal(handled)
        assert os.read(outer, 9) == bytes([handled])
    assert signal.set_wakeup_fd(-1) == -1
