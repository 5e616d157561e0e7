"""A file that may not be read is called so, and is not taken for missing or damaged."""

import contextlib
import os
import sys
import tempfile
from pathlib import Path

import pytest

from explorer import cli, specs
from explorer.distill import corpus
from explorer.errors import BadInput, ExplorerError
from explorer.lm_eval_io import import_run, timings
from explorer.models.gguf import gguf_files
from explorer.tasks import code_policy, question_files

NOBODY = 65_534


@contextlib.contextmanager
def without_privileges():
    """As root may read everything, the test is somebody else for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared():
    """A folder that everybody may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


READERS = {
    "spec.yaml": specs.read_run_or_sweep,
    "quiz.csv": question_files.read_file,
    "corpus.jsonl": lambda path: corpus.check_corpus(str(path)),
    "corpus.txt": lambda path: corpus.check_corpus(str(path)),
    "corpus.parquet": lambda path: corpus.check_corpus(str(path)),
    "task.yaml": code_policy.refuse_unsafe_yaml,
    "model.gguf": gguf_files.read_files,
    "results_x.json": lambda path: import_run.import_folder(path.parent, path, "x"),
    "bench.json": timings.read_levels,
}


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_may_not_be_read_is_called_so(name, shared):
    """One sentence that says "no permission" and names the file, whatever kind of file it is."""
    path = shared / name
    path.write_text("x: 1\n", encoding="utf-8")
    path.chmod(0)

    with pytest.raises(ExplorerError, match="no permission") as error, without_privileges():
        READERS[name](path)

    assert name in str(error.value)


def said_by(capsys, monkeypatch, *arguments):
    """What a command says on its standard error, in one line."""
    monkeypatch.setattr(sys, "argv", ["explorer", *map(str, arguments)])
    with without_privileges(), pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    return " ".join(capsys.readouterr().err.split())


def test_the_shell_says_so_whoever_reads(shared, capsys, monkeypatch):
    """Where nobody expected it, a command still ends with a sentence instead of a traceback."""
    path = shared / "out.zip"
    path.write_bytes(b"PK")
    path.chmod(0)

    said = said_by(capsys, monkeypatch, "import", "--as", "x", path)

    assert said == f"error: No permission for {path}."


def test_a_file_in_a_folder_that_may_not_be_entered_is_not_called_missing(shared):
    """Whether it exists cannot be known, so nobody is told that it does not."""
    folder = shared / "private"
    folder.mkdir()
    path = folder / "corpus.jsonl"
    path.write_text('{"text": "words"}\n', encoding="utf-8")
    folder.chmod(0)

    try:
        with pytest.raises(BadInput, match=f"{folder}.*no permission"), without_privileges():
            corpus.check_corpus(str(path))
    finally:
        folder.chmod(0o700)


def test_a_store_that_may_not_be_read_is_not_an_empty_one(shared, capsys, monkeypatch):
    """`explorer ls` says so instead of listing nothing."""
    store = shared / "store"
    store.mkdir()
    store.chmod(0)

    said = said_by(capsys, monkeypatch, "ls", "--results", store)
    store.chmod(0o700)

    assert "no permission" in said.lower()
    assert str(store) in said
