"""The index of every task, group and tag that a run can name, read from a cache.

Reading lm-eval's 14,000 task files takes half a minute, so a separate process
(`explorer.tasks.index_builder`) reads them once per lm-eval version. Other folders are read
again when a file in them changes.

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
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from explorer import paths
from explorer.errors import BadInput, ExplorerError, UnknownTask
from explorer.files import durable_files
from explorer.processes import child_process
from explorer.tasks import code_policy

SHIPPED = code_policy.SHIPPED
"""The folder of the starter suite."""
OUTPUT_TYPES = ("multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until")
"""lm-eval's output types."""
FILE_FORMATS = frozenset({"json", "csv", "parquet", "arrow", "text", "pandas", "xml"})
"""Builders of `datasets` that load local files, not Hub datasets."""
FORMAT = 2
"""Version of the cache files' format; files of another version are rebuilt."""

READING = 2
"""Version of how other folders are read; raise it when a file may be understood differently."""
MAX_FOLDERS = 20_000

OnProgress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, slots=True)
class TaskRow:
    """A task, group or tag, as its file describes it; None where the file does not say."""

    name: str
    kind: str
    """task, group or tag; part for a member that only exists inside its group."""
    members: tuple[str, ...] = ()
    """The names in a group or tag."""
    output_type: str | None = None
    num_fewshot: int | None = None
    chance: float | None = None
    metric: str | None = None
    """The headline metric."""
    dataset_path: str | None = None
    dataset_name: str | None = None
    files: tuple[str, ...] | None = None
    """Local data files that the task reads; None if its data is not in local files."""
    description: str = ""
    refused: str | None = None
    """Why the explorer does not run it, as a sentence; None if it does."""
    source: str = ""
    """Path of its YAML file."""


@dataclasses.dataclass(frozen=True)
class TaskIndex:
    """All names. Other folders can't redefine the starter suite's names or lm-eval's."""

    rows: dict[str, TaskRow]
    problems: list[str]
    """A sentence for each invalid task file, and for each name that is left out."""
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    """Reserved names (ours and lm-eval's) that another file redefines, with that file."""

    @functools.cached_property
    def groups(self) -> dict[str, list[str]]:
        """Each name's groups and tags."""
        groups: dict[str, list[str]] = {}
        for row in self.rows.values():
            for member in row.members:
                groups.setdefault(member, []).append(row.name)
        return groups

    def is_closed(self, name: str) -> bool:
        """Whether the index has the name and all its members, at any depth."""
        row = self.rows.get(name)
        return row is not None and all(self.is_closed(member) for member in row.members)

    def leaves(self, name: str) -> list[TaskRow]:
        """The tasks that a name or pattern stands for, without duplicates.

        Raises:
            UnknownTask: Nothing matches.
        """
        names = [name] if name in self.rows else []
        if not names and any(sign in name for sign in "*?["):
            tasks = [row.name for row in self.rows.values() if row.kind == "task"]
            names = fnmatch.filter(tasks, name)
        if not names:
            raise unknown_task_error(name, self.rows, self.problems)
        return [row for row in self._below(names) if not row.members]

    def sources(self, name: str) -> list[Path]:
        """The files that define a name or pattern: the tasks' files and their groups' files.

        Raises:
            UnknownTask: Nothing matches.
        """
        names = [name] if name in self.rows else [leaf.name for leaf in self.leaves(name)]
        return list(dict.fromkeys(Path(row.source) for row in self._below(names) if row.source))

    def _below(self, names: list[str]) -> list[TaskRow]:
        """These names and their members at any depth, without duplicates."""
        rows: dict[str, TaskRow] = {}
        waiting = list(names)
        while waiting:
            row = self.rows.get(waiting.pop(0))
            if row is None or row.name in rows:
                continue
            rows[row.name] = row
            waiting = [*row.members, *waiting]
        return list(rows.values())


def merge_parts(parts: Iterable[tuple[bool, TaskIndex]]) -> TaskIndex:
    """Merge the folders' indexes.

    Args:
        parts: Pairs of whether the part ships with us or with lm-eval, and the part. Shipped
            names are never replaced; among the other parts, a later one replaces earlier names.
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
    """The message for a file that redefines a name of ours or of lm-eval's."""
    where = f"{source} defines" if source else "A task file outside lm-eval uses as a tag"
    return f"{where} {name!r}, which is {shipped_names()[name]}. It is left out: rename it."


def refuse_left_out(
    names: Iterable[str], files: Mapping[str, str], include_path: str | None
) -> None:
    """Refuse a run that names a task which its own folder redefines.

    Args:
        names: The names in the spec, and the tasks they stand for.
        files: `TaskIndex.left_out`.
        include_path: The run's task folder.

    Raises:
        BadInput: A file in the folder redefines one of the names.
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
    """Every reserved name, with a phrase that says whether it is ours or lm-eval's.

    lm-eval's names come from a cached list. Without one, its files are scanned in about a second.
    """
    lm_eval = _names_of(code_policy.lm_eval_folder(), paths.cache_dir() / "tasks" / _names_file())
    ours = _names_in(SHIPPED)
    return dict.fromkeys(lm_eval, "a name of lm-eval's") | dict.fromkeys(ours, "a name of ours")


def _names_file() -> str:
    return f"names-{lm_eval_version()}-{FORMAT}.json"


def _names_of(folder: Path, cached: Path) -> list[str]:
    with contextlib.suppress(OSError, ValueError, TypeError):
        if names := [str(name) for name in json.loads(cached.read_text(encoding="utf-8"))]:
            return names
    names = sorted(_names_in(folder))
    with contextlib.suppress(ExplorerError):
        durable_files.write_text(cached, json.dumps(names))
    return names


NOT_YAML = frozenset({".py", ".pyc", ".md", ".json", ".jsonl", ".txt", ".csv", ".tsv"})
TOP_LEVEL = re.compile(
    rb"^[\"']?(?:task|group|tag)[\"']?[ \t]*:[ \t]*([^\n]*)((?:\n[ \t]*-[^\n]*)*)", re.MULTILINE
)
"""Matches a top-level task, group or tag key, with its value or the list below it."""


def _names_in(folder: Path) -> set[str]:
    """The names of tasks, groups and tags that a folder's files define, found by a text scan.

    Includes the members of groups.
    """
    names: set[str] = set()
    # Included files may have any suffix or none, like _default_template_yaml.
    for path in folder.glob("**/*"):
        if path.suffix in NOT_YAML or not path.is_file():
            continue
        for first, listed in TOP_LEVEL.findall(path.read_bytes()):
            words = re.split(rb"[\n,\[\]]", re.sub(rb"[ \t]#[^\n]*", b"", first + listed))
            names.update(word.strip(b" \t\r-'\"").decode("utf-8", "replace") for word in words)
    return {name for name in names if name not in ("", "null") and ":" not in name}


def unknown_task_error(
    name: str, known: Iterable[str], problems: Iterable[str] = ()
) -> UnknownTask:
    """The error for an unknown name, with close matches and up to three invalid files."""
    close = difflib.get_close_matches(name, known, n=4, cutoff=0.6)
    hint = f" Close names: {', '.join(close)}." if close else ""
    # The user may have meant a file that is broken, most likely one that says the name.
    relevant = sorted(problems, key=lambda problem: name not in problem)
    files = "".join(f" {problem}" for problem in relevant[:3])
    return UnknownTask(
        f"lm-eval {lm_eval_version()} and the local task folders know no task, group or tag "
        f"{name!r}.{hint} `explorer tasks` lists all.{files}"
    )


def lm_eval_version() -> str:
    """The installed version of lm-eval."""
    return importlib.metadata.version("lm-eval")


def search_folders(include_path: str | None = None) -> list[Path]:
    """The task folders besides lm-eval's own: the starter suite, custom tasks, `include_path`.

    Raises:
        BadInput: `include_path` does not exist.
    """
    folders = [SHIPPED]
    if paths.own_tasks().is_dir():
        folders.append(paths.own_tasks())
    if include_path is not None:
        if not Path(include_path).is_dir():
            raise BadInput(
                "include_path should be a folder with lm-eval task files, but there is no folder "
                f"{include_path!r}."
            )
        folders.append(Path(include_path))
    return folders


def read_cached(include_path: str | None = None) -> TaskIndex | None:
    """The cached index; None if a part of it must be built first.

    Raises:
        BadInput: `include_path` does not exist.
    """
    parts: list[tuple[bool, TaskIndex]] = []
    for part in _parts(include_path):
        cached = _read(part)
        if cached is None:
            return None
        parts.append((part.folder in (None, SHIPPED), cached))
    return merge_parts(parts)


def build_index(
    include_path: str | None = None,
    on_progress: OnProgress | None = None,
    *,
    anew: bool = False,
) -> TaskIndex:
    """The index; a separate process builds each part that is not cached.

    Args:
        include_path: A folder with more tasks.
        on_progress: Called with the number of files read so far and the total.
        anew: Rebuild cached parts, too.

    Raises:
        BadInput: `include_path` does not exist.
        ExplorerError: A part could not be built.
    """
    for part in _parts(include_path):
        if anew:
            part.path.unlink(missing_ok=True)
        if _read(part) is None:
            _build(part, on_progress)
    tasks = read_cached(include_path)
    if tasks is None:
        raise ExplorerError("The task folders changed while they were read. Try again.")
    return tasks


def index_stamp(include_path: str | None = None) -> str:
    """A cache key: it changes when the index does."""
    return "|".join(str(part.path) for part in _parts(include_path))


def is_current(include_path: str | None = None) -> bool:
    """Whether every part has a cache file; the files are not read.

    Raises:
        BadInput: `include_path` does not exist.
    """
    return all(part.path.exists() for part in _parts(include_path))


@dataclasses.dataclass(frozen=True)
class _Part:
    """One folder's part of the index, and its cache file."""

    folder: Path | None
    """None for lm-eval's own tasks."""
    path: Path
    """The cache file; its name includes the stamp, so each state of the folder has its own."""
    stamp: str


def _parts(include_path: str | None) -> list[_Part]:
    cache = paths.cache_dir() / "tasks"
    parts = [_Part(None, cache / f"lm-eval-{lm_eval_version()}-{FORMAT}.json", lm_eval_version())]
    for folder in search_folders(include_path):
        name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
        state = folder_stamp(folder)
        parts.append(_Part(folder, cache / f"folder-{name}-{state}-{FORMAT}.json", state))
    return parts


def task_files(folder: Path) -> list[Path]:
    """The YAML files below a task folder, sorted; links to other folders are followed once.

    Raises:
        BadInput: There are too many folders, as below a link to a whole disk.
    """
    files: list[Path] = []
    seen: set[str] = set()
    for place, inner, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        if len(seen) > MAX_FOLDERS:
            raise BadInput(
                f"The task folder {folder} has more than {MAX_FOLDERS:,} folders below it. Name "
                "the folder with the tasks."
            )
        inner[:] = [name for name in inner if name not in ("__pycache__", ".ipynb_checkpoints")]
        files += [Path(place, name) for name in (*names, *inner) if name.endswith(".yaml")]
    return sorted(files, key=lambda path: path.as_posix())


def folder_stamp(folder: Path) -> str:
    """Hash lm-eval's version and the names, sizes and times of a folder's YAML files."""
    digest = hashlib.sha256(f"{lm_eval_version()}-{READING}".encode())
    for path in task_files(folder):
        with contextlib.suppress(OSError):
            stat = path.stat()
            digest.update(f"{path}:{stat.st_size}:{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _read(part: _Part) -> TaskIndex | None:
    """A cached part; None if it is missing, damaged, or stale."""
    try:
        cached = json.loads(part.path.read_text(encoding="utf-8"))
        if cached["format"] != FORMAT or cached["stamp"] != part.stamp:
            return None
        rows = [
            TaskRow(**{key: _frozen(value) for key, value in row.items()}) for row in cached["rows"]
        ]
        return TaskIndex({row.name: row for row in rows}, list(map(str, cached["problems"])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _build(part: _Part, on_progress: OnProgress | None) -> None:
    """Build one part in a separate process, and report its progress."""
    command = [sys.executable, "-m", "explorer.tasks.index_builder", str(part.path), part.stamp]
    if part.folder is not None:
        command.append(str(part.folder))
    # stderr goes to a file: a pipe that is read only at the end would fill and block the process.
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stderr,
            encoding="utf-8",
            env=child_process.environment(),
        ) as process,
    ):
        try:
            assert process.stdout is not None
            for line in process.stdout:
                done, _, total = line.partition(" ")
                if on_progress and done.isdecimal() and total.strip().isdecimal():
                    on_progress(int(done), int(total))
        except BaseException:
            # The user left the page or stopped the command.
            process.terminate()
            raise
        process.wait()
        stderr.seek(0)
        errors = stderr.read()
    if process.returncode == 0:
        for older in part.path.parent.glob(f"{part.path.name[: len('folder-') + 16]}-*.json"):
            if part.folder is not None and older != part.path:
                older.unlink(missing_ok=True)
    else:
        last = (errors.strip().splitlines() or ["the process gave no reason"])[-1]
        raise ExplorerError(f"The list of tasks could not be built: {last}")
