"""Whether planned runs fit on this machine, by the arithmetic that refuses them when they start.

This process loads no model library. So a model's sizes come from its files, and a GPU's memory
comes from the newest run on one.
"""

import dataclasses
import functools
import os
from pathlib import Path

import pandas as pd
import psutil

from explorer.analysis.planning import run_memory
from explorer.analysis.planning.run_memory import Machine
from explorer.errors import ExplorerError
from explorer.models.sizes import ModelSizes, read_sizes
from explorer.specs import RunSpec, Student
from explorer.specs.model_size import ModelSize
from explorer.store import disk
from explorer.students.planned_sizes import planned_sizes, stated_outline

GPU_DRIVERS = (Path("/proc/driver/nvidia/version"), Path("/dev/dxg"))
"""One of these exists where torch can find a GPU, on Linux and in WSL."""


@dataclasses.dataclass(frozen=True)
class Resources:
    """What several runs need, one after the other."""

    memory_bytes: float | None
    """Of the largest run; None if no size is known."""
    refusal: str | None
    """Why the first run that does not fit will be refused; None if all fit or are unknown."""


def planned_resources(specs: list[RunSpec], root: Path, runs: pd.DataFrame) -> Resources:
    """What these runs need, and whether this machine has it.

    Args:
        specs: The runs to start.
        root: The store.
        runs: As `frames.runs`, for the memory of a GPU.
    """
    needs, refusals = [], []
    for spec in specs:
        machine, sizes = machine_of(spec, root, runs), model_sizes(spec, root)
        if machine is not None and sizes is not None:
            needs.append(sum(run_memory.memory_parts(spec, *sizes, machine).values()))
            refusals.append(run_memory.refusal(spec, *sizes, machine))
    return Resources(max(needs, default=None), next(filter(None, refusals), None))


def model_sizes(spec: RunSpec, root: Path) -> tuple[ModelSize, ModelSize] | None:
    """Sizes of a run's teacher and student; None if the files here do not state them."""
    start = spec.student.start if spec.student else None
    stated = tuple(read_sizes(name, root) for name in (spec.teacher, start) if name)
    return _model_sizes(spec.teacher, spec.student, root, stated)


@functools.lru_cache(maxsize=512)
def _model_sizes(
    teacher: str, student: Student | None, root: Path, stated: tuple[ModelSizes, ...]
) -> tuple[ModelSize, ModelSize] | None:
    """`stated` is what the models' files say, so that a changed file is read again."""
    try:
        return planned_sizes(teacher, student, lambda name: stated_outline(name, root))
    except ExplorerError:
        return None


def machine_of(spec: RunSpec, root: Path, runs: pd.DataFrame) -> Machine | None:
    """The machine that a run would use; None for a GPU that no run has used yet."""
    device = spec.device.partition(":")[0]
    if device == "auto":
        device = "cuda" if _has_gpu() else "cpu"
    if device == "cpu":
        memory = int(psutil.virtual_memory().total)
    else:
        on_gpu = runs.loc[runs["device"] == "cuda"].sort_values("finished_at")["memory_bytes"]
        if on_gpu.dropna().empty:
            return None
        memory = int(on_gpu.dropna().iloc[-1])
    return Machine(
        device=device,
        memory_bytes=memory,
        disk_bytes=disk.free_bytes(root),
        weight_bytes=run_memory.weight_bytes(spec.dtype, device),
    )


def _has_gpu() -> bool:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1")
    return not hidden and any(path.exists() for path in GPU_DRIVERS)
