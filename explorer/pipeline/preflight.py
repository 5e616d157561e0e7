"""Before a run: will it fit, how long will it take, what will it cost.

Only configurations are read, no weights. Memory and disk come from the loop's arithmetic
(`analysis.room`); time from earlier runs of this teacher on this device, or, where there
are none, from the rule below; money from the price of the device.

    explorer sweep study.yaml --dry-run
"""

import dataclasses
import functools
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedModel

from explorer.analysis.planning import run_memory, run_time
from explorer.analysis.planning.run_memory import Machine, ModelSize
from explorer.catalogue import prices
from explorer.distill import distributed
from explorer.errors import ExplorerError, NoRoom
from explorer.index import index_of
from explorer.models import endpoint, sizes
from explorer.models.facts import model_without_weights
from explorer.models.families import ModelShape, count_parameters, shape_of
from explorer.models.loading import pick_device, pick_dtype
from explorer.pipeline import environment as machine
from explorer.specs import BothStudent, CheckpointStudent, DepthStudent, FreshStudent, RunSpec
from explorer.students.fresh import MIN_SHARE
from explorer.students.size_target import shape_for_size
from explorer.students.width import requested_shape

INSIST = "EXPLORER_INSIST"
"""Set to 1, a run that will not fit by our arithmetic is tried all the same."""
SHARE_OF_PEAK = 0.5
"""The rule where no run tells: training takes 6, the teacher's pass 2 operations a parameter
and token, at this share of the speed that a matrix product reaches here now."""
SERVED = ModelSize(num_parameters=0, num_layers=1, hidden_size=0, intermediate_size=0, vocab_size=0)
"""A teacher behind an endpoint takes nothing of this machine."""


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What a run will take; None where nothing tells."""

    memory: dict[str, float]
    """Bytes by what they are for."""
    disk_bytes: float
    seconds: float | None
    seconds_basis: str
    usd: float | None
    problem: str | None
    """Why it cannot be done here, and what could."""


def refuse_oversized(spec: RunSpec, root: Path) -> None:
    """Refuse a run that cannot fit, unless told to try.

    A model whose size cannot be read from its configuration is let through: loading it says
    better what is wrong.

    Raises:
        BadInput: The student is not smaller than the model that it is cut from.
        NoRoom: By how much it is too large, what would fit, and how to insist.
    """
    sizes.check_students([spec], root)
    if os.environ.get(INSIST) == "1":
        return
    try:
        teacher, student = model_sizes(spec)
        problem = run_memory.refusal(spec, teacher, student, machine_of(spec, root))
    except ExplorerError:
        return
    if problem:
        raise NoRoom(f"{problem} To try all the same: explorer run --insist, or {INSIST}=1.")


def forecasts(specs: list[RunSpec], root: Path) -> list[Forecast]:
    """Everything that is known of runs before they start, one after the other.

    What an earlier one of them does for a later one, the later one's time leaves out: the
    teacher's pass over the corpus, and a student that several runs measure.

    Raises:
        ExplorerError: The teacher's or a student's size cannot be known, or cannot be.
    """
    sizes.check_students(specs, root)
    index = index_of(root)
    index.update()
    runs, scores = index.runs(), index.scores()
    return [_forecast(spec, specs[:at], runs, scores, root) for at, spec in enumerate(specs)]


def _forecast(
    spec: RunSpec, before: list[RunSpec], runs: pd.DataFrame, scores: pd.DataFrame, root: Path
) -> Forecast:
    teacher, student = model_sizes(spec)
    place = machine_of(spec, root)
    where = pick_device(spec.device)
    name = machine.device_name(where)
    told = run_time.estimate_runs([spec], runs, scores, name, before=before)
    seconds, basis = told.seconds, told.basis
    if told.unknown:
        basis += f" Without {', '.join(told.unknown)}."
    taught = run_time.training_key(spec) in map(run_time.training_key, before)
    if seconds is None and spec.distill is not None and not taught:
        seconds = training_seconds_by_rule(spec, teacher, student, matmul_flops(where), before)
        basis = (
            "No earlier run to go by. Assumes 6 FLOPs per parameter and token at "
            f"{SHARE_OF_PEAK:.0%} of the matmul speed measured here; excludes evaluation and "
            "timing."
        )
    here = pd.DataFrame([{"device_name": name, "num_cpus": machine.num_cpus()}])
    (_, known, suggested), *_ = prices.devices(here, root)
    price = known or (suggested[0] if suggested else None)
    return Forecast(
        memory=run_memory.memory_parts(spec, teacher, student, place),
        disk_bytes=run_memory.disk_bytes(spec, student, place),
        seconds=seconds,
        seconds_basis=basis,
        usd=price.usd_per_hour * seconds / 3600 if price and seconds is not None else None,
        problem=run_memory.refusal(spec, teacher, student, place),
    )


def model_sizes(spec: RunSpec) -> tuple[ModelSize, ModelSize]:
    """Sizes of the teacher and of the student; the teacher twice where there is no student.

    Raises:
        ExplorerError: No such model, or sizes that it cannot have.
    """
    student = spec.student
    if student is not None and spec.teacher.startswith(endpoint.PREFIX):
        assert student.start is not None, "checked when the spec was made"
        start, whole = model_without_weights(student.start), SERVED
    else:
        teacher = model_without_weights(spec.teacher)
        whole = _planned(teacher)
        if student is None:
            return whole, whole
        start = model_without_weights(student.start) if student.start else teacher
    if isinstance(student, CheckpointStudent):
        return whole, _planned(start)
    if isinstance(student, DepthStudent):
        return whole, _planned(start).with_layers(student.num_layers)
    if student.num_parameters is not None:
        if isinstance(student, FreshStudent):
            depth = width = MIN_SHARE
        else:
            depth = student.min_depth if isinstance(student, BothStudent) else 1.0
            width = student.min_width
        shape = shape_for_size(start, student.num_parameters, min_depth=depth, min_width=width)
        return whole, _planned(start, shape)
    shape = requested_shape(start, student)
    if isinstance(student, FreshStudent) and student.num_layers:
        shape = dataclasses.replace(shape, num_layers=student.num_layers)
    return whole, _planned(start, shape)


def _planned(model: PreTrainedModel, shape: ModelShape | None = None) -> ModelSize:
    own = shape or shape_of(model)
    return ModelSize(
        num_parameters=count_parameters(model, [own])[0] if shape else model.num_parameters(),
        num_layers=own.num_layers,
        hidden_size=own.hidden_size,
        intermediate_size=own.intermediate_size,
        vocab_size=int(model.config.vocab_size),
    )


def machine_of(spec: RunSpec, root: Path) -> Machine:
    """The device that the spec asks for, and the disk under the store."""
    where = pick_device(spec.device)
    at = next(folder for folder in (root, *root.resolve().parents) if folder.exists())
    return Machine(
        device=where.type,
        memory_bytes=machine.memory_bytes(where),
        disk_bytes=shutil.disk_usage(at).free,
        weight_bytes=pick_dtype(spec.dtype, where).itemsize,
        num_shards=distributed.num_shards(),
    )


def training_seconds_by_rule(
    spec: RunSpec,
    teacher: ModelSize,
    student: ModelSize,
    flops: float,
    before: Sequence[RunSpec] = (),
) -> float:
    """Seconds of the training, and of the teacher's pass unless a run before does it."""
    distill = spec.distill
    assert distill is not None, "only a taught student has a training"
    cached = distill.method == "cached" and any(
        (one.teacher, one.distill) == (spec.teacher, distill) for one in before if one.student
    )
    asked = 0 if cached or not distill.uses_distributions else teacher.num_parameters
    operations = distill.max_tokens * (6 * student.num_parameters + 2 * asked)
    return operations / (SHARE_OF_PEAK * flops)


@functools.cache
def matmul_flops(where: torch.device) -> float:
    """FLOP/s of the best of five products of 1024 x 1024 matrices, a tenth of a second."""
    dtype = torch.bfloat16 if where.type == "cuda" else torch.float32
    a = torch.ones(1024, 1024, device=where, dtype=dtype)
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        float((a @ a)[0, 0])  # waits for the device
        seconds.append(time.perf_counter() - began)
    return 2 * 1024**3 / min(seconds[1:])
