"""The teacher's cached distributions."""

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax

from explorer.distill.targets import Targets
from explorer.errors import DamagedStore
from explorer.models.loading import load


@pytest.fixture
def teacher(tiny_llama):
    return load(str(tiny_llama()))


@pytest.fixture
def blocks():
    return torch.randint(0, 320, (12, 16), generator=torch.Generator().manual_seed(0))


def _open(tmp_path, blocks, **changes):
    identity = {"teacher": "t", "top_k": 8, "temperature": 1.0, "vocab_size": 320, **changes}
    return Targets(tmp_path / "targets", blocks, identity)


def _fill(targets, teacher, wanted):
    calls = []
    targets.fill(lambda: teacher, wanted, lambda *told: calls.append(told))
    return calls


def test_targets_are_the_teachers_most_likely_tokens(tmp_path, teacher, blocks):
    """Ids are exact and log-probabilities within half precision of the teacher's."""
    targets = _open(tmp_path, blocks)
    _fill(targets, teacher, list(range(12)))

    ids, kept, log_p = targets.batch([3])

    with torch.inference_mode():
        expected = log_softmax(teacher.model(blocks[3:4]).logits.float(), -1).topk(8)
    torch.testing.assert_close(ids, blocks[3:4])
    torch.testing.assert_close(log_p[..., :8].float(), expected.values, rtol=1e-3, atol=5e-3)
    torch.testing.assert_close(log_p.float().exp().sum(-1), torch.ones(1, 16), rtol=0, atol=1e-2)
    assert (kept == expected.indices).float().mean() > 0.99


def test_a_later_run_adds_only_what_is_missing(tmp_path, teacher, blocks):
    """Blocks that are there are not computed again, and a full store needs no teacher."""
    _fill(_open(tmp_path, blocks), teacher, [0, 1, 2])
    again = _open(tmp_path, blocks)
    before = np.array(again.log_p_NTK[:3])

    calls = _fill(again, teacher, [0, 1, 2, 7])

    assert calls[-1][:2] == (16, 16)
    assert again.done_N.nonzero()[0].tolist() == [0, 1, 2, 7]
    np.testing.assert_array_equal(before, again.log_p_NTK[:3])

    def no_teacher():
        raise AssertionError("nothing is missing")

    again.fill(no_teacher, [0, 7], lambda *told: None)


def test_another_teacher_or_corpus_has_another_folder(tmp_path, blocks):
    """Targets of one teacher can never be read for another."""
    keys = {
        _open(tmp_path, blocks).key,
        _open(tmp_path, blocks, teacher="u").key,
        _open(tmp_path, blocks, temperature=2.0).key,
        _open(tmp_path, blocks[:5]).key,
    }

    assert len(keys) == 4


def test_a_truncated_file_is_reported_and_left_alone(tmp_path, teacher, blocks):
    """The message names the file and what to do."""
    targets = _open(tmp_path, blocks)
    _fill(targets, teacher, [0])
    path = targets.folder / "log_probs.bin"
    with path.open("r+b") as file:
        file.truncate(100)

    with pytest.raises(DamagedStore, match=r"log_probs\.bin should have 3,072 bytes"):
        _open(tmp_path, blocks)
    assert path.stat().st_size == 100


def test_a_token_costs_at_most_200_bytes(tmp_path, blocks):
    """Also with 32 kept tokens of a large vocabulary."""
    large = _open(tmp_path, blocks, vocab_size=151_936, top_k=32)
    num_bytes = sum((large.folder / n).stat().st_size for n in ("ids.bin", "log_probs.bin"))

    assert num_bytes / blocks.numel() <= 200
