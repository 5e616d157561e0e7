"""Losses of a distillation: one number per position, in nats; the loop masks and divides.

A cached teacher distribution is sparse: the k most likely tokens and one tail bucket
that holds all the rest. The bucket is what keeps the divergence a true one: without it
a truncated KL turns negative. It is exact when k is the vocabulary.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

# Shape letters: T scored positions, V vocabulary, K kept tokens.

IGNORE_INDEX = -100
"""A label that is not scored."""


def forward_kl(student_TV: Tensor, teacher_TV: Tensor, *, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) at each position, in nats.

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
    if student_TV.shape != teacher_TV.shape:
        raise ValueError(
            f"student logits {tuple(student_TV.shape)} and teacher logits "
            f"{tuple(teacher_TV.shape)} differ: do the models share a tokenizer?"
        )
    log_p_TV = log_softmax(teacher_TV.detach().float() / temperature, dim=-1)
    log_q_TV = log_softmax(student_TV.float() / temperature, dim=-1)
    return (log_p_TV.exp() * (log_p_TV - log_q_TV)).sum(dim=-1)


def sparse_forward_kl(
    student_TV: Tensor, ids_TK: Tensor, log_p_TK: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """KL(teacher || student) over K kept tokens and one bucket for all others, in nats.

    By the log-sum inequality it is at most the dense KL, and it is the dense KL when
    every token is kept.

    Args:
        student_TV: Finite logits; computed in float32.
        ids_TK: The kept tokens, all different within a position.
        log_p_TK: The teacher's log-probabilities of them, at this temperature. Where
            rounding makes them sum to more than 1 they are scaled back to 1.
        temperature: Divides the student's logits, > 0. The T**2 factor is the caller's.

    Returns:
        Shape [T], >= 0 up to rounding.
    """
    # One number per position is all that is needed of the vocabulary's width, so the
    # log-softmax is never stored: gather first, normalise after.
    logits_TV = student_TV.float() if temperature == 1 else student_TV.float() / temperature
    log_z_T1 = torch.logsumexp(logits_TV, dim=-1, keepdim=True)
    log_q_TK = logits_TV.gather(-1, ids_TK) - log_z_T1
    log_p_TK = log_p_TK.float()
    log_p_TK = log_p_TK - torch.logsumexp(log_p_TK, dim=-1, keepdim=True).clamp(min=0)
    p_TK = log_p_TK.exp()
    kept_T = (p_TK * (log_p_TK - log_q_TK)).sum(dim=-1)
    tail_p_T = (1 - p_TK.sum(dim=-1)).clamp(min=0)
    tail_log_q_T = log_one_minus_exp(torch.logsumexp(log_q_TK, dim=-1))
    tail_T = torch.xlogy(tail_p_T, tail_p_T) - tail_p_T * tail_log_q_T
    return kept_T + tail_T


def log_one_minus_exp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x <= 0, kept finite where rounding brings x to 0."""
    return torch.log(-torch.expm1(x.clamp(max=-1e-7)))


def label_cross_entropy(student_TV: Tensor, labels_T: Tensor) -> Tensor:
    """Cross-entropy on the next token, in nats; 0 where the label is `IGNORE_INDEX`."""
    return cross_entropy(student_TV.float(), labels_T, ignore_index=IGNORE_INDEX, reduction="none")
