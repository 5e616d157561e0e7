"""The SQLite file of an index: where it lies, its tables, and what happens when it is damaged.

The file lies in the cache folder, never in the store: a store may be read-only or on a network
file system, where SQLite's locks can't be relied on. Its name holds the store's path, this host
and the code that fills it, so that two versions of the code, or two hosts that share a home
folder, never write one file. Everything in it can be made again from the records, so a file that
can't be read is deleted and filled again.
"""

import contextlib
import hashlib
import json
import os
import socket
import sqlite3
import time
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import explorer.records
import explorer.specs
from explorer import paths
from explorer.analysis import stats
from explorer.errors import NoRoom
from explorer.files import durable_files
from explorer.store import columns, disk, frames

BUSY_TIMEOUT_S = 30.0
"""A writer waits this long for another process's transaction; most take well under a second."""
UNUSED_DAYS = 90
"""An index that was not opened for this many days is deleted when a new one is made."""
SCHEMA = f"""
CREATE TABLE folders (
    run_id TEXT PRIMARY KEY, record_stamp TEXT, status_stamp TEXT, problem TEXT, weights TEXT
);
CREATE TABLE runs (run_id TEXT PRIMARY KEY, {", ".join(f'"{c}"' for c in frames.COLUMNS[1:])});
CREATE TABLE scores ({", ".join(f'"{c}"' for c in frames.SCORE_COLUMNS)});
CREATE INDEX scores_by_run ON scores (run_id);
CREATE INDEX scores_by_task ON scores (task, run_id);
CREATE TABLE states (
    run_id TEXT PRIMARY KEY, state TEXT NOT NULL, updated_at REAL NOT NULL, words TEXT NOT NULL
);
CREATE INDEX states_by_time ON states (state, updated_at);
CREATE TABLE documents (key TEXT PRIMARY KEY, packed BLOB NOT NULL);
CREATE TABLE answers (
    run_id TEXT, task TEXT, metric TEXT, documents TEXT NOT NULL, packed BLOB NOT NULL,
    PRIMARY KEY (run_id, task, metric)
) WITHOUT ROWID;
CREATE TABLE packed_runs (run_id TEXT PRIMARY KEY, record_stamp TEXT NOT NULL, problem TEXT);
CREATE TABLE retention (
    run_id TEXT, task TEXT, stamps TEXT NOT NULL,
    retention REAL, retention_low REAL, retention_high REAL, raw_ratio REAL, raw_low REAL,
    raw_high REAL, num_tasks INTEGER NOT NULL, num_documents INTEGER NOT NULL,
    excluded_tasks TEXT NOT NULL,
    PRIMARY KEY (run_id, task)
) WITHOUT ROWID;
CREATE TABLE draws (run_id TEXT PRIMARY KEY, stamps TEXT NOT NULL, packed BLOB NOT NULL);
CREATE TABLE store (path TEXT NOT NULL, generation INTEGER NOT NULL, computed INTEGER NOT NULL);
"""
"""`retention.task` is empty for all tasks together; the draws are those of all tasks."""


def database_path(root: Path, folder: Path | None = None) -> Path:
    """Where the index of a store lies; `folder` is `paths.index_dir()` by default."""
    place = f"{root.resolve()}\n{socket.gethostname()}"
    name = hashlib.sha256(place.encode()).hexdigest()[:16]
    return (folder or paths.index_dir()) / f"{name}-{code_digest()}.sqlite"


@cache
def code_digest() -> str:
    """A text that changes when the code that fills the tables does."""
    packages = (explorer.records, explorer.specs, stats)
    modules = (columns, disk, durable_files, frames)
    files = [Path(str(module.__file__)) for module in modules]
    for folder in (Path(__file__).parent, *(Path(str(p.__file__)).parent for p in packages)):
        files += sorted(folder.glob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


class Database:
    """One connection to an index's file. Its owner lets one thread use it at a time."""

    def __init__(self, path: Path, root: Path) -> None:
        """Open the file, or make it."""
        self.path, self._root = path, root
        self.connection = self._open()

    def repair(self, error: sqlite3.DatabaseError) -> None:
        """Begin with empty tables after an error: in a new file, or in memory.

        A damaged file is thrown away. A full disk or a file that may no longer be written leaves
        memory, which costs time at the next start and nothing else.

        Raises:
            NoRoom: Another process keeps the file locked; nothing is thrown away.
        """
        if _is_locked(error):
            raise NoRoom(
                f"Another process has been writing {self.path} for {BUSY_TIMEOUT_S:.0f} s. "
                "Try again, or point EXPLORER_INDEX to another folder."
            ) from error
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()
        if isinstance(error, sqlite3.OperationalError):
            self.connection = self._in_memory()
        else:
            _unlink(self.path)
            self.connection = self._open()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: other processes see all of it, or nothing."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def data_version(self) -> int:
        """A number that changes when another connection has written to the file."""
        return int(self.connection.execute("PRAGMA data_version").fetchone()[0])

    def generation(self) -> int:
        """How often the rows of runs and scores have changed."""
        return int(self.connection.execute("SELECT generation FROM store").fetchone()[0])

    def computed(self) -> int:
        """How often rows of retention have been written."""
        return int(self.connection.execute("SELECT computed FROM store").fetchone()[0])

    def _open(self) -> sqlite3.Connection:
        """Open the file; throw it away where it is damaged; do without where there can be none."""
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                is_new = not self.path.exists()
                connection = _connect(self.path)
                self._make_tables(connection)
            except (OSError, sqlite3.OperationalError) as error:
                # Switching to WAL does not wait for other processes that do the same.
                if _is_locked(error) and time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                return self._in_memory()
            except sqlite3.DatabaseError:
                _unlink(self.path)
                continue
            if is_new:
                _delete_unused(self.path.parent, self.path)
            return connection

    def _in_memory(self) -> sqlite3.Connection:
        connection = _connect(None)
        self._make_tables(connection)
        return connection

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return
        connection.execute("BEGIN IMMEDIATE")
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            for statement in SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO store VALUES (?, 0, 0)", [str(self._root.resolve())])
        connection.execute("COMMIT")


def in_list(values: Collection[str]) -> str:
    """A parameter for `IN (SELECT value FROM json_each(?))`, however many values there are."""
    return json.dumps(sorted(values))


def _connect(path: Path | None) -> sqlite3.Connection:
    """Open the file, or tables in memory.

    Raises:
        sqlite3.DatabaseError: The file is not a database.
    """
    connection = sqlite3.connect(
        path or ":memory:", timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        if path is not None:
            # Readers go on while one process writes.
            connection.execute("PRAGMA journal_mode = WAL")
        # After a power cut the latest rows may be missing, which are then made again.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if path is not None:
            os.utime(path)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _is_locked(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _unlink(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _delete_unused(folder: Path, but: Path) -> None:
    """Delete indexes of any store that were not opened for `UNUSED_DAYS`."""
    oldest = time.time() - UNUSED_DAYS * 86_400
    for path in folder.glob("*.sqlite"):
        with contextlib.suppress(OSError):
            if path != but and path.stat().st_mtime < oldest:
                _unlink(path)
