"""One timing at a time on a device, whoever starts it."""

import contextlib
import os
import stat
import subprocess
import sys
import tempfile

import pytest
import torch

from explorer import paths
from explorer.errors import RunCancelled
from explorer.latency import device_lock
from tests.conftest import ROOT

NOBODY = 65_534


HOLD = """
import os, sys
from explorer.latency import device_lock
os.setuid(int(sys.argv[1]))
with device_lock.held("cpu", lambda: None):
    print("held", flush=True)
    input()
"""


@contextlib.contextmanager
def held_elsewhere(folder, user=None):
    """The CPU's lock is held by another process, perhaps of another user."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(os.getuid() if user is None else user)],
        env={**os.environ, "EXPLORER_DEVICE_LOCKS": str(folder), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def give_up():
    raise RunCancelled("cancelled")


def test_two_timings_on_one_device_wait_for_each_other(monkeypatch):
    """A second timing begins when the first has ended, and can be cancelled while it waits."""
    monkeypatch.setattr(device_lock, "LOOK_EVERY_S", 0.01)
    folder = paths.device_locks()
    waited = []
    with held_elsewhere(folder) as other:
        with pytest.raises(RunCancelled), device_lock.held("cpu", give_up):
            pass
        with device_lock.held("cuda-1", give_up):
            pass  # another device is free
        with device_lock.held("cpu", lambda: (waited.append(1), other.kill())):
            assert waited, "it had to wait for a process that was killed"


def is_held_by_nobody(folder):
    """Whether this process has to wait while the user nobody holds the lock."""
    try:
        with held_elsewhere(folder, user=NOBODY), device_lock.held("cpu", give_up):
            return False
    except RunCancelled:
        return True


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_the_lock_of_another_user_counts(tmp_path_factory, monkeypatch):
    """Two queues of two users never time beside each other, whoever made the lock's file."""
    monkeypatch.setattr(device_lock, "LOOK_EVERY_S", 0.01)
    # Open to all on the way down, which tmp_path is not.
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        os.chmod(place, 0o755)
        folder = os.path.join(place, "locks")
        monkeypatch.setenv("EXPLORER_DEVICE_LOCKS", folder)
        with device_lock.held("cpu", give_up):
            pass
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o1777
        assert is_held_by_nobody(folder)  # who opens root's file
        os.unlink(os.path.join(folder, "cpu.lock"))
        assert is_held_by_nobody(folder)  # who makes a file, which root opens


def test_a_lock_that_is_cleaned_away_still_holds(monkeypatch):
    """If the file is removed while somebody waits, the wait goes on with the file that is there."""
    monkeypatch.setattr(device_lock, "LOOK_EVERY_S", 0.01)
    path = paths.device_locks() / "cpu.lock"
    with held_elsewhere(path.parent) as other:

        def clean():
            path.unlink(missing_ok=True)
            other.kill()

        with device_lock.held("cpu", clean):
            assert path.is_file(), "others see the lock that is held"


@pytest.mark.parametrize("kind", ["link", "file", "folder"])
def test_what_a_stranger_puts_in_place_of_the_lock_stops_no_run(kind, tmp_path, caplog):
    """A link or another file in its place is not followed or changed: the timing goes on, noted."""
    folder, precious = paths.device_locks(), tmp_path / "precious"
    precious.write_text("keep", encoding="utf-8")
    path = folder / "cpu.lock"
    if kind == "link":
        path.symlink_to(precious)
    elif kind == "folder":
        path.mkdir()
    else:
        folder.rmdir()
        folder.write_text("x", encoding="utf-8")

    with device_lock.held("cpu", give_up):  # raises if it waits
        pass

    assert "without a lock" in caplog.text
    assert precious.read_text(encoding="utf-8") == "keep"


def test_each_device_has_a_lock_of_its_own():
    """All cores are one device; a GPU goes by its own number, not by its place in a list."""
    assert device_lock.name_of(torch.device("cpu")) == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device, and torch sees none here"
)
def test_a_gpu_has_one_name_for_all_processes():
    """Hiding other GPUs from a process does not change the name of the one that it sees."""
    name = device_lock.name_of(torch.device("cuda:0"))

    assert name.startswith("cuda-")
    assert len(name) > len("cuda-00000000")
