"""Reading, packing and splitting the text a student is taught with."""

import json

import pandas as pd
import pytest

from explorer.distill import corpus
from explorer.errors import BadCorpus
from explorer.models.loading import load_tokenizer


@pytest.fixture
def tokenizer(tiny_llama):
    return load_tokenizer(str(tiny_llama()))


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".parquet"])
def test_the_same_documents_are_the_same_corpus_in_every_format(tmp_path, suffix):
    """Text, JSON lines and Parquet give the same documents and the same digest."""
    texts = ["First document.", "A second one, with Ümlaut."]
    path = tmp_path / f"corpus{suffix}"
    if suffix == ".txt":
        path.write_text("\n\n".join(texts), encoding="utf-8")
    elif suffix == ".jsonl":
        path.write_text("\n".join(json.dumps({"text": t}) for t in texts), encoding="utf-8")
    else:
        pd.DataFrame({"text": texts}).to_parquet(path)

    found = corpus.read_corpus(str(path))

    assert found.texts == texts
    assert found.digest == corpus.Corpus("x", texts, found.digest).digest


def test_a_text_may_hold_any_line_end(tmp_path):
    """JSON need not escape U+2028 or U+0085, so a line of the file may hold them."""
    texts = ["before\u2028after", "before\u0085after", "before\u001eafter\u000c", "a\r\nb\nc"]
    path = tmp_path / "corpus.jsonl"
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    assert corpus.read_corpus(str(path)).texts == texts


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.txt", b"  \n\n ", "has no text"),
        ("latin.txt", "naïve".encode("latin-1"), "not UTF-8"),
        ("bad.jsonl", b'{"text": "ok"}\n{"text": ', "line 2: not JSON"),
        ("key.jsonl", b'{"texts": "ok"}', 'a string "text"'),
        ("no.parquet", b"not parquet at all", "not a Parquet file"),
        ("doc.pdf", b"%PDF", "ending in .txt, .jsonl, .parquet"),
    ],
)
def test_an_unreadable_corpus_is_refused_in_one_sentence(tmp_path, name, content, says):
    """Each bad file gets its own reason."""
    (tmp_path / name).write_bytes(content)

    with pytest.raises(BadCorpus, match=says):
        corpus.read_corpus(str(tmp_path / name))


def test_a_missing_corpus_is_named(tmp_path):
    """The path that was looked for is in the message."""
    with pytest.raises(BadCorpus, match=r"no corpus file .*gone\.txt"):
        corpus.read_corpus(str(tmp_path / "gone.txt"))


def test_blocks_hold_every_token_once_with_an_end_between_documents(tokenizer):
    """Packing adds one end-of-text token a document and no padding."""
    texts = ["abc", "defgh", "ij"]

    blocks, num_tokens = corpus.pack_blocks(corpus.Corpus("x", texts, ""), tokenizer, 4, 1)

    assert num_tokens == 10 + 3
    assert blocks.shape == (3, 4)
    flat = blocks.flatten().tolist()
    assert tokenizer.decode(flat).replace(tokenizer.eos_token, "|") == "abc|defgh|ij"


def test_too_little_text_is_refused_with_the_numbers(tokenizer):
    """The message says how many blocks there are and how many are needed."""
    with pytest.raises(BadCorpus, match=r"2 whole blocks of 4; this run needs at least 5"):
        corpus.pack_blocks(corpus.Corpus("x", ["abcdefg"], ""), tokenizer, 4, 5)


def test_heldout_blocks_are_the_same_for_every_seed_and_never_trained_on():
    """Runs with other seeds are measured on the same blocks."""
    heldout_a, training_a = corpus.split_heldout(50, 8, seed=0)
    heldout_b, training_b = corpus.split_heldout(50, 8, seed=1)

    assert heldout_a == heldout_b
    assert training_a != training_b
    assert sorted(heldout_a + training_a) == list(range(50))


def test_the_starter_corpus_is_what_its_recipe_says():
    """About 300,000 tokens that the starter wrote itself, no document twice, under 3 MB."""
    recipe = json.loads(corpus.STARTER.with_name(corpus.STARTER.name + ".recipe.json").read_text())
    found = corpus.read_corpus("starter")

    assert recipe["teacher"] == "starter"
    assert len(found.texts) == recipe["num_documents"] == len(set(found.texts))
    assert 0.9 < len(found.texts) * recipe["document_tokens"] / recipe["num_tokens"] < 1.1
    assert corpus.STARTER.stat().st_size < 3e6
