"""Each loss against a one-line reference."""

import math

import pytest
import torch
from torch.nn.functional import kl_div, log_softmax

from explorer.distill.losses import (
    IGNORE_INDEX,
    forward_kl,
    label_cross_entropy,
    sparse_forward_kl,
)


def _logits(seed: int, positions: int = 7, vocabulary: int = 23) -> torch.Tensor:
    return 3 * torch.randn(positions, vocabulary, generator=torch.Generator().manual_seed(seed))


def _kept(teacher_TV: torch.Tensor, k: int, temperature: float = 1.0):
    log_p_TV = log_softmax(teacher_TV / temperature, dim=-1)
    values, ids = log_p_TV.topk(k, dim=-1)
    return ids, values


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_forward_kl_is_what_torch_computes(temperature):
    """The dense KL equals torch's own, at any temperature."""
    student, teacher = _logits(0), _logits(1)
    log_p, log_q = (log_softmax(x / temperature, -1) for x in (teacher, student))

    expected = kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)

    torch.testing.assert_close(forward_kl(student, teacher, temperature=temperature), expected)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_sparse_kl_with_the_whole_vocabulary_is_the_dense_kl(temperature):
    """Keeping every token loses nothing: the tail bucket is then empty."""
    student, teacher = _logits(0), _logits(1)
    ids, log_p = _kept(teacher, 23, temperature)

    sparse = sparse_forward_kl(student, ids, log_p, temperature=temperature)

    dense = forward_kl(student, teacher, temperature=temperature)
    torch.testing.assert_close(sparse, dense, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [1, 4, 22])
def test_sparse_kl_is_between_zero_and_the_dense_kl(k):
    """Bucketing the tail can only lose divergence, and never makes it negative."""
    student, teacher = _logits(2, positions=200), _logits(3, positions=200)
    ids, log_p = _kept(teacher, k)

    sparse = sparse_forward_kl(student, ids, log_p)

    assert (sparse >= -1e-5).all()
    assert (sparse <= forward_kl(student, teacher) + 1e-4).all()


def test_a_student_like_its_teacher_has_no_loss():
    """KL is zero for student = teacher, in half-precision targets up to their rounding."""
    teacher = _logits(4)
    ids, log_p = _kept(teacher, 5)

    torch.testing.assert_close(forward_kl(teacher, teacher), torch.zeros(7))
    torch.testing.assert_close(
        sparse_forward_kl(teacher, ids, log_p), torch.zeros(7), rtol=0, atol=1e-5
    )
    assert sparse_forward_kl(teacher, ids, log_p.half()).abs().max() < 1e-4


def test_the_tail_bucket_has_one_line_of_mathematics():
    """With one kept token the loss is the KL of two Bernoulli distributions."""
    teacher = torch.log(torch.tensor([[0.7, 0.2, 0.1]]))
    student = torch.log(torch.tensor([[0.4, 0.3, 0.3]]))
    ids, log_p = _kept(teacher, 1)

    expected = 0.7 * math.log(0.7 / 0.4) + 0.3 * math.log(0.3 / 0.6)

    assert float(sparse_forward_kl(student, ids, log_p)) == pytest.approx(expected, abs=1e-6)


def test_gradients_stay_finite_when_the_student_is_sure():
    """A student that puts all its mass on kept tokens still gets a usable gradient."""
    student = torch.zeros(1, 8)
    student[0, 0] = 200.0
    student.requires_grad_()
    ids, log_p = _kept(torch.zeros(1, 8), 2)

    sparse_forward_kl(student, ids, log_p).sum().backward()

    assert torch.isfinite(student.grad).all()


def test_shifting_all_logits_changes_nothing():
    """Softmax ignores a common shift, so the loss must."""
    student, teacher = _logits(5), _logits(6)
    ids, log_p = _kept(teacher, 4)

    torch.testing.assert_close(
        sparse_forward_kl(student + 11, ids, log_p), sparse_forward_kl(student, ids, log_p)
    )


def test_labels_marked_to_be_ignored_cost_nothing():
    """A position without a label has loss 0; the others have -log q(label)."""
    student = _logits(7, positions=2)
    labels = torch.tensor([3, IGNORE_INDEX])

    loss = label_cross_entropy(student, labels)

    torch.testing.assert_close(loss[0], -log_softmax(student, -1)[0, 3])
    assert loss[1] == 0


def test_models_of_different_vocabularies_are_refused():
    """The dense loss says that the tokenizers differ."""
    with pytest.raises(ValueError, match="share a tokenizer"):
        forward_kl(_logits(0), _logits(0, vocabulary=24))
