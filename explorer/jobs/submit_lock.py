"""One submission at a time per host: a lock for submitting runs and for starting Ray's head.

The cache has a folder per host for our own Ray head, because hosts may share a home folder:

    ray/<host>/lock    held during a submission
               number  how many submissions began, the present one included

A number, not a time: a clock that is set back would put a new run before an old one.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from explorer import paths
from explorer.errors import DamagedStore, JobError, NoRoom
from explorer.files import durable_files

NUMBER = "number"
TIMEOUT_S = 480.0
"""Twice what the start of a head may take."""


def host_folder() -> Path:
    """The folder of the cache that holds what is remembered of this host's head."""
    return (paths.cache_dir() / "ray" / socket.gethostname()).resolve()


@contextmanager
def submitting(on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock, so that no other process on this host starts a head or submits jobs.

    Args:
        on_wait: Called before waiting, where another process holds the lock.

    Raises:
        JobError: Another process has held it for minutes.
        NoRoom: The cache folder cannot be written.
    """
    lock_file = host_folder() / "lock"
    try:
        host_folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = filelock.FileLock(lock_file)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            on_wait()
            lock.acquire(timeout=TIMEOUT_S)
    except filelock.Timeout as error:
        raise JobError(
            f"Another process has held {lock_file} for {TIMEOUT_S:.0f} s. Wait for its submission, "
            "or end that process."
        ) from error
    except OSError as error:
        raise NoRoom(
            f"Could not write {host_folder()}: {error.strerror or error}. "
            "Set EXPLORER_CACHE to a folder that you may write."
        ) from error
    try:
        durable_files.write_text(host_folder() / NUMBER, str(latest_submission() + 1))
        yield
    finally:
        lock.release()


def submission_under_way() -> int | None:
    """The number of the submission in progress on this host; None if there is none.

    A run that was queued by an earlier one has its job, or is lost.
    """
    lock_file = host_folder() / "lock"
    if not lock_file.exists():
        return None
    try:
        with filelock.FileLock(lock_file, timeout=0):
            return None
    except filelock.Timeout:
        return latest_submission()


def latest_submission() -> int:
    """The number of the latest submission on this host; 0 if there was none."""
    try:
        return int(durable_files.read_text(host_folder() / NUMBER))
    except (FileNotFoundError, DamagedStore, ValueError):
        return 0
