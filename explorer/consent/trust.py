"""Whose Python code may run: what `explorer trust` was told, with the digest of every file.

A permission is for the bytes of a file at its place; a file that changes asks again. The code of a
model is allowed wherever the same bytes lie, as transformers imports copies of it, and a student
keeps its teacher's.

    trust.allow(Path("my-tasks"), [Path("my-tasks/quiz.yaml"), Path("my-tasks/quiz.py")])
    trust.allowed(Path("my-tasks/quiz.py"))
"""

import dataclasses
import functools
import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from explorer.consent import user_config
from explorer.errors import BadInput, CodeNotAllowed
from explorer.files import durable_files
from explorer.specs.base import Spec

FILE = "trusted.json"
MAX_FILES = 2000
"""Files that one permission covers; a folder with more is not a folder of tasks or a model."""
DATA_SUFFIXES = frozenset(
    {
        *(".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".xml"),
        *(".md", ".rst", ".log", ".lock", ".gz", ".zst", ".pdf", ".png", ".jpg", ".jpeg", ".svg"),
        *(".safetensors", ".gguf", ".model", ".tiktoken", ".jinja"),
    }
)
"""Suffixes of files that are read as data, so that a permission does not name them."""


ASKS = "shows what would run, and asks whether to allow it."


class Grant(Spec):
    """The permission for one source: when it was given, and for which files."""

    allowed_at: str
    """UTC, ISO 8601."""
    files: dict[str, str]
    """Each file's path, relative to the source if it lies in it, to its SHA-256."""
    listed: bool = False
    """Whether config.yaml gave it, so that it ends when its line goes."""


class TrustFile(Spec):
    """The content of trusted.json."""

    sources: dict[str, Grant] = {}
    """Absolute path or hub id of each source, to its permission."""


@dataclasses.dataclass(frozen=True)
class CodeFile:
    """A file that would run."""

    path: Path
    num_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "CodeFile":
        """Read it.

        Raises:
            BadInput: It can't be read.
        """
        digest = _digest(path)
        if digest is None:
            raise BadInput(f"{path} is not a file, or can't be read.")
        return cls(path, path.stat().st_size, digest)


def trust_file() -> Path:
    """Where the permissions are.

    Raises:
        BadInput: The configuration lies in the store.
    """
    return user_config.beside_config(FILE)


def grants() -> dict[str, Grant]:
    """Every permission, by its source.

    Raises:
        BadInput: The file can't be read, or lies in the store.
    """
    path = trust_file()
    try:
        stat = path.stat()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BadInput(f"{path} can't be read: {error.strerror or error}.") from error
    return _read(path, stat.st_mtime_ns, stat.st_size, stat.st_ino).sources


@functools.lru_cache(maxsize=8)
def _read(path: Path, mtime_ns: int, num_bytes: int, inode: int) -> TrustFile:
    """Read once per version of the file; the other arguments only make the key change with it."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(
            f"{path} can't be read ({error}), so no code but ours and lm-eval's may run. Remove it "
            "and give the permissions again with explorer trust."
        ) from error
    return TrustFile.parse(data, str(path))


def allowed(path: Path) -> bool:
    """Whether the code in this file may run: the file was allowed, and has not changed since.

    A file in a folder that config.yaml lists under `allowed_task_code` counts as allowed until the
    first use; from then on the folder's contents are noted and a change asks again.

    Raises:
        BadInput: The configuration can't be read or written.
    """
    resolved = path.resolve()
    digest = _digest(resolved)
    if _is_granted(resolved, digest):
        return True
    listed = [root for root in user_config.allowed_task_code() if resolved.is_relative_to(root)]
    first_used = [root for root in listed if str(root) not in grants()]
    for root in first_used:
        code = [CodeFile.of(path) for path in code_below(root)]
        record(root, code, listed=True)
    return bool(first_used) and _is_granted(resolved, digest)


def allowed_anywhere(path: Path) -> bool:
    """Whether a file with these bytes was allowed, here or at another place.

    Raises:
        BadInput: The configuration can't be read.
    """
    digest = _digest(path)
    return any(digest in grant.files.values() for grant in in_force().values())


def in_force() -> dict[str, Grant]:
    """The permissions that count: those of config.yaml only while it has their line.

    Raises:
        BadInput: The configuration can't be read.
    """
    listed = {str(root) for root in user_config.allowed_task_code()}
    return {
        source: grant for source, grant in grants().items() if not grant.listed or source in listed
    }


def _is_granted(path: Path, digest: str | None) -> bool:
    return digest is not None and any(
        grant.files.get(name) == digest
        for source, grant in in_force().items()
        for name in (_name_within(path, Path(source)), str(path))
    )


def _digest(path: Path) -> str | None:
    """SHA-256 of a file; None if it is none, such as a device, or can't be read."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def asks_again(path: Path) -> str | None:
    """Why a file that is not allowed asks, if its source was allowed once: a sentence."""
    resolved = path.resolve()
    for source, grant in in_force().items():
        root = Path(source)
        if resolved in [root / name for name in grant.files]:
            return f"{resolved} has changed since you allowed it on {grant.allowed_at[:10]}."
        if resolved.is_relative_to(root):
            return f"{resolved} is new since you allowed {root} on {grant.allowed_at[:10]}."
    return None


def code_below(source: Path) -> list[Path]:
    """The files of a folder that could run, or the file itself.

    Data, hidden files, and links to other folders are left out.

    Raises:
        BadInput: There is no such file or folder, or it has too many files.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise BadInput(f"There is no file or folder {source}.")
    found: list[Path] = []
    for folder, inner, files in os.walk(source):
        inner[:] = sorted(name for name in inner if name[0] != "." and name != "__pycache__")
        paths = (Path(folder) / name for name in sorted(files) if name[0] != ".")
        found += [path for path in paths if _could_run(path) and _is_file_in(source, path)]
        if len(found) > MAX_FILES:
            raise BadInput(
                f"{source} has more than {MAX_FILES:,} files that could run. Name the task file or "
                "the model's folder itself."
            )
    return found


def _is_file_in(source: Path, path: Path) -> bool:
    return path.is_file() and path.resolve().is_relative_to(source.resolve())


def _could_run(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return not suffixes or suffixes[-1] not in DATA_SUFFIXES or ".py" in suffixes


def allow(source: Path | str, files: Iterable[Path]) -> list[CodeFile]:
    """Allow the code of these files as they are now; returns them.

    Args:
        source: Where they come from: a file, a folder, or a hub id.
        files: Its files that run.

    Raises:
        BadInput: One can't be read, or the configuration lies in the store.
        NoRoom: The permission can't be written.
    """
    return record(source, [CodeFile.of(path) for path in files])


def record(source: Path | str, code: list[CodeFile], *, listed: bool = False) -> list[CodeFile]:
    """Allow these files with the digests that were shown.

    Args:
        source: As in `allow`.
        code: The files.
        listed: Whether config.yaml gives the permission.

    Raises:
        BadInput: The configuration lies in the store.
        NoRoom: The permission can't be written.
    """
    root = Path(source).resolve() if isinstance(source, Path) else None
    now = datetime.now(UTC).isoformat(timespec="seconds")
    files = {_name_within(item.path, root): item.sha256 for item in code}
    grant = Grant(allowed_at=now, files=files, listed=listed)
    with _changing() as sources:
        sources[str(root or source)] = grant
    return code


def _name_within(path: Path, root: Path | None) -> str:
    resolved = path.absolute() if root is None else path.resolve()
    if root is not None and resolved != root and resolved.is_relative_to(root):
        return str(resolved.relative_to(root))
    return str(resolved)


def withdraw(source: str) -> None:
    """Take back the permission for a source.

    Raises:
        BadInput: There is no such permission.
        NoRoom: The file can't be written.
    """
    names = [source, str(Path(source).expanduser().resolve())]
    with _changing() as sources:
        name = next((name for name in names if name in sources), None)
        if name is None:
            raise BadInput(f"{source} is not among the allowed sources. explorer trust lists them.")
        del sources[name]


@contextmanager
def _changing() -> Iterator[dict[str, Grant]]:
    """The permissions to change, alone; written when the block ends well."""
    path = trust_file()
    with durable_files.locked(path.with_name(f".{FILE}.lock")):
        sources = dict(grants())
        yield sources
        text = TrustFile(sources=sources).model_dump_json(indent=1)
        durable_files.write_text(path, text + "\n")


def refusal(message: str, source: Path | str, blamed: Path | None = None) -> CodeNotAllowed:
    """The error for code that may not run.

    Args:
        message: Who would run what, a sentence.
        source: What to hand to `explorer trust`.
        blamed: The file that is not allowed, to say whether it has changed.
    """
    again = asks_again(blamed) if blamed else None
    command = f"`explorer trust {shlex.quote(str(source))}` {ASKS}"
    sentences = [message, *([again] if again else []), command]
    return CodeNotAllowed(" ".join(sentences), str(source))
