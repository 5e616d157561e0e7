"""Reading and splitting the text a student is trained on."""

import codecs
import hashlib
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from explorer.distill import corpus
from explorer.errors import BadCorpus

TEXTS = ["First document.", "A second one, with Ümlaut.", "before\u2028after\u2029\x85."]


def _read(path, **options):
    found = corpus.read_corpus(str(path), **options)
    texts = list(found.documents())
    assert len(texts) == found.num_documents
    assert sum(map(len, texts)) == found.num_chars
    return texts


def _parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def _write(path, texts=TEXTS):
    """The same documents in the format of the file's ending."""
    if path.suffix == ".txt":
        path.write_text("\n\n".join(texts), encoding="utf-8")
    elif path.suffix == ".jsonl":
        lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        pd.DataFrame({"text": texts}).to_parquet(path)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet", "a.JSONL", "a.Txt"])
def test_the_same_documents_are_the_same_corpus_in_every_format(tmp_path, name):
    """Text, JSON Lines and Parquet give the same documents and the same digest."""
    path = tmp_path / name
    _write(path.with_suffix(path.suffix.lower())).rename(path)

    assert _read(path) == TEXTS
    expected = hashlib.sha256("".join(f"{text}\0" for text in TEXTS).encode()).hexdigest()
    assert corpus.read_corpus(str(path)).digest == expected[:16]


def test_a_text_may_hold_any_line_end(tmp_path):
    """JSON need not escape U+2028 or U+0085, so a line of the file may hold them."""
    texts = ["before\u2028after", "before\u0085after", "before\u001eafter\u000c", "a\r\nb\nc"]

    assert _read(_write(tmp_path / "corpus.jsonl", texts)) == texts


@pytest.mark.parametrize("chunk_bytes", [5, 1 << 20])
def test_blank_lines_part_the_documents_of_a_text_file(tmp_path, monkeypatch, chunk_bytes):
    """Line ends of Windows and of old Macs are line ends, also between two chunks."""
    monkeypatch.setattr("explorer.files.text_files.CHUNK_BYTES", chunk_bytes)
    path = tmp_path / "a.txt"
    path.write_bytes("\r\n\r\né one\r\ntwo\r\n\r\n\r\nthree\rfour\n\n \n\n\r\rfive\r".encode())

    assert _read(path) == ["é one\ntwo", "\nthree\nfour", "five\n"]


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le")],
)
def test_a_byte_order_mark_is_no_text(tmp_path, suffix, mark, encoding):
    """The documents and the digest are those of the file without it, and in UTF-8."""
    plain, marked = _write(tmp_path / f"plain{suffix}"), tmp_path / f"marked{suffix}"
    marked.write_bytes(mark + plain.read_text(encoding="utf-8").encode(encoding))

    assert _read(marked) == TEXTS


@pytest.mark.parametrize(
    "column",
    [
        pa.array([text.encode() for text in TEXTS]),
        pa.array([text.encode() for text in TEXTS], pa.large_binary()),
        pa.array([codecs.BOM_UTF8 + text.encode() for text in TEXTS]),
        pa.array([*TEXTS, None, " "], pa.large_string()),
        pa.array([*TEXTS, TEXTS[0]]).dictionary_encode()[:3],
        pa.array([TEXTS[0].encode(), b"x" * 15], pa.binary(15)),
    ],
)
def test_cells_of_bytes_are_text(tmp_path, column):
    """UTF-8 in a column of bytes gives what a column of text gives; no value is no document."""
    texts = _read(_parquet(tmp_path / "a.parquet", text=column, other=list(range(len(column)))))

    assert texts == (TEXTS if len(column) > 2 else [TEXTS[0], "x" * 15])


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pa.array([["a"], ["b"]]), r"found list<.*apply_chat_template"),
        (pa.array([[{"role": "user", "content": "x"}]]), r"found list<.*apply_chat_template"),
        (pa.array([{"a": 1}]), r"found struct<a: int64>\. Write each document's text"),
        (pa.array([1, 2]), r"found int64"),
        (pa.array([1.5, None]), r"found double"),
        (pa.array([True]), r"found bool"),
        (pa.array([0], pa.timestamp("s")), r"found timestamp"),
        (pa.array([1, 1]).dictionary_encode(), r"found int64"),
        (pa.array([b"ok", None, b"\xff\xfe"]), r"row 3: expected UTF-8, found the byte 0xff"),
        (pa.array([None, None]), r"has no text"),
        (pa.array(["", " \n"]), r"has no text"),
    ],
)
def test_other_cells_are_refused(tmp_path, column, says):
    """Lists, mappings, numbers and other bytes are never trained on as Python would print them."""
    path = _parquet(tmp_path / "a.parquet", text=column)

    with pytest.raises(BadCorpus, match=says):
        corpus.read_corpus(str(path))
    with pytest.raises(BadCorpus, match=says):
        corpus.check_corpus(str(path))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.txt", b"  \n\n ", "has no text"),
        ("empty.jsonl", b"", "has no text"),
        ("latin.txt", "one\n\nnaïve".encode("latin-1"), "line 3: expected UTF-8"),
        ("wide.txt", "text".encode("utf-16-le"), "line 1: expected text, found a null byte"),
        ("bad.jsonl", b'{"text": "ok"}\n{"text": ', "line 2: .* not JSON"),
        ("key.jsonl", b'{"texts": "ok"}', 'a string "text", found the keys texts. Rename the key'),
        ("wide.txt", "naïve".encode("utf-16-le"), "line 1: expected text, found a null byte"),
        ("none.jsonl", b"{}", "found the keys none"),
        ("null.jsonl", b'{"text": null}', "found nothing there"),
        ("chat.jsonl", b'{"messages": [{"role": "user"}]}', "apply_chat_template"),
        ("list.jsonl", b'{"text": ["a"]}', "found a list there"),
        ("number.jsonl", b'{"text": 7}', "found a number there"),
        ("half.jsonl", b'{"text": "ok"}\n{"text": "a \\ud83d b"}', "line 2: .*half of a surrogate"),
        ("no.parquet", b"not parquet at all", "not a Parquet file"),
        ("doc.pdf", b"%PDF", "ending in .txt, .jsonl, .parquet"),
    ],
)
def test_an_unreadable_corpus_is_refused_in_one_sentence(tmp_path, name, content, says):
    """Each bad file gets its own reason, from the first look too."""
    (tmp_path / name).write_bytes(content)

    for read in (corpus.read_corpus, corpus.check_corpus):
        with pytest.raises(BadCorpus, match=says):
            read(str(tmp_path / name))


def test_a_table_without_one_column_of_that_name_is_refused(tmp_path):
    """The columns that are there are named; two of one name are ambiguous."""
    path = _parquet(tmp_path / "a.parquet", body=["x"], **{f"c{i}": [i] for i in range(9)})
    with pytest.raises(BadCorpus, match=r"found the columns body, c0, .* and 2 more"):
        corpus.read_corpus(str(path))
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"]), path)
    with pytest.raises(BadCorpus, match=r"expected one column `text`, found two"):
        corpus.read_corpus(str(path))


def test_a_damaged_table_is_refused(tmp_path):
    """Damage in the middle shows only when its rows are read."""
    path = tmp_path / "a.parquet"
    rows = pa.table({"text": [f"{i} " * 50 for i in range(2000)]})
    pq.write_table(rows, path, compression="zstd", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[200:400] = bytes(200)
    path.write_bytes(content)

    with pytest.raises(BadCorpus, match="not a Parquet file that can be read"):
        corpus.read_corpus(str(path))


def test_a_missing_corpus_is_named(tmp_path):
    """The path that was looked for is in the message."""
    for read in (corpus.read_corpus, corpus.check_corpus):
        with pytest.raises(BadCorpus, match=r"no corpus file .*gone\.txt"):
            read(str(tmp_path / "gone.txt"))


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".parquet"])
def test_only_what_the_budget_needs_is_read(tmp_path, monkeypatch, suffix):
    """A larger budget reads further, and what comes after it need not even be text."""
    monkeypatch.setattr(corpus, "LEAST_CHARS", 100)
    path = tmp_path / f"a{suffix}"
    texts = [f"{i:09d}." for i in range(50)]
    if suffix == ".parquet":
        content = [text.encode() for text in texts]
        _parquet(path, text=pa.array(content * 4 + [b"\xff"]))
    else:
        _write(path, texts)
        padding = b"\n\n" + b" " * (3 << 20) + b"\n\n"  # the next chunk, which nobody asks for
        path.write_bytes(path.read_bytes() + padding + b"\xff")

    assert _read(path) == texts[:10]
    assert _read(path, num_tokens=12) == texts[:10]
    assert _read(path, num_tokens=13) == texts[:20]
    assert _read(path, num_tokens=50) == texts[:40]
    with pytest.raises(BadCorpus, match="expected UTF-8"):
        _read(path, num_tokens=10_000)


@pytest.mark.parametrize("chunk_bytes", [7, 1 << 20])
@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_a_very_long_document_is_read_in_pieces(tmp_path, monkeypatch, suffix, chunk_bytes):
    """Cut at a line end or a space if there is one, whatever the chunks are."""
    monkeypatch.setattr(corpus, "LONGEST_DOCUMENT", 10)
    monkeypatch.setattr("explorer.files.text_files.CHUNK_BYTES", chunk_bytes)
    path = _write(
        tmp_path / f"a{suffix}", ["short", "aaa bbb\nccc ddd eee", "x" * 23, "0123456789"]
    )

    assert _read(path) == [
        *("short", "aaa bbb\n", "ccc ddd ", "eee"),
        *("x" * 10, "x" * 10, "xxx", "0123456789"),
    ]


def test_an_enormous_cell_is_refused(tmp_path, monkeypatch):
    """As an enormous line is."""
    monkeypatch.setattr(corpus, "LONGEST_LINE", 1 << 20)
    path = _parquet(tmp_path / "a.parquet", text=["x", "y" * (2 << 20)])

    with pytest.raises(BadCorpus, match="row 2: longer than 1 million characters"):
        corpus.read_corpus(str(path))


def test_a_file_that_changes_under_a_run_is_noticed(tmp_path):
    """What is read a second time must be what was read first."""
    path = _write(tmp_path / "a.txt")
    found = corpus.read_corpus(str(path))
    path.write_text("Something else.")

    with pytest.raises(BadCorpus, match="was changed while the run used it"):
        list(found.documents())


def test_heldout_blocks_are_the_same_for_every_seed_and_never_trained_on():
    """Runs with other seeds are measured on the same blocks."""
    heldout_a, training_a = corpus.split_heldout(50, 8, seed=0)
    heldout_b, training_b = corpus.split_heldout(50, 8, seed=1)

    assert heldout_a == heldout_b
    assert training_a != training_b
    assert sorted(heldout_a + training_a) == list(range(50))


def test_heldout_blocks_are_the_same_for_every_budget():
    """A run that reads further in the file is measured on the blocks that the others have, too."""
    heldout_a, _ = corpus.split_heldout(50, 8, seed=0, num_first=50)
    heldout_b, training_b = corpus.split_heldout(210, 8, seed=0, num_first=50)

    assert heldout_a == heldout_b == corpus.split_heldout(50, 8, seed=0)[0]
    assert sorted(heldout_b + training_b) == list(range(210))
    assert max(training_b[:100]) > 150, "the order is that of the whole"
    few, _ = corpus.split_heldout(60, 8, seed=0, num_first=3)
    assert len(set(few)) == 8


def test_the_starter_corpus_is_what_its_recipe_says():
    """About 300,000 tokens that the starter wrote itself, no document twice, under 3 MB."""
    recipe = json.loads(corpus.STARTER.with_name(corpus.STARTER.name + ".recipe.json").read_text())
    texts = list(corpus.read_corpus("starter").documents())

    assert recipe["teacher"] == "starter"
    assert len(texts) == recipe["num_documents"] == len(set(texts))
    assert 0.9 < len(texts) * recipe["document_tokens"] / recipe["num_tokens"] < 1.1
    assert corpus.STARTER.stat().st_size < 3e6
    assert corpus.read_corpus("starter").digest == "05dcf00d7d495d71", "as in stored runs"
