"""Text files that people bring: encodings, marks, lines."""

import codecs
import json

import pytest

from explorer.errors import BadInput
from explorer.files import text_files

ODD = ["a\u2028b", "a\u2029b", "a\x85b", "a\x0bb\x0cc\x1cd\x1ee", "ümlaut 😀", "a\r\nb"]


def _write(path, rows, encoding="utf-8", mark=b"", end="\n"):
    text = "".join(json.dumps(row, ensure_ascii=False) + end for row in rows)
    path.write_bytes(mark + text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b""),
        ("utf-8", codecs.BOM_UTF8),
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-32-le", codecs.BOM_UTF32_LE),
        ("utf-32-be", codecs.BOM_UTF32_BE),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n \n"])
@pytest.mark.parametrize("chunk_bytes", [5, 1 << 20])
def test_json_lines_are_the_same_in_every_encoding(
    tmp_path, monkeypatch, encoding, mark, end, chunk_bytes
):
    """A mark is no text, only a line feed ends a line, and a character may span two chunks."""
    monkeypatch.setattr(text_files, "CHUNK_BYTES", chunk_bytes)
    rows = [{"text": text} for text in ODD]
    path = _write(tmp_path / "a.jsonl", rows, encoding, mark, end)

    assert [row for _, row in text_files.read_json_lines(path)] == rows
    numbers = [number for number, _ in text_files.read_json_lines(path)]
    assert numbers == [1 + i * end.count("\n") for i in range(len(rows))]
    assert text_files.decode(path.read_bytes(), "a") == "".join(text_files.read_chunks(path))


def test_files_put_behind_each_other_keep_no_mark(tmp_path):
    """`cat a b` leaves a byte order mark at the beginning of a later line."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(2 * (codecs.BOM_UTF8 + b'{"text": "x"}\n'))

    assert [row["text"] for _, row in text_files.read_json_lines(path)] == ["x", "x"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"a": 1}\n{"a": "naïve"}\n'.encode("latin-1"), r"line 2: expected UTF-8, found .* 0xef"),
        (b'{"a": "\xed\xa0\xbd"}', r"line 1: expected UTF-8"),
        (b'{"a": 1}\n{"a": "\xf0\x9f\x98', r"line 2: expected UTF-8"),
        ('{"a": 1}\n'.encode("utf-16-le"), r"line 1: expected text, found a null byte"),
        (codecs.BOM_UTF16_LE + b"a\0b", r"line 1: expected UTF-16"),
        (
            codecs.BOM_UTF16_LE + "{}\n\ud83d".encode("utf-16-le", "surrogatepass"),
            r"line 2: expected UTF-16",
        ),
        (b'\n{"a": 1}\n{"a": ', r"line 3: expected a JSON object, found text that is not JSON"),
        (b'{"a": 1} {"a": 2}', r"line 1: .* not JSON \(Extra data at character 10\)"),
        (b'[{"a": 1},\n{"a": 2}]', r"line 1: .*The file is one JSON array"),
        (b"[1]", r"line 1: expected a JSON object, found a list\. The file is one JSON array"),
        (b"7", r"line 1: expected a JSON object, found a number"),
        (b'{"a": 1, "b": 2, "a": 3}', r"line 1: expected each key once, found 'a' twice"),
        (b"[" * 100_000, r"line 1: expected a JSON object, found one that is nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", r"line 1: expected numbers of up to 4,300 digits"),
        ('{}\n{"a": "é"}'.encode("utf-16-le"), r"line 1: expected text, found a null byte"),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [5, 1 << 20])
def test_what_is_no_json_lines_is_refused_with_its_line(
    tmp_path, monkeypatch, content, says, chunk_bytes
):
    """Each error is one sentence that names file and line."""
    monkeypatch.setattr(text_files, "CHUNK_BYTES", chunk_bytes)
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)

    with pytest.raises(BadInput, match=says) as error:
        list(text_files.read_json_lines(path))
    assert str(path) in str(error.value)


def test_a_file_without_lines_is_not_read_into_memory(tmp_path, monkeypatch):
    """Something enormous on one line is refused while it is read."""
    monkeypatch.setattr(text_files, "LONGEST_LINE", 1 << 20)
    monkeypatch.setattr(text_files, "CHUNK_BYTES", 1 << 16)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n" + b"x" * (2 << 20))

    with pytest.raises(BadInput, match="line 2: longer than 1 million characters"):
        list(text_files.read_json_lines(path))


def test_half_of_a_surrogate_pair_is_seen():
    """JSON can hold it, and no file can."""
    assert text_files.has_half_character(json.loads(r'"a\ud83d"'))
    assert not text_files.has_half_character(json.loads(r'"a\ud83d\ude00"'))
