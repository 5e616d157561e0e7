"""Every task, group and tag that a run may ask, read from a cached list.

lm-eval's own 14,000 files take half a minute to read, so they are read once for each
version of lm-eval, by a process of its own (`explorer.tasks.index_builder`); folders are
read again when a file in them has changed.

    explorer tasks --search piqa
"""

import contextlib
import dataclasses
import difflib
import fnmatch
import functools
import hashlib
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from explorer import paths
from explorer.errors import BadInput, ExplorerError, UnknownTask
from explorer.store import atomic
from explorer.tasks import code_policy

SHIPPED = code_policy.SHIPPED
"""The folder of the starter suite."""
OUTPUT_TYPES = ("multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until")
"""lm-eval's output types."""
FILE_FORMATS = frozenset({"json", "csv", "parquet", "arrow", "text", "pandas", "xml"})
"""Names of `datasets` for files of a format, which are not data sets of the hub."""
FORMAT = 1
"""Of the cached files; a file of another is read again."""

OnProgress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, slots=True)
class TaskRow:
    """One name, as far as its file tells; what cannot be known from a file is None."""

    name: str
    kind: str
    """task, group or tag; part for what only its group can ask."""
    members: tuple[str, ...] = ()
    """Of a group or tag: the names below it."""
    output_type: str | None = None
    num_fewshot: int | None = None
    chance: float | None = None
    metric: str | None = None
    """The one that stands for the task."""
    dataset_path: str | None = None
    dataset_name: str | None = None
    files: tuple[str, ...] | None = None
    """Data files on this machine that the task reads; None where its data is elsewhere."""
    description: str = ""
    refused: str | None = None
    """Why the explorer does not run it."""
    source: str = ""
    """Its YAML file."""


@dataclasses.dataclass(frozen=True)
class TaskIndex:
    """All names. Ours and lm-eval's stand for themselves, whatever another folder calls so."""

    rows: dict[str, TaskRow]
    problems: list[str]
    """A sentence for each file that is no task, and for each that is left out."""
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    """Names of ours and lm-eval's that a file elsewhere defines, each with that file."""

    @functools.cached_property
    def groups(self) -> dict[str, list[str]]:
        """A name to the groups and tags that it is in."""
        found: dict[str, list[str]] = {}
        for row in self.rows.values():
            for member in row.members:
                found.setdefault(member, []).append(row.name)
        return found

    def is_closed(self, name: str) -> bool:
        """Whether the name and all it stands for are in this list."""
        row = self.rows.get(name)
        return row is not None and all(self.is_closed(member) for member in row.members)

    def leaves(self, name: str) -> list[TaskRow]:
        """The tasks behind a name or pattern, each once.

        Raises:
            UnknownTask: It means nothing.
        """
        names = [name] if name in self.rows else []
        if not names and any(sign in name for sign in "*?["):
            tasks = [row.name for row in self.rows.values() if row.kind == "task"]
            names = fnmatch.filter(tasks, name)
        if not names:
            raise unknown_task(name, self.rows, self.problems)
        return [row for row in self._below(names) if not row.members]

    def sources(self, name: str) -> list[Path]:
        """The files behind a name or pattern: of the tasks, and of the groups above them.

        Raises:
            UnknownTask: It means nothing.
        """
        names = [name] if name in self.rows else [leaf.name for leaf in self.leaves(name)]
        return list(dict.fromkeys(Path(row.source) for row in self._below(names) if row.source))

    def _below(self, names: list[str]) -> list[TaskRow]:
        """These names and all that they stand for, each once."""
        found: dict[str, TaskRow] = {}
        waiting = list(names)
        while waiting:
            row = self.rows.get(waiting.pop(0))
            if row is None or row.name in found:
                continue
            found[row.name] = row
            waiting = [*row.members, *waiting]
        return list(found.values())


def merge_parts(parts: Iterable[tuple[bool, TaskIndex]]) -> TaskIndex:
    """One list of the parts, each with whether it ships with us or with lm-eval.

    A name that ships is never replaced; of other parts, later names go before earlier ones.
    """
    parts = list(parts)
    rows: dict[str, TaskRow] = {}
    for ships, part in parts:
        if ships:
            rows.update(part.rows)
    names = shipped_names() if any(part.rows for ships, part in parts if not ships) else {}
    problems = [problem for _, part in parts for problem in part.problems]
    taken_all: list[TaskRow] = []
    for ships, part in parts:
        if ships:
            continue
        taken = [row for row in part.rows.values() if row.name in names and not _ships(row)]
        taken_all += taken
        problems += [left_out_message(row.name, row.source) for row in taken]
        groups = {row.name for row in taken if row.kind == "group"}
        rows.update(
            (row.name, row)
            for row in part.rows.values()
            if row.name not in names and row.name.partition("::")[0] not in groups
        )
    return TaskIndex(rows, problems, {row.name: row.source for row in taken_all})


def _ships(row: TaskRow) -> bool:
    return bool(row.source) and code_policy.is_shipped(Path(row.source))


def left_out_message(name: str, source: str) -> str:
    """The sentence on a file that gives a name of ours or of lm-eval's to something else."""
    where = f"{source} defines" if source else "A task file outside lm-eval uses as a tag"
    return f"{where} {name!r}, which is {shipped_names()[name]}. It is left out: rename it."


def refuse_left_out(
    names: Iterable[str], files: Mapping[str, str], include_path: str | None
) -> None:
    """Refuse names that the folder which was given for a run cannot define.

    Args:
        names: All that is wanted, and the tasks behind it.
        files: As `TaskIndex.left_out`.
        include_path: The folder.

    Raises:
        BadInput: A file of the folder defines one of them.
    """
    if include_path is None:
        return
    folder = Path(include_path).resolve()
    for name in names:
        source = files.get(name)
        if source and Path(source).resolve().is_relative_to(folder):
            raise BadInput(left_out_message(name, source))


@functools.cache
def shipped_names() -> dict[str, str]:
    """Every name of ours and of lm-eval's, each with whose it is in words.

    lm-eval's come from the cached list, else from a quick look at the files, a second or so.
    """
    lm_eval = _names_of(code_policy.lm_eval_folder(), paths.cache_dir() / "tasks" / _names_file())
    ours = _names_in(SHIPPED)
    return dict.fromkeys(lm_eval, "a name of lm-eval's") | dict.fromkeys(ours, "a name of ours")


def _names_file() -> str:
    return f"names-{version()}-{FORMAT}.json"


def _names_of(folder: Path, cached: Path) -> list[str]:
    with contextlib.suppress(OSError, ValueError, TypeError):
        if names := [str(name) for name in json.loads(cached.read_text(encoding="utf-8"))]:
            return names
    names = sorted(_names_in(folder))
    with contextlib.suppress(ExplorerError):
        atomic.write_text(cached, json.dumps(names))
    return names


NOT_YAML = frozenset({".py", ".pyc", ".md", ".json", ".jsonl", ".txt", ".csv", ".tsv"})
TOP_LEVEL = re.compile(
    rb"^[\"']?(?:task|group|tag)[\"']?[ \t]*:[ \t]*([^\n]*)((?:\n[ \t]*-[^\n]*)*)", re.MULTILINE
)
"""A name at the top of a task file, and the list that may follow."""


def _names_in(folder: Path) -> set[str]:
    """The names of tasks, groups and tags that a folder's files define, read as text.

    A group's members come with them: they are names of the folder's, too.
    """
    names: set[str] = set()
    # Files that others include may have any ending or none, as _default_template_yaml.
    for path in folder.glob("**/*"):
        if path.suffix in NOT_YAML or not path.is_file():
            continue
        for first, listed in TOP_LEVEL.findall(path.read_bytes()):
            words = re.split(rb"[\n,\[\]]", re.sub(rb"[ \t]#[^\n]*", b"", first + listed))
            names.update(word.strip(b" \t\r-'\"").decode("utf-8", "replace") for word in words)
    return {name for name in names if name not in ("", "null") and ":" not in name}


def unknown_task(name: str, known: Iterable[str], problems: Iterable[str] = ()) -> UnknownTask:
    """The refusal of a name that nobody knows, with close ones and files that are no tasks."""
    close = difflib.get_close_matches(name, known, n=4, cutoff=0.6)
    hint = f" Close names: {', '.join(close)}." if close else ""
    # A broken file may be the one that was meant.
    files = "".join(f" {one}" for one in list(problems)[:3])
    return UnknownTask(
        f"lm-eval {version()} and the local task folders know no task, group or tag "
        f"{name!r}.{hint} `explorer tasks` lists all.{files}"
    )


def version() -> str:
    """The version of lm-eval that is installed."""
    return importlib.metadata.version("lm-eval")


def folders(include_path: str | None = None) -> list[Path]:
    """Where tasks are looked for beside lm-eval's own: ours, the user's, the folder given.

    Raises:
        BadInput: The folder given does not exist.
    """
    found = [SHIPPED]
    if paths.own_tasks().is_dir():
        found.append(paths.own_tasks())
    if include_path is not None:
        if not Path(include_path).is_dir():
            raise BadInput(
                "include_path should be a folder with lm-eval task files, but there is no folder "
                f"{include_path!r}."
            )
        found.append(Path(include_path))
    return found


def read_cached(include_path: str | None = None) -> TaskIndex | None:
    """The list as it is cached; None where a part of it has to be made first.

    Raises:
        BadInput: The folder given does not exist.
    """
    parts: list[tuple[bool, TaskIndex]] = []
    for part in _parts(include_path):
        found = _read(part)
        if found is None:
            return None
        parts.append((part.folder in (None, SHIPPED), found))
    return merge_parts(parts)


def build_index(
    include_path: str | None = None, tell: OnProgress | None = None, *, anew: bool = False
) -> TaskIndex:
    """The list, its missing parts made first by processes of their own.

    Args:
        include_path: A folder with more tasks.
        tell: Gets the files read and their number.
        anew: Make what is cached again, too.

    Raises:
        BadInput: The folder given does not exist.
        ExplorerError: A part could not be made.
    """
    for part in _parts(include_path):
        if anew:
            part.path.unlink(missing_ok=True)
        if _read(part) is None:
            _make(part, tell)
    found = read_cached(include_path)
    if found is None:
        raise ExplorerError("The task folders changed while they were read. Try again.")
    return found


def index_stamp(include_path: str | None = None) -> str:
    """A text that changes when the list does."""
    return "|".join(str(part.path) for part in _parts(include_path))


def is_current(include_path: str | None = None) -> bool:
    """Whether every part is cached, by the names of the files alone.

    Raises:
        BadInput: The folder given does not exist.
    """
    return all(part.path.exists() for part in _parts(include_path))


@dataclasses.dataclass(frozen=True)
class _Part:
    """One folder's share of the list, and the file that caches it."""

    folder: Path | None
    """None stands for lm-eval's own."""
    path: Path
    """Its name has the stamp, so that another state of the folder is another file."""
    stamp: str


def _parts(include_path: str | None) -> list[_Part]:
    cache = paths.cache_dir() / "tasks"
    found = [_Part(None, cache / f"lm-eval-{version()}-{FORMAT}.json", version())]
    for folder in folders(include_path):
        name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
        state = folder_stamp(folder)
        found.append(_Part(folder, cache / f"folder-{name}-{state}-{FORMAT}.json", state))
    return found


def folder_stamp(folder: Path) -> str:
    """A hash of the names, sizes and times of a folder's YAML files, and of lm-eval's version."""
    digest = hashlib.sha256(version().encode())
    for path in sorted(folder.glob("**/*.yaml")):
        with contextlib.suppress(OSError):
            stat = path.stat()
            digest.update(f"{path}:{stat.st_size}:{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _read(part: _Part) -> TaskIndex | None:
    """A cached part; None where there is none, or one of other files."""
    try:
        kept = json.loads(part.path.read_text(encoding="utf-8"))
        if kept["format"] != FORMAT or kept["stamp"] != part.stamp:
            return None
        rows = [
            TaskRow(**{key: _frozen(value) for key, value in row.items()}) for row in kept["rows"]
        ]
        return TaskIndex({row.name: row for row in rows}, [str(one) for one in kept["problems"]])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _make(part: _Part, tell: OnProgress | None) -> None:
    """Have one part made, and pass on how far it is."""
    command = [sys.executable, "-m", "explorer.tasks.index_builder", str(part.path), part.stamp]
    if part.folder is not None:
        command.append(str(part.folder))
    # A file, since a pipe that nobody reads yet would hold the process up when it is full.
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            for line in process.stdout:
                done, _, total = line.partition(" ")
                if tell and done.isdecimal() and total.strip().isdecimal():
                    tell(int(done), int(total))
        except BaseException:
            # The page was left, or the command stopped: what is half made is of no use.
            process.terminate()
            raise
        process.wait()
        complaints.seek(0)
        said = complaints.read()
    if process.returncode == 0:
        for older in part.path.parent.glob(f"{part.path.name[: len('folder-') + 16]}-*.json"):
            if part.folder is not None and older != part.path:
                older.unlink(missing_ok=True)
    else:
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        raise ExplorerError(f"The list of tasks could not be made: {last}")
