"""The one training loop: a student learns from cached targets, with Accelerate.

A step takes some blocks, runs the student's layers once, and then goes through the
scored positions in chunks: each chunk makes its logits, its loss and its gradient with
respect to the hidden states, and is forgotten. Tokens x vocabulary is never stored,
which is what keeps the memory small and the loop fast.

Nothing here is random but the order of the blocks, and that comes from the seed: a
training continued from a checkpoint gives the same losses as an unbroken one.
"""

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel

from explorer.distill.losses import divergence, events, label_cross_entropy, sparse_forward_kl
from explorer.distill.targets import Targets
from explorer.errors import BadInput, NoRoom, RunFailed
from explorer.records import CurvePoint
from explorer.specs import DistillSpec

# Shape letters: B blocks, T tokens of a block, P scored positions, C positions of a chunk,
# K kept tokens, V vocabulary, H hidden size.

CHUNK_POSITIONS = 256
"""Positions whose logits exist at one time: 50 MB in float32 at a vocabulary of 49,152."""


@dataclasses.dataclass
class State:
    """Where a training is; all of it lies in the checkpoint."""

    step: int = 0
    scored_tokens: int = 0
    seconds: float = 0.0
    num_resumes: int = 0
    curve: list[CurvePoint] = dataclasses.field(default_factory=list)
    loss_sum: float = 0.0
    loss_tokens: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the checkpoint's JSON."""
        return {**vars(self), "curve": [point.model_dump() for point in self.curve]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "State":
        """The inverse of `to_dict`."""
        return cls(**{**data, "curve": [CurvePoint(**point) for point in data["curve"]]})


OnStep = Callable[[State, int, float, float], None]
"""Called after each step with (state, all steps, loss, tokens per second); may raise to stop."""


def num_steps(spec: DistillSpec) -> int:
    """Optimiser steps that the budget of scored tokens buys, at least one."""
    return max(1, spec.max_tokens // (spec.blocks_per_step * (spec.block_tokens - 1)))


def blocks_of_step(spec: DistillSpec, training: list[int], step: int) -> list[int]:
    """Block numbers of a step; the corpus is read again from its start when it ends."""
    first = step * spec.blocks_per_step
    return [training[(first + i) % len(training)] for i in range(spec.blocks_per_step)]


def learning_rate(spec: DistillSpec, step: int) -> float:
    """Linear warm-up, then a cosine down to a tenth of the peak."""
    total = num_steps(spec)
    warmup = max(1, round(spec.warmup_fraction * total))
    if step < warmup:
        return spec.learning_rate * (step + 1) / warmup
    along = (step - warmup) / max(1, total - warmup)
    return spec.learning_rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * along)))


def train(
    student: PreTrainedModel,
    targets: Targets,
    heldout: list[int],
    training: list[int],
    spec: DistillSpec,
    checkpoint: Path,
    on_step: OnStep = lambda state, total, loss, rate: None,
) -> State:
    """Teach the student in place and return the curve; continue from a checkpoint if there is one.

    Args:
        student: Its parameters change.
        targets: Filled for all blocks that are used.
        heldout: Blocks to measure on.
        training: Blocks to learn from, in this order.
        spec: Everything that decides the training.
        checkpoint: A folder that this training owns; removed by the caller when done with it.
        on_step: Progress; an exception from it stops the training after a checkpoint.

    Raises:
        RunFailed: The loss is not finite; it names the batch, and no step is taken.
        BadInput: The model's logits are more than a projection of its hidden states.
    """
    _check_head(student, targets.blocks_NT[heldout[:1], :8])
    accelerator = Accelerator(
        mixed_precision="bf16" if student.device.type == "cuda" else "no",
        cpu=student.device.type == "cpu",
    )
    student.get_input_embeddings().requires_grad_(spec.train_embeddings)
    student.train()
    optimizer: Any = torch.optim.AdamW(
        [p for p in student.parameters() if p.requires_grad],
        lr=spec.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=spec.weight_decay,
        fused=True,
    )
    model, optimizer = accelerator.prepare(student, optimizer)
    state = _resume(accelerator, checkpoint)
    total = num_steps(spec)
    began = time.monotonic() - state.seconds
    saved_at = time.monotonic()

    def measure(step: int) -> None:
        paused = time.monotonic()
        kl, top1 = heldout_kl(accelerator.unwrap_model(model), targets, heldout, spec.temperature)
        _add_point(state, step, learning_rate(spec, min(step, total - 1)), kl, top1)
        nonlocal began
        began += time.monotonic() - paused

    if not state.curve:
        measure(0)
    try:
        while state.step < total:
            numbers = blocks_of_step(spec, training, state.step)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(spec, state.step)
            loss, num_scored = _gradients(accelerator, model, targets, numbers, spec)
            if not math.isfinite(loss):
                optimizer.zero_grad()
                raise RunFailed(
                    f"The loss became {loss} at step {state.step + 1} (blocks {numbers}). No step "
                    f"was taken. Lower distill.learning_rate (now {spec.learning_rate:g})."
                )
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            state.step += 1
            state.scored_tokens += num_scored
            state.loss_sum += loss * num_scored
            state.loss_tokens += num_scored
            state.seconds = time.monotonic() - began
            if state.step % spec.eval_every_steps == 0 or state.step == total:
                measure(state.step)
            if time.monotonic() - saved_at > spec.checkpoint_every_s:
                _save(accelerator, checkpoint, state)
                saved_at = time.monotonic()
            on_step(state, total, loss, state.scored_tokens / state.seconds)
    except NoRoom:
        raise
    except BaseException:
        # A cancelled, interrupted or failed training continues from here.
        _save(accelerator, checkpoint, state)
        raise
    student.eval()
    return state


@torch.inference_mode()
def _check_head(student: PreTrainedModel, ids_BT: Tensor) -> None:
    """The loop calls layers and head apart: refuse models that do something between or after."""
    ids_BT = ids_BT.to(student.device)
    head = student.get_output_embeddings()
    whole = student(ids_BT, use_cache=False).logits
    apart = head(student.base_model(ids_BT, use_cache=False).last_hidden_state)
    if not torch.allclose(whole, apart, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise BadInput(
            f"{type(student).__name__} caps or scales its logits after the last projection, which "
            "the training loop does not do. Choose a teacher of a family without it, as Llama, "
            "Qwen, Mistral or GPT-2."
        )


def _gradients(
    accelerator: Accelerator,
    model: PreTrainedModel,
    targets: Targets,
    numbers: list[int],
    spec: DistillSpec,
) -> tuple[float, int]:
    """Leave the gradient of the mean loss in the parameters; return (loss, scored tokens)."""
    blocks_BT, ids_BTK, log_p_BTK = (t.to(accelerator.device) for t in targets.batch(numbers))
    with accelerator.autocast():
        hidden_BTH = model.base_model(blocks_BT, use_cache=False).last_hidden_state
    # Position t predicts token t + 1, so a block's last position has no label.
    hidden_PH = hidden_BTH[:, :-1].flatten(0, 1)
    ids_PK, log_p_PK = ids_BTK[:, :-1].flatten(0, 1), log_p_BTK[:, :-1].flatten(0, 1)
    labels_P = blocks_BT[:, 1:].flatten()
    num_scored = len(labels_P)
    leaf_PH = hidden_PH.detach().requires_grad_()
    head = model.get_output_embeddings()
    total_loss = 0.0
    for start in range(0, num_scored, CHUNK_POSITIONS):
        chunk = slice(start, start + CHUNK_POSITIONS)
        with accelerator.autocast():
            logits_CV = head(leaf_PH[chunk])
        terms = _terms(logits_CV, ids_PK[chunk], log_p_PK[chunk], labels_P[chunk], spec)
        parts = [weight * loss_C.sum() for weight, loss_C in terms.values()]
        loss = torch.stack(parts).sum() / num_scored
        accelerator.backward(loss)
        total_loss += float(loss.detach())
    assert leaf_PH.grad is not None, "every chunk adds to the hidden states' gradient"
    hidden_PH.backward(leaf_PH.grad)
    return total_loss, num_scored


def _terms(
    logits_CV: Tensor, ids_CK: Tensor, log_p_CE: Tensor, labels_C: Tensor, spec: DistillSpec
) -> dict[str, tuple[float, Tensor]]:
    """Each term's weight and its loss, one number a position; terms without weight are absent."""
    terms = {}
    if spec.kd_weight > 0:
        pair = events(logits_CV, ids_CK, log_p_CE, temperature=spec.temperature)
        # T squared keeps the gradient's size when the temperature changes (Hinton et al.).
        terms["kd"] = (spec.kd_weight * spec.temperature**2, divergence(spec)(*pair))
    if spec.kd_weight < 1:
        terms["label"] = (1 - spec.kd_weight, label_cross_entropy(logits_CV, labels_C))
    return terms


@torch.inference_mode()
def heldout_kl(
    student: PreTrainedModel, targets: Targets, heldout: list[int], temperature: float
) -> tuple[float, float]:
    """Mean KL(teacher || student) in nats per token, and top-1 agreement, on held-out blocks."""
    was_training = student.training
    student.eval()
    kl_sum, agree, num_scored = 0.0, 0, 0
    head = student.get_output_embeddings()
    for number in heldout:
        block_BT, ids_BTK, log_p_BTK = (t.to(student.device) for t in targets.batch([number]))
        hidden_BTH = student.base_model(block_BT, use_cache=False).last_hidden_state
        logits_TV = head(hidden_BTH[0, :-1])
        ids_TK, log_p_TK = ids_BTK[0, :-1], log_p_BTK[0, :-1]
        kl_T = sparse_forward_kl(logits_TV, ids_TK, log_p_TK, temperature=temperature)
        kl_sum += float(kl_T.sum())
        agree += int((logits_TV.argmax(-1) == ids_TK[:, 0]).sum())
        num_scored += len(kl_T)
    student.train(was_training)
    return kl_sum / num_scored, agree / num_scored


def _add_point(state: State, step: int, rate: float, kl: float, top1: float) -> None:
    loss = state.loss_sum / state.loss_tokens if state.loss_tokens else kl
    state.curve.append(
        CurvePoint(
            step=step,
            scored_tokens=state.scored_tokens,
            seconds=state.seconds,
            loss=loss,
            learning_rate=rate,
            heldout_kl=kl,
            heldout_top1=top1,
        )
    )
    state.loss_sum, state.loss_tokens = 0.0, 0


def _save(accelerator: Accelerator, checkpoint: Path, state: State) -> None:
    """Replace the checkpoint by the present state; an old one stays until the new one is whole."""
    partial = checkpoint.with_name(checkpoint.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        accelerator.save_state(str(partial))
        (partial / "state.json").write_text(json.dumps(state.to_dict()))
        old = checkpoint.with_name(checkpoint.name + ".old")
        if checkpoint.exists():
            checkpoint.replace(old)
        partial.replace(checkpoint)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise NoRoom(f"Could not write the checkpoint {checkpoint}: {error}.") from error


def _resume(accelerator: Accelerator, checkpoint: Path) -> State:
    """Load the checkpoint into what was prepared, when there is one."""
    old = checkpoint.with_name(checkpoint.name + ".old")
    if not checkpoint.exists() and old.exists():
        old.replace(checkpoint)  # killed between the two renames
    if not (checkpoint / "state.json").exists():
        return State()
    accelerator.load_state(str(checkpoint))
    state = State.from_dict(json.loads((checkpoint / "state.json").read_text()))
    state.num_resumes += 1
    return state
