"""Finds which tasks have their data on this machine, and refuses those that do not.

Offline, `datasets` reads a Hub dataset only from its own cache, under
CACHE/owner___name/configuration/version/hash. This module follows the same rules.

Source: github.com/huggingface/datasets, `packaged_modules/cache/cache.py`, `naming.py`.
"""

import dataclasses
import functools
import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from explorer.errors import BadInput
from explorer.tasks import code_policy
from explorer.tasks.index import FILE_FORMATS, TaskIndex, TaskRow

OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
"""Environment variables that forbid downloads."""
YES = frozenset({"1", "true", "yes", "on"})
NAMED = 4
"""How many datasets an error names; the rest are counted."""


def offline_variable() -> str | None:
    """The environment variable that forbids downloads now, or None."""
    return next((name for name in OFFLINE if os.environ.get(name, "").lower() in YES), None)


@dataclasses.dataclass(frozen=True)
class CachedDatasets:
    """The datasets in the cache of `datasets`: folder name to its configurations."""

    configurations: dict[str, frozenset[str]]
    folders: dict[str, bool] = dataclasses.field(default_factory=dict)
    """Dataset paths already checked, and whether each is a local folder."""

    def key(self) -> str:
        """A cache key: it changes when the cached datasets do."""
        return repr(sorted((name, sorted(cached)) for name, cached in self.configurations.items()))

    def has(self, row: TaskRow) -> bool | None:
        """Whether a task's data is on this machine; None if its file does not say."""
        if row.files is not None:
            return all(_is_here(file) for file in row.files)
        if row.dataset_path is None or row.dataset_path in FILE_FORMATS:
            return None
        if row.dataset_path not in self.folders:
            self.folders[row.dataset_path] = Path(row.dataset_path).is_dir()
        if self.folders[row.dataset_path]:
            return True
        cached = self.configurations.get(cache_folder(row.dataset_path))
        if not cached or row.dataset_name is None:
            return bool(cached)
        # `datasets` appends options to the configuration's name, after a dash.
        return any(f"{name}-".startswith(f"{row.dataset_name}-") for name in cached)

    def has_all(self, rows: Sequence[TaskRow]) -> bool | None:
        """Whether all these tasks have their data here; None if some file does not say."""
        answers = {self.has(row) for row in rows}
        return False if False in answers else None if None in answers or not answers else True


def cached_datasets() -> CachedDatasets:
    """List the datasets that `datasets` has in its cache now."""
    configurations: dict[str, frozenset[str]] = {}
    root = _datasets_cache()
    for path in root.glob("*/*/*/*/dataset_info.json"):
        name, configuration = path.relative_to(root).parts[:2]
        configurations[name] = configurations.get(name, frozenset()) | {configuration}
    return CachedDatasets(configurations)


@functools.cache
def cache_folder(dataset_path: str) -> str:
    """A dataset's folder name in the cache: owner___name, in snake case."""
    owner, slash, name = dataset_path.rpartition("/")
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    name = re.sub(r"([a-z\d])([A-Z])", r"\1_\2", name).lower()
    return f"{owner}___{name}" if slash else name


def _datasets_cache() -> Path:
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"
    )
    return Path(os.environ.get("HF_DATASETS_CACHE") or os.path.join(home, "datasets")).expanduser()


def _is_here(file: str) -> bool:
    """Whether a file or glob pattern exists, relative to the working directory."""
    return bool(glob.glob(file, recursive=True)) or Path(file).exists()


def refuse_missing(names: Iterable[str], index: TaskIndex) -> None:
    """Refuse tasks that can't run on this machine, before anything starts.

    Raises:
        UnknownTask: A name matches no task.
        BadInput: A task is not supported, its file would run code that is not allowed, a data
            file is missing, or its dataset is not cached and downloads are forbidden.
    """
    names = list(names)
    rows = [row for name in names for row in index.leaves(name)]
    for source in dict.fromkeys(source for name in names for source in index.sources(name)):
        code_policy.refuse_code(source)
    for row in rows:
        if row.refused:
            why = row.refused[0].lower() + row.refused[1:]
            raise BadInput(f"Task {row.name} can't be run: {why} Remove it from the list.")
    data = cached_datasets()
    lacking = [row for row in rows if data.has(row) is False]
    for row in lacking:
        missing = [file for file in row.files or () if not _is_here(file)]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise BadInput(
                f"The task {row.name} reads {missing[0]}{more}, which is not on this machine. Put "
                f"it there, or correct {row.source}. Relative paths start at {Path.cwd()}."
            )
    variable = offline_variable()
    if not lacking or variable is None:
        return
    tasks = [row.name for row in lacking]
    datasets = list(dict.fromkeys(_dataset(row) for row in lacking))
    to_fetch = [
        name for name in dict.fromkeys(names) if any(r in lacking for r in index.leaves(name))
    ]
    raise BadInput(missing_message(tasks, datasets, variable, " ".join(to_fetch)))


def missing_message(tasks: list[str], datasets: list[str], variable: str, names: str) -> str:
    """The error for tasks whose datasets are not cached while downloads are forbidden.

    Args:
        tasks: The tasks that lack data.
        datasets: Their datasets.
        variable: The environment variable that forbids downloads.
        names: What to pass to `explorer tasks fetch`, as typed in a shell.
    """
    subject = (
        f"The task {tasks[0]} needs"
        if len(tasks) == 1
        else (f"The tasks {tasks[0]} and {len(tasks) - 1} more need")
    )
    noun = "the dataset" if len(datasets) == 1 else "the datasets"
    more = f" and {len(datasets) - NAMED} more" if len(datasets) > NAMED else ""
    return (
        f"{subject} {noun} {', '.join(datasets[:NAMED])}{more}, which this machine does not have, "
        f"and {variable}=1 forbids downloads. Choose local tasks, or download while online: "
        f"env -u {variable} explorer tasks fetch {names}"
    )


def _dataset(row: TaskRow) -> str:
    return " ".join(part for part in (row.dataset_path, row.dataset_name) if part)
