"""Distillation losses: one number per position; the loop masks, sums and divides.

A divergence compares two distributions, each given by its logits. A live teacher's logits go in
as they are. Of a cached teacher only the k most likely tokens are known, and the mass of all
others in one tail bucket. `events` brings the student's distribution into the same shape, so that
the divergence is one of two true distributions: never negative, at most the dense one, and equal
to it when k is the vocabulary.

`docs/distill.md` says when to use which.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, log_softmax

from explorer.specs import DistillSpec

# Shape letters: T positions, V vocabulary or events, K kept tokens, E the kept tokens and the
# bucket (only the kept ones where they are the vocabulary), H hidden size.

IGNORE_INDEX = -100
"""A label that is not scored."""

HEAD_MASS = 0.5
"""Mass of the teacher's most likely tokens that the adaptive KL calls the head."""
LEAST_TAIL = 1e-7
"""A bucket has at least this mass, about the rounding error of 1 in float32."""
ROUNDING = 2e-5
"""Masses this close, and likelihoods that differ by this share, count as equal."""


def forward_kl(student_TV: Tensor, teacher_TV: Tensor, *, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) at each position, in nats; the student covers all likely tokens.

    Args:
        student_TV: Finite logits; computed in float32.
        teacher_TV: Same shape, same vocabulary. Gets no gradient.
        temperature: Divides both, > 0. The T**2 factor is the caller's.

    Returns:
        Shape [T], >= 0 up to rounding; 0 where the two agree.

    Raises:
        ValueError: Shapes differ, usually because tokenizers do.

    Source: Hinton et al. 2015, arXiv:1503.02531.
    """
    log_q_TV, log_p_TV = _log_softmaxes(student_TV, teacher_TV, temperature)
    return _kl(log_p_TV, log_q_TV)


def reverse_kl(student_TV: Tensor, teacher_TV: Tensor, *, temperature: float = 1.0) -> Tensor:
    """KL(student || teacher) at each position, in nats; the student avoids unlikely tokens.

    Arguments, result and errors as in `forward_kl`.

    Source: Gu et al. 2023 (MiniLLM), arXiv:2306.08543.
    """
    log_q_TV, log_p_TV = _log_softmaxes(student_TV, teacher_TV, temperature)
    return _kl(log_q_TV, log_p_TV)


def jsd(
    student_TV: Tensor, teacher_TV: Tensor, *, beta: float = 0.5, temperature: float = 1.0
) -> Tensor:
    """Generalised Jensen-Shannon divergence at each position, in nats.

    beta KL(teacher || mix) + (1 - beta) KL(student || mix), where
    mix = beta teacher + (1 - beta) student; the two ends are its limits after division by
    beta and 1 - beta. Other arguments, result and errors as in `forward_kl`.

    Args:
        student_TV: Logits.
        teacher_TV: Logits.
        beta: In [0, 1]; 0 is the forward KL, 1 the reverse KL.
        temperature: Divides both.

    Source: Agarwal et al. 2023 (GKD), arXiv:2306.13649.
    """
    log_q_TV, log_p_TV = _log_softmaxes(student_TV, teacher_TV, temperature)
    if beta == 0:
        return _kl(log_p_TV, log_q_TV)
    if beta == 1:
        return _kl(log_q_TV, log_p_TV)
    mix_TV = _mix(log_p_TV, log_q_TV, beta)
    return beta * _kl(log_p_TV, mix_TV) + (1 - beta) * _kl(log_q_TV, mix_TV)


def skew_forward_kl(
    student_TV: Tensor, teacher_TV: Tensor, *, skew: float = 0.1, temperature: float = 1.0
) -> Tensor:
    """KL(teacher || skew teacher + (1 - skew) student) at each position, in nats.

    At most log(1 / skew), so that no single token can blow up the gradient. Arguments, result
    and errors as in `forward_kl`; skew in [0, 1), 0 is the forward KL.

    Source: Ko et al. 2024 (DistiLLM), arXiv:2402.03898.
    """
    log_q_TV, log_p_TV = _log_softmaxes(student_TV, teacher_TV, temperature)
    return _kl(log_p_TV, _mix(log_p_TV, log_q_TV, skew))


def skew_reverse_kl(
    student_TV: Tensor, teacher_TV: Tensor, *, skew: float = 0.1, temperature: float = 1.0
) -> Tensor:
    """KL(student || skew student + (1 - skew) teacher) at each position, in nats.

    Arguments, result and errors as in `skew_forward_kl`; skew 0 is the reverse KL.

    Source: Ko et al. 2024 (DistiLLM), arXiv:2402.03898.
    """
    log_q_TV, log_p_TV = _log_softmaxes(student_TV, teacher_TV, temperature)
    return _kl(log_q_TV, _mix(log_q_TV, log_p_TV, skew))


def adaptive_kl(student_TV: Tensor, teacher_TV: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Forward and reverse KL, mixed at each position by where the two models differ, in nats.

    The head is the teacher's most likely tokens up to half of its mass. The forward KL gets
    the head's share of sum |p - q|, the reverse KL the tail's; the shares get no gradient.
    Arguments, result and errors as in `forward_kl`.

    Source: Wu et al. 2024 (AKL), arXiv:2404.02657.
    """
    log_q_TV, log_p_TV = _log_softmaxes(student_TV, teacher_TV, temperature)
    with torch.no_grad():
        p_TV, order_TV = log_p_TV.exp().sort(dim=-1, descending=True)
        gap_TV = (p_TV - log_q_TV.exp().gather(-1, order_TV)).abs()
        # Equally likely tokens are in the head together: their order means nothing.
        next_TV = torch.ones_like(p_TV, dtype=torch.bool)
        next_TV[..., 1:] = p_TV[..., 1:] < p_TV[..., :-1] * (1 - ROUNDING)
        before_TV = ((p_TV.cumsum(-1) - p_TV) * next_TV).cummax(-1).values
        head_T = (gap_TV * (before_TV < HEAD_MASS - ROUNDING)).sum(-1)
        share_T = head_T / gap_TV.sum(-1).clamp(min=torch.finfo(gap_TV.dtype).tiny)
    return share_T * _kl(log_p_TV, log_q_TV) + (1 - share_T) * _kl(log_q_TV, log_p_TV)


def total_variation(student_TV: Tensor, teacher_TV: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Half the sum of |p - q| at each position, in [0, 1]; arguments as in `forward_kl`.

    Source: Wen et al. 2023 (f-divergences), arXiv:2307.15190.
    """
    log_q_TV, log_p_TV = _log_softmaxes(student_TV, teacher_TV, temperature)
    return (log_p_TV.exp() - log_q_TV.exp()).abs().sum(dim=-1) / 2


DIVERGENCES: dict[str, Callable[..., Tensor]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": jsd,
    "skew_forward_kl": skew_forward_kl,
    "skew_reverse_kl": skew_reverse_kl,
    "adaptive_kl": adaptive_kl,
    "total_variation": total_variation,
}


def divergence(spec: DistillSpec) -> Callable[[Tensor, Tensor], Tensor]:
    """The spec's divergence, for logits that are already divided by the temperature."""
    options = {
        "jsd": {"beta": spec.beta},
        "skew_forward_kl": {"skew": spec.skew},
        "skew_reverse_kl": {"skew": spec.skew},
    }
    return functools.partial(DIVERGENCES[spec.loss], **options.get(spec.loss, {}))


def events(
    student_TV: Tensor, ids_TK: Tensor, log_p_TE: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Both models' log-probabilities of the kept tokens and of one bucket for all others.

    They are distributions over E events, so every divergence takes them as logits.

    Args:
        student_TV: Finite logits; computed in float32.
        ids_TK: The kept tokens, all different within a position.
        log_p_TE: The teacher's log-probabilities of them at this temperature, and of the
            bucket in the last column unless all tokens are kept. A divergence scales what
            rounding adds to their sum back to 1.
        temperature: Divides the student's logits, > 0.

    Returns:
        The student's and the teacher's, each [T, E].
    """
    logits_TV = student_TV.float() if temperature == 1 else student_TV.float() / temperature
    return kept_log_softmax(logits_TV, ids_TK), log_p_TE.float()


def kept_log_softmax(logits_TV: Tensor, ids_TK: Tensor) -> Tensor:
    """Log-probabilities of K tokens and, unless they are all, of one bucket for the others.

    The bucket's mass is summed over its tokens. Subtracting the kept tokens' mass from 1 would
    cancel: in float32 a bucket of a millionth is then off by a twentieth.

    Args:
        logits_TV: Finite, in float32.
        ids_TK: All different within a position.

    Returns:
        Shape [T, E]; the bucket's is at least log(`LEAST_TAIL`), so that it stays finite.
    """
    apply: Any = _KeptLogSoftmax.apply  # has no type in torch
    log_q_TE: Tensor = apply(logits_TV, ids_TK)
    return log_q_TE


class _KeptLogSoftmax(torch.autograd.Function):
    """The log-softmax at the kept tokens and the bucket, never stored at the others.

    Backward is, for a token of the bucket, its softmax times (gradient of the bucket / mass of
    the bucket - sum of all gradients), and for a kept one its gradient less that sum's share:
    the forward's exponentials, scaled, where autograd would go over the vocabulary again.
    """

    @staticmethod
    def forward(ctx: Any, logits_TV: Tensor, ids_TK: Tensor) -> Tensor:
        most_T1 = logits_TV.amax(dim=-1, keepdim=True)
        weights_TV = (logits_TV - most_T1).exp_()
        sum_T1 = weights_TV.sum(dim=-1, keepdim=True)
        # The maximum comes off first: near a probability of 1 digits would be lost.
        log_q_TE = logits_TV.gather(-1, ids_TK) - most_T1 - sum_T1.log()
        if ids_TK.shape[-1] < logits_TV.shape[-1]:
            rest_T1 = weights_TV.scatter_(-1, ids_TK, 0.0).sum(dim=-1, keepdim=True)
            log_tail_T1 = rest_T1.log() - sum_T1.log()
            log_q_TE = torch.cat([log_q_TE, log_tail_T1.clamp(min=math.log(LEAST_TAIL))], dim=-1)
        ctx.save_for_backward(weights_TV, ids_TK, sum_T1, log_q_TE)
        return log_q_TE

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        weights_TV, ids_TK, sum_T1, log_q_TE = ctx.saved_tensors
        num_kept = ids_TK.shape[-1]
        kept_TK, tail_T1 = gradients[0][..., :num_kept], gradients[0][..., num_kept:]
        log_q_TK, log_tail_T1 = log_q_TE[..., :num_kept], log_q_TE[..., num_kept:]
        # A bucket at its least mass is a constant.
        tail_T1 = tail_T1 * (log_tail_T1 > math.log(LEAST_TAIL))
        total_T1 = kept_TK.sum(-1, keepdim=True) + tail_T1.sum(-1, keepdim=True)
        per_mass_T1 = (tail_T1 * (-log_tail_T1).exp()).sum(-1, keepdim=True)
        grad_TK = kept_TK - total_T1 * log_q_TK.exp()
        # In place: fresh memory of this size costs more than the arithmetic. torch refuses a second
        # backward pass.
        weights_TV.mul_((per_mass_T1 - total_T1) / sum_T1)
        return weights_TV.scatter_(-1, ids_TK, grad_TK), None


def sparse_forward_kl(
    student_TV: Tensor, ids_TK: Tensor, log_p_TE: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """`forward_kl` over `events`: what the held-out blocks are measured by."""
    return forward_kl(*events(student_TV, ids_TK, log_p_TE, temperature=temperature))


def label_cross_entropy(student_TV: Tensor, labels_T: Tensor) -> Tensor:
    """Cross-entropy on the next token, in nats; 0 where the label is `IGNORE_INDEX`."""
    return cross_entropy(student_TV.float(), labels_T, ignore_index=IGNORE_INDEX, reduction="none")


def hidden_mse(student_TH: Tensor, teacher_TH: Tensor) -> Tensor:
    """Mean squared difference of two hidden states over the teacher's mean square; shape [T].

    Relative, since the size of hidden states grows with depth by orders of magnitude.

    Source: Muralidharan et al. 2024 (Minitron), arXiv:2407.14679, without the division.
    """
    teacher_TH = teacher_TH.detach().float()
    gap_T = (student_TH.float() - teacher_TH).square().mean(-1)
    return gap_T / teacher_TH.square().mean(-1).clamp(min=1e-12)


def hidden_cosine(student_TH: Tensor, teacher_TH: Tensor) -> Tensor:
    """1 - cosine of two hidden states, in [0, 2]; shape [T].

    Source: Sanh et al. 2019 (DistilBERT), arXiv:1910.01108.
    """
    return 1 - cosine_similarity(student_TH.float(), teacher_TH.detach().float(), dim=-1)


HIDDEN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": hidden_mse,
    "cosine": hidden_cosine,
}


def _log_softmaxes(
    student_TV: Tensor, teacher_TV: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    if student_TV.shape != teacher_TV.shape:
        raise ValueError(
            f"student logits {tuple(student_TV.shape)} and teacher logits "
            f"{tuple(teacher_TV.shape)} differ: do the models share a tokenizer?"
        )
    log_p_TV = log_softmax(teacher_TV.detach().float() / temperature, dim=-1)
    return log_softmax(student_TV.float() / temperature, dim=-1), log_p_TV


def _kl(log_a_TV: Tensor, log_b_TV: Tensor) -> Tensor:
    """KL(a || b)."""
    return (log_a_TV.exp() * (log_a_TV - log_b_TV)).sum(dim=-1)


def _mix(log_a_TV: Tensor, log_b_TV: Tensor, share: float) -> Tensor:
    """log(share a + (1 - share) b)."""
    if share == 0:
        return log_b_TV
    return torch.logaddexp(log_a_TV + math.log(share), log_b_TV + math.log1p(-share))
