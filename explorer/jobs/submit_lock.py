"""One submission at a time per host: a lock for submitting runs and for starting Ray's head.

The cache has a folder per host for our own Ray head, because hosts may share a home folder:

    ray/<host>/lock    held during a submission
               since   when the latest submission began, in seconds since 1970
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from explorer import durable_files, paths
from explorer.errors import DamagedStore, JobError, NoRoom

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
        # In the file's text, not its modification time: a shared disk has a clock of its own.
        durable_files.write_text(host_folder() / "since", repr(time.time()))
        yield
    finally:
        lock.release()


def submitting_since() -> float | None:
    """When the submission in progress on this host began, in seconds since 1970.

    None if there is none. A run that was queued before that time has its job, or is lost.
    """
    lock_file = host_folder() / "lock"
    if not lock_file.exists():
        return None
    try:
        with filelock.FileLock(lock_file, timeout=0):
            return None
    except filelock.Timeout:
        return latest_submission_s()


def latest_submission_s() -> float:
    """When the latest submission began, in seconds since 1970; 0 if unknown."""
    try:
        return float(durable_files.read_text(host_folder() / "since"))
    except (FileNotFoundError, DamagedStore, ValueError):
        return 0.0
