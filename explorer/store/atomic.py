"""Files and folders that appear on disk whole or not at all, whatever kills the process."""

import contextlib
import errno
import os
import shutil
from pathlib import Path

from explorer.errors import NoRoom


def write_text(path: Path, text: str) -> None:
    """Write a text file as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one rename after fsync: readers see the old one or the new one, whole.

    Raises:
        NoRoom: The disk is full or the folder may not be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise NoRoom(f"Could not write {path}: {error.strerror or error}.") from error


def move_folder(source: Path, target: Path) -> None:
    """Move a folder in one rename: `target` is there whole or not at all.

    To another disk it is copied first; a kill on the way leaves `source`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # A target that is not whole, or the caller would use it.
    shutil.rmtree(target, ignore_errors=True)
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
        flush_folder(partial)
        partial.replace(target)
        shutil.rmtree(source)


def flush_folder(folder: Path) -> None:
    """Return when the files of a folder are on the disk, so that a power cut leaves them whole."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
