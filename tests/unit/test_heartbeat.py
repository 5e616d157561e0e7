"""Whether a run lives, told without trusting a clock."""

import os
import subprocess
import sys
import time

import pytest

from explorer.errors import NoRoom, RunCancelled
from explorer.store import disk, heartbeat
from explorer.store.progress import Progress


def test_an_age_does_not_depend_on_the_clock_of_the_reader(store_root, monkeypatch):
    """The disk's clock stamps the file and tells the present moment."""
    path = store_root / "file"
    path.touch()
    monkeypatch.setattr(heartbeat.time, "time", lambda: 1.0)

    assert 0 <= heartbeat.age_s(store_root, path) < 5
    assert heartbeat.age_s(store_root, store_root / "none") == float("inf")


def test_the_age_in_a_store_that_may_not_be_written_is_by_our_clock(tmp_path):
    """A read-only store is read, and nothing is written to it."""
    root = tmp_path / "store"
    root.mkdir()
    (root / ".work").touch()  # a file where the folder would be: nothing can be made in it
    path = root / "file"
    path.touch()
    os.utime(path, (time.time() - 500, time.time() - 500))

    assert 499 <= heartbeat.age_s(root, path) < 520


def test_a_file_that_changes_while_we_watch_is_recent_whatever_its_stamp(store_root):
    """A step of the disk's own clock makes nothing old."""
    path = store_root / "file"
    path.touch()
    os.utime(path, (1e9, 1e9))
    assert not heartbeat.is_recent(store_root, path, 60)

    os.utime(path, (1e9 + 20, 1e9 + 20))

    assert heartbeat.is_recent(store_root, path, 60)


def test_a_stamp_in_the_future_is_no_sign_of_life(store_root):
    """After the disk's clock was set back a dead run does not live for hours."""
    path = store_root / "file"
    path.touch()
    os.utime(path, (time.time() + 3600, time.time() + 3600))

    assert not heartbeat.is_recent(store_root, path, 60)


def test_a_process_keeps_its_identity_and_takes_it_along():
    """Each process has its own, the same at every look, and none after its end."""
    mine = heartbeat.process_identity(os.getpid())
    assert mine
    assert mine == heartbeat.process_identity(os.getpid())
    time.sleep(0.02)  # the kernel counts in hundredths of a second
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        theirs = heartbeat.process_identity(other.pid)
        assert theirs
        assert theirs != mine
        other.communicate(b"\n")
    assert heartbeat.process_identity(other.pid) is None


def test_a_status_that_cannot_be_written_for_a_while_ends_no_run(store_root, monkeypatch, caplog):
    """The run goes on and says so once; the status is there again as soon as the disk takes it."""
    progress = Progress(store_root, "a-00000000")
    progress("distil", 1, 9, "steps")
    write = disk.write_status

    def refuse(root, run_id, status):
        raise NoRoom(f"Could not write {run_id}: No space left on device.")

    monkeypatch.setattr(disk, "write_status", refuse)
    for done in range(2, 5):
        progress._last_write = 0.0
        progress("distil", done, 9, "steps")
    assert disk.read_status(store_root, "a-00000000")["done"] == 1
    monkeypatch.setattr(disk, "write_status", write)
    progress._last_write = 0.0
    progress("distil", 5, 9, "steps")

    assert disk.read_status(store_root, "a-00000000")["done"] == 5
    said = [message for message in caplog.messages if "status" in message or "No space" in message]
    assert len(said) == 2, said
    assert "The run goes on" in said[0]


def test_a_store_that_never_takes_a_status_ends_the_run_at_once(store_root, monkeypatch):
    """A store without room is refused before hours of work, not after."""

    def refuse(root, run_id, status):
        raise NoRoom("Could not write: Read-only file system.")

    monkeypatch.setattr(disk, "write_status", refuse)

    with pytest.raises(NoRoom, match="Read-only"):
        Progress(store_root, "a-00000000")("prepare")


def test_a_disk_that_does_not_answer_is_no_request_to_stop(store_root, monkeypatch):
    """A network disk in trouble ends no run; the request counts once it can be read."""
    progress = Progress(store_root, "a-00000000")

    def fail(root, run_id):
        raise OSError(116, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "cancel_requested", fail)
        progress.raise_if_stopped()
    disk.request_cancel(store_root, "a-00000000")
    with pytest.raises(RunCancelled):
        progress.raise_if_stopped()
