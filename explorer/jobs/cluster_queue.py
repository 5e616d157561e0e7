"""The runs that wait for room on a cluster, in files of the submitter's cache.

Ray fails a job that waits for 15 minutes. So waiting is ours: a run is an entry here, and the
dispatcher (`dispatch.py`) submits it once the cluster has room. An entry says what to execute, so
it is in the user's cache and not in the store, which others may have written:

    queue/<key>/            of one store on one cluster
        <number>-<run_id>.json
        dispatcher          the id of the Ray job that reads the entries
        lock                held while entries are added, and while the dispatcher ends
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import filelock

from explorer import paths
from explorer.errors import DamagedStore, JobError, NoRoom
from explorer.files import durable_files

LOCK_WAIT_S = 60.0
DISPATCHER = "dispatcher"
"""Name of the Ray job that submits entries, and of the file with its submission id."""


@dataclass(frozen=True)
class Entry:
    """A run that waits, or that runs and may have to be queued again."""

    run_id: str
    number: int
    """Its place: lower ones go first."""
    entrypoint: str
    env_vars: dict[str, str]
    num_cpus: int
    num_gpus: int
    submission_id: str | None = None
    """Its job in Ray; None while it waits."""
    lost_on: list[str] = field(default_factory=list)
    """The machines that were lost while they ran it."""


class ClusterQueue:
    """The entries of one store on one cluster."""

    def __init__(self, root: Path, cluster: str) -> None:
        """Touches no file."""
        key = hashlib.sha256(f"{root.resolve()}\n{cluster}".encode()).hexdigest()[:16]
        self.root = root
        self.folder = paths.cache_dir() / "queue" / key

    def entries(self) -> list[Entry]:
        """All entries in their order; a damaged one is left out."""
        found = []
        for path in self.folder.glob("*-*.json") if self.folder.is_dir() else []:
            try:
                found.append(durable_files.read_json(path, Entry))
            except (FileNotFoundError, DamagedStore):
                continue
        return sorted(found, key=lambda entry: entry.number)

    def run_ids(self) -> set[str]:
        """The runs that have an entry."""
        return {entry.run_id for entry in self.entries()}

    def add(self, entry: Entry) -> None:
        """Add an entry at the end, in place of an earlier one of the same run."""
        present = self.entries()
        for old in present:
            if old.run_id == entry.run_id:
                self.remove(old)
        last = max((old.number for old in present), default=0)
        self.write(replace(entry, number=last + 1))

    def write(self, entry: Entry) -> None:
        """Write an entry, new or changed."""
        durable_files.write_json(self._path(entry), asdict(entry))

    def remove(self, entry: Entry) -> None:
        """Remove an entry."""
        self._path(entry).unlink(missing_ok=True)

    @property
    def dispatcher(self) -> str | None:
        """Submission id of the job that reads the entries; None if it has ended."""
        try:
            return durable_files.read_text(self.folder / DISPATCHER).strip() or None
        except (FileNotFoundError, NotADirectoryError, DamagedStore):
            return None

    @dispatcher.setter
    def dispatcher(self, submission_id: str | None) -> None:
        if submission_id is None:
            (self.folder / DISPATCHER).unlink(missing_ok=True)
        else:
            durable_files.write_text(self.folder / DISPATCHER, submission_id)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the entries.

        Raises:
            JobError: Another process has held it for a minute.
            NoRoom: The cache may not be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with filelock.FileLock(self.folder / "lock", timeout=LOCK_WAIT_S):
                yield
        except filelock.Timeout as error:
            raise JobError(
                f"Another process has held {self.folder / 'lock'} for {LOCK_WAIT_S:.0f} s. Wait "
                "for it, or end it."
            ) from error
        except OSError as error:
            raise NoRoom(f"Could not write {self.folder}: {error.strerror or error}.") from error

    def _path(self, entry: Entry) -> Path:
        return self.folder / f"{entry.number:08d}-{entry.run_id}.json"
