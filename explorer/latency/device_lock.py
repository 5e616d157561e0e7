"""One timing at a time on a device, whoever starts it: two users' queues do not know each other.

Each device has a file that everybody on the machine can open, and whoever times holds its lock.
The kernel frees the lock when its process ends, however it ends.

    with device_lock.held("cpu", on_wait): ...
"""

import contextlib
import fcntl
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from explorer import paths
from explorer.errors import reason_of

if TYPE_CHECKING:
    import torch

log = logging.getLogger("explorer")

LOOK_EVERY_S = 0.5


def name_of(device: "torch.device") -> str:
    """The lock's name: one for the machine's CPUs, and one for each accelerator.

    By the GPU's own number, as CUDA_VISIBLE_DEVICES may call it something else in each process; by
    its place in the list where torch knows no such number.
    """
    from explorer.devices import backend  # loads torch, which whoever has a device has loaded

    if not backend.is_accelerator(device):
        return device.type
    own = getattr(backend.properties(device), "uuid", None)
    return f"{device.type}-{own or device.index or 0}"


@contextlib.contextmanager
def held(name: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a device; wait while anybody on this machine holds it.

    Without the lock where its folder cannot be used; the log then says so.

    Args:
        name: As `name_of` gives it.
        on_wait: Called twice a second while another process holds it; may raise to give up.
    """
    path = paths.device_locks() / f"{name}.lock"
    try:
        lock = _acquire(path, on_wait)
    except OSError as error:
        log.warning(
            "Timing goes on without a lock of this device, so another user may time beside it: "
            "%s: %s.",
            path,
            reason_of(error),
        )
        yield
        return
    try:
        yield
    finally:
        os.close(lock)


def _acquire(path: Path, on_wait: Callable[[], None]) -> int:
    """The open file whose lock this process holds."""
    while True:
        lock = _open(path)
        try:
            while not _try(lock):
                on_wait()
                time.sleep(LOOK_EVERY_S)
            # Whoever cleans up temporary files may have removed it meanwhile.
            if _is_at(path, lock):
                with contextlib.suppress(PermissionError):
                    os.utime(lock)
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _open(path: Path) -> int:
    """Open the file; the first user makes it. A lock needs no permission to write."""
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir(parents=True)
        path.parent.chmod(0o1777)  # everybody adds files, and nobody removes those of others
    if not stat.S_ISDIR(path.parent.lstat().st_mode):
        raise NotADirectoryError(0, "expected a folder of its own", str(path.parent))
    while True:
        # No link is followed, as anybody can put one here. The two ways to open are apart, as the
        # system forbids O_CREAT on a file of another user in such a folder.
        flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        with contextlib.suppress(FileNotFoundError):
            file = os.open(path, os.O_RDONLY | flags)
            if stat.S_ISREG(os.fstat(file).st_mode):
                return file
            os.close(file)
            raise FileExistsError(0, "expected a regular file", str(path))
        with contextlib.suppress(FileExistsError):
            file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | flags, 0o644)
            os.fchmod(file, 0o644)  # whatever the umask
            return file


def _try(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, lock: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(lock))
    except FileNotFoundError:
        return False
