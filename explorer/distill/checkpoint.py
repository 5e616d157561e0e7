"""A training's checkpoint: weights, optimizer state and how far the training is.

Whenever a kill comes, a whole checkpoint is on disk: the next one is written beside it, its
progress last and through fsync, and takes its place by a rename. The progress holds the checksum
of the weights. A checkpoint that differs from it is set aside, and training continues from an
older one or begins again.
"""

import dataclasses
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pydantic
import torch

from explorer.distill import distributed
from explorer.distill.heldout import HeldOut
from explorer.distill.train_state import TrainState
from explorer.errors import CannotRead, DamagedStore, NoRoom
from explorer.files import durable_files
from explorer.records import Compilation, CurvePoint

WEIGHTS, PROGRESS = "training.pt", "state.json"
"""Files of a checkpoint; a folder that has both is whole."""


@dataclasses.dataclass
class TrainingProgress:
    """How far a training is."""

    step: int = 0
    scored_tokens: int = 0
    seconds: float = 0.0
    num_resumes: int = 0
    num_halvings: int = 0
    """How often memory ran out and passes became half as large."""
    curve: list[CurvePoint] = dataclasses.field(default_factory=list)
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    """Since the last point: each term's mean of a step times the step's scored tokens."""
    sum_tokens: dict[str, int] = dataclasses.field(default_factory=dict)
    """Since the last point: the scored tokens that a term was computed on."""
    compilation: Compilation | None = None
    """The last trial of compiled layers that has ended."""

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
        return {
            **vars(self),
            "curve": [point.model_dump() for point in self.curve],
            "compilation": self.compilation and self.compilation.model_dump(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "TrainingProgress":
        """The inverse of `to_dict`."""
        curve = [CurvePoint(**point) for point in data["curve"]]
        compilation = data["compilation"] and Compilation(**data["compilation"])
        return cls(**{**data, "curve": curve, "compilation": compilation})


class StoredProgress(pydantic.BaseModel):
    """What `PROGRESS` holds: the progress, and the checksum of the weights."""

    model_config = pydantic.ConfigDict(extra="forbid")

    step: pydantic.NonNegativeInt
    scored_tokens: pydantic.NonNegativeInt
    seconds: pydantic.NonNegativeFloat
    num_resumes: pydantic.NonNegativeInt
    num_halvings: pydantic.NonNegativeInt = 0
    """0 in checkpoints older than this field."""
    curve: list[CurvePoint]
    sums: dict[str, float]
    sum_tokens: dict[str, int]
    compilation: Compilation | None = None
    """None in checkpoints older than this field."""
    weights: durable_files.FileSum | None = None
    """None in checkpoints older than this field."""

    def progress(self) -> TrainingProgress:
        """The progress alone."""
        return TrainingProgress.from_dict(self.model_dump(exclude={"weights"}))


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
        durable_files.flush(partial / WEIGHTS)
        sum_of_weights = durable_files.file_sum(partial / WEIGHTS).model_dump()
        durable_files.write_json(
            partial / PROGRESS, {**progress.to_dict(), "weights": sum_of_weights}
        )
        if checkpoint.exists():
            shutil.rmtree(old, ignore_errors=True)
            checkpoint.replace(old)
        partial.replace(checkpoint)
        durable_files.flush(checkpoint.parent)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, RuntimeError, NoRoom) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = str(durable_files.disk_error(error) or error).removesuffix(".")
        raise NoRoom(f"Could not write the checkpoint {checkpoint}: {reason}.") from error


def resume(state: TrainState, checkpoint: Path | None) -> TrainingProgress:
    """Load rank 0's checkpoint into the state, if there is one, and return its progress."""

    def read() -> tuple[Path, TrainingProgress] | None:
        assert checkpoint is not None, "rank 0 knows the folder"
        stored = _read_newest(checkpoint)
        return None if stored is None else (checkpoint, stored)

    whole = distributed.from_main(read)
    if whole is None:
        return TrainingProgress()
    folder, progress = whole
    state.load(folder / WEIGHTS)
    progress.num_resumes += 1
    return progress


def _read_newest(checkpoint: Path) -> TrainingProgress | None:
    """Put the newest checkpoint that can be read in its place, and remove what a kill left."""
    partial, old = _beside(checkpoint)
    for folder in filter(_has_files, (partial, checkpoint, old)):
        try:
            progress = _read(folder)
        except CannotRead:
            raise
        except DamagedStore as error:
            durable_files.set_aside(folder, str(error))
            continue
        if folder != checkpoint:
            shutil.rmtree(checkpoint, ignore_errors=True)
            folder.replace(checkpoint)
        break
    else:
        progress = None
        shutil.rmtree(checkpoint, ignore_errors=True)
    for folder in (partial, old):
        shutil.rmtree(folder, ignore_errors=True)
    return progress


def _read(checkpoint: Path) -> TrainingProgress:
    """The progress of a checkpoint whose weights are those that were written.

    Raises:
        DamagedStore: They are not, or the progress cannot be read.
    """
    stored = durable_files.read_json(checkpoint / PROGRESS, StoredProgress)
    if stored.weights is not None:
        durable_files.check_files(checkpoint, {WEIGHTS: stored.weights})
    else:
        _check_parts(checkpoint / WEIGHTS)
    return stored.progress()


def _check_parts(weights: Path) -> None:
    """Check the weights of an older version by the checksums of their parts, as torch wrote them.

    Raises:
        DamagedStore: The file is cut off, or a part is not what was written.
    """
    try:
        with zipfile.ZipFile(weights) as parts:
            changed = parts.testzip()
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise durable_files.damaged(weights, f"cannot be read: {error}") from error
    if changed is not None:
        raise durable_files.damaged(weights, f"has another {changed} than was written")


def _beside(checkpoint: Path) -> tuple[Path, Path]:
    """Where the next checkpoint is written, and where the last one waits for its removal."""
    name = checkpoint.name
    return checkpoint.with_name(f"{name}.partial"), checkpoint.with_name(f"{name}.old")


def _has_files(checkpoint: Path) -> bool:
    return all((checkpoint / name).is_file() for name in (PROGRESS, WEIGHTS))
