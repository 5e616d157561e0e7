"""Hidden and deleted runs. Both can be undone.

results/hidden.json          ids of hidden runs, which pages and tables leave out
results/.trash/ID~DATE/      a deleted run, complete; restoring it moves it back

Hiding and deleting change no other run. A student whose teacher's run is deleted cannot be
compared until that run is restored.
"""

import dataclasses
import shutil
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from explorer.errors import BadInput, DamagedStore, NoRoom
from explorer.files import durable_files
from explorer.store import disk

HIDDEN, TRASH = "hidden.json", ".trash"
STUDENTS = (Path(disk.STUDENTS), Path(disk.STUDENTS_BEFORE))
LOCK = Path(".work") / "locks" / "trash.lock"
DATE = "%Y%m%dT%H%M%S.%fZ"


@dataclasses.dataclass(frozen=True)
class DeletedRun:
    """A run in the trash."""

    run_id: str
    deleted_at: str
    """UTC, ISO 8601."""
    folder: Path


def hidden_run_ids(root: Path) -> frozenset[str]:
    """Ids of the hidden runs.

    Raises:
        DamagedStore: The file is not a list of ids. It is not changed.
    """
    path = root / HIDDEN
    try:
        return frozenset(durable_files.read_json(path, list[str]))
    except FileNotFoundError:
        return frozenset()
    except DamagedStore as error:
        raise DamagedStore(
            f'{path} should be a list of run ids, as in ["my-run-0a1b2c3d"]. Repair or remove it. '
            f"({error})"
        ) from error


def hide(root: Path, run_ids: Collection[str]) -> None:
    """Leave runs out of pages and tables. Their files stay.

    Raises:
        BadInput: There is no such run.
        DamagedStore: The file of hidden runs cannot be read.
    """
    for run_id in run_ids:
        check_run_exists(root, run_id)
    with durable_files.locked(root / LOCK):
        _write_hidden(root, hidden_run_ids(root) | set(run_ids))


def unhide(root: Path, run_ids: Collection[str]) -> None:
    """Show hidden runs again. A run that is not hidden stays as it is.

    Raises:
        DamagedStore: The file of hidden runs cannot be read.
    """
    with durable_files.locked(root / LOCK):
        _write_hidden(root, hidden_run_ids(root) - set(run_ids))


def delete(root: Path, run_id: str) -> DeletedRun:
    """Move a complete run into the trash. Its student's weights stay until the trash is emptied.

    The run must not be active: `jobs.delete` checks that.

    Raises:
        BadInput: There is no such run.
        DamagedStore: The file of hidden runs cannot be read.
        NoRoom: The store may not be written.
    """
    check_run_exists(root, run_id)
    folder = disk.run_folder(root, run_id)
    with durable_files.locked(root / LOCK):
        # A later run of the same spec is a new one, and not hidden.
        still_hidden = hidden_run_ids(root) - {run_id}
        target = root / TRASH / f"{run_id}~{datetime.now(UTC).strftime(DATE)}"
        try:
            target.parent.mkdir(exist_ok=True)
            folder.rename(target)
        except OSError as error:
            raise NoRoom(f"Could not move {folder} to {target}: {error.strerror}.") from error
        _write_hidden(root, still_hidden)
    shutil.rmtree(root / ".work" / "stages" / run_id, ignore_errors=True)
    return _deleted(target)


def deleted_runs(root: Path) -> list[DeletedRun]:
    """The runs in the trash, the latest first."""
    folder = root / TRASH
    if not folder.is_dir():
        return []
    entries = [_deleted(path) for path in folder.iterdir() if _is_entry(path)]
    return sorted(entries, key=lambda entry: entry.folder.name.rpartition("~")[2], reverse=True)


def restore(root: Path, run_id: str) -> None:
    """Move a run out of the trash, the latest with that id.

    Raises:
        BadInput: It is not in the trash, or the store has another run with that id.
        NoRoom: The store may not be written.
    """
    with durable_files.locked(root / LOCK):
        entry = next((entry for entry in deleted_runs(root) if entry.run_id == run_id), None)
        if entry is None:
            raise BadInput(
                f"There is no run {run_id!r} in the trash of {root}. `explorer trash` lists them."
            )
        target = disk.run_folder(root, run_id)
        if target.exists():
            raise BadInput(
                f"{root} has a run {run_id!r} again. Delete that one first to restore the earlier."
            )
        try:
            entry.folder.rename(target)
        except OSError as error:
            raise NoRoom(f"Could not move {entry.folder} back: {error.strerror}.") from error


def empty_trash(root: Path) -> int:
    """Delete the runs in the trash for good, and students that no other run uses.

    Returns:
        The number of deleted runs.
    """
    with durable_files.locked(root / LOCK):
        entries = deleted_runs(root)
        students = {student_of(entry.folder) for entry in entries}
        students -= {student_of(root / run_id) for run_id in disk.run_ids(root)}
        for entry in entries:
            shutil.rmtree(entry.folder, ignore_errors=True)
        for name in students - {None}:
            for place in STUDENTS:
                shutil.rmtree(root / place / str(name), ignore_errors=True)
    return len(entries)


def resolve_run_id(root: Path, text: str) -> str:
    """The id of the run in the trash that `text` names or begins.

    Raises:
        BadInput: No id has this prefix, or several do.
    """
    known = sorted({entry.run_id for entry in deleted_runs(root)})
    return disk.resolve_id(
        text,
        known,
        "deleted runs",
        f"There is no run {text!r} in the trash of {root}.",
        "`explorer trash` lists them.",
    )


def check_run_exists(root: Path, run_id: str) -> None:
    """Refuse an id that no run of the store has. A prefix does not count.

    Raises:
        BadInput: There is no such run, or the id could reach outside the store.
    """
    disk.run_folder(root, run_id)  # refuses what could reach outside the store
    if not disk.is_run(root, run_id):
        raise BadInput(f"There is no run {run_id!r} in {root}. `explorer ls --all` lists them.")


def student_of(run_folder: Path) -> str | None:
    """The name of the folder with a run's student; None if it has none of its own."""
    try:
        path = Path(durable_files.read_text(run_folder / disk.WEIGHTS).strip())
    except (FileNotFoundError, NotADirectoryError, DamagedStore):
        return None
    inside = path.parent.parent in STUDENTS and disk.RUN_ID.fullmatch(path.parent.name)
    return path.parent.name if inside else None


def _write_hidden(root: Path, run_ids: Collection[str]) -> None:
    if run_ids or (root / HIDDEN).exists():
        durable_files.write_json(root / HIDDEN, sorted(run_ids), indent=1)


def _is_entry(path: Path) -> bool:
    run_id, _, date = path.name.partition("~")
    try:
        datetime.strptime(date, DATE).replace(tzinfo=UTC)
    except ValueError:
        return False
    return disk.RUN_ID.fullmatch(run_id) is not None


def _deleted(path: Path) -> DeletedRun:
    run_id, _, date = path.name.partition("~")
    deleted_at = datetime.strptime(date, DATE).replace(tzinfo=UTC)
    return DeletedRun(run_id, deleted_at.isoformat(timespec="seconds"), path)
