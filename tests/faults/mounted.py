"""A disk that is really full, and one that is really read-only: small file systems in memory.

Each fault has a mount namespace of its own, so that nothing is left of its mounts. Where the system
allows none, the faults are left out and the reason is printed.
"""

import ctypes
import functools
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from explorer.pipeline import spec_checks
from tests.faults import kills
from tests.faults.faults import Bad, Fault, in_process
from tests.faults.stores import Stores, open_pages, shown

NEW_MOUNTS, NEW_USER = 0x00020000, 0x10000000
READ_ONLY, REMOUNT, RECURSIVE, PRIVATE = 1, 32, 1 << 14, 1 << 18
"""Flags of unshare(2) and mount(2) on Linux."""
SHARES = (0.02, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
"""Sizes of the disk, as shares of what the unbroken run leaves."""
NUM_FILES = (1, 4, 12, 30)
"""How many files and folders a disk takes that has run out of names for them."""
ROOM = "size=64m,nr_inodes=10000"


def faults(stores: Stores) -> Iterator[Fault]:
    """Every fault of this subject; none where nothing can be mounted."""
    if reason := why_not(stores.folder):
        print(f"left out: what needs a mount: {reason}", file=sys.stderr, flush=True)
        return
    whole = sum(path.stat().st_blocks * 512 for path in stores.finished.rglob("*"))
    for share in SHARES:
        size = max(4096, int(whole * share))
        happen = functools.partial(full, stores, f"size={size},nr_inodes=10000")
        yield Fault("a full file system", f"{share:.0%} of what is needed", happen)
    happen = functools.partial(refused, stores, f"size={whole // 2}")
    yield Fault("a full file system", "noticed before the run", happen)
    for number in NUM_FILES:
        happen = functools.partial(full, stores, f"size=64m,nr_inodes={number + 1}")
        yield Fault("a full file system", f"{number} files", happen)
    yield Fault("a read-only file system", "run", functools.partial(read_only_run, stores))
    yield Fault("a read-only file system", "pages", functools.partial(read_only_pages, stores))


def why_not(folder: Path) -> str | None:
    """Why nothing can be mounted here; None if it can."""
    place = folder / "mounted"
    place.mkdir(exist_ok=True)

    def attempt() -> str | None:
        try:
            mount(place, "size=4k")
        except (OSError, AttributeError) as error:
            return str(error)
        return None

    reason = in_process(attempt, folder)
    return None if reason is None else str(reason)


def mount(place: Path, options: str) -> None:
    """Mount a file system in memory, for this process and its children alone.

    Raises:
        OSError: The system does not allow it.
    """
    user, group = os.geteuid(), os.getegid()
    _call("unshare", NEW_MOUNTS | (NEW_USER if user else 0))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _mount("none", Path("/"), "", RECURSIVE | PRIVATE)
    _mount("tmpfs", place, options, 0)


def remount(place: Path, options: str, flags: int = 0) -> None:
    """Change the room or the rights of what `mount` has mounted."""
    _mount("tmpfs", place, options, REMOUNT | flags)


def full(stores: Stores, options: str, folder: Path) -> None:
    """Run on a disk that is too small, then give it room and go on."""
    root = folder / "results"
    root.mkdir()
    mount(root, options)
    # Otherwise the run looks at the room first, and does not begin.
    os.environ[spec_checks.INSIST] = "1"
    said = kills.run_once(stores, root, folder)
    del os.environ[spec_checks.INSIST]
    if said == "finished":
        raise Bad("untrue", f"the run needs no more than {options}")
    kills.check_said(said)
    if not any(word in str(said) for word in ("No space left", "disk is full", "no room")):
        raise Bad("untrue", f"a full disk was called {said}")
    kills.check_left(root, folder)
    remount(root, ROOM)
    stores.go_on(root, folder)


def refused(stores: Stores, options: str, folder: Path) -> None:
    """Look at the disk before the run: it does not begin, and says what it needs."""
    root = folder / "results"
    root.mkdir()
    mount(root, options)
    said = kills.run_once(stores, root, folder)
    if "Free some space" not in str(said):
        raise Bad("untrue", f"a disk that is too small was called {said}")
    remount(root, ROOM)
    stores.go_on(root, folder)


def read_only_run(stores: Stores, folder: Path) -> None:
    """Start the run on a disk that may not be written, then allow it and go on."""
    root = folder / "results"
    root.mkdir()
    mount(root, ROOM)
    remount(root, ROOM, READ_ONLY)
    said = kills.run_once(stores, root, folder)
    kills.check_said(said)
    if "ead-only" not in str(said):
        raise Bad("untrue", f"a read-only disk was called {said}")
    remount(root, ROOM)
    stores.go_on(root, folder)


def read_only_pages(stores: Stores, folder: Path) -> None:
    """Draw every page of finished runs on a disk that may not be written."""
    place = folder / "disk"
    place.mkdir()
    mount(place, ROOM)
    root = stores.copy(stores.finished, place)
    before = in_process(lambda: shown(root), folder)
    shutil.rmtree(place / f"index-of-{root.name}")
    # The index lies beside the results: it cannot be written either.
    remount(place, ROOM, READ_ONLY)
    open_pages(root)
    after = in_process(lambda: shown(root), folder)
    if after["rows"] != before["rows"] or after["problems"] != before["problems"]:
        raise Bad("untrue", f"shown otherwise: {after['problems']}")


def _mount(kind: str, place: Path, options: str, flags: int) -> None:
    source = ctypes.c_char_p(kind.encode())
    _call("mount", source, os.fsencode(place), source, ctypes.c_ulong(flags), options.encode())


def _call(name: str, *arguments: object) -> None:
    """Call a function of the C library.

    Raises:
        OSError: It fails.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
