"""A training's checkpoint: weights, optimizer state and how far the training is.

Whenever a kill comes, a whole checkpoint is on disk: the next one is written beside it, its
progress last and through fsync, and takes its place by a rename.
"""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from explorer.distill import distributed
from explorer.distill.heldout import HeldOut
from explorer.distill.train_state import TrainState
from explorer.errors import NoRoom
from explorer.records import CurvePoint
from explorer.store import atomic

WEIGHTS, PROGRESS = "training.pt", "state.json"
"""Files of a checkpoint; a folder that has both is whole."""


@dataclasses.dataclass
class TrainingProgress:
    """How far a training is."""

    step: int = 0
    scored_tokens: int = 0
    seconds: float = 0.0
    num_resumes: int = 0
    curve: list[CurvePoint] = dataclasses.field(default_factory=list)
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    """Since the last point: each term's mean of a step times the step's scored tokens."""
    sum_tokens: dict[str, int] = dataclasses.field(default_factory=dict)
    """Since the last point: the scored tokens that a term was computed on."""

    def count_step(self, terms: dict[str, float], num_scored: int, seconds: float) -> None:
        """Add a step: its mean terms, its scored tokens, and the training's seconds by now."""
        self.step += 1
        self.scored_tokens += num_scored
        self.seconds = seconds
        for name, mean in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + mean * num_scored
            self.sum_tokens[name] = self.sum_tokens.get(name, 0) + num_scored

    def add_point(self, learning_rate: float, heldout: HeldOut) -> None:
        """Add a point to the curve: the mean terms since the last one, the held-out numbers."""
        means = {name: value / self.sum_tokens[name] for name, value in self.sums.items()}
        loss_before = heldout.label_loss if heldout.kl is None else heldout.kl
        self.curve.append(
            CurvePoint(
                step=self.step,
                scored_tokens=self.scored_tokens,
                seconds=self.seconds,
                loss=means.get("loss", loss_before),
                learning_rate=learning_rate,
                heldout_kl=heldout.kl,
                heldout_top1=heldout.top1,
                heldout_label_loss=heldout.label_loss,
                kd_loss=means.get("kd"),
                label_loss=means.get("label"),
                hidden_loss=means.get("hidden"),
            )
        )
        self.sums, self.sum_tokens = {}, {}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**vars(self), "curve": [point.model_dump() for point in self.curve]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "TrainingProgress":
        """The inverse of `to_dict`."""
        return cls(**{**data, "curve": [CurvePoint(**point) for point in data["curve"]]})


def save(state: TrainState, progress: TrainingProgress, checkpoint: Path | None) -> None:
    """Replace the checkpoint; rank 0 writes, and alone knows the folder.

    With shards every rank calls this.

    Raises:
        NoRoom: The disk is full or the folder may not be written.
    """
    if not (state.sharded or distributed.is_main()):
        return
    weights = state.state_dict()
    if checkpoint is None:
        return
    partial, old = _beside(checkpoint)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with (partial / WEIGHTS).open("wb") as file:
            torch.save(weights, file)
            file.flush()
            os.fsync(file.fileno())
        atomic.write_text(partial / PROGRESS, json.dumps(progress.to_dict()))
        if checkpoint.exists():
            shutil.rmtree(old, ignore_errors=True)
            checkpoint.replace(old)
        partial.replace(checkpoint)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, RuntimeError, NoRoom) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = str(error).removesuffix(".")
        raise NoRoom(f"Could not write the checkpoint {checkpoint}: {reason}.") from error


def resume(state: TrainState, checkpoint: Path | None) -> TrainingProgress:
    """Load rank 0's checkpoint into the state, if there is one, and return its progress."""

    def read() -> tuple[Path, dict[str, Any]] | None:
        assert checkpoint is not None, "rank 0 knows the folder"
        stored = _read_progress(checkpoint)
        return None if stored is None else (checkpoint, stored)

    whole = distributed.from_main(read)
    if whole is None:
        return TrainingProgress()
    folder, stored = whole
    state.load(folder / WEIGHTS)
    progress = TrainingProgress.from_dict(stored)
    progress.num_resumes += 1
    return progress


def _read_progress(checkpoint: Path) -> dict[str, Any] | None:
    """Put the newest whole checkpoint in its place, remove what a kill left, and read it."""
    partial, old = _beside(checkpoint)
    newest = next(filter(_is_whole, (partial, checkpoint, old)), None)
    if newest is not None and newest != checkpoint:
        shutil.rmtree(checkpoint, ignore_errors=True)
        newest.replace(checkpoint)
    for folder in (partial, old):
        shutil.rmtree(folder, ignore_errors=True)
    if newest is None:
        return None
    stored: dict[str, Any] = json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8"))
    return stored


def _beside(checkpoint: Path) -> tuple[Path, Path]:
    """Where the next checkpoint is written, and where the last one waits for its removal."""
    name = checkpoint.name
    return checkpoint.with_name(f"{name}.partial"), checkpoint.with_name(f"{name}.old")


def _is_whole(checkpoint: Path) -> bool:
    return all((checkpoint / name).is_file() for name in (PROGRESS, WEIGHTS))
