"""Which tasks have their data on this machine, and the refusal of those that do not.

The rules are those of `datasets`, which reads a data set of the hub without a connection only
from its own cache: CACHE/owner___name/configuration/version/hash.

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
"""Variables that keep a process from fetching data."""
YES = frozenset({"1", "true", "yes", "on"})
NAMED = 4
"""Data sets that a refusal names; the others are counted."""


def offline_variable() -> str | None:
    """The variable that keeps this machine from fetching data, or None."""
    return next((name for name in OFFLINE if os.environ.get(name, "").lower() in YES), None)


@dataclasses.dataclass(frozen=True)
class CachedDatasets:
    """The data sets in the cache of `datasets`: folder name to its configurations."""

    configurations: dict[str, frozenset[str]]
    folders: dict[str, bool] = dataclasses.field(default_factory=dict)
    """Data sets that were looked for as folders of this machine, and whether they are."""

    def key(self) -> str:
        """A text that differs when they do."""
        return repr(sorted((name, sorted(kept)) for name, kept in self.configurations.items()))

    def has(self, row: TaskRow) -> bool | None:
        """Whether a task's data is here; None where its file does not tell."""
        if row.files is not None:
            return all(_is_here(file) for file in row.files)
        if row.dataset_path is None or row.dataset_path in FILE_FORMATS:
            return None
        if row.dataset_path not in self.folders:
            self.folders[row.dataset_path] = Path(row.dataset_path).is_dir()
        if self.folders[row.dataset_path]:
            return True
        found = self.configurations.get(cache_folder(row.dataset_path))
        if not found or row.dataset_name is None:
            return bool(found)
        # Options of the data set go into the name behind a dash.
        return any(f"{one}-".startswith(f"{row.dataset_name}-") for one in found)

    def has_all(self, rows: Sequence[TaskRow]) -> bool | None:
        """Whether the data of all these tasks is here; None where one does not tell."""
        found = {self.has(row) for row in rows}
        return False if False in found else None if None in found or not found else True


def cached_datasets() -> CachedDatasets:
    """The data sets that `datasets` has in its cache now."""
    found: dict[str, frozenset[str]] = {}
    root = _datasets_cache()
    for path in root.glob("*/*/*/*/dataset_info.json"):
        name, configuration = path.relative_to(root).parts[:2]
        found[name] = found.get(name, frozenset()) | {configuration}
    return CachedDatasets(found)


@functools.cache
def cache_folder(dataset_path: str) -> str:
    """The folder of a data set in the cache: owner___name, in snake case."""
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
    """Whether a file, or one that a pattern means, is here; paths count from where we run."""
    return bool(glob.glob(file, recursive=True)) or Path(file).exists()


def refuse_missing(names: Iterable[str], index: TaskIndex) -> None:
    """Refuse tasks that cannot be asked here, before anything is started.

    Raises:
        UnknownTask: A name means nothing.
        BadInput: A task is one that we do not run, its file would run code and may not, a data
            file is missing, or its data set is not here and nothing may be fetched.
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
                f"it there, or correct {row.source}. A relative path counts from {Path.cwd()}."
            )
    variable = offline_variable()
    if not lacking or variable is None:
        return
    tasks = [row.name for row in lacking]
    data_sets = list(dict.fromkeys(_data_set(row) for row in lacking))
    raise BadInput(missing_message(tasks, data_sets, variable, " ".join(dict.fromkeys(names))))


def missing_message(tasks: list[str], data_sets: list[str], variable: str, asked: str) -> str:
    """The sentence on tasks whose data sets are not here and may not be fetched."""
    who = (
        f"The task {tasks[0]} needs"
        if len(tasks) == 1
        else (f"The tasks {tasks[0]} and {len(tasks) - 1} more need")
    )
    what = "the data set" if len(data_sets) == 1 else "the data sets"
    more = f" and {len(data_sets) - NAMED} more" if len(data_sets) > NAMED else ""
    return (
        f"{who} {what} {', '.join(data_sets[:NAMED])}{more}, which this machine does not have, and "
        f"{variable}=1 keeps it from fetching. Choose local tasks, or fetch with a connection: "
        f"env -u {variable} explorer tasks fetch {asked}"
    )


def _data_set(row: TaskRow) -> str:
    return " ".join(part for part in (row.dataset_path, row.dataset_name) if part)
