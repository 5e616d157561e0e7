"""Each loss against a one-line reference."""

import math

import pytest
import torch
from torch.nn.functional import kl_div, log_softmax

from explorer.distill.losses import (
    DIVERGENCES,
    IGNORE_INDEX,
    adaptive_kl,
    divergence,
    events,
    forward_kl,
    hidden_cosine,
    hidden_mse,
    jsd,
    kept_log_softmax,
    label_cross_entropy,
    reverse_kl,
    skew_forward_kl,
    skew_reverse_kl,
    sparse_forward_kl,
    total_variation,
)
from explorer.specs import DistillSpec


def _logits(seed: int, positions: int = 7, vocabulary: int = 23) -> torch.Tensor:
    return 3 * torch.randn(positions, vocabulary, generator=torch.Generator().manual_seed(seed))


def _kept(teacher_TV: torch.Tensor, k: int, temperature: float = 1.0):
    ids = teacher_TV.topk(k, dim=-1).indices
    return ids, kept_log_softmax(teacher_TV / temperature, ids)


def _pq(student, teacher):
    """Plain probabilities, student's first, for the references."""
    return student.double().softmax(-1), teacher.double().softmax(-1)


def _plain_kl(a, b):
    return (a * (a / b).log()).sum(-1)


REFERENCES = {
    "forward_kl": (forward_kl, lambda q, p: _plain_kl(p, q)),
    "reverse_kl": (reverse_kl, lambda q, p: _plain_kl(q, p)),
    "jsd": (
        lambda s, t: jsd(s, t, beta=0.3),
        lambda q, p: 0.3 * _plain_kl(p, 0.3 * p + 0.7 * q) + 0.7 * _plain_kl(q, 0.3 * p + 0.7 * q),
    ),
    "skew_forward_kl": (
        lambda s, t: skew_forward_kl(s, t, skew=0.2),
        lambda q, p: _plain_kl(p, 0.2 * p + 0.8 * q),
    ),
    "skew_reverse_kl": (
        lambda s, t: skew_reverse_kl(s, t, skew=0.2),
        lambda q, p: _plain_kl(q, 0.2 * q + 0.8 * p),
    ),
    "adaptive_kl": (adaptive_kl, lambda q, p: _plain_adaptive(q, p)),
    "total_variation": (total_variation, lambda q, p: (p - q).abs().sum(-1) / 2),
}


def _plain_adaptive(q, p):
    """Token by token, as the paper says it."""
    found = []
    for q_V, p_V in zip(q.tolist(), p.tolist(), strict=True):
        order = sorted(range(len(p_V)), key=lambda i: -p_V[i])
        mass, gaps = 0.0, [0.0, 0.0]
        for i in order:
            gaps[mass >= 0.5] += abs(p_V[i] - q_V[i])
            mass += p_V[i]
        share = gaps[0] / sum(gaps)
        forward = sum(b * math.log(b / a) for a, b in zip(q_V, p_V, strict=True))
        reverse = sum(a * math.log(a / b) for a, b in zip(q_V, p_V, strict=True))
        found.append(share * forward + (1 - share) * reverse)
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_forward_kl_is_what_torch_computes(temperature):
    """The dense KL equals torch's own, at any temperature."""
    student, teacher = _logits(0), _logits(1)
    log_p, log_q = (log_softmax(x / temperature, -1) for x in (teacher, student))

    expected = kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)

    torch.testing.assert_close(forward_kl(student, teacher, temperature=temperature), expected)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_every_divergence_is_its_one_line_reference(name):
    """Computed in logarithms, each equals its definition in plain probabilities."""
    loss, reference = REFERENCES[name]
    student, teacher = _logits(0, positions=40), _logits(1, positions=40)

    expected = reference(*_pq(student, teacher))

    torch.testing.assert_close(loss(student, teacher).double(), expected, rtol=1e-4, atol=1e-5)


def test_the_ends_of_the_jsd_are_the_two_kls():
    """With beta 0 it is the forward KL and beta 1 the reverse, also as limits after division."""
    student, teacher = _logits(0), _logits(1)

    torch.testing.assert_close(jsd(student, teacher, beta=0), forward_kl(student, teacher))
    torch.testing.assert_close(jsd(student, teacher, beta=1), reverse_kl(student, teacher))
    near_0 = jsd(0.2 * student, 0.2 * teacher, beta=1e-3) / 1e-3
    expected = forward_kl(0.2 * student, 0.2 * teacher)
    torch.testing.assert_close(near_0, expected, rtol=1e-2, atol=1e-3)


def test_a_skewed_kl_without_skew_is_the_plain_one():
    """And with some, no position can cost more than log(1 / skew)."""
    student, teacher = 9 * _logits(0), 9 * _logits(1)

    torch.testing.assert_close(
        skew_forward_kl(student, teacher, skew=0), forward_kl(student, teacher)
    )
    torch.testing.assert_close(
        skew_reverse_kl(student, teacher, skew=0), reverse_kl(student, teacher)
    )
    assert skew_forward_kl(student, teacher, skew=0.1).max() <= math.log(10) + 1e-5
    assert forward_kl(student, teacher).max() > math.log(10)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_spec_names_its_divergence(name):
    """`loss`, `beta` and `skew` of a spec reach the arithmetic."""
    student, teacher = _logits(0), _logits(1)
    spec = DistillSpec(loss=name, beta=0.3, skew=0.2)

    torch.testing.assert_close(
        divergence(spec)(student, teacher), REFERENCES[name][0](student, teacher)
    )


def test_hidden_states_are_compared_by_size_and_by_direction():
    """MSE is relative to the teacher's size; the cosine ignores size."""
    student, teacher = _logits(0), _logits(1)

    mse, cosine = hidden_mse(student, teacher), hidden_cosine(student, teacher)

    torch.testing.assert_close(mse, ((student - teacher) ** 2).mean(-1) / (teacher**2).mean(-1))
    torch.testing.assert_close(
        cosine, 1 - (student * teacher).sum(-1) / (student.norm(dim=-1) * teacher.norm(dim=-1))
    )
    torch.testing.assert_close(hidden_mse(100 * student, 100 * teacher), mse)
    torch.testing.assert_close(hidden_cosine(3 * teacher, teacher), torch.zeros(7))


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_cached_loss_with_the_whole_vocabulary_is_the_dense_one(name, temperature):
    """Keeping every token loses nothing: there is then no tail bucket."""
    student, teacher = _logits(0), _logits(1)
    ids, log_p = _kept(teacher, 23, temperature)

    sparse = DIVERGENCES[name](*events(student, ids, log_p, temperature=temperature))

    dense = DIVERGENCES[name](student, teacher, temperature=temperature)
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


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("teacher_is_sure", [False, True])
def test_gradients_stay_finite_when_the_student_is_sure(name, teacher_is_sure):
    """A student that puts all its mass on kept tokens still gets a usable gradient."""
    student = torch.zeros(1, 8)
    student[0, 0] = 200.0
    student.requires_grad_()
    teacher = torch.zeros(1, 8)
    teacher[0, 5] = 90.0 if teacher_is_sure else 0.0
    ids, log_p = _kept(teacher, 2)

    loss = DIVERGENCES[name](*events(student, ids, log_p.half()))
    loss.sum().backward()

    assert torch.isfinite(loss).all()
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


@pytest.mark.parametrize("k", [1, 5, 9])
def test_the_kept_log_softmax_is_the_plain_one_gathered(k):
    """Values and gradients are those of autograd, the bucket's included; in float64."""
    logits = _logits(3, vocabulary=9).double().requires_grad_()
    ids = logits.detach().topk(k, dim=-1).indices

    def plain(logits_TV):
        log_q_TV = log_softmax(logits_TV, dim=-1)
        if k == logits_TV.shape[-1]:
            return log_q_TV.gather(-1, ids)
        rest_T = log_q_TV.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)
        return torch.cat([log_q_TV.gather(-1, ids), rest_T], dim=-1)

    weights = torch.randn_like(plain(logits))
    (expected,) = torch.autograd.grad((weights * plain(logits)).sum(), logits)
    (found,) = torch.autograd.grad((weights * kept_log_softmax(logits, ids)).sum(), logits)

    torch.testing.assert_close(kept_log_softmax(logits, ids), plain(logits))
    torch.testing.assert_close(found, expected)


def test_a_second_backward_through_the_kept_log_softmax_is_refused():
    """It reuses the forward's memory for the gradient, so it must never go through it twice."""
    logits = _logits(3).requires_grad_()
    kept = kept_log_softmax(logits, torch.zeros(len(logits), 1, dtype=torch.long)).sum()
    kept.backward(retain_graph=True)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        kept.backward()


def test_a_bucket_without_mass_stays_finite():
    """Where nothing is left for the others the bucket is as small as can be, with no gradient."""
    logits = torch.tensor([[200.0, 0.0, -200.0]], requires_grad=True)

    kept = kept_log_softmax(logits, torch.tensor([[0]]))
    kept[:, 1].sum().backward()

    assert kept.isfinite().all()
    assert logits.grad.abs().max() == 0
