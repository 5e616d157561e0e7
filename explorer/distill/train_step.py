"""The passes through a student: a step's gradients, and its exam on the held-out blocks.

A step takes some blocks, runs the student's layers once, and then goes through the scored
positions in chunks: each chunk makes its logits, its loss and its gradient with respect to the
hidden states, and is forgotten. Tokens x vocabulary is never stored, which is what keeps the
memory small and the loop fast. How the teacher teaches is the course's affair: see `lessons`.
"""

import dataclasses

import torch
from torch import Tensor
from transformers import PreTrainedModel

from explorer.distill.losses import HIDDEN, divergence, forward_kl, label_cross_entropy
from explorer.distill.teacher_signal import WHOLE_BATCH, Batch, Chunk, TrainingData
from explorer.specs import DistillSpec

# Shape letters: B blocks, T tokens of a block, P scored positions, C positions of a chunk,
# V vocabulary, H hidden size.

CHUNK_POSITIONS = 512
"""Positions whose logits exist at one time: 100 MB in float32 at a vocabulary of 49,152."""


def gradients(
    model: PreTrainedModel,
    data: TrainingData,
    step: int,
    numbers: list[int],
    spec: DistillSpec,
    num_blocks: int | None = None,
) -> tuple[dict[str, float], int]:
    """Leave the gradient of the step's mean loss in the parameters, as far as these blocks go.

    Args:
        model: The student.
        data: Where the lessons come from.
        step: The step, which decides what is random.
        numbers: The blocks.
        spec: Loss and sizes.
        num_blocks: Blocks of the whole step; None where these are all.

    Returns:
        The mean loss as `loss`, the mean of each term without its weight as `kd`, `label` and
        `hidden`, and the number of scored tokens.
    """
    size = spec.micro_blocks or max(len(numbers), 1)
    means: dict[str, float] = {}
    num_scored = 0
    for start in range(0, len(numbers), size):
        part = numbers[start : start + size]
        batch = data.signal.batch(part, step, model)
        # Every block of a step has as many scored positions, so blocks are the weights.
        sums = _micro_step(model, batch, spec, share=len(part) / (num_blocks or len(numbers)))
        for name, value in sums.items():
            means[name] = means.get(name, 0.0) + value
        num_scored += len(batch.labels_P)
    return means, num_scored


def _micro_step(
    model: PreTrainedModel,
    batch: Batch,
    spec: DistillSpec,
    share: float,
) -> dict[str, float]:
    """One forward and backward pass; the mean loss and its terms, times this lesson's share."""
    where = model.device.type
    narrow = torch.autocast(where, torch.bfloat16, enabled=spec.in_bfloat16(where))
    with narrow:
        output = model.base_model(
            batch.blocks_BT, use_cache=False, output_hidden_states=batch.hidden is not None
        )
    hidden_PH, labels_P = batch.scored(output.last_hidden_state), batch.labels_P
    per_token = share / len(labels_P)
    leaf_PH = hidden_PH.detach().requires_grad_()
    head = model.get_output_embeddings()
    sums: dict[str, float] = {"loss": 0.0}
    for chunk in batch.chunks(CHUNK_POSITIONS):
        with narrow:
            logits_CV = chunk.logits(head, leaf_PH)
        terms = _terms(logits_CV, batch, chunk, spec)
        weighted = [weight * loss_C.sum() for weight, loss_C in terms.values()]
        loss = torch.stack(weighted).sum() * per_token
        loss.backward()
        sums["loss"] += float(loss.detach())
        for name, (_, loss_C) in terms.items():
            sums[name] = sums.get(name, 0.0) + float(loss_C.detach().sum()) * per_token
    assert leaf_PH.grad is not None, "every chunk adds to the hidden states' gradient"
    ends, gradients = [hidden_PH], [leaf_PH.grad]
    if batch.hidden is not None:
        layers = zip(output.hidden_states[1:], batch.hidden, strict=True)
        compare = HIDDEN[spec.hidden_loss]
        by_layer = [compare(batch.scored(own), theirs).mean() for own, theirs in layers]
        matched = torch.stack(by_layer).mean() * share
        sums["hidden"] = float(matched.detach())
        sums["loss"] += spec.hidden_weight * sums["hidden"]
        ends.append(spec.hidden_weight * matched)
        gradients.append(torch.ones_like(matched))
    torch.autograd.backward(ends, gradients)
    return sums


def _terms(
    logits_CV: Tensor, batch: Batch, chunk: Chunk, spec: DistillSpec
) -> dict[str, tuple[float, Tensor]]:
    """Each term's weight and its loss, one number a position; terms without weight are absent."""
    terms = {}
    kd_weight = spec.kd_weight if batch.teacher else 0.0
    if batch.teacher and kd_weight > 0:
        pair = batch.teacher.pair(logits_CV, chunk, spec.temperature)
        # T squared keeps the gradient's size when the temperature changes (Hinton et al.).
        terms["kd"] = (kd_weight * spec.temperature**2, divergence(spec)(*pair))
    if batch.labelled and kd_weight < 1:
        logits_CV = chunk.softened(logits_CV, 1.0)
        loss_C = label_cross_entropy(logits_CV, chunk.of(batch.labels_P))
        terms["label"] = (1 - kd_weight, loss_C)
    return terms


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """A student on the held-out blocks; None where there is no teacher to compare with."""

    kl: float | None
    """Mean KL(teacher || student), in nats per token."""
    top1: float | None
    """Share of the positions where both models' most likely token is the same."""
    label_loss: float
    """Mean cross-entropy on the text, in nats per token."""


@torch.no_grad()
def evaluate_heldout(student: PreTrainedModel, data: TrainingData, temperature: float) -> HeldOut:
    """Measure the student on the held-out blocks."""
    was_training = student.training
    student.eval()
    kl_sum, agree, label_sum, num_scored, compared = 0.0, 0, 0.0, 0, 0
    head = student.get_output_embeddings()
    for number in data.heldout:
        batch = data.heldout_signal.batch([number], 0, student)
        hidden_BTH = student.base_model(batch.blocks_BT, use_cache=False).last_hidden_state
        logits_PV = head(batch.scored(hidden_BTH))
        label_sum += float(label_cross_entropy(logits_PV, batch.labels_P).sum())
        num_scored += len(batch.labels_P)
        if batch.teacher:
            kl_P = forward_kl(*batch.teacher.pair(logits_PV, WHOLE_BATCH, temperature))
            kl_sum += float(kl_P.sum())
            agree += int((logits_PV.argmax(-1) == batch.teacher.top1()).sum())
            compared += len(kl_P)
    student.train(was_training)
    return HeldOut(
        kl=kl_sum / compared if compared else None,
        top1=agree / compared if compared else None,
        label_loss=label_sum / num_scored,
    )
