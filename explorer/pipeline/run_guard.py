"""What wraps a run: locks, the log file, and errors that a user can act on."""

import contextlib
import errno
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from explorer.devices import failures, memory
from explorer.distill import distributed
from explorer.errors import ExplorerError, NoRoom
from explorer.files import durable_files
from explorer.store import disk
from explorer.store.progress import Progress

log = logging.getLogger("explorer")


def as_explorer_error(error: Exception) -> ExplorerError | None:
    """The error as a sentence that says what to do; None for a bug."""
    # Without memory, a file that can't be read is no fault of the file.
    misnamed = not isinstance(error, NoRoom) and memory.ran_out(_origin(error))
    if isinstance(error, ExplorerError) and not misnamed:
        return error
    if misnamed or memory.ran_out(error):
        return NoRoom(
            "The device ran out of memory. Set distill.micro_blocks: 1 or "
            "distill.gradient_checkpointing: true, lower capability.batch_size or "
            "distill.block_tokens, or choose a smaller model."
        )
    if known := failures.in_words(error):
        return known
    cause = durable_files.disk_error(error)
    if cause and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoRoom(f"The disk is full ({cause.filename or 'no file named'}). Make room, resume.")
    if isinstance(error, PermissionError):
        return NoRoom(f"No permission to write {error.filename}. Change it, then resume.")
    return None


def _origin(error: BaseException) -> BaseException:
    """The first of the errors that led to this one; they may lead in a circle."""
    seen: list[BaseException] = []
    while error not in seen:
        seen.append(error)
        context = None if error.__suppress_context__ else error.__context__
        error = error.__cause__ or context or error
    return error


class SilentProgress(Progress):
    """The progress of a run on ranks above 0: it shows nothing, and SIGTERM still stops the run."""

    def write_status(self, **status: Any) -> None:
        """Leave the status to rank 0."""

    def beat(self) -> None:
        """Leave the status to rank 0."""

    def why_stop(self) -> str | None:
        """Why to stop. Requests to cancel are for rank 0, which stops the others."""
        return self.stop_reason


@contextmanager
def exclusive(root: Path, name: str, progress: Progress) -> Iterator[None]:
    """Hold the lock of this name; the status says so while another process holds it.

    Rank 0 holds it for all processes of a launch.
    """
    if not distributed.is_main():
        yield
        return
    path = disk.lock_file(root, name)
    lock = FileLock(path)
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=1)
            break
        except Timeout:
            progress("waiting for the same work in another process")
        except OSError as error:
            raise NoRoom(f"Could not write to {root}: {error.strerror}.") from error
    try:
        yield
    finally:
        lock.release()


class _LogFile(logging.FileHandler):
    """A log that a full disk cuts short: what else the disk refuses says so, or nothing is lost."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Leave the line out if the disk refuses it."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        """Close the file, also if the disk refuses the last lines."""
        with contextlib.suppress(OSError):
            super().close()


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Append rank 0's log messages and Python's warnings to the run's log file.

    Raises:
        NoRoom: The disk is full or the file may not be written.
    """
    if not distributed.is_main():
        yield
        return
    try:
        handler = _LogFile(durable_files.refuse_link(path), encoding="utf-8")
    except OSError as error:
        raise durable_files.no_room(path, error) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    before = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        logging.getLogger("py.warnings").removeHandler(handler)
        log.setLevel(before)
        handler.close()
