"""A corpus that the teacher writes, and what a kill leaves of it."""

import pytest

from explorer.distill.synthesise import synthesise, turn_opening
from explorer.errors import BadInput
from explorer.models.loading import load, load_tokenizer
from tests import killing


@pytest.fixture
def write(tiny_llama):
    """Writes four documents in two batches; gives the tokens that it found written before."""
    teacher = load(str(tiny_llama()))

    def write(out):
        first = []
        synthesise(
            teacher,
            out,
            num_tokens=32,
            document_tokens=8,
            batch_size=2,
            progress=lambda done, total: first.append(done),
        )
        return first[0]

    return write


def test_a_corpus_is_written_on_where_a_kill_stopped_it(write, tmp_path):
    """Killed at any change of the disk, the next call writes the file of an unbroken one."""
    write(tmp_path / "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_bytes()

    kills = 0
    for kill in killing.moments(lambda kill: write(tmp_path / f"{kill.moment}.jsonl")):
        kills += 1
        out = tmp_path / f"{kill.moment}.jsonl"
        write(out)
        assert out.read_bytes() == whole
        assert not out.with_suffix(".partial").exists()
    assert kills > 4


@pytest.mark.parametrize("end", [b"\n", b' ["th\xc3', b' ["th'])
def test_a_line_that_a_kill_cut_costs_only_itself(write, tmp_path, end):
    """Wherever it was cut, also within a letter: what was whole before it is not written again."""
    *_, last = killing.moments(lambda kill: write(tmp_path / f"{kill.moment}.jsonl"))
    out = tmp_path / f"{last.moment}.jsonl"
    partial = out.with_suffix(".partial")
    recipe, first, _ = partial.read_bytes().splitlines(keepends=True)
    whole = out.read_bytes()
    partial.write_bytes(recipe + first + end)

    assert write(out) == 16
    assert out.read_bytes() == whole
    partial.write_bytes(recipe[:5])
    assert write(out) == 0
    assert out.read_bytes() == whole


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('Only a system turn.') }}", "cannot write a user's turn: Only a sys"),
        ("{% for m in messages %}{{ m['content'] ", "cannot write a user's turn"),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "writes nothing before user's"),
        ("<s>{{ messages[0]['role'] }}", "writes no user's words"),
    ],
)
def test_a_template_that_opens_no_turn_is_refused(tiny_llama, template, says):
    """Before any model is loaded, from the tokenizer alone."""
    tokenizer = load_tokenizer(str(tiny_llama()))
    tokenizer.chat_template = template

    with pytest.raises(BadInput, match=says):
        turn_opening("tiny", tokenizer)


def test_documents_end_where_the_positions_do(tiny_llama, tmp_path):
    """Opening and document fit the model, which may have fewer tokens than `top_k`."""
    teacher = load(str(tiny_llama()))
    teacher.model.config.max_position_embeddings = 24
    sizes = {"num_tokens": 32, "document_tokens": 32, "top_k": 1000}

    recipe = synthesise(teacher, tmp_path / "a.jsonl", **sizes)

    opening = teacher.tokenizer(recipe["opening"], add_special_tokens=False).input_ids
    assert recipe["document_tokens"] == 24 - len(opening) > 0
    teacher.model.config.max_position_embeddings = len(opening)
    with pytest.raises(BadInput, match="nothing is left for a document"):
        synthesise(teacher, tmp_path / "b.jsonl", **sizes)
