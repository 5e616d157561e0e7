"""The tokens of a corpus in a file that runs share."""

import errno
import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from explorer.distill import corpus, token_file
from explorer.errors import BadCorpus, NoRoom
from explorer.pipeline import corpus_stage
from explorer.pipeline.context import RunContext
from explorer.specs import DistillSpec, RunSpec
from explorer.store.progress import Progress
from tests import killing


def _tokenizer(bos=True, eos=True, begins=False, **changes):
    """A token for each byte; with `begins` a text begins with the BOS, as Llama 2's does."""
    words = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if begins:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    marks = {"bos_token": "<s>" if bos else None, "eos_token": "</s>" if eos else None}
    return PreTrainedTokenizerFast(tokenizer_object=core, **marks, **changes)


@pytest.fixture
def text(tmp_path):
    return _text(tmp_path / "a.txt", ["abc", "defgh", "ij"])


def _text(path, texts):
    path.write_text("\n\n".join(texts), encoding="utf-8")
    return corpus.read_corpus(str(path))


def _in_letters(tokens, tokenizer):
    flat = tokens[list(range(len(tokens)))].flatten().tolist()
    return "".join(tokenizer.convert_ids_to_tokens(flat)).replace("<s>", "^").replace("</s>", "|")


@pytest.mark.parametrize(
    ("options", "stream"),
    [
        ({}, "abc|defgh|ij|"),
        ({"begins": True}, "^abc|^defgh|^ij|"),
        ({"eos": False}, "^abc^defgh^ij"),
        ({"eos": False, "begins": True}, "^abc^defgh^ij"),
        ({"bos": False}, "abc|defgh|ij|"),
    ],
)
def test_documents_follow_each_other_between_their_marks(tmp_path, text, options, stream):
    """They begin as evaluation begins a text and end with EOS; without one, BOS parts them."""
    tokenizer = _tokenizer(**options)
    tokens = token_file.ensure_tokens(text, tokenizer, tmp_path / "t.bin", 1)

    assert _in_letters(tokens, tokenizer) == stream
    assert tokens.num_tokens == len(stream)


def test_a_document_that_begins_with_the_mark_gets_no_second(tmp_path):
    """A chat template writes the BOS itself, and evaluation adds none to such a text, either."""
    tokenizer = _tokenizer(begins=True)
    text = _text(tmp_path / "a.txt", ["<s>ab", "cd<s>", "<s>"])
    tokens = token_file.ensure_tokens(text, tokenizer, tmp_path / "t.bin", 1)

    assert _in_letters(tokens, tokenizer) == "^ab|^cd^|^|"


def test_a_tokenizer_without_any_mark_is_refused(tmp_path, text):
    """Nothing would part the documents."""
    with pytest.raises(BadCorpus, match="neither an end-of-text nor a beginning-of-text token"):
        token_file.token_key(text, _tokenizer(bos=False, eos=False))


def test_a_text_that_the_tokenizer_cannot_encode_is_refused(tmp_path, text):
    """The tokenizers library raises a bare exception, such as for a word without a token."""
    core = Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, unk_token="?"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")

    with pytest.raises(BadCorpus, match=r"cannot encode a document of a\.txt"):
        token_file.ensure_tokens(text, tokenizer, tmp_path / "t.bin", 4)


@pytest.mark.parametrize(("num_words", "dtype"), [(0, "uint16"), (70_000, "uint32")])
def test_blocks_are_read_like_rows_of_a_tensor(tmp_path, num_words, dtype):
    """One number gives a block, several give a batch; ids of any vocabulary fit."""
    tokenizer = _tokenizer()
    tokenizer.add_tokens([f"word{i}!" for i in range(num_words)])
    text = _text(tmp_path / "a.txt", [f"{i}" * 9 for i in range(10)] + ["word69999!word0!"])
    tokens = token_file.ensure_tokens(text, tokenizer, tmp_path / "t.bin", 8)

    ids = [i for t in text.documents() for i in [*tokenizer(t).input_ids, 1]]
    num_blocks = len(ids) // 8
    expected = torch.tensor(ids[: num_blocks * 8]).view(num_blocks, 8)
    assert (tokens.dtype, tokens.shape, len(tokens)) == (dtype, (num_blocks, 8), num_blocks)
    for numbers in ([3, 0, 3], [num_blocks - 1], 2, []):
        assert torch.equal(tokens[numbers], expected[numbers])
        assert tokens[numbers].dtype == torch.int64
    assert torch.equal(pickle.loads(pickle.dumps(tokens))[[1, 2]], expected[[1, 2]])
    with pytest.raises(IndexError):
        tokens[num_blocks]


def test_the_file_is_made_once(tmp_path, text):
    """The next run opens it and reads no document; blocks may then have another length."""
    path = tmp_path / "t.bin"
    reports = []
    token_file.ensure_tokens(text, _tokenizer(), path, 4, lambda *told: reports.append(told))
    assert reports == [(10, 10)]
    text.path.unlink()

    again = token_file.ensure_tokens(text, _tokenizer(), path, 3)

    assert (again.shape, again.num_tokens) == ((4, 3), 13)


def test_whatever_decides_the_tokens_is_in_the_key(tmp_path, text):
    """Also how the tokenizer splits, which its vocabulary does not say; padding does not count."""
    plain = token_file.token_key(text, _tokenizer())
    split = _tokenizer()
    split.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    padded = _tokenizer(pad_token="</s>")
    padded(["a", "abc"], padding=True, truncation=True, max_length=2)

    others = [_tokenizer(begins=True), _tokenizer(eos=False), split]
    keys = {token_file.token_key(text, other) for other in others}
    keys.add(token_file.token_key(_text(tmp_path / "b.txt", ["other"]), _tokenizer()))
    assert len(keys | {plain}) == 5
    assert token_file.token_key(text, padded) == plain


def test_the_identity_of_a_corpus_is_its_digest_unless_its_marks_are_unusual(text):
    """Keys of stored runs stay; where documents begin with BOS now, old targets do not fit."""
    plain, begins = _tokenizer(), _tokenizer(begins=True)

    assert token_file.corpus_identity(text, plain) == text.digest
    assert token_file.corpus_identity(text, plain, plain) == text.digest
    odd = token_file.corpus_identity(text, begins)
    assert odd != text.digest
    assert len(odd) == 16


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-2]),
        lambda path: path.write_bytes(bytes(26)),
        lambda path: path.unlink(),
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: path.with_suffix(".json").write_text("[]"),
        lambda path: path.with_suffix(".json").unlink(),
    ],
)
def test_a_damaged_file_is_made_again(tmp_path, text, harm):
    """Half a file, other bytes or no description: the tokens are those of the text."""
    path = tmp_path / "t.bin"
    before = token_file.ensure_tokens(text, _tokenizer(), path, 4)[[0, 1, 2]]
    harm(path)

    assert torch.equal(token_file.ensure_tokens(text, _tokenizer(), path, 4)[[0, 1, 2]], before)


def test_a_killed_build_leaves_nothing_that_is_used(tmp_path, text):
    """Killed at any change of the disk, the next run has the same tokens and no other files."""
    names = {"t.bin", "t.json"}
    kills = 0

    def build(kill):
        token_file.ensure_tokens(text, _tokenizer(), tmp_path / f"{kill.moment}" / "t.bin", 4)

    for kill in killing.moments(build):
        kills += 1
        path = tmp_path / f"{kill.moment}" / "t.bin"
        tokens = token_file.ensure_tokens(text, _tokenizer(), path, 4)
        assert _in_letters(tokens, _tokenizer()) == "abc|defgh|ij"
        assert {p.name for p in path.parent.iterdir()} >= names
    assert kills > 3


def test_a_full_disk_leaves_no_half_file(tmp_path, text, monkeypatch):
    """It is said, and the next run makes the file."""

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(NoRoom, match=r"No space left on device\. Free some space"):
            token_file.ensure_tokens(text, _tokenizer(), tmp_path / "t.bin", 4)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("t.")] == []


def test_two_runs_at_once_tokenise_once(tmp_path, text, monkeypatch):
    """The second waits for the first, whatever its block length, and finds the file."""
    calls, tokenizer = [], _tokenizer()
    write = token_file._write

    def counted(*arguments):
        calls.append(arguments)
        write(*arguments)

    monkeypatch.setattr(token_file, "_write", counted)

    def pack(block_tokens):
        spec = RunSpec(name=f"run{block_tokens}", teacher="t")
        run = RunContext(spec, tmp_path, Progress(tmp_path, spec.run_id))
        distill = DistillSpec(block_tokens=block_tokens, heldout_blocks=1)
        return corpus_stage.pack(run, long, tokenizer, distill)

    long = _text(tmp_path / "long.txt", [f"document {i}" for i in range(500)])
    with ThreadPoolExecutor(4) as pool:
        blocks = list(pool.map(pack, [8, 16, 8, 32]))

    assert len(calls) == 1
    assert {b.num_tokens for b in blocks} == {sum(len(t) + 1 for t in long.documents())}
    assert [b.tokens_NT.shape[1] for b in blocks] == [8, 16, 8, 32]


def test_a_corpus_that_changes_before_it_is_tokenised_is_refused(tmp_path, text):
    """No tokens of another text are kept under its key."""
    text.path.write_text("abd\n\ndefgh\n\nij")

    with pytest.raises(BadCorpus, match="was changed"):
        token_file.ensure_tokens(text, _tokenizer(), tmp_path / "t.bin", 4)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("t.")] == []


def test_the_first_tokens_are_those_that_every_budget_reads(tmp_path, monkeypatch):
    """Held-out blocks come from them, so they are counted up to the same document."""
    monkeypatch.setattr(corpus, "LEAST_CHARS", 100)
    monkeypatch.setattr(token_file, "LEAST_CHARS", 100)
    name = str(_text(tmp_path / "a.txt", [f"{i:09d}." for i in range(50)]).path)
    sizes = []
    for budget in (0, 20, 10_000):
        text = corpus.read_corpus(name, budget)
        path = tmp_path / f"{budget}.bin"
        tokens = token_file.ensure_tokens(text, _tokenizer(), path, 4)
        sizes.append((tokens.num_tokens, tokens.num_first_tokens))

    assert sizes == [(110, 110), (220, 110), (550, 110)]


def test_too_little_text_is_refused_with_the_numbers(text):
    """The message says how many blocks there are and how many are needed."""
    assert token_file.count_tokens(text, _tokenizer(), 10**6) == 13
    token_file.check_length(text, 13, 4, 3)
    with pytest.raises(BadCorpus, match=r"3 whole blocks of 4; this run needs at least 5"):
        token_file.check_length(text, 13, 4, 5)


def test_counting_ends_where_it_is_enough(tmp_path):
    """A check of a large corpus tokenises only its beginning."""
    text = _text(tmp_path / "a.txt", ["x" * 9] * 3000)

    assert token_file.count_tokens(text, _tokenizer(), 100) == 2560


def test_what_is_written_about_a_file_is_json(tmp_path, text):
    """People can read it."""
    token_file.ensure_tokens(text, _tokenizer(), tmp_path / "t.bin", 4)

    about = json.loads((tmp_path / "t.json").read_text())
    assert (about["num_tokens"], np.dtype(about["dtype"]).itemsize) == (13, 2)
