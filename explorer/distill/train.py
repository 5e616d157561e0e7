"""The training loop: a student learns from its teacher, step by step.

`train` loops, `step` takes one optimizer step, `_backward` goes once through the student. Every
rank runs all of it. The blocks, seeds and rates of a step are functions of (seed, step) alone, so
a training that continues from a checkpoint, or on another number of processes, has the losses of
an unbroken one.

A pass runs the student's layers once and then goes through the scored positions in chunks: each
chunk computes its logits, its loss and its gradient with respect to the hidden states, and is
freed. Tokens x vocabulary is never stored, which keeps the memory small and the loop fast.
"""

import dataclasses
import math
import random
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from explorer.devices import accelerator, failures, memory
from explorer.distill import checkpoint as checkpoints
from explorer.distill import cpu_tuning, distributed
from explorer.distill.checkpoint import TrainingProgress
from explorer.distill.heldout import evaluate_heldout
from explorer.distill.losses import HIDDEN, divergence, label_cross_entropy
from explorer.distill.prefetch import Prefetch
from explorer.distill.schedule import blocks_of_step, learning_rate, num_steps
from explorer.distill.student_layers import StudentLayers
from explorer.distill.teacher_signal import (
    Batch,
    Chunk,
    LiveTeacher,
    TrainingData,
)
from explorer.distill.train_state import TrainState
from explorer.errors import NoRoom, RunCancelled, RunFailed
from explorer.models.output_head import OutputHead, check_head
from explorer.specs import DistillSpec

# Shape letters: B blocks, T tokens of a block, P scored positions, C positions of a chunk,
# V vocabulary, H hidden size.

CHUNK_POSITIONS = 512
"""Positions whose logits exist at one time: 100 MB in float32 at a vocabulary of 49,152."""
TERMS = ("loss", "kd", "label", "hidden")

OnStep = Callable[[TrainingProgress, int, float, float], None]
"""Called after each step with (progress, all steps, loss, tokens per second); may raise to stop."""


@distributed.peers_alive()
@cpu_tuning.tuned()
def train(
    student: PreTrainedModel | None,
    data: TrainingData | None,
    spec: DistillSpec,
    checkpoint: Path | None,
    on_step: OnStep = lambda progress, total, loss, rate: None,
) -> TrainingProgress:
    """Train the student in place, from its checkpoint if there is one; every rank calls this.

    Args:
        student: Trained in float32 and left in the dtype it came in. None on ranks above 0, which
            get a copy of rank 0's.
        data: What it trains on and is evaluated on. None on ranks above 0, likewise.
        spec: Everything that decides the training.
        checkpoint: A folder of this training's own, which the caller removes in the end. None on
            ranks above 0, likewise.
        on_step: Progress. An exception from it stops the training, on all ranks, with a checkpoint.

    Raises:
        RunFailed: The loss or the gradient is not finite. It names the blocks; no step is taken.
        BadInput: The model's logits are more than a scaled and capped projection of its hidden
            states, or it is not causal.
        NoRoom: The checkpoint cannot be written.
        RunCancelled: Another process exited, or stopped the training.
    """
    if student is not None and data is not None:
        check_head(student, data.heldout_signal.blocks_NT[data.heldout[:1]][:, :8])
    state = TrainState(student, spec)
    data = _shared(data, state.device)
    prefetch: Prefetch | None = None
    if spec.prefetch:
        prefetch = Prefetch(data, spec, state.student.device)
        data = dataclasses.replace(data, signal=prefetch)
    progress = checkpoints.resume(state, checkpoint)
    num_halvings, total = progress.num_halvings, num_steps(spec)
    began = time.monotonic() - progress.seconds
    saved_at = time.monotonic()
    stop: BaseException | None = None

    def evaluate_if_due() -> None:
        nonlocal began
        at_point = progress.step % spec.eval_every_steps == 0 or progress.step == total
        if not at_point or (progress.curve and progress.curve[-1].step == progress.step):
            return
        paused_at = time.monotonic()
        heldout = evaluate_heldout(state.student, data, spec.temperature, split=not state.sharded)
        progress.add_point(learning_rate(spec, min(progress.step, total - 1)), heldout)
        began += time.monotonic() - paused_at

    # Also of a training that was stopped during an evaluation.
    evaluate_if_due()
    try:
        while progress.step < total:
            save_due = time.monotonic() - saved_at > spec.checkpoint_every_s
            state.saveable = not state.sharded
            result = step(state, data, progress.step, stop=stop is not None, save=save_due)
            if result.taken:
                progress.count_step(result.terms, result.num_scored, time.monotonic() - began)
                progress.num_halvings = num_halvings + state.num_halvings
                progress.compilation = state.layers.outcome or progress.compilation
                state.saveable = not state.sharded
                evaluate_if_due()
                if result.save:
                    checkpoints.save(state, progress, checkpoint)
                    saved_at = time.monotonic()
            state.saveable = True
            if result.stop:
                raise stop or RunCancelled("Another process stopped the training.")
            if not result.taken:
                raise _not_finite(result, progress.step, data, spec)
            try:
                rate = progress.scored_tokens / progress.seconds
                on_step(progress, total, result.terms["loss"], rate)
            except BaseException as error:
                if distributed.world_size() == 1:
                    raise
                stop = error  # the other ranks hear of it with the next step's loss
    except NoRoom:
        raise
    except BaseException as error:
        # A cancelled, interrupted or failed training continues from here. Of a device that is lost
        # nothing can be read, and the last checkpoint stays.
        if progress.step and state.saveable and not failures.was_lost(error):
            checkpoints.save(state, progress, checkpoint)
        raise
    finally:
        if prefetch is not None:
            prefetch.close()
    state.finish()
    if stop:
        raise stop
    return progress


def _shared(data: TrainingData | None, device: torch.device) -> TrainingData:
    """Rank 0's training data; a live teacher moves to this rank's device."""

    def read() -> TrainingData:
        assert data is not None, "rank 0 brings the data"
        return data

    shared = distributed.from_main(read)
    if isinstance(shared.signal, LiveTeacher) and not distributed.is_main():
        shared.signal.move_to(device)
    return shared


@dataclasses.dataclass(frozen=True)
class StepResult:
    """A step as all ranks see it."""

    terms: dict[str, float]
    """Means over the step's scored positions: `loss`, and without its weight each of `kd`, `label`
    and `hidden` that the step has."""
    num_scored: int
    gradient_norm: float
    stop: bool
    """Whether a rank wants to stop; the step is then not taken."""
    save: bool
    """Whether rank 0 wants a checkpoint."""

    @property
    def taken(self) -> bool:
        """Whether the optimizer stepped."""
        is_finite = math.isfinite(self.terms["loss"]) and math.isfinite(self.gradient_norm)
        return is_finite and not self.stop


def _not_finite(
    result: StepResult, number: int, data: TrainingData, spec: DistillSpec
) -> RunFailed:
    loss = result.terms["loss"]
    name, value = ("gradient", result.gradient_norm) if math.isfinite(loss) else ("loss", loss)
    return RunFailed(
        f"The {name} became {value} at step {number + 1} (blocks "
        f"{blocks_of_step(spec, data.training, number)}). No step was taken. Lower "
        f"distill.learning_rate (now {spec.learning_rate:g})."
    )


def step(
    state: TrainState, data: TrainingData, number: int, *, stop: bool = False, save: bool = False
) -> StepResult:
    """One optimizer step on all ranks, taken only where loss and gradient are finite.

    Args:
        state: The student and its optimizer.
        data: Where the batches come from.
        number: The step, which decides its blocks, its rate and what is random.
        stop: Whether this rank wants to stop.
        save: Whether this rank wants a checkpoint; that of rank 0 counts.
    """
    blocks = blocks_of_step(state.spec, data.training, number)
    share = distributed.own_share(blocks)
    terms, num_scored = _gradients_that_fit(state, data, number, share, len(blocks))
    gradient_norm = state.sum_gradients()
    # One all-reduce for the loss terms, for which of them the step has, and for the flags.
    means, seen = [terms.get(name, 0.0) for name in TERMS], [name in terms for name in TERMS]
    flags = [num_scored, stop, save and distributed.rank() == 0]
    sums = distributed.all_reduce([float(value) for value in (*means, *seen, *flags)])
    num_terms = len(TERMS)
    result = StepResult(
        terms={name: sums[i] for i, name in enumerate(TERMS) if sums[num_terms + i]},
        num_scored=int(sums[-3]),
        gradient_norm=gradient_norm,
        stop=sums[-2] > 0,
        save=sums[-1] > 0,
    )
    if result.taken:
        state.update(number)
    state.student.zero_grad()
    return result


def _gradients_that_fit(
    state: TrainState, data: TrainingData, step: int, numbers: list[int], num_blocks: int
) -> tuple[dict[str, float], int]:
    """As `gradients`; where memory runs out, once more in smaller passes.

    Where compiled layers fail in their trial, once more without.
    """
    while True:
        # For dropout, where a model family has it: a resumed training draws the same.
        seed = f"{state.spec.seed} {step} {distributed.rank()}"
        torch.manual_seed(random.Random(seed).getrandbits(62))
        try:
            return gradients(
                state.student, data, step, numbers, state.spec, num_blocks, state.layers
            )
        except (RuntimeError, MemoryError, ImportError) as error:
            gave_up = state.layers.gave_up(error)
            if not (gave_up or (memory.ran_out(error) and state.can_halve(len(numbers)))):
                raise
        # Only here, where the error is gone, is its pass's memory free.
        state.student.zero_grad()
        memory.release_cached(state.device)
        if not gave_up:
            state.halve(len(numbers))


def gradients(
    model: PreTrainedModel,
    data: TrainingData,
    step: int,
    numbers: list[int],
    spec: DistillSpec,
    num_blocks: int | None = None,
    layers: StudentLayers | None = None,
) -> tuple[dict[str, float], int]:
    """Add these blocks' part of the step's gradient to the parameters.

    Args:
        model: The student.
        data: Where the batches come from.
        step: The step, which decides what is random.
        numbers: The blocks.
        spec: Loss and sizes.
        num_blocks: Blocks of the whole step on all ranks; None if these are all.
        layers: How the student's layers run; None runs them as they are.

    Returns:
        These blocks' part of the step's mean `loss` and, without its weight, of each of its terms
        `kd`, `label` and `hidden`; and the number of scored tokens.
    """
    size = spec.micro_blocks or max(len(numbers), 1)
    means: dict[str, float] = {}
    num_scored = 0
    for start in range(0, len(numbers), size):
        part = numbers[start : start + size]
        batch = data.signal.batch(part, step, model)
        # Every block of a step has as many scored positions, so blocks are the weights.
        sums = _backward(
            model,
            batch,
            spec,
            share=len(part) / (num_blocks or len(numbers)),
            layers=layers or StudentLayers(model),
        )
        for name, value in sums.items():
            means[name] = means.get(name, 0.0) + value
        num_scored += len(batch.labels_P)
    return means, num_scored


def _backward(
    model: PreTrainedModel,
    batch: Batch,
    spec: DistillSpec,
    share: float,
    layers: StudentLayers,
) -> dict[str, float]:
    """One forward and backward pass; the mean loss and its terms, times this batch's share."""
    device = model.device
    bfloat16 = torch.autocast(device.type, torch.bfloat16, enabled=in_bfloat16(spec, device))
    with bfloat16:
        output = layers.forward(batch.blocks_BT, hidden_states=batch.hidden is not None)
    hidden_PH, labels_P = batch.scored(output.last_hidden_state), batch.labels_P
    per_token = share / len(labels_P)
    leaf_PH = hidden_PH.detach().requires_grad_()
    head = OutputHead.of(model)
    sums: dict[str, float] = {"loss": 0.0}
    for chunk in batch.chunks(CHUNK_POSITIONS):
        with bfloat16:
            logits_CV = chunk.logits(head, leaf_PH)
        terms = _loss_terms(logits_CV, batch, chunk, spec)
        weighted = [weight * loss_C.sum() for weight, loss_C in terms.values()]
        loss = torch.stack(weighted).sum() * per_token
        loss.backward()
        sums["loss"] += float(loss.detach())
        for name, (_, loss_C) in terms.items():
            sums[name] = sums.get(name, 0.0) + float(loss_C.detach().sum()) * per_token
    assert leaf_PH.grad is not None, "every chunk adds to the hidden states' gradient"
    outputs, cotangents = [hidden_PH], [leaf_PH.grad]
    if batch.hidden is not None:
        pairs = zip(output.hidden_states[1:], batch.hidden, strict=True)
        compare = HIDDEN[spec.hidden_loss]
        by_layer = [compare(batch.scored(states), target).mean() for states, target in pairs]
        matched = torch.stack(by_layer).mean() * share
        sums["hidden"] = float(matched.detach())
        sums["loss"] += spec.hidden_weight * sums["hidden"]
        outputs.append(spec.hidden_weight * matched)
        cotangents.append(torch.ones_like(matched))
    layers.backward(outputs, cotangents)
    return sums


def in_bfloat16(spec: DistillSpec, device: torch.device) -> bool:
    """Whether training on this device multiplies matrices in bfloat16.

    An accelerator that does not compute in it trains in float32.
    """
    can = not accelerator.is_accelerator(device) or accelerator.multiplies_in_bfloat16(device)
    return can and spec.in_bfloat16(device.type)


def _loss_terms(
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
