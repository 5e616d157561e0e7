"""Runs, scores and states of one store, read again only where a file changed.

A look at the store lists its folders and compares date, size and inode of each record.json and
status.json with those that were read. That takes about 10 microseconds per run. Only runs whose
files changed are read again.
"""

import dataclasses
import functools
import json
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np
import pandas as pd
from filelock import FileLock

from explorer.errors import BadInput, DamagedStore
from explorer.files import durable_files
from explorer.index import run_states
from explorer.index.database import Database, database_path, in_list
from explorer.index.run_states import StatusRow
from explorer.store import disk, frames, trash
from explorer.store.columns import RECORD

RUNS_PER_TRANSACTION = 200
OF_A_RUN = (
    *("folders", "runs", "scores", "states", "packed_runs", "answers", "retention", "draws"),
)
"""The tables whose rows belong to one run."""
DELETE_RUNS = "DELETE FROM {} WHERE run_id IN (SELECT value FROM json_each(?))"
NEW_GENERATION = "UPDATE store SET generation = generation + 1"

OnProgress = Callable[[int, int], None]
"""Called with how many runs are done, and of how many."""
P = ParamSpec("P")
S = TypeVar("S", bound="RecordsIndex")
T = TypeVar("T")


class Folder(NamedTuple):
    """A folder of the store, as one look found it."""

    run_id: str
    record_stamp: str | None
    status_stamp: str | None


@dataclasses.dataclass
class Content:
    """What the files of a run that changed hold."""

    record_changed: bool
    state: StatusRow | None = None
    row: dict[str, Any] | None = None
    scores: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    problem: str | None = None
    weights: str | None = None


def repaired(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Take turns with other threads; when the file is damaged, begin a new one and try again."""

    @functools.wraps(method)
    def wrapper(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.lock:
            try:
                return method(self, *args, **kwargs)
            except sqlite3.DatabaseError as error:
                self.repair(error)
                return method(self, *args, **kwargs)

    return wrapper


class RecordsIndex:
    """What the records of one store hold. Threads may share it, and processes its file."""

    def __init__(self, root: Path, folder: Path | None = None) -> None:
        """Index the store at `root` in a file under `folder`, by default `paths.index_dir()`."""
        self.root = root
        self.path = database_path(root, folder)
        self.lock = threading.RLock()
        self.database = Database(self.path, root)
        self._foreign: list[str] = []
        self._run_ids: list[str] = []
        self._hidden: frozenset[str] = frozenset()
        self._hidden_problem: str | None = None
        self.forget()

    def forget(self) -> None:
        """Take nothing in memory for what is in the file."""
        self._known: dict[str, Folder] = {}
        self._data_version = -1
        self._looked_at = -math.inf

    def repair(self, error: sqlite3.DatabaseError) -> None:
        """Start with an empty file after a database error; records are read again to fill it.

        Raises:
            NoRoom: Another process keeps the file locked.
        """
        self.database.repair(error)
        self.forget()
        self.update()

    # Bringing it up to date

    @repaired
    def update(self, max_age_s: float = 0.0, on_progress: OnProgress | None = None) -> None:
        """Read what changed in the store since the last look.

        Args:
            max_age_s: A look that is not older counts.
            on_progress: Called as runs are read.
        """
        if time.monotonic() - self._looked_at < max_age_s:
            return
        folders = self._list_folders()
        changed, gone = self._compare(folders)
        if len(changed) > RUNS_PER_TRANSACTION and self.path.exists():
            # One process reads a large store, the others then find it read.
            with FileLock(self.path.with_suffix(".lock")):
                changed, gone = self._compare(folders)
                self._read(changed, gone, on_progress)
        elif changed or gone:
            self._read(changed, gone, on_progress)
        try:
            self._hidden, self._hidden_problem = trash.hidden_run_ids(self.root), None
            if absent := self._hidden.difference(self._run_ids):
                self._hidden_problem = (
                    f"{self.root / trash.HIDDEN} hides runs that are not in the store: "
                    f"{', '.join(sorted(absent)[:3])}. Remove them from it, or repair their names."
                )
        except DamagedStore as error:
            self._hidden, self._hidden_problem = frozenset(), str(error)
        self._looked_at = time.monotonic()

    def refresh(self) -> None:
        """Let the next question look at the store: this process has just written to it."""
        with self.lock:
            self._looked_at = -math.inf

    def _list_folders(self) -> dict[str, Folder]:
        folders = {}
        self._run_ids, foreign = disk.list_folders(self.root)
        for run_id in self._run_ids:
            place = f"{self.root}/{run_id}/"
            record, status = _stamp(place + disk.RECORD), _stamp(place + disk.STATUS)
            if record is None and os.path.lexists(place + disk.RECORD):
                foreign.append(f"{place}{disk.RECORD} cannot be opened. Is it a broken link?")
            elif record is None and not (os.path.exists(place + disk.SPEC) or _has_begun(place)):
                foreign.append(
                    f"{self.root / run_id} is not a run: it has neither {disk.SPEC} nor "
                    f"{disk.RECORD}."
                )
            if record or status:
                folders[run_id] = Folder(run_id, record, status)
        self._foreign = foreign
        return folders

    def _compare(self, folders: Mapping[str, Folder]) -> tuple[list[Folder], list[str]]:
        """The folders that are not in the file as they are now, and ids that are only there."""
        if (version := self.database.data_version()) != self._data_version:
            rows = self.query("SELECT run_id, record_stamp, status_stamp FROM folders")
            self._known = {row[0]: Folder(*row) for row in rows}
            self._data_version = version
        changed = [folder for folder in folders.values() if self._known.get(folder[0]) != folder]
        return changed, sorted(self._known.keys() - folders.keys())

    def _read(self, changed: list[Folder], gone: list[str], on_progress: OnProgress | None) -> None:
        if gone:
            with self.database.writing() as connection:
                for table in OF_A_RUN:
                    connection.execute(DELETE_RUNS.format(table), [in_list(gone)])
                connection.execute(NEW_GENERATION)
            for run_id in gone:
                del self._known[run_id]
        for start in range(0, len(changed), RUNS_PER_TRANSACTION):
            batch = changed[start : start + RUNS_PER_TRANSACTION]
            read = [self._read_folder(folder) for folder in batch]
            with self.database.writing() as connection:
                for folder, content in zip(batch, read, strict=True):
                    _write_folder(connection, folder, content)
                if any(content.record_changed for content in read):
                    connection.execute(NEW_GENERATION)
            self._known |= {folder.run_id: folder for folder in batch}
            if on_progress:
                on_progress(start + len(batch), len(changed))

    def _read_folder(self, folder: Folder) -> Content:
        """Read the files of a run that changed."""
        run_id, known = folder.run_id, self._known.get(folder.run_id)
        place = self.root / run_id
        content = Content(record_changed=known is None or known[1] != folder.record_stamp)
        content.state = run_states.read_state(self.root, run_id)
        if not content.record_changed or folder.record_stamp is None:
            return content
        try:
            record = disk.load(self.root, run_id)
        except (DamagedStore, BadInput) as error:
            content.problem = str(error)
            return content
        content.row, content.scores = frames.row(record), frames.score_rows(record)
        try:
            content.weights = durable_files.read_text(place / disk.WEIGHTS).strip()
        except (FileNotFoundError, DamagedStore):
            content.weights = None
        return content

    def query(self, sql: str, values: Iterable[Any] = ()) -> list[Any]:
        """The rows of one statement; the caller holds `lock`."""
        return self.database.connection.execute(sql, tuple(values)).fetchall()

    # Runs and scores

    @repaired
    def runs(
        self,
        run_ids: Collection[str] | None = None,
        columns: Sequence[str] = tuple(frames.COLUMNS),
    ) -> pd.DataFrame:
        """As `frames.runs`, sorted by run id: all runs that have a record, or these.

        Args:
            run_ids: The runs; None takes all.
            columns: Some of `frames.COLUMNS`; a few are read much faster than all.
        """
        names = ", ".join(f'"{name}"' for name in columns)
        rows = self.query(
            f"SELECT {names} FROM runs {where_in(run_ids)} ORDER BY run_id", parameters(run_ids)
        )
        return _run_frame(rows, columns)

    @repaired
    def scores(
        self, run_ids: Collection[str] | None = None, task: str | None = None
    ) -> pd.DataFrame:
        """As `frames.scores`, sorted by run id: of all runs, or of these; perhaps of one task."""
        names = ", ".join(f'"{name}"' for name in frames.SCORE_COLUMNS)
        where = where_in(run_ids)
        if task is not None:
            where += f" {'AND' if where else 'WHERE'} task = ?"
        rows = self.query(
            f"SELECT {names} FROM scores {where} ORDER BY run_id, rowid",
            [*parameters(run_ids), *([] if task is None else [task])],
        )
        return frames.scores_of(rows)

    @repaired
    def tasks(self) -> list[str]:
        """Names of all tasks that have a score, sorted."""
        return [row[0] for row in self.query("SELECT DISTINCT task FROM scores ORDER BY task")]

    @repaired
    def problems(self) -> list[str]:
        """One sentence for each folder that could not be read."""
        rows = self.query(
            "SELECT run_id, problem FROM folders WHERE problem IS NOT NULL UNION "
            "SELECT run_id, problem FROM packed_runs WHERE problem IS NOT NULL ORDER BY run_id"
        )
        hidden = [self._hidden_problem] if self._hidden_problem else []
        return [*self._foreign, *(row[1] for row in rows), *hidden]

    def hidden(self) -> frozenset[str]:
        """Ids of the hidden runs, at the last look."""
        return self._hidden

    @repaired
    def weights(self, run_ids: Collection[str]) -> dict[str, Path]:
        """The folders of these runs' students, of those whose weights are on this machine."""
        rows = self.query(
            f"SELECT run_id, weights FROM folders {where_in(run_ids)} AND weights IS NOT NULL",
            parameters(run_ids),
        )
        folders = ((row[0], disk.weights_by_name(self.root, row[1])) for row in rows)
        return {run_id: folder for run_id, folder in folders if folder is not None}

    # States

    @repaired
    def active_states(self) -> list[StatusRow]:
        """The rows of runs that call themselves running or queued."""
        rows = self.query("SELECT words FROM states WHERE state IN ('running', 'queued')")
        return [json.loads(row[0]) for row in rows]

    @repaired
    def ended_states(
        self, limit: int | None = None, *, without: Collection[str] = ()
    ) -> list[StatusRow]:
        """The rows of all other runs, the latest first.

        Args:
            limit: How many at most; None takes all.
            without: Ids of runs to leave out.
        """
        rows = self.query(
            "SELECT words FROM states WHERE state NOT IN ('running', 'queued') "
            "AND run_id NOT IN (SELECT value FROM json_each(?)) "
            "ORDER BY updated_at DESC, run_id LIMIT ?",
            [in_list(without), -1 if limit is None else limit],
        )
        return [json.loads(row[0]) for row in rows]

    @repaired
    def num_states(self, run_ids: Collection[str] | None = None) -> int:
        """How many runs, of all or of these, have a status or a record."""
        sql = f"SELECT count(*) FROM states {where_in(run_ids)}"
        return int(self.query(sql, parameters(run_ids))[0][0])


def where_in(run_ids: Collection[str] | None) -> str:
    """The condition that a row belongs to one of these runs; no condition for None."""
    return "" if run_ids is None else "WHERE run_id IN (SELECT value FROM json_each(?))"


def parameters(run_ids: Collection[str] | None) -> list[str]:
    """The values of `where_in`."""
    return [] if run_ids is None else [in_list(run_ids)]


def _has_begun(place: str) -> bool:
    """Whether a folder holds nothing but the first file of a run, which is not whole yet."""
    try:
        names = os.listdir(place)
    except OSError:
        return False
    return bool(names) and all(name.endswith(durable_files.PARTIAL) for name in names)


def _stamp(path: str) -> str | None:
    """A text that changes when a file does; None where there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    # Files are replaced in one rename, so another file of the same size and moment is told apart.
    return f"{stat.st_mtime_ns:x}-{stat.st_size:x}-{stat.st_ino:x}"


def _write_folder(connection: sqlite3.Connection, folder: Folder, content: Content) -> None:
    """Replace the rows of one run."""
    run_id, state = folder.run_id, content.state
    if state is None:
        connection.execute("DELETE FROM states WHERE run_id = ?", [run_id])
    else:
        connection.execute(
            "INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?)",
            [run_id, state["state"], state["updated_at"], json.dumps(state)],
        )
    if not content.record_changed:
        connection.execute(
            "UPDATE folders SET status_stamp = ? WHERE run_id = ?", [folder.status_stamp, run_id]
        )
        return
    connection.execute(
        "INSERT OR REPLACE INTO folders VALUES (?, ?, ?, ?, ?)",
        [*folder, content.problem, content.weights],
    )
    for table in ("runs", "scores"):
        connection.execute(f"DELETE FROM {table} WHERE run_id = ?", [run_id])
    if content.row is not None:
        values = [_sql_value(content.row.get(name)) for name in frames.COLUMNS]
        connection.execute(f"INSERT INTO runs VALUES ({', '.join('?' * len(values))})", values)
    connection.executemany(
        f"INSERT INTO scores VALUES ({', '.join('?' * len(frames.SCORE_COLUMNS))})",
        [[_sql_value(row.get(name)) for name in frames.SCORE_COLUMNS] for row in content.scores],
    )


def _sql_value(value: Any) -> Any:
    """A value that SQLite keeps: lists as JSON, NumPy's numbers as Python's."""
    if isinstance(value, list):
        return json.dumps(value)
    return value.item() if isinstance(value, np.generic) else value


def _run_frame(rows: list[Any], columns: Sequence[str]) -> pd.DataFrame:
    """Rows of the table `runs` as `frames.runs` makes them."""
    frame = pd.DataFrame(rows, columns=list(columns))
    kinds = {name: RECORD[name].kind for name in columns}
    for name in [name for name, kind in kinds.items() if kind == "list"]:
        frame[name] = [json.loads(text) if isinstance(text, str) else None for text in frame[name]]
    # A numeric column without any value would otherwise be a column of objects.
    types: dict[str, type] = {}
    for name, kind in kinds.items():
        if kind == "flag":
            types[name] = bool
        elif kind == "number" and frame[name].isna().all():
            types[name] = float
    return frame.astype(types)
