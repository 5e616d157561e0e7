"""What a store holds that no run needs any more, by kind, and the disk space of each study.

    explorer clean

Whatever a run could still use is left out: while a run is under way all that runs share, and while
a run has not finished whatever it could continue from. What is removed is renamed first, so that
a killed removal leaves no half of a model that another run takes for whole.
"""

import contextlib
import dataclasses
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from explorer.errors import BadInput, DamagedStore, NoRoom
from explorer.files import durable_files
from explorer.records import RunRecord
from explorer.specs import RunSpec
from explorer.store import disk, trash

KINDS = {
    "trash": "Trash",
    "students": "Students of no run",
    "checkpoints": "Checkpoints that no run can continue",
    "targets": "Teacher targets of no run",
    "records": "Earlier results and attempts",
    "partial": "Half-written files",
    "damaged": "Damaged files that were set aside",
    "orphans": "Intermediate results of deleted runs",
    "caches": "What only a new run would use again",
}
"""Each kind with its name for people; `caches` counts only where they are asked for."""
SHARED = ("students", "checkpoints", "targets", "caches")
"""Kinds that runs share."""
WORK = Path(".work")
CACHES = ("targets", "texts", "tokens", "overlaps", "drop_order", "gguf")
"""Folders of `WORK` whose contents any run makes again."""
KEY = re.compile(r"[0-9a-f]{16}")
OURS = re.compile(r"\.?[0-9a-f]{16}[\w.-]*")
"""Names of what runs share, finished or half-written. A folder of the store may be a link to
another disk, or a foreign store may have one to somebody's home; other names there stay."""
OUR_RUN = re.compile(r"[a-z0-9._-]+-[0-9a-f]{8}")
OLD_RECORD = re.compile(r"record\.[0-9]+\.json")


@dataclasses.dataclass(frozen=True)
class Leftover:
    """A file or folder that no run needs."""

    kind: str
    path: Path
    num_bytes: int


@dataclasses.dataclass(frozen=True)
class Findings:
    """What can go, and why other things stay."""

    leftovers: list[Leftover]
    reasons: list[str]
    """One sentence for each group of things that stay."""

    def bytes_by_kind(self) -> dict[str, int]:
        """Bytes of each kind there is, in the order of `KINDS`."""
        return {
            kind: sum(one.num_bytes for one in self.leftovers if one.kind == kind)
            for kind in KINDS
            if any(one.kind == kind for one in self.leftovers)
        }

    @property
    def num_bytes(self) -> int:
        """All bytes that would be freed."""
        return sum(leftover.num_bytes for leftover in self.leftovers)


def find(root: Path, under_way: Collection[str], *, caches: bool = False) -> Findings:
    """Look through a store; changes nothing.

    Args:
        root: The store.
        under_way: Runs that are queued or running, here or elsewhere.
        caches: Also what any new run would make again: texts, tokens, targets, GGUF files.
    """
    unfinished, unreadable = _unfinished(root, under_way)
    reasons = []
    if under_way:
        reasons.append(f"{_names(under_way)} under way, so all that runs share stays.")
    elif may_continue := sorted(unfinished) + unreadable:
        reasons.append(
            f"{_names(may_continue)} not finished, so checkpoints, unused students and the targets "
            "of the same teacher stay. Delete or finish what you don't need."
        )
    found = list(_of_runs(root, under_way))
    if not under_way:
        found += _shared(root, unfinished, unreadable, caches=caches)
    order = list(KINDS)
    leftovers = [Leftover(kind, path, size_of(path)) for kind, path in dict.fromkeys(found)]
    return Findings(sorted(leftovers, key=lambda one: (order.index(one.kind), one.path)), reasons)


def remove(root: Path, leftovers: Collection[Leftover]) -> int:
    """Delete leftovers for good; returns the bytes freed. One that is gone already counts as none.

    Raises:
        NoRoom: The store may not be written.
    """
    num_bytes = 0
    with durable_files.locked(root / trash.LOCK):
        for leftover in leftovers:
            try:
                num_bytes += leftover.num_bytes if _remove(leftover) else 0
            except OSError as error:
                raise NoRoom(
                    f"Could not remove {leftover.path}: {error.strerror or error}."
                ) from error
    return num_bytes


def size_of(path: Path) -> int:
    """Bytes that a file or folder takes on the disk; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        return sum(size_of(entry) for entry in _entries(path))
    try:
        stat = path.lstat()
    except OSError:
        return 0
    # A hole takes no room, and a small file takes a block; some file systems do not say.
    return stat.st_blocks * 512 if stat.st_blocks else stat.st_size


def study_sizes(root: Path) -> dict[str, int]:
    """Bytes by study, the largest first: its runs' folders and the students that they use.

    A student that two studies use counts for the first of them. What all runs share, and the
    trash, have rows of their own.
    """
    sizes: dict[str, int] = {}
    counted: set[Path] = set()
    for run_id in disk.run_ids(root):
        if not disk.is_run(root, run_id):
            continue
        study = study_of(run_id)
        sizes[study] = sizes.get(study, 0) + size_of(root / run_id)
        weights = disk.weights_folder(root, run_id)
        if weights and weights.parent not in counted:
            counted.add(weights.parent)
            sizes[study] += size_of(weights.parent)
    in_order = dict(sorted(sizes.items(), key=lambda item: -item[1]))
    in_students = sum(size_of(path) for path in _entries(root / disk.STUDENTS))
    in_work = size_of(root / WORK) + in_students - sum(size_of(path) for path in counted)
    others = {
        "Shared by runs: targets, texts, checkpoints": in_work,
        "Trash": size_of(root / trash.TRASH),
    }
    return in_order | {name: size for name, size in others.items() if size > 0}


def study_of(run_id: str) -> str:
    """The study of a run: its name without the student's size, format or control arm."""
    name = run_id.rpartition("-")[0] or run_id
    if name.startswith("teacher-"):
        return re.sub(r"-(q\w+|f16|int[48])$", "", name.removeprefix("teacher-"))
    name = re.sub(r"-(q\w+|f16|int[48]|labels)$", "", name)
    return name.rpartition("-")[0] or name


def _names(run_ids: Collection[str]) -> str:
    """`a-1 is`, `a-1 and b-2 are`, `a-1 and 7 others are`; the start of a sentence."""
    first, *others = sorted(run_ids)
    if not others:
        return f"{first} is"
    return f"{first} and {others[0] if len(others) == 1 else f'{len(others)} others'} are"


def _unfinished(root: Path, under_way: Collection[str]) -> tuple[dict[str, RunSpec], list[str]]:
    """The student's runs that could be continued, and the runs whose files cannot be read."""
    specs, unreadable = {}, []
    for run_id in disk.run_ids(root):
        names_weights = (root / run_id / disk.WEIGHTS).exists()
        if names_weights and trash.student_of(root / run_id) is None:
            unreadable.append(run_id)
        if run_id in under_way or not (root / run_id / disk.SPEC).exists():
            continue
        if disk.is_finished(root, run_id):
            continue
        try:
            spec = disk.read_spec(root, run_id)
        except (BadInput, DamagedStore, OSError, UnicodeDecodeError):
            unreadable.append(run_id)
            continue
        if spec.student:
            specs[run_id] = spec
    return specs, unreadable


def _of_runs(root: Path, under_way: Collection[str]) -> Iterator[tuple[str, Path]]:
    """What belongs to one run each: the trash, earlier records, half-written files, orphans."""
    for entry in trash.deleted_runs(root):
        yield "trash", entry.folder
    run_ids = disk.run_ids(root)
    for run_id in run_ids:
        if run_id in under_way or not disk.is_run(root, run_id):
            continue
        for path in _entries(root / run_id):
            if OLD_RECORD.fullmatch(path.name):
                yield "records", path
            elif kind := _litter(path):
                yield kind, path
        if not disk.remeasure_requested(root, run_id):
            new_results = root / run_id / disk.NEW_RESULTS
            if new_results.is_dir():
                yield "partial", new_results
    for path in _entries(root / trash.TRASH):
        if "~" in path.name and (kind := _litter(path)):
            yield kind, path
    for path in _entries(root / WORK / "stages"):
        if OUR_RUN.fullmatch(path.name) and path.name not in run_ids:
            yield "orphans", path


def _shared(
    root: Path, unfinished: dict[str, RunSpec], unreadable: list[str], *, caches: bool
) -> Iterator[tuple[str, Path]]:
    """What runs share and none of them needs, while no run is under way."""
    of_runs = {trash.student_of(root / run_id) for run_id in disk.run_ids(root)}
    of_trash = {trash.student_of(entry.folder) for entry in trash.deleted_runs(root)}
    # A run that was killed right after its training has not noted its student yet.
    may_continue = bool(unreadable) or any(
        trash.student_of(root / run_id) is None for run_id in unfinished
    )
    for place in trash.STUDENTS:
        for folder in _entries(root / place):
            if folder.name in of_runs:
                yield from (
                    ("damaged", path)
                    for path in _entries(folder)
                    if path.suffix == durable_files.DAMAGED
                )
            if folder.name in of_runs or not KEY.fullmatch(folder.name):
                continue
            if not may_continue:
                is_finished = (folder / "model" / "config.json").exists()
                kind = "students" if is_finished else "checkpoints"
                yield "trash" if folder.name in of_trash else kind, folder
    for name in (disk.STUDENTS, *(f"{WORK}/{cache}" for cache in CACHES)):
        for path in _entries(root / name):
            # A half-written text is continued from.
            litter = _litter(path) if OURS.fullmatch(path.name) else None
            if litter and not (name.endswith("texts") and may_continue):
                yield litter, path
    yield from _targets(root, unfinished, unreadable)
    if caches and not unfinished and not unreadable:
        for name in CACHES:
            for path in _entries(root / WORK / name):
                if OURS.fullmatch(path.name) and path.suffix != ".lock":
                    yield "caches", path


def _targets(
    root: Path, unfinished: dict[str, RunSpec], unreadable: list[str]
) -> Iterator[tuple[str, Path]]:
    """Targets that no run of the store was trained on, and none that is left would use."""
    used = set()
    for run_id in disk.run_ids(root):
        with contextlib.suppress(BadInput, DamagedStore):
            used.add(_targets_key(disk.load(root, run_id)))
    teachers = {spec.teacher for spec in unfinished.values()}
    for folder in _entries(root / WORK / "targets"):
        if not KEY.fullmatch(folder.name) or folder.name in used:
            continue
        try:
            meta = durable_files.read_json(folder / "meta.json", dict[str, Any])
            teacher = meta["about"]["teacher"]
        except (OSError, DamagedStore, TypeError, KeyError):
            teacher = None
        if not unreadable and (teacher not in teachers if teacher else not teachers):
            yield "targets", folder


def _targets_key(record: RunRecord) -> str | None:
    targets = record.distillation and record.distillation.targets
    return targets.key if targets else None


def _entries(folder: Path) -> list[Path]:
    """What is in a folder; nothing if there is none or it may not be read."""
    try:
        return [Path(entry.path) for entry in os.scandir(folder)]
    except OSError:
        return []


def _litter(path: Path) -> str | None:
    """The kind of a file or folder that a kill or damage has left; None for all others."""
    kinds = {durable_files.PARTIAL: "partial", durable_files.DAMAGED: "damaged"}
    return kinds.get(path.suffix)


def _remove(leftover: Leftover) -> bool:
    """Rename, then delete; returns whether it was there."""
    path = leftover.path
    with contextlib.ExitStack() as stack:
        if leftover.kind in ("targets", "caches") and path.parent.name == "targets":
            try:
                # A run opens targets under this lock.
                stack.enter_context(FileLock(f"{path}.lock", timeout=0))
            except Timeout:
                return False
        doomed = path.with_name(f".{path.name}.{secrets.token_hex(4)}{durable_files.PARTIAL}")
        try:
            path.rename(doomed)
        except FileNotFoundError:
            return False
    if doomed.is_dir() and not doomed.is_symlink():
        shutil.rmtree(doomed)
    else:
        doomed.unlink()
    return True
