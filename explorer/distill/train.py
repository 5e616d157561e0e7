"""The one training loop: a student learns a course of lessons.

All that is random (the order of the blocks, what a student writes) comes from the seed
and the step: a training continued from a checkpoint gives the same losses as an
unbroken one, and so it does on another number of processes.
"""

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from explorer.distill import distributed as together
from explorer.distill import heap, products
from explorer.distill.schedule import blocks_of_step, learning_rate, num_steps
from explorer.distill.teacher_signal import TrainingData, check_plain_head
from explorer.distill.train_state import WEIGHTS, TrainState, helper
from explorer.distill.train_step import HeldOut
from explorer.errors import NoRoom, RunFailed
from explorer.records import CurvePoint
from explorer.specs import DistillSpec
from explorer.store import disk

STATE = "state.json"
"""In a checkpoint: the `TrainingProgress`, written last."""


@dataclasses.dataclass
class TrainingProgress:
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
    def from_dict(cls, data: dict[str, Any]) -> "TrainingProgress":
        """The inverse of `to_dict`."""
        return cls(**{**data, "curve": [CurvePoint(**point) for point in data["curve"]]})


OnStep = Callable[[TrainingProgress, int, float, float], None]
"""Called after each step with (state, all steps, loss, tokens per second); may raise to stop."""


@heap.kept()
@products.by_onednn()
def train(
    student: PreTrainedModel,
    data: TrainingData,
    spec: DistillSpec,
    checkpoint: Path,
    on_step: OnStep = lambda state, total, loss, rate: None,
) -> TrainingProgress:
    """Teach the student in place and return the curve; continue from a checkpoint if there is one.

    Args:
        student: Its parameters change; it is trained in float32 and handed back as it came.
        data: What it learns from and is measured on.
        spec: Everything that decides the training.
        checkpoint: A folder that this training owns; removed by the caller when done with it.
        on_step: Progress; an exception from it stops the training after a checkpoint.

    Raises:
        RunFailed: The loss or the gradient is not finite; it names the batch, and no step is
            taken.
        BadInput: The model's logits are more than a projection of its hidden states.
    """
    check_plain_head(student, data.heldout_signal.blocks_NT[data.heldout[:1], :8])
    together.crew().order(together.Begin(helper, (student.config, data, spec)))
    pupil = TrainState(student, student.config, data, spec)
    state = _resume(pupil, checkpoint)
    total = num_steps(spec)
    began = time.monotonic() - state.seconds
    saved_at = time.monotonic()

    def measure(step: int) -> None:
        paused = time.monotonic()
        exam = pupil.all_do("evaluate_heldout")
        _add_point(state, step, learning_rate(spec, min(step, total - 1)), exam)
        nonlocal began
        began += time.monotonic() - paused

    if not state.curve:
        measure(0)
    try:
        while state.step < total:
            terms, num_scored, norm = pupil.all_do("step", state.step)
            loss = terms["loss"]
            for what, value in (("loss", loss), ("gradient", norm)):
                if not math.isfinite(value):
                    numbers = blocks_of_step(spec, data.training, state.step)
                    raise RunFailed(
                        f"The {what} became {value} at step {state.step + 1} (blocks {numbers}). "
                        "No step was taken. Lower distill.learning_rate (now "
                        f"{spec.learning_rate:g})."
                    )
            state.took_step(terms, num_scored, time.monotonic() - began)
            if state.step % spec.eval_every_steps == 0 or state.step == total:
                measure(state.step)
            if time.monotonic() - saved_at > spec.checkpoint_every_s:
                _save(pupil, checkpoint, state)
                saved_at = time.monotonic()
            on_step(state, total, loss, state.scored_tokens / state.seconds)
    except NoRoom:
        raise
    except BaseException:
        # A cancelled, interrupted or failed training continues from here.
        if state.step and not pupil.busy:
            _save(pupil, checkpoint, state)
        raise
    pupil.all_do("finish")
    return state


def _add_point(state: TrainingProgress, step: int, rate: float, exam: HeldOut) -> None:
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


def _save(pupil: TrainState, checkpoint: Path, state: TrainingProgress) -> None:
    """Replace the checkpoint by the present state; whenever a kill comes, a whole one is on disk.

    The state is written last and through fsync, so a folder that has one is whole.
    """
    partial, old = _beside(checkpoint)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        pupil.all_do("save", partial)
        disk.write_text(partial / STATE, json.dumps(state.to_dict()))
        if checkpoint.exists():
            shutil.rmtree(old, ignore_errors=True)
            checkpoint.replace(old)
        partial.replace(checkpoint)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, RuntimeError, NoRoom) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = str(error).removesuffix(".")
        raise NoRoom(f"Could not write the checkpoint {checkpoint}: {reason}.") from error


def _resume(pupil: TrainState, checkpoint: Path) -> TrainingProgress:
    """Load the checkpoint into the pupil, when there is one."""
    _settle(checkpoint)
    if not _is_whole(checkpoint):
        return TrainingProgress()
    pupil.all_do("load", checkpoint)
    state = TrainingProgress.from_dict(json.loads((checkpoint / STATE).read_text(encoding="utf-8")))
    state.num_resumes += 1
    return state


def _settle(checkpoint: Path) -> None:
    """Put the newest whole checkpoint in its place and remove what a kill left beside it."""
    partial, old = _beside(checkpoint)
    newest = next(filter(_is_whole, (partial, checkpoint, old)), None)
    if newest is not None and newest != checkpoint:
        shutil.rmtree(checkpoint, ignore_errors=True)
        newest.replace(checkpoint)
    for folder in (partial, old):
        shutil.rmtree(folder, ignore_errors=True)


def _beside(checkpoint: Path) -> tuple[Path, Path]:
    """Where the next checkpoint is written, and where the last one waits for its removal."""
    name = checkpoint.name
    return checkpoint.with_name(f"{name}.partial"), checkpoint.with_name(f"{name}.old")


def _is_whole(checkpoint: Path) -> bool:
    return all((checkpoint / name).is_file() for name in (STATE, WEIGHTS))
