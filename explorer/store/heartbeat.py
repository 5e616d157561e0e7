"""Whether a run lives, told without trusting any clock that people can set.

A run touches its status file every `BEAT_EVERY_S`. The disk's own clock stamps it, and the same
clock stamps a file that the reader touches now: their difference is an age on which all hosts
agree. A step of that clock is seen, too: a reader remembers when a file last changed.
"""

import contextlib
import os
import socket
import threading
import time
from pathlib import Path

import psutil

BEAT_EVERY_S = 20.0
"""Time between two touches of a living run's status file."""
CLOCKS = Path(".work") / "clocks"
"""In a store: a file per host that is touched to learn the disk's time."""

_last_seen: dict[Path, tuple[int, float]] = {}
"""Of each file: its last modification in ns, and our monotonic time when we saw it change."""
_lock = threading.Lock()


def beat(path: Path) -> None:
    """Give a file the disk's present time. A disk that refuses it is no error."""
    with contextlib.suppress(OSError):
        os.utime(path)


def age_s(root: Path, path: Path) -> float:
    """Seconds since a file was written or touched, by the clock of the store's disk.

    Infinite if there is no such file. A store that may not be written has no such clock, and this
    host's counts.
    """
    try:
        modified_s = path.stat().st_mtime
    except OSError:
        return float("inf")
    return _disk_time_s(root) - modified_s


def is_recent(root: Path, path: Path, within_s: float) -> bool:
    """Whether a file was touched in the last `within_s`, or we saw it change in that time."""
    try:
        modified_ns = path.stat().st_mtime_ns
    except OSError:
        return False
    now = time.monotonic()
    with _lock:
        before_ns, changed = _last_seen.get(path, (modified_ns, float("-inf")))
        changed = now if modified_ns != before_ns else changed
        _last_seen[path] = modified_ns, changed
    return now - changed < within_s or abs(age_s(root, path)) < within_s


def process_identity(pid: int) -> str | None:
    """What no other process of this host has had or will have; None if there is none of this id.

    A process id alone is used again, and the wall-clock time at which a process began moves with
    each step of the clock.
    """
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        # The command before the last bracket may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return f"{boot_id} {fields.rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        pass
    try:
        return None if Path("/proc/self/stat").exists() else repr(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _disk_time_s(root: Path) -> float:
    """The time of the store's disk, in seconds since 1970."""
    clock = root / CLOCKS / socket.gethostname()
    try:
        try:
            os.utime(clock)
        except FileNotFoundError:
            clock.parent.mkdir(parents=True, exist_ok=True)
            clock.touch()
        return clock.stat().st_mtime
    except OSError:
        return time.time()
