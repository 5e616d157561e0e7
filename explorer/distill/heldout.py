"""How close a student is on the held-out blocks, which it never trains on."""

import dataclasses

import torch
from transformers import PreTrainedModel

from explorer.distill import distributed
from explorer.distill.losses import forward_kl, label_cross_entropy
from explorer.distill.teacher_signal import WHOLE_BATCH, TrainingData
from explorer.models.layers import body_of
from explorer.models.output_head import OutputHead

# Shape letters: B blocks, T tokens of a block, P scored positions, V vocabulary, H hidden size.


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Means over the held-out blocks; None where there is no teacher to compare with."""

    kl: float | None
    """KL(teacher || student), in nats per token."""
    top1: float | None
    """Share of the positions where both models' most likely token is the same."""
    label_loss: float
    """Cross-entropy on the text, in nats per token."""


@torch.no_grad()
def evaluate_heldout(
    student: PreTrainedModel, data: TrainingData, temperature: float, *, split: bool = True
) -> HeldOut:
    """Evaluate a student in its own dtype with all tokens.

    Args:
        student: The model.
        data: The held-out blocks and the teacher's signal on them.
        temperature: Of the KL.
        split: Whether each rank takes a share of the blocks. Sharded ranks cannot: each forward
            pass needs all of them.
    """
    was_training = student.training
    student.eval()
    head = OutputHead.of(student)
    share = slice(distributed.rank(), None, distributed.world_size()) if split else slice(None)
    kl_sum, num_agree, label_sum, num_scored, num_compared = 0.0, 0, 0.0, 0, 0
    for number in data.heldout[share]:
        batch = data.heldout_signal.batch([number], 0, student)
        hidden_BTH = body_of(student)(batch.blocks_BT, use_cache=False).last_hidden_state
        logits_PV = head(batch.scored(hidden_BTH))
        label_sum += float(label_cross_entropy(logits_PV, batch.labels_P).sum())
        num_scored += len(batch.labels_P)
        if batch.teacher:
            kl_P = forward_kl(*batch.teacher.pair(logits_PV, WHOLE_BATCH, temperature))
            kl_sum += float(kl_P.sum())
            num_agree += int((logits_PV.argmax(-1) == batch.teacher.top1()).sum())
            num_compared += len(kl_P)
    student.train(was_training)
    sums = [kl_sum, num_agree, label_sum, num_scored, num_compared]
    kl, agree, label, scored, compared = distributed.all_reduce(sums) if split else sums
    return HeldOut(
        kl=kl / compared if compared else None,
        top1=agree / compared if compared else None,
        label_loss=label / scored,
    )
