"""Removes what no run needs any more, and nothing that a run under way uses.

A run takes the lock `disk.CLEANING` for a moment when it begins, so none begins while a clean looks
and removes.
"""

import contextlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from explorer.errors import JobError, NoRoom
from explorer.index.run_states import ACTIVE
from explorer.jobs import states
from explorer.store import disk, leftovers
from explorer.store.leftovers import Findings, Leftover

WAIT_S = 10.0


def look(root: Path, *, caches: bool = False) -> Findings:
    """What `clean` would remove now; changes nothing.

    Args:
        root: The store.
        caches: Also what any new run would make again.
    """
    return leftovers.find(root, runs_under_way(root), caches=caches)


def clean(
    root: Path, *, caches: bool = False, shown: Collection[Leftover] | None = None
) -> Findings:
    """Remove what no run needs and return it.

    Args:
        root: The store.
        caches: Also what any new run would make again.
        shown: What a person saw and agreed to; nothing else is removed. None removes all.

    Raises:
        JobError: Another clean is under way.
        NoRoom: The store may not be written.
    """
    with _alone(root):
        findings = look(root, caches=caches)
        if shown is not None:
            paths = {leftover.path for leftover in shown}
            agreed = [leftover for leftover in findings.leftovers if leftover.path in paths]
            findings = Findings(agreed, findings.reasons)
        leftovers.remove(root, findings.leftovers)
    return findings


def runs_under_way(root: Path) -> list[str]:
    """Runs and tournaments that are queued or running, and runs that a process here has begun."""
    active = []
    for folder in (root, root / disk.TOURNAMENTS):
        table = states.status_table(folder, limit=0)
        active += [str(run_id) for run_id in table.loc[table["state"].isin(ACTIVE), "run_id"]]
    begun = [run_id for run_id in disk.run_ids(root) if _is_held(disk.lock_file(root, run_id))]
    return sorted({*active, *begun})


def _is_held(lock_file: Path) -> bool:
    """Whether a process holds a lock."""
    if not lock_file.exists():
        return False
    with contextlib.suppress(OSError):
        try:
            with filelock.FileLock(lock_file, timeout=0):
                return False
        except filelock.Timeout:
            return True
    # It may not be opened; a read-only store has no run under way on this host.
    return False


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    path = disk.lock_file(root, disk.CLEANING)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path, timeout=WAIT_S):
            yield
    except filelock.Timeout as error:
        raise JobError("Another clean of this store is under way. Wait for it.") from error
    except OSError as error:
        raise NoRoom(f"Could not write to {root}: {error.strerror or error}.") from error
