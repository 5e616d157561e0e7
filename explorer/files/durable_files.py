"""Files that a kill, a power cut or a full disk leaves whole, and that are doubted when read.

    durable_files.write_json(folder / "facts.json", {"steps": 3})
    durable_files.read_json(folder / "facts.json", dict[str, int])

A file has another name until it is whole and on the disk, then one rename puts it in its place.
An object that is written as JSON ends with a checksum over its text, so that a flipped bit is
noticed; one without a checksum comes from an older version and is read as it is.
"""

import contextlib
import errno
import functools
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import stat
import threading
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import pydantic
from filelock import FileLock

from explorer import paths
from explorer.errors import CannotRead, DamagedStore, ExplorerError, NoRoom

log = logging.getLogger("explorer")

PARTIAL, DAMAGED = ".partial", ".damaged"
"""Ends of the names of what is being written, and of what could not be read."""
MAX_BYTES = 256 << 20
"""Bytes above which a file is not one that we wrote and read as a whole."""
MAX_JOURNAL_BYTES = 8 << 30
"""The same for files that grow by a line for each piece of work."""
CHECKSUM = re.compile(r',\s*"(.{8})":"(.{64})"\s*\}\s*\Z')
"""The last key and its value, whatever a flipped bit made of them. Without a space after the colon,
as no JSON tool writes it: a file that somebody has edited with one has no valid checksum, and none
is expected."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSES_WRITES = (*FULL, errno.EROFS, errno.EIO)
T = TypeVar("T")


class FileSum(pydantic.BaseModel):
    """Size and checksum of a file, for the marker that is written after it."""

    model_config = pydantic.ConfigDict(frozen=True)

    num_bytes: pydantic.NonNegativeInt
    sha256: str


# Writing


def write_json(path: Path, data: Any, *, indent: int | None = None) -> None:
    """Write a value as JSON, as `write_bytes` does; an object with its checksum."""
    text = json.dumps(data, indent=indent)
    write_text(path, with_checksum(text) if isinstance(data, dict) else text)


def write_text(path: Path, text: str) -> None:
    """Write a text file as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one rename after fsync: readers see the old one or the new one, whole.

    Raises:
        NoRoom: The disk is full or the folder may not be written.
    """
    with new_file(path) as partial:
        partial.write_bytes(content)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """The name under which to write a file; it becomes `path` when the block ends.

    After an exception there is nothing new, and an older `path` is as it was.

    Raises:
        NoRoom: The disk is full or the folder may not be written.
    """
    partial = partial_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        flush(partial)
        partial.replace(path)
        flush(path.parent)
    except Exception as error:
        if cause := disk_error(error):
            raise no_room(path, cause) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """The name under which to fill a folder; it becomes `folder` when the block ends.

    An older folder goes first, so a kill between the two may leave none.

    Raises:
        NoRoom: The disk is full or the folder may not be written.
    """
    partial = partial_name(folder)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        paths.follow_umask(partial)
        flush_folder(partial)
        if folder.exists():
            shutil.rmtree(folder)
        partial.replace(folder)
        flush(folder.parent)
    except Exception as error:
        if cause := disk_error(error):
            raise no_room(folder, cause) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
        with new_folder(target) as partial:
            shutil.copytree(source, partial, dirs_exist_ok=True)
        shutil.rmtree(source)
    flush(target.parent)


def append_object(path: Path, data: dict[str, Any]) -> None:
    """Add an object, with its checksum, to a file of JSON Lines, and wait for the disk.

    A kill may leave half a line at the end, which the file's reader leaves out; a full disk
    leaves none.

    Raises:
        NoRoom: The disk is full or the file may not be written.
        DamagedStore: The file is a link.
    """
    line = with_checksum(json.dumps(data)).encode("utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with refuse_link(path).open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise
    except OSError as error:
        raise no_room(path, error) from error


def refuse_link(path: Path) -> Path:
    """The file itself, before something is appended to it.

    Raises:
        DamagedStore: It is a link, which a store from elsewhere may have set to any file.
    """
    if path.is_symlink():
        raise DamagedStore(
            f"{path} is a link to {path.resolve()}, and nothing is appended through a link. Remove "
            "it, then resume the run."
        )
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while something short is read, changed and written.

    Raises:
        NoRoom: The lock or what the block writes cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path):
            yield
    except OSError as error:
        raise no_room(path.parent, error) from error


def partial_name(path: Path) -> Path:
    """The name of `path` while it is written: no other host, process or thread uses it."""
    host = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:32]
    writer = f"{host}-{os.getpid()}-{threading.get_ident():x}"
    return path.with_name(f".{path.name[:128]}.{writer}{PARTIAL}")


def flush(path: Path) -> None:
    """Return when a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network disks cannot flush a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Return when all files below a folder, and their names, are on the disk."""
    for path in folder.rglob("*"):
        if path.is_file() or path.is_dir():
            flush(path)
    flush(folder)


def disk_error(error: Exception) -> OSError | None:
    """The disk's error that a library's own may hide; None if the disk has nothing to do with it.

    PyTorch's zip writer raises a RuntimeError after it, safetensors puts it into words.
    """
    if isinstance(error, OSError):
        return error
    if isinstance(error, ExplorerError):
        return None
    cause = error.__context__
    if isinstance(cause, OSError) and cause.errno in REFUSES_WRITES:
        return cause
    if words := re.search(r"\(os error (\d+)\)$", str(error)):
        number = int(words[1])
        return OSError(number, os.strerror(number)) if number in REFUSES_WRITES else None
    return None


def no_room(path: Path, error: OSError) -> NoRoom:
    """The error for a file that could not be written."""
    advice = " Free some space, then resume or try again." if error.errno in FULL else ""
    return NoRoom(f"Could not write {path}: {error.strerror or error}.{advice}")


# Reading


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a regular file.

    Raises:
        FileNotFoundError: There is none.
        DamagedStore: It is something else, too large, or cannot be read.
    """
    try:
        # Without waiting: a named pipe would wait for somebody to write into it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise damaged(path, "is not a file")
            if facts.st_size > max_bytes:
                raise damaged(path, f"has {facts.st_size:,} bytes, more than {max_bytes:,}")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(max_bytes)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise CannotRead(
            f"No permission to read {path}. Its owner can give it: chmod a+r {path}"
        ) from error
    except OSError as error:
        raise damaged(path, f"cannot be read: {error.strerror or error}") from error


def check_regular(path: Path) -> None:
    """Refuse what is no file, before a library opens it: a named pipe would wait for ever.

    Raises:
        DamagedStore: It is a folder, a pipe, or a link to itself.
    """
    if os.path.lexists(path) and not path.is_file():
        raise damaged(path, "is not a file")


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """Read a regular file in UTF-8.

    Raises:
        FileNotFoundError: There is none.
        DamagedStore: As `read_bytes`, or it is not text.
    """
    try:
        return read_bytes(path, max_bytes).decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise damaged(path, f"is not text in UTF-8: {error.reason}") from error


@overload
def read_json(path: Path, kind: type[T], max_bytes: int = MAX_BYTES) -> T: ...
@overload
def read_json(path: Path, kind: types.UnionType, max_bytes: int = MAX_BYTES) -> Any: ...
def read_json(path: Path, kind: Any, max_bytes: int = MAX_BYTES) -> Any:
    """Read a JSON file of this kind, which may be any type that pydantic validates.

    Raises:
        FileNotFoundError: There is none.
        DamagedStore: As `read_text`, or it is not JSON, not of this kind, or its checksum differs.
    """
    text = read_text(path, max_bytes)
    try:
        return _adapter(kind).validate_python(parse_json(text))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f"{part}: " for part in first["loc"])
        raise damaged(path, f"holds something else: {place}{first['msg']}") from error
    except ValueError as error:
        raise damaged(path, str(error)) from error


@overload
def read_or_set_aside(path: Path, kind: type[T]) -> T | None: ...
@overload
def read_or_set_aside(path: Path, kind: types.UnionType) -> Any: ...
def read_or_set_aside(path: Path, kind: Any) -> Any:
    """As `read_json`; None where there is no file, or one that cannot be read, which is set aside.

    For what the caller can make again.

    Raises:
        CannotRead: Permission is missing.
    """
    try:
        return read_json(path, kind)
    except FileNotFoundError:
        return None
    except CannotRead:
        raise
    except DamagedStore as error:
        set_aside(path, str(error))
        return None


def set_aside(path: Path, reason: str) -> None:
    """Rename a file or folder that cannot be read to NAME.damaged, and say so in the log.

    It replaces what was set aside before under that name.
    """
    aside = path.with_name(path.name + DAMAGED)
    if not os.path.lexists(path):
        log.warning("%s It is made again.", reason)
        return
    with contextlib.suppress(OSError):
        if aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside)
        path.replace(aside)
    log.warning("%s It is set aside as %s and made again.", reason, aside.name)


def damaged(path: Path, why: str) -> DamagedStore:
    """The error for a file that is not what was written; a library's words become one line."""
    why = " ".join(why.split()).rstrip(". ")
    return DamagedStore(f"{path.parent} is damaged because {path.name} {why}.")


@functools.cache
def _adapter(kind: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(kind)


# Checksums


def with_checksum(text: str) -> str:
    """The JSON text of a non-empty object with a checksum of itself as its last key."""
    whole = text.rstrip()
    assert whole.endswith("}"), "a checksum belongs to an object"
    body = whole[:-1].rstrip()
    last = f'"checksum":"{_sha256(body)}"'
    return f"{body},\n {last}\n}}\n" if "\n" in body else f"{body}, {last}}}\n"


def parse_json(text: str, **options: Any) -> Any:
    """The value of a JSON text, without its checksum.

    Args:
        text: With or without a checksum.
        options: As `json.loads` takes them.

    Raises:
        ValueError: It is not JSON, or not what the checksum was made of; the message begins with
            a verb, for the file's name before it.
    """
    try:
        data = json.loads(text, **options)
    except (ValueError, RecursionError) as error:
        why = str(error)
        if not text.strip().strip("\0"):
            what = "holds only zeros" if "\0" in text else "is empty"
            why = f"it {what}, as a crash or a full disk leaves it"
        raise ValueError(f"is not JSON: {why}") from error
    stated = CHECKSUM.search(text)
    if stated and stated.groups() != ("checksum", _sha256(text[: stated.start()])):
        raise ValueError(
            "differs from the checksum it was written with: the disk changed it, or somebody did. "
            "Whoever changed it on purpose removes its key checksum"
        )
    if isinstance(data, dict):
        data.pop("checksum", None)
    return data


def file_sum(path: Path) -> FileSum:
    """Size and checksum of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileSum(num_bytes=file.tell(), sha256=digest)


def file_sums(folder: Path) -> dict[str, FileSum]:
    """Size and checksum of each file below a folder, by its path in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_sum(path) for path in files}


def damage(path: Path, stated: FileSum) -> str:
    """What is wrong with a file; empty if it is the one of this size and checksum."""
    try:
        num_bytes = path.stat().st_size
        if num_bytes != stated.num_bytes:
            return f"has {num_bytes:,} bytes of {stated.num_bytes:,}"
        if file_sum(path) != stated:
            return "does not have the checksum it was written with"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return ""


def check_files(folder: Path, sums: Mapping[str, FileSum]) -> None:
    """Refuse a folder whose files are not those of the given sizes and checksums.

    Raises:
        DamagedStore: The message names the first file.
    """
    for name, stated in sums.items():
        if why := damage(folder / name, stated):
            raise damaged(folder / name, why)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
