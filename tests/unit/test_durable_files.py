"""Files that are written whole or not at all, and that are doubted when read."""

import json
import os
import resource
import stat
import threading
from pathlib import Path

import pytest
import safetensors.torch
import torch

from explorer.errors import DamagedStore, NoRoom
from explorer.files import durable_files


@pytest.fixture
def folder(tmp_path):
    """A folder with nothing in it."""
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def test_every_flipped_bit_of_a_sealed_file_is_noticed(folder):
    """No bit of a JSON object that we wrote can change unseen, its checksum included."""
    path, data = folder / "facts.json", {"steps": 3, "loss": 1.25, "name": "ä"}
    durable_files.write_json(path, data)
    content = path.read_bytes()

    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(DamagedStore):
            durable_files.read_json(path, dict)


def test_a_file_of_an_older_version_has_no_checksum_and_is_read(folder):
    """Stores from before the checksums keep loading, lists and null included."""
    for number, text in enumerate(('{"steps": 3}', "[1, 2]", "null", '{\r\n "steps": 3}')):
        (folder / f"{number}.json").write_bytes(text.encode())

    read = [durable_files.read_json(folder / f"{number}.json", object) for number in range(4)]

    assert read == [{"steps": 3}, [1, 2], None, {"steps": 3}]


def test_a_file_edited_with_a_json_tool_is_read(folder):
    """An edit on purpose needs no checksum, and none of before is held against it."""
    path = folder / "facts.json"
    for indent in (None, 1, 2):
        durable_files.write_json(path, {"steps": 3}, indent=1)
        edited = json.loads(path.read_text()) | {"steps": 4}
        path.write_text(json.dumps(edited, indent=indent) + "\n")

        assert durable_files.read_json(path, dict) == {"steps": 4}


def test_line_ends_do_not_break_a_checksum(folder):
    """A store may come through git or a mail program that writes other line ends."""
    path = folder / "facts.json"
    durable_files.write_json(path, {"steps": [1, 2]}, indent=1)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))

    assert durable_files.read_json(path, dict) == {"steps": [1, 2]}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "facts.json is not a file"),
        (os.mkfifo, "facts.json is not a file"),
        (lambda path: path.symlink_to(path), "facts.json cannot be read: Too many levels"),
        (lambda path: path.write_bytes(b""), "facts.json is not JSON"),
        (lambda path: path.write_bytes(b"\0" * 9), "facts.json is not JSON"),
        (lambda path: path.write_bytes(b"\xff"), "facts.json is not text in UTF-8"),
        (lambda path: path.write_bytes(b"[" * 900), "facts.json is not JSON"),
        (lambda path: path.write_bytes(b'{"steps": "x"}'), "facts.json holds something else: st"),
        (lambda path: path.write_bytes(b" " * 2000), "facts.json has 2,000 bytes, more than 1,000"),
    ],
)
def test_what_is_not_our_file_is_one_sentence(folder, make, message):
    """Whatever lies in a file's place, the reader says which folder is damaged and why."""
    path = folder / "facts.json"
    make(path)

    with pytest.raises(DamagedStore) as error:
        durable_files.read_json(path, dict[str, int], max_bytes=1000)

    assert str(error.value).startswith(f"{folder} is damaged because {message}")


def test_what_can_be_made_again_is_set_aside(folder, caplog):
    """A damaged file is kept under another name, and the log says where."""
    path = folder / "facts.json"
    assert durable_files.read_or_set_aside(path, dict) is None
    for content in ("first", "second"):
        path.write_text(content)
        assert durable_files.read_or_set_aside(path, dict) is None

    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [("facts.json.damaged", "second")]
    assert caplog.text.count("set aside as facts.json.damaged and made again") == 2


def test_two_threads_write_one_file_whole(folder):
    """Each writer has a name of its own for the unfinished file; one of the two stays, whole."""
    path, contents = folder / "file", [bytes([number]) * 300_000 for number in range(4)]
    together = threading.Barrier(len(contents))

    def write(content):
        together.wait()
        for _ in range(20):
            durable_files.write_bytes(path, content)

    threads = [threading.Thread(target=write, args=[content]) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert path.read_bytes() in contents
    assert list(folder.iterdir()) == [path]


def test_files_follow_the_umask(folder):
    """In a store that a group shares, the group can read what anybody writes."""
    before = os.umask(0o027)
    try:
        durable_files.write_text(folder / "shared" / "file", "x")
    finally:
        os.umask(before)

    assert stat.S_IMODE((folder / "shared" / "file").stat().st_mode) == 0o640


def test_a_full_disk_is_said_and_the_old_folder_stays(folder, monkeypatch):
    """A folder that cannot be written whole replaces nothing and leaves nothing."""
    with durable_files.new_folder(folder / "model") as partial:
        (partial / "weights").write_text("old")

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    def replace():
        with durable_files.new_folder(folder / "model") as partial:
            (partial / "weights").write_text("new")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(NoRoom, match=r"Could not write .*model: No space .* Free some space"):
            replace()

    assert (folder / "model" / "weights").read_text() == "old"
    assert [path.name for path in folder.iterdir()] == ["model"]


def _zip_writer(folder):
    with (folder / "weights.pt").open("wb") as file:
        torch.save({"a": torch.zeros(100_000)}, file)


def _safetensors(folder):
    safetensors.torch.save_file({"a": torch.zeros(100_000)}, folder / "model.safetensors")


@pytest.mark.parametrize("write", [_zip_writer, _safetensors])
def test_a_full_disk_is_said_whatever_a_library_calls_it(folder, write):
    """PyTorch's and safetensors' errors hide that of the disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, before[1]))
    try:
        with (
            pytest.raises(NoRoom, match=r"model: File too large\. Free some space"),
            durable_files.new_folder(folder / "model") as partial,
        ):
            write(partial)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(folder.iterdir())


def test_an_error_that_only_follows_one_of_a_file_is_kept(folder):
    """A bug is no full disk, although it came up while a missing file was handled."""

    def look():
        try:
            (folder / "missing").read_text()
        except OSError:
            raise RuntimeError("a bug") from None

    with pytest.raises(RuntimeError, match="a bug"), durable_files.new_file(folder / "a"):
        look()


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "it is empty"), ("\n", "it is empty"), ("\0" * 9, "it holds only zeros"), ("{", "Exp")],
)
def test_what_a_crash_leaves_of_a_file_is_called_so(folder, text, why):
    """An empty file, and one of zeros, are not somebody's broken JSON."""
    (folder / "a.json").write_text(text)

    with pytest.raises(DamagedStore, match=f"because a.json is not JSON: {why}"):
        durable_files.read_json(folder / "a.json", dict)


def test_a_librarys_words_become_one_line():
    """Pyarrow's end with a line of their own."""
    error = durable_files.damaged(Path("/a/b"), "cannot be read: No more data.\n.")

    assert str(error) == "/a is damaged because b cannot be read: No more data."


def test_a_changed_file_differs_from_its_sum(folder):
    """Sizes and checksums tell a shorter file, a flipped bit and a missing one apart."""
    path = folder / "weights"
    path.write_bytes(b"abcdef")
    sums = durable_files.file_sums(folder)
    durable_files.check_files(folder, sums)

    for content, why in ((b"abc", "has 3 bytes of 6"), (b"abcdeg", "does not have the checksum")):
        path.write_bytes(content)
        with pytest.raises(DamagedStore, match=f"weights {why}"):
            durable_files.check_files(folder, sums)
    path.unlink()
    with pytest.raises(DamagedStore, match="weights is missing"):
        durable_files.check_files(folder, sums)
