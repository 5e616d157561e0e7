"""The one training loop: a student learns a course of lessons, with Accelerate.

A step takes some blocks, runs the student's layers once, and then goes through the
scored positions in chunks: each chunk makes its logits, its loss and its gradient with
respect to the hidden states, and is forgotten. Tokens x vocabulary is never stored,
which is what keeps the memory small and the loop fast. How the teacher teaches is the
course's affair: see `lessons`.

All that is random (the order of the blocks, what a student writes) comes from the seed
and the step: a training continued from a checkpoint gives the same losses as an
unbroken one.
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
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from explorer import crew as together
from explorer.distill.lessons import Course, Lesson, Live, check_head
from explorer.distill.losses import HIDDEN, divergence, forward_kl, label_cross_entropy
from explorer.errors import NoRoom, RunFailed
from explorer.records import CurvePoint
from explorer.specs import DistillSpec

# Shape letters: B blocks, T tokens of a block, P scored positions, C positions of a chunk,
# V vocabulary, H hidden size.

CHUNK_POSITIONS = 512
"""Positions whose logits exist at one time: 100 MB in float32 at a vocabulary of 49,152."""


@dataclasses.dataclass
class State:
    """Where a training is; all of it lies in the checkpoint."""

    step: int = 0
    scored_tokens: int = 0
    seconds: float = 0.0
    num_resumes: int = 0
    curve: list[CurvePoint] = dataclasses.field(default_factory=list)
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    """Since the last point: each term's mean of a step times the step's scored tokens."""
    sum_tokens: dict[str, int] = dataclasses.field(default_factory=dict)
    """Since the last point: the scored tokens that a term was computed on."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the checkpoint's JSON."""
        return {**vars(self), "curve": [point.model_dump() for point in self.curve]}

    def took_step(self, terms: dict[str, float], num_scored: int, seconds: float) -> None:
        """Count a step: its mean terms, its scored tokens, the training's seconds by now."""
        self.step += 1
        self.scored_tokens += num_scored
        self.seconds = seconds
        for name, mean in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + mean * num_scored
            self.sum_tokens[name] = self.sum_tokens.get(name, 0) + num_scored

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
    course: Course,
    spec: DistillSpec,
    checkpoint: Path,
    on_step: OnStep = lambda state, total, loss, rate: None,
) -> State:
    """Teach the student in place and return the curve; continue from a checkpoint if there is one.

    Args:
        student: Its parameters change; it is trained in float32 and handed back as it came.
        course: What it learns from and is measured on.
        spec: Everything that decides the training.
        checkpoint: A folder that this training owns; removed by the caller when done with it.
        on_step: Progress; an exception from it stops the training after a checkpoint.

    Raises:
        RunFailed: The loss or the gradient is not finite; it names the batch, and no step is
            taken.
        BadInput: The model's logits are more than a projection of its hidden states.
    """
    dtype = student.dtype
    module: Any = student  # Module.to has no usable type in transformers
    module.to(torch.float32)
    check_head(student, course.exam.blocks_NT[course.heldout[:1], :8])
    accelerator = _ready(student, spec)
    optimizer: Any = torch.optim.AdamW(
        [p for p in student.parameters() if p.requires_grad],
        lr=spec.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=spec.weight_decay,
        fused=True,
    )
    # Prepared as for evaluation: several processes share the work out by the crew, not by DDP,
    # whose hooks want one backward pass through the whole model.
    model = accelerator.prepare_model(student, evaluation_mode=True)
    optimizer = accelerator.prepare_optimizer(optimizer)
    crew = together.crew()
    crew.order(together.Begin(helper, (student.config, course, spec)))
    state = _resume(accelerator, checkpoint)
    total = num_steps(spec)
    began = time.monotonic() - state.seconds
    saved_at = time.monotonic()

    def measure(step: int) -> None:
        paused = time.monotonic()
        exam = examine(accelerator.unwrap_model(model), course, spec.temperature)
        _add_point(state, step, learning_rate(spec, min(step, total - 1)), exam)
        nonlocal began
        began += time.monotonic() - paused

    if not state.curve:
        measure(0)
    try:
        while state.step < total:
            numbers = blocks_of_step(spec, course.training, state.step)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(spec, state.step)
            crew.order(state.step)
            terms, num_scored = share_of_step(accelerator, model, course, state.step, spec)
            loss = terms["loss"]
            norm = float(accelerator.clip_grad_norm_(model.parameters(), 1.0))
            for what, value in (("loss", loss), ("gradient", norm)):
                if not math.isfinite(value):
                    optimizer.zero_grad()
                    raise RunFailed(
                        f"The {what} became {value} at step {state.step + 1} (blocks {numbers}). "
                        "No step was taken. Lower distill.learning_rate (now "
                        f"{spec.learning_rate:g})."
                    )
            optimizer.step()
            optimizer.zero_grad()
            state.took_step(terms, num_scored, time.monotonic() - began)
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
    if spec.gradient_checkpointing:
        student.activation_checkpointing_disable()
    student.eval()
    module.to(dtype)
    return state


def _ready(student: PreTrainedModel, spec: DistillSpec) -> Accelerator:
    """Set the student up for its training; every process of a crew does the same."""
    accelerator = Accelerator(
        mixed_precision="bf16" if student.device.type == "cuda" else "no",
        cpu=student.device.type == "cpu",
    )
    student.get_input_embeddings().requires_grad_(spec.train_embeddings)
    if spec.gradient_checkpointing:
        student.activation_checkpointing_enable({"use_reentrant": False})
    student.train()
    return accelerator


def helper(order: tuple[PretrainedConfig, Course, DistillSpec]) -> Callable[[int], None]:
    """What a process that only helps does at each step of the training that it was told of."""
    config, course, spec = order
    device = together.crew().device
    student = AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(device)
    if isinstance(course.source, Live):
        teacher: Any = course.source.teacher
        teacher.to(device)
    accelerator = _ready(student, spec)

    def step(number: int) -> None:
        share_of_step(accelerator, student, course, number, spec)
        student.zero_grad()

    return step


def share_of_step(
    accelerator: Accelerator, model: PreTrainedModel, course: Course, step: int, spec: DistillSpec
) -> tuple[dict[str, float], int]:
    """This process's blocks of a step; the first process has the whole step's result after it."""
    crew = together.crew()
    numbers = blocks_of_step(spec, course.training, step)
    crew.same_parameters(model)
    own = crew.share(numbers)
    terms, num_scored = _gradients(accelerator, model, course, step, own, spec, len(numbers))
    return crew.gather(model, terms, num_scored)


def _gradients(
    accelerator: Accelerator,
    model: PreTrainedModel,
    course: Course,
    step: int,
    numbers: list[int],
    spec: DistillSpec,
    num_blocks: int | None = None,
) -> tuple[dict[str, float], int]:
    """Leave the gradient of the step's mean loss in the parameters, as far as these blocks go.

    Args:
        accelerator: Runs the passes.
        model: The student.
        course: Where the lessons come from.
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
        lesson = course.source.lesson(part, step, accelerator.unwrap_model(model))
        # Every block of a step has as many scored positions, so blocks are the weights.
        sums = _micro_step(
            accelerator, model, lesson, spec, share=len(part) / (num_blocks or len(numbers))
        )
        for name, value in sums.items():
            means[name] = means.get(name, 0.0) + value
        num_scored += len(lesson.labels_P)
    return means, num_scored


def _micro_step(
    accelerator: Accelerator,
    model: PreTrainedModel,
    lesson: Lesson,
    spec: DistillSpec,
    share: float,
) -> dict[str, float]:
    """One forward and backward pass; the mean loss and its terms, times this lesson's share."""
    with accelerator.autocast():
        output = model.base_model(
            lesson.blocks_BT, use_cache=False, output_hidden_states=lesson.hidden is not None
        )
    hidden_PH, labels_P = lesson.scored(output.last_hidden_state), lesson.labels_P
    per_token = share / len(labels_P)
    leaf_PH = hidden_PH.detach().requires_grad_()
    head = model.get_output_embeddings()
    sums: dict[str, float] = {"loss": 0.0}
    for start in range(0, len(labels_P), CHUNK_POSITIONS):
        chunk = slice(start, start + CHUNK_POSITIONS)
        with accelerator.autocast():
            logits_CV = head(leaf_PH[chunk])
        terms = _terms(logits_CV, lesson, chunk, spec)
        weighted = [weight * loss_C.sum() for weight, loss_C in terms.values()]
        loss = torch.stack(weighted).sum() * per_token
        accelerator.backward(loss)
        sums["loss"] += float(loss.detach())
        for name, (_, loss_C) in terms.items():
            sums[name] = sums.get(name, 0.0) + float(loss_C.detach().sum()) * per_token
    assert leaf_PH.grad is not None, "every chunk adds to the hidden states' gradient"
    ends, gradients = [hidden_PH], [leaf_PH.grad]
    if lesson.hidden is not None:
        layers = zip(output.hidden_states[1:], lesson.hidden, strict=True)
        compare = HIDDEN[spec.hidden_loss]
        by_layer = [compare(lesson.scored(own), theirs).mean() for own, theirs in layers]
        matched = torch.stack(by_layer).mean() * share
        sums["hidden"] = float(matched.detach())
        sums["loss"] += spec.hidden_weight * sums["hidden"]
        ends.append(spec.hidden_weight * matched)
        gradients.append(torch.ones_like(matched))
    torch.autograd.backward(ends, gradients)
    return sums


def _terms(
    logits_CV: Tensor, lesson: Lesson, chunk: slice, spec: DistillSpec
) -> dict[str, tuple[float, Tensor]]:
    """Each term's weight and its loss, one number a position; terms without weight are absent."""
    terms = {}
    kd_weight = spec.kd_weight if lesson.teacher else 0.0
    if lesson.teacher and kd_weight > 0:
        pair = lesson.teacher.pair(logits_CV, chunk, spec.temperature)
        # T squared keeps the gradient's size when the temperature changes (Hinton et al.).
        terms["kd"] = (kd_weight * spec.temperature**2, divergence(spec)(*pair))
    if lesson.labelled and kd_weight < 1:
        labels_C = lesson.labels_P[chunk]
        terms["label"] = (1 - kd_weight, label_cross_entropy(logits_CV, labels_C))
    return terms


@dataclasses.dataclass(frozen=True)
class Exam:
    """A student on the held-out blocks; None where there is no teacher to compare with."""

    kl: float | None
    """Mean KL(teacher || student), in nats per token."""
    top1: float | None
    """Share of the positions where both models' most likely token is the same."""
    label_loss: float
    """Mean cross-entropy on the text, in nats per token."""


@torch.inference_mode()
def examine(student: PreTrainedModel, course: Course, temperature: float) -> Exam:
    """Measure the student on the held-out blocks."""
    was_training = student.training
    student.eval()
    kl_sum, agree, label_sum, num_scored, compared = 0.0, 0, 0.0, 0, 0
    head = student.get_output_embeddings()
    everything = slice(None)
    for number in course.heldout:
        lesson = course.exam.lesson([number], 0, student)
        hidden_BTH = student.base_model(lesson.blocks_BT, use_cache=False).last_hidden_state
        logits_PV = head(lesson.scored(hidden_BTH))
        label_sum += float(label_cross_entropy(logits_PV, lesson.labels_P).sum())
        num_scored += len(lesson.labels_P)
        if lesson.teacher:
            kl_P = forward_kl(*lesson.teacher.pair(logits_PV, everything, temperature))
            kl_sum += float(kl_P.sum())
            agree += int((logits_PV.argmax(-1) == lesson.teacher.top1(everything)).sum())
            compared += len(kl_P)
    student.train(was_training)
    return Exam(
        kl=kl_sum / compared if compared else None,
        top1=agree / compared if compared else None,
        label_loss=label_sum / num_scored,
    )


def _add_point(state: State, step: int, rate: float, exam: Exam) -> None:
    means = {name: value / state.sum_tokens[name] for name, value in state.sums.items()}
    at_start = exam.label_loss if exam.kl is None else exam.kl
    state.curve.append(
        CurvePoint(
            step=step,
            scored_tokens=state.scored_tokens,
            seconds=state.seconds,
            loss=means.get("loss", at_start),
            learning_rate=rate,
            heldout_kl=exam.kl,
            heldout_top1=exam.top1,
            heldout_label_loss=exam.label_loss,
            kd_loss=means.get("kd"),
            label_loss=means.get("label"),
            hidden_loss=means.get("hidden"),
        )
    )
    state.sums, state.sum_tokens = {}, {}


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
