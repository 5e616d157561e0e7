"""What every divergence promises, whatever the logits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.distill.losses import DIVERGENCES, events, kept_log_softmax

VOCABULARY = 9
logits = st.lists(
    st.lists(st.floats(-12, 12, width=32), min_size=VOCABULARY, max_size=VOCABULARY),
    min_size=2,
    max_size=2,
).map(torch.tensor)
every = pytest.mark.parametrize("name", DIVERGENCES)
but_adaptive = pytest.mark.parametrize("name", [n for n in DIVERGENCES if n != "adaptive_kl"])
"""The adaptive KL's head ends at another token where two are equally likely."""


def _events(student_V, teacher_V, k):
    ids_TK = teacher_V[None].topk(k).indices
    return events(student_V[None], ids_TK, kept_log_softmax(teacher_V[None], ids_TK))


@every
@settings(max_examples=30, deadline=None)
@given(pair=logits, k=st.integers(1, VOCABULARY))
def test_a_divergence_is_never_negative(name, pair, k):
    """Dense or of kept tokens and a bucket, up to rounding."""
    student, teacher = pair

    assert float(DIVERGENCES[name](student[None], teacher[None])) >= -1e-5
    assert float(DIVERGENCES[name](*_events(student, teacher, k))) >= -1e-5


@every
@settings(max_examples=30, deadline=None)
@given(pair=logits, k=st.integers(1, VOCABULARY))
def test_a_student_like_its_teacher_has_none(name, pair, k):
    """The divergence of a distribution from itself is zero."""
    _, teacher = pair

    assert abs(float(DIVERGENCES[name](teacher[None], teacher[None]))) < 1e-5
    assert abs(float(DIVERGENCES[name](*_events(teacher, teacher, k)))) < 1e-4


@every
@settings(max_examples=30, deadline=None)
@given(pair=logits, shift=st.floats(-50, 50))
def test_a_common_shift_of_logits_changes_nothing(name, pair, shift):
    """Softmax ignores it, so the loss must."""
    student, teacher = pair
    before = DIVERGENCES[name](student[None], teacher[None])

    after = DIVERGENCES[name](student[None] + shift, teacher[None] - shift)

    torch.testing.assert_close(after, before, rtol=1e-2, atol=1e-3)


@but_adaptive
@settings(max_examples=30, deadline=None)
@given(pair=logits)
def test_keeping_every_token_is_the_dense_loss(name, pair):
    """The cached loss is exact when k is the vocabulary."""
    student, teacher = pair
    dense = DIVERGENCES[name](student[None], teacher[None])

    kept = DIVERGENCES[name](*_events(student, teacher, VOCABULARY))

    torch.testing.assert_close(kept, dense, rtol=1e-3, atol=1e-4)


@but_adaptive
@settings(max_examples=30, deadline=None)
@given(pair=logits, k=st.integers(1, VOCABULARY))
def test_a_bucket_can_only_hide_divergence(name, pair, k):
    """What is told apart less is less different."""
    student, teacher = pair
    dense = float(DIVERGENCES[name](student[None], teacher[None]))

    assert float(DIVERGENCES[name](*_events(student, teacher, k))) <= dense + 1e-3
