"""Uploads are read in a process of its own, which cannot take the machine's memory or time."""

import io
import os
import time
import zipfile
from pathlib import Path

import psutil
import pytest

from explorer.errors import BadInput
from explorer.lm_eval_io import upload
from explorer.processes import limited_process
from explorer.tasks import question_files

HERE = "tests.unit.test_limited_process"


def take_memory(num_bytes):
    return len(bytearray(num_bytes))


def hang():
    time.sleep(600)


def crash():
    print("not part of the answer")
    os.abort()


def refuse():
    raise BadInput("one sentence")


def answer(numbers):
    print("not part of the answer")
    return sum(numbers)


def call(function, **arguments):
    return limited_process.call(f"{HERE}:{function}", "big.zip", **arguments)


@pytest.fixture(autouse=True)
def find_tests(monkeypatch):
    """The process finds this file as it finds the package."""
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", str(root))


def test_an_answer_comes_back_and_nothing_else_that_was_printed():
    """What a library prints does not stand in the way of the answer."""
    assert call("answer", numbers=[1, 2]) == 3


def test_errors_come_back_as_they_were_raised(tmp_path):
    """The reader's sentence reaches the page unchanged, with its kind."""
    with pytest.raises(BadInput, match="^one sentence$"):
        call("refuse")
    twice = tmp_path / "questions"
    twice.write_text("a,a\n1,2\n", encoding="utf-8")
    with pytest.raises(question_files.BadHeader, match="name each column once"):
        limited_process.call(
            "explorer.tasks.question_files:rows_of",
            "q.csv",
            path=str(twice),
            name="q.csv",
            header=True,
        )


def test_a_reader_that_takes_too_much_ends_with_a_sentence():
    """Memory and time are limited, and a crash ends the reader alone."""
    before = set(psutil.Process().children())
    assert call("take_memory", num_bytes=1_000_000, memory_bytes=100_000_000)
    with pytest.raises(BadInput, match=r"big.zip takes more than 0.1 GB of memory"):
        call("take_memory", num_bytes=200_000_000, memory_bytes=100_000_000)
    with pytest.raises(BadInput, match="big.zip takes longer than 2 s"):
        call("hang", timeout_s=2)
    with pytest.raises(BadInput, match="big.zip ended the process"):
        call("crash")
    assert set(psutil.Process().children()) <= before


def test_a_small_zip_cannot_take_gigabytes(tmp_path, store_root):
    """30 kB that unpack to 30 MB of empty lists are refused, and leave nothing behind."""
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("results_x.json", "[" + "[]," * 10_000_000 + "[]]")
    assert bomb.tell() < 40_000
    path = tmp_path / "upload-0"
    path.write_bytes(bomb.getvalue())

    with pytest.raises(BadInput, match=r"unpacks to more than 200 times"):
        limited_process.call(
            "explorer.lm_eval_io.upload:import_uploads",
            "x.zip",
            folder=str(tmp_path),
            root=str(store_root),
            files=[("x.zip", str(path))],
            run_name="x",
            teacher=None,
            only="",
            combine=False,
            device=None,
        )

    assert [file.name for file in tmp_path.iterdir() if file.name != "results"] == ["upload-0"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("many.csv", b"q\n" + b"x\n" * 2_000_001),
        ("deep.jsonl", b'{"q": [' + b"[]," * 2_000_001 + b"1]}\n"),
    ],
)
def test_a_question_file_of_millions_of_cells_is_refused(name, content, tmp_path):
    """The dashboard keeps no more rows and cells than a task can use."""
    path = tmp_path / "questions"
    path.write_bytes(content)

    with pytest.raises(BadInput, match="more than 2,000,000 rows and cells"):
        question_files.rows_of(str(path), name, header=True)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("samples_arc_easy_2026-01-01T00-00-00.1.jsonl", True),
        ("ergebnisse für uns.json", True),
        ("a\nb.json", False),
        ("-rf.json", False),
        (".hidden.json", False),
        ("\u202enosj.json", False),
        ("x" * 300 + ".json", False),
        ("", False),
    ],
)
def test_a_strange_name_becomes_one_of_our_own(name, plain):
    """No file is called what a shell or a listing could misread, whatever its zip calls it."""
    ours = upload.plain_name(name)

    assert (ours == name) is plain
    if not plain:
        assert ours.startswith("file-")
        assert Path(ours).suffix in ("", ".json")
        assert ours.isprintable()


def test_nothing_is_pickled_between_the_dashboard_and_the_reader():
    """A request is what JSON can say, so that neither side can make the other run code."""
    with pytest.raises(TypeError):
        call("answer", numbers={1, 2})
