"""Handed-over files: a folder for as long as it is read, nothing outside it."""

import io
import shutil
import zipfile
from pathlib import Path

import pytest

from explorer.errors import BadInput
from explorer.lm_eval_io import import_run, upload
from explorer.store import disk
from tests.unit.test_import_run import STUDENT, folder_of


def zip_of(entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer


def study_files():
    return {path.name: path.read_bytes() for path in folder_of(STUDENT).iterdir()}


def test_loose_files_and_a_zip_make_the_run_that_the_folder_makes(store_root):
    """Dropped one by one or packed, the same files are the same run."""
    files = study_files()
    loose = [(name, io.BytesIO(data)) for name, data in files.items()]
    packed = zip_of({f"models/run__x/{name}": data for name, data in files.items()})
    packed.seek(0)

    direct, _ = import_run.import_folder(store_root, folder_of(STUDENT), "same")
    for uploads in (loose, [("out.zip", packed)]):
        with upload.unpacked(uploads) as folder:
            again, problems = import_run.import_folder(store_root, folder, "same")
        assert (again, problems) == (direct, [])
        assert not folder.exists()
    assert disk.load(store_root, direct).imported.folder == "out"


def test_nothing_in_a_zip_reaches_outside(tmp_path):
    """A name with dots or from the root stays under the folder; other kinds of files are left."""
    packed = zip_of({"../../up.json": "1", "/etc/down.json": "2", "run.sh": "3"})

    with upload.unpacked([("bad.zip", packed)]) as folder:
        found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert not (folder.parent.parent / "up.json").exists()

    assert found == {"bad/up.json", "bad/etc/down.json"}


def test_a_zip_that_grows_without_measure_is_refused(monkeypatch):
    """Bytes are counted as they come, whatever the zip says of itself."""
    monkeypatch.setattr(upload, "MAX_BYTES", 10_000)
    packed = zip_of({"results_x.json": b"0" * 20_000})

    with (
        pytest.raises(BadInput, match="explorer import FOLDER"),
        upload.unpacked([("a.zip", packed)]),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("weights.bin", b"1", "not a file of lm-eval's"),
        ("a.zip", b"PK no zip", "could not be unpacked"),
        ("a.zip", zip_of({"x.json": "1"}).getvalue()[:-30], "could not be unpacked"),
        ("a.zip", zip_of({"x.json": "1", "x.json/y.json": "2"}).getvalue(), "cannot be written"),
    ],
    # A zip holds the time at which it was made: as a name it would differ between processes.
    ids=["another_file", "no_zip", "cut_zip", "clashing_names"],
)
def test_what_is_no_result_is_refused_in_words(name, data, says):
    """Another kind of file, a damaged zip, names that cannot both be: a sentence each."""
    with pytest.raises(BadInput, match=says), upload.unpacked([(name, io.BytesIO(data))]):
        pass


def test_a_zip_from_windows_has_the_same_files():
    """Backslashes between folders, a drive, capital endings."""
    packed = zip_of({"C:\\out\\acme__big\\results_x.JSON": "{}", "..\\..\\up.jsonl": "1"})

    with upload.unpacked([("Out.ZIP", packed)]) as folder:
        found = {
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        }

    assert found == {"Out/out/acme__big/results_x.JSON", "Out/up.jsonl"}


def test_two_files_of_one_name_are_not_taken_for_one():
    """`results.json` of two folders, chosen together: one sentence, and neither wins."""
    loose = [("results.json", io.BytesIO(text)) for text in (b"{}", b"[]")]

    with pytest.raises(BadInput, match=r"results\.json is there twice"), upload.unpacked(loose):
        pass


def test_the_command_takes_a_zip_too(store_root, tmp_path, monkeypatch, capsys):
    """`explorer import out.zip --as NAME`."""
    import sys

    from explorer import cli

    shutil.make_archive(str(tmp_path / "out"), "zip", folder_of(STUDENT))
    monkeypatch.setattr(
        sys, "argv", ["explorer", "import", str(tmp_path / "out.zip"), "--as", "zipped"]
    )

    with pytest.raises(SystemExit) as stopped:
        cli.main()

    assert stopped.value.code == 0
    assert "Imported as zipped-" in capsys.readouterr().out
    assert Path(store_root / disk.run_ids(store_root)[0] / disk.RECORD).exists()
