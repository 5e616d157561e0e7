"""Before a run: how much memory and disk it needs, how long it takes, and what it costs.

Only configurations are read, no weights. Memory and disk come from arithmetic about the training
loop (`analysis.planning.run_memory`), time from earlier runs of this teacher on this device or
else from a rule, and dollars from the price of the device.

    explorer sweep study.yaml --dry-run
"""

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from explorer.analysis.planning import run_memory, run_time
from explorer.analysis.planning.run_memory import Machine
from explorer.catalogue import prices
from explorer.catalogue.prices import Price
from explorer.devices import accelerator, memory
from explorer.devices.accelerator import pick_device
from explorer.distill import distributed
from explorer.errors import ExplorerError
from explorer.index import index_of
from explorer.models import size_limits
from explorer.models.facts import model_without_weights
from explorer.models.loading import pick_dtype
from explorer.pipeline import environment
from explorer.specs import RunSpec
from explorer.specs.model_size import ModelSize
from explorer.store import disk
from explorer.students.planned_sizes import planned_sizes, stated_outline

SHARE_OF_PEAK = 0.5
"""Assumed share of the matmul speed measured here, where there is no earlier run. Training takes 6
and the teacher's pass 2 FLOPs per parameter and token."""


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What a run will take; None where it is unknown."""

    memory: dict[str, float]
    """Bytes by purpose."""
    disk_bytes: float
    seconds: float | None
    seconds_basis: str
    usd: float | None


def forecasts(specs: list[RunSpec], root: Path) -> list[Forecast]:
    """What these runs will take, one after the other.

    Work that an earlier run does for a later one counts once: the teacher's pass over the corpus,
    and a student that several runs measure.

    Raises:
        ExplorerError: The size of a teacher or student is unknown or impossible.
    """
    size_limits.check_students(specs, root)
    index = index_of(root)
    index.update()
    runs, scores = index.runs(), index.scores()
    return [_forecast(spec, specs[:at], runs, scores, root) for at, spec in enumerate(specs)]


def _forecast(
    spec: RunSpec, before: list[RunSpec], runs: pd.DataFrame, scores: pd.DataFrame, root: Path
) -> Forecast:
    teacher, student = model_sizes(spec, root)
    machine = machine_of(spec, root)
    device = pick_device(spec.device)
    name = environment.device_name(device)
    estimate = run_time.estimate_runs([spec], runs, scores, name, before=before)
    seconds, basis = estimate.seconds, estimate.basis
    if estimate.unknown:
        basis += f" Excludes {', '.join(estimate.unknown)}."
    trained = run_time.training_key(spec) in map(run_time.training_key, before)
    if seconds is None and spec.distill is not None and not trained:
        seconds = training_seconds_by_rule(spec, teacher, student, matmul_flops(device), before)
        basis = (
            "No earlier run to go by. Assumes 6 FLOPs per parameter and token at "
            f"{SHARE_OF_PEAK:.0%} of the matmul speed measured here; excludes evaluation and "
            "timing."
        )
    here = pd.DataFrame([{"device_name": name, "num_cpus": environment.num_cpus()}])
    (_, known, suggested), *_ = prices.device_prices(here, root)
    price = known or (suggested[0] if suggested else None)
    return Forecast(
        memory=run_memory.memory_parts(spec, teacher, student, machine),
        disk_bytes=run_memory.disk_bytes(spec, student, machine),
        seconds=seconds,
        seconds_basis=basis,
        usd=_rent(price, spec, device, seconds) if price and seconds is not None else None,
    )


def _rent(price: Price, spec: RunSpec, device: torch.device, seconds: float) -> float:
    """Dollars for the run's devices; a CPU's price is that of the machine, whatever runs there."""
    num_devices = spec.num_devices if accelerator.is_accelerator(device) else 1
    return num_devices * price.usd_per_hour * seconds / 3600


def model_sizes(spec: RunSpec, root: Path) -> tuple[ModelSize, ModelSize]:
    """Sizes of the teacher and of the student; the teacher twice if there is no student.

    They come from the files on this machine, as on the Run page. Where these do not state them,
    the models are built without weights, which may fetch configurations.

    Raises:
        ExplorerError: A model does not exist, or the student cannot have the size.
    """
    try:
        return planned_sizes(spec.teacher, spec.student, lambda name: stated_outline(name, root))
    except ExplorerError:
        built = functools.partial(model_without_weights, trust_remote_code=spec.trust_remote_code)
        return planned_sizes(spec.teacher, spec.student, built)


def machine_of(spec: RunSpec, root: Path) -> Machine:
    """The device that the spec asks for, and the disk under the store's working folder."""
    device = pick_device(spec.device)
    return Machine(
        device=device.type,
        memory_bytes=memory.total_bytes(device),
        disk_bytes=disk.free_bytes(root),
        weight_bytes=pick_dtype(spec.dtype, device).itemsize,
        num_shards=distributed.num_shards(),
    )


def training_seconds_by_rule(
    spec: RunSpec,
    teacher: ModelSize,
    student: ModelSize,
    flops: float,
    before: Sequence[RunSpec] = (),
) -> float:
    """Seconds of the training, and of the teacher's pass unless an earlier run does it."""
    distill = spec.distill
    assert distill is not None, "only a distilled student is trained"
    cached = distill.method == "cached" and any(
        (earlier.teacher, earlier.distill) == (spec.teacher, distill)
        for earlier in before
        if earlier.student
    )
    teacher_parameters = 0 if cached or not distill.uses_distributions else teacher.num_parameters
    operations = distill.max_tokens * (6 * student.num_parameters + 2 * teacher_parameters)
    return operations / (SHARE_OF_PEAK * flops)


@functools.cache
def matmul_flops(where: torch.device) -> float:
    """FLOP/s of the fastest of five products of 1024 x 1024 matrices; takes a tenth of a second."""
    dtype = pick_dtype("auto", where)
    a = torch.ones(1024, 1024, device=where, dtype=dtype)
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        float((a @ a)[0, 0])  # waits for the device
        seconds.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(seconds[1:])
