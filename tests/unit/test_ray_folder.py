"""Where the queue's head keeps its sockets, whose paths may not be long."""

import shutil
import tempfile
from pathlib import Path

import pytest

from explorer.errors import JobError
from explorer.jobs import ray_head


@pytest.mark.parametrize("num_letters", [5, ray_head.LONGEST_TMPDIR + 1, 200])
def test_a_long_tmpdir_gets_a_shorter_folder(num_letters, tmp_path, monkeypatch):
    """Batch systems and macOS have long ones; only this user can read the folder."""
    place = "/tmp" if num_letters == 5 else str(tmp_path / ("x" * num_letters))
    Path(place).mkdir(exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", place)

    folder = Path(ray_head.new_session_folder())

    try:
        assert len(str(folder.parent)) <= ray_head.LONGEST_TMPDIR
        assert folder.stat().st_mode & 0o077 == 0
    finally:
        shutil.rmtree(folder)


def test_without_a_short_folder_the_sentence_names_tmpdir(tmp_path, monkeypatch):
    """What to set, and how long it may be."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ray_head, "SHORT_FOLDERS", (str(tmp_path / "gone"),))

    with pytest.raises(JobError, match=rf"at most {ray_head.LONGEST_TMPDIR} letters.*Set TMPDIR"):
        ray_head.new_session_folder()
