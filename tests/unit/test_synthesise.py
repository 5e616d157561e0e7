"""A corpus that the teacher writes, and what a kill leaves of it."""

import pytest

from explorer.distill.synthesise import synthesise
from explorer.models.loading import load
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
