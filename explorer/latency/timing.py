"""TTFT, TPOT and request latency of a model on this machine, in turns with its teacher.

A request is a prompt of random tokens and an answer of fixed length, decoded greedily with
a KV cache. Every token reaches the host before the next one is computed, as in a server
that streams. The two models answer in turns (A B, B A, A B, ...), so a machine that slows
down slows both, and their ratio holds. A sweep of batch sizes follows if the spec has one.

    explorer run spec.yaml
"""

import gc
import logging
import statistics
import time
from collections.abc import Sequence

import torch

from explorer.devices import accelerator
from explorer.errors import BadInput, NoRoom
from explorer.latency import peak_memory
from explorer.latency.energy import EnergyMeter, EnergyUse
from explorer.latency.gpu_watch import GpuWatch
from explorer.latency.interference import InterferenceWatch
from explorer.latency.runtimes.protocol import Runtime
from explorer.records import Latency, LoadPoint, TimedRequest, Timing
from explorer.specs import Bits, LatencySpec
from explorer.store.progress import Progress

log = logging.getLogger("explorer")

# Shape letters: B sequences answered together, T prompt tokens.

SATURATED_GAIN = 1.05
"""A level with less than this many times the throughput of the level before ends the sweep."""


def time_in_turns(
    own: Runtime,
    teacher: Runtime | None,
    spec: LatencySpec,
    progress: Progress,
    *,
    load_name: str | None = None,
    dtype: torch.dtype | None = None,
    bits: Bits | None = None,
    trust_remote_code: bool = False,
) -> Latency:
    """Time a model, and its teacher in turns with it.

    Args:
        own: The model that the run measures.
        teacher: Its teacher, or None when the run measures a teacher.
        spec: Lengths, warm-up, repeats and concurrency levels.
        progress: Called after every turn, as stage "latency"; may raise to stop.
        load_name: A name by which `open_runtime.by_name` loads `own`. With it, a CPU run
            also measures the model's peak memory, in a separate process
            (`peak_memory.peak_memory_bytes`); on an accelerator it is read in this process.
        dtype: The weights' dtype, for that process.
        bits: Bits of the quantised linear weights, for that process.
        trust_remote_code: Whether the model's own code may run, for that process.

    Returns:
        Every counted turn. With `batch_size` B a turn answers B sequences at once: its
        times are those of the whole batch, and `num_output_tokens` is one sequence's.

    Raises:
        BadInput: Prompt and answer do not fit into a model's context, or the spec has
            request rates, which only an endpoint can serve.
        NoRoom: The device's memory is too small.
        RunCancelled: Passed through from `progress`.
    """
    check_load(spec)
    began = time.monotonic()
    runtimes = [own] + ([teacher] if teacher else [])
    for runtime in runtimes:
        check_context(runtime.name, runtime.context_tokens, spec)
    watch, meter = InterferenceWatch(own.device), EnergyMeter(own.device)
    gpu = GpuWatch(own.device)
    num_turns = (spec.warmup + spec.repeats) * len(runtimes)
    on_turn = _TurnProgress(progress, num_turns, gpu, **warn_if_busy(watch))
    levels = _time_level(runtimes, spec, spec.batch_size, meter, on_turn)
    peaks = [level.peak_bytes for level in levels]
    curves, notes = _sweep(runtimes, spec, meter, on_turn)
    interference, gpu_state = watch.interference(), gpu.state()
    warnings = [interference.warning, gpu_state.warning if gpu_state else None]
    if load_name is not None and own.device.type == "cpu":
        peaks[0] = peak_memory.peak_memory_bytes(
            load_name, spec, own.device, dtype, bits, trust_remote_code=trust_remote_code
        )
    timings = [
        Timing(
            batch_size=spec.batch_size,
            prompt_tokens=spec.prompt_tokens,
            turns=level.turns,
            peak_memory_bytes=peak_bytes,
            runtime=runtime.facts,
            energy=meter.energy(level.energy, level.num_tokens * spec.batch_size),
            curve=curve,
            curve_note=note,
        )
        for runtime, level, peak_bytes, curve, note in zip(
            runtimes, levels, peaks, curves, notes, strict=True
        )
    ]
    return Latency(
        own=timings[0],
        teacher=timings[1] if teacher else None,
        seconds=time.monotonic() - began,
        warning=" ".join(filter(None, warnings)) or None,
        interference=interference,
        gpu=gpu_state,
    )


def warn_if_busy(watch: InterferenceWatch) -> dict[str, bool]:
    """Log a warning if other processes use the machine; the timing continues.

    Returns:
        `{"busy": True}` on a busy machine, for every progress update; otherwise empty.
    """
    warning = watch.before.warning
    if warning is None:
        return {}
    log.warning("%s Timing goes on; time the run again on an idle machine.", warning)
    return {"busy": True}


def random_prompt(
    runtimes: Sequence[Runtime], spec: LatencySpec, num_sequences: int
) -> torch.Tensor:
    """Random token ids [B, T] of the vocabulary that all models share, on the first's device."""
    generator = torch.Generator().manual_seed(spec.seed)
    num_shared = min(runtime.vocab_size for runtime in runtimes)
    shape = (num_sequences, spec.prompt_tokens)
    return torch.randint(num_shared, shape, generator=generator).to(runtimes[0].device)


def time_request(runtime: Runtime, prompt_BT: torch.Tensor, num_output_tokens: int) -> TimedRequest:
    """Time one request; its answer always has `num_output_tokens`, even past end-of-text.

    The clock starts when the prompt is on the device and the device is idle. It is read
    when a token reaches the host.
    """
    runtime.prepare(len(prompt_BT), prompt_BT.shape[1] + num_output_tokens)
    prompt_BT = prompt_BT.to(runtime.device)
    accelerator.synchronize(prompt_BT.device)
    began_s = time.perf_counter()
    steps = runtime.stream(prompt_BT, num_output_tokens)
    next(steps)
    first_s = last_s = time.perf_counter()
    num_steps = 1
    for _ in steps:
        last_s = time.perf_counter()
        num_steps += 1
    assert num_steps == num_output_tokens, f"{runtime.name} made {num_steps} tokens"
    return TimedRequest(
        ttft_ms=1e3 * (first_s - began_s),
        latency_ms=1e3 * (last_s - began_s),
        num_output_tokens=num_output_tokens,
    )


class _TurnProgress:
    """Counts turns for the run's progress, and reads the GPU's clocks between them."""

    def __init__(self, progress: Progress, total: int, gpu: GpuWatch, **flags: bool) -> None:
        self._progress, self.total, self._done, self._flags = progress, total, 0, flags
        self._gpu = gpu
        progress("latency", 0, total, "turns", **flags)

    def __call__(self, turn: TimedRequest) -> None:
        self._gpu.sample()
        self._done += 1
        self._progress(
            "latency", self._done, self.total, "turns", tpot_ms=turn.tpot_ms, **self._flags
        )


class _Level:
    """One model's turns at one batch size."""

    def __init__(self) -> None:
        self.turns: list[TimedRequest] = []
        self.energy: list[EnergyUse | None] = []
        self.peak_bytes: int | None = None

    @property
    def num_tokens(self) -> int:
        """Output tokens of one sequence, summed over all turns."""
        return sum(turn.num_output_tokens for turn in self.turns)


def _time_level(
    runtimes: Sequence[Runtime],
    spec: LatencySpec,
    num_sequences: int,
    meter: EnergyMeter,
    on_turn: _TurnProgress,
) -> list[_Level]:
    """Let the models answer in turns at one batch size."""
    prompt_BT = random_prompt(runtimes, spec, num_sequences)
    levels = [_Level() for _ in runtimes]
    gc_was_enabled = gc.isenabled()
    try:
        for round_number in range(spec.warmup + spec.repeats):
            order = list(range(len(runtimes)))
            for i in order if round_number % 2 == 0 else reversed(order):
                # A collection in the middle of an answer would be timed with it.
                gc.collect()
                gc.disable()
                with runtimes[i].watch_memory() as peak:
                    meter.start()
                    turn = time_request(runtimes[i], prompt_BT, spec.output_tokens)
                    energy = meter.stop()
                if gc_was_enabled:
                    gc.enable()
                if peak.num_bytes is not None:
                    levels[i].peak_bytes = max(peak.num_bytes, levels[i].peak_bytes or 0)
                if round_number >= spec.warmup:
                    levels[i].turns.append(turn)
                    levels[i].energy.append(energy)
                on_turn(turn)
    except torch.OutOfMemoryError as error:
        raise NoRoom(
            f"The memory of {prompt_BT.device} is too small to time {runtimes[0].name} with "
            f"{num_sequences} sequences of {spec.prompt_tokens} + {spec.output_tokens} tokens. "
            "Lower them in the spec's latency part."
        ) from error
    finally:
        if gc_was_enabled:
            gc.enable()
    return levels


def _sweep(
    runtimes: Sequence[Runtime], spec: LatencySpec, meter: EnergyMeter, on_turn: _TurnProgress
) -> tuple[list[list[LoadPoint]], list[str | None]]:
    """Time the concurrency levels as batch sizes, each model until it is saturated.

    If memory runs out at a level, the sweep ends and keeps the levels before it.
    """
    curves: list[list[LoadPoint]] = [[] for _ in runtimes]
    notes: list[str | None] = [None for _ in runtimes]
    unsaturated = list(range(len(runtimes)))
    for batch_size in spec.concurrency:
        if not unsaturated:
            break
        on_turn.total += (spec.warmup + spec.repeats) * len(unsaturated)
        try:
            levels = _time_level(
                [runtimes[i] for i in unsaturated], spec, batch_size, meter, on_turn
            )
        except NoRoom as error:
            for i in unsaturated:
                notes[i] = str(error)
            break
        for i, level in zip(list(unsaturated), levels, strict=True):
            curves[i].append(_batch_point(batch_size, level.turns))
            notes[i] = saturation_note(curves[i])
            if notes[i]:
                unsaturated.remove(i)
    return curves, notes


def _batch_point(batch_size: int, turns: list[TimedRequest]) -> LoadPoint:
    rates = [1e3 * batch_size * turn.num_output_tokens / turn.latency_ms for turn in turns]
    return LoadPoint(
        kind="batch",
        level=batch_size,
        turns=turns,
        seconds=sum(turn.latency_ms for turn in turns) / 1e3,
        output_tokens_per_s=statistics.median(rates),
    )


def saturation_note(curve: Sequence[LoadPoint]) -> str | None:
    """Why the sweep ends, if the last level is hardly faster than the one before; else None."""
    rates = [point.output_tokens_per_s for point in curve[-2:]]
    if len(rates) < 2 or rates[0] is None or rates[1] is None:
        return None
    if rates[1] >= SATURATED_GAIN * rates[0]:
        return None
    return (
        f"Saturated: {rates[1]:.3g} output tokens/s at {curve[-1].level:g}, {rates[0]:.3g} at "
        f"{curve[-2].level:g}. Higher levels would only add waiting time."
    )


def check_load(spec: LatencySpec) -> None:
    """Refuse a load that only a server can take.

    Raises:
        BadInput: The spec has request rates.
    """
    if spec.request_rates:
        raise BadInput(
            "latency.request_rates sends requests at random times, which takes a server. Time an "
            "endpoint, or set concurrency for batches on this device."
        )


def check_context(name: str, context_tokens: int | None, spec: LatencySpec) -> None:
    """Refuse a prompt and an answer that do not fit into a model's context.

    Raises:
        BadInput: They have more than `context_tokens` tokens; None is unknown and refuses nothing.
    """
    num_tokens = spec.prompt_tokens + spec.output_tokens
    if context_tokens is not None and num_tokens > context_tokens:
        raise BadInput(
            f"latency asks for {spec.prompt_tokens} + {spec.output_tokens} tokens, but the "
            f"context of {name} holds {context_tokens}. Lower prompt_tokens or output_tokens."
        )
