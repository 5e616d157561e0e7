"""How fast a model answers: TTFT, TPOT and end-to-end, student and teacher in turns.

A request is a prompt of random tokens and an answer of fixed length, decoded greedily with
a KV cache. Every token reaches the host before the next one is asked for, as in a server
that streams. The two models answer in turns (A B, B A, A B, ...), so a machine that slows
down slows both, and their ratio holds. A sweep of batch sizes follows, where it is asked for.

    explorer run spec.yaml
"""

import gc
import logging
import statistics
import time
from collections.abc import Sequence

import torch

from explorer.errors import BadInput, NoRoom
from explorer.latency import peak_memory
from explorer.latency.energy import EnergyMeter, EnergyUse
from explorer.latency.interference import InterferenceWatch
from explorer.latency.runtimes.protocol import Runtime
from explorer.records import Latency, LoadPoint, TimedRequest, Timing
from explorer.specs import Bits, LatencySpec
from explorer.store.progress import Progress

log = logging.getLogger("explorer")

# Shape letters: B sequences answered together, T prompt tokens.

SATURATED_GAIN = 1.05
"""A level that makes less than so many times the tokens of the one before ends the sweep."""


def time_in_turns(
    own: Runtime,
    teacher: Runtime | None,
    spec: LatencySpec,
    progress: Progress,
    *,
    load_name: str | None = None,
    dtype: torch.dtype | None = None,
    bits: Bits | None = None,
) -> Latency:
    """Time a model, and its teacher in turns with it.

    Args:
        own: The model that the run measures.
        teacher: Its teacher, or None when the run measures a teacher.
        spec: Lengths, warm-up, repeats and levels.
        progress: Told of every turn as stage "latency"; may raise to stop.
        load_name: A name that `runtimes.opened.by_name` knows `own` by. With it, a CPU run
            also measures the model's peak memory, in a process of its own
            (`memory.peak_memory_bytes`); on CUDA it is read in this process.
        dtype: Of the weights, for that process.
        bits: Of the linear weights, for that process.

    Returns:
        Every counted turn. With `batch_size` B a turn answers B sequences at once: its
        times are one request's, and `num_output_tokens` is one sequence's.

    Raises:
        BadInput: Prompt and answer do not fit into a model's context, or the spec asks for
            what only an endpoint can do.
        NoRoom: The device's memory is too small.
        RunCancelled: Passed through from `progress`.
    """
    if spec.request_rates:
        raise BadInput(
            "latency.request_rates asks for requests that arrive at random, which takes a server. "
            "Time an endpoint, or use concurrency for batches on this device."
        )
    began = time.monotonic()
    runtimes = [own] + ([teacher] if teacher else [])
    for each in runtimes:
        _check_context(each, spec)
    watch, meter = InterferenceWatch(own.device), EnergyMeter(own.device)
    num_turns = (spec.warmup + spec.repeats) * len(runtimes)
    tell = _Tell(progress, num_turns, **warn_if_busy(watch))
    levels = [_timed_level(runtimes, spec, spec.batch_size, meter, tell)]
    peaks = [timed.peak_bytes for timed in levels[0]]
    curves, notes = _sweep(runtimes, spec, meter, tell)
    interference = watch.interference()
    if load_name is not None and own.device.type == "cpu":
        peaks[0] = peak_memory.peak_memory_bytes(load_name, spec, own.device, dtype, bits)
    timings = [
        Timing(
            batch_size=spec.batch_size,
            prompt_tokens=spec.prompt_tokens,
            turns=timed.turns,
            peak_memory_bytes=peak_bytes,
            runtime=runtime.facts,
            energy=meter.energy(timed.spent, timed.num_tokens * spec.batch_size),
            curve=curve,
            curve_note=note,
        )
        for runtime, timed, peak_bytes, curve, note in zip(
            runtimes, levels[0], peaks, curves, notes, strict=True
        )
    ]
    return Latency(
        own=timings[0],
        teacher=timings[1] if teacher else None,
        seconds=time.monotonic() - began,
        warning=interference.warning,
        interference=interference,
    )


def warn_if_busy(watch: InterferenceWatch) -> dict[str, bool]:
    """What the progress of a timing says all along: `busy`, where others use the machine.

    The log says it too, once. The timing goes on: its record says how busy the machine was.
    """
    warning = watch.before.warning
    if warning is None:
        return {}
    log.warning("%s Timing goes on; time the run again on an idle machine.", warning)
    return {"busy": True}


def random_prompt(
    runtimes: Sequence[Runtime], spec: LatencySpec, num_sequences: int
) -> torch.Tensor:
    """Token ids [B, T] that every one of the models knows, on the first one's device."""
    generator = torch.Generator().manual_seed(spec.seed)
    num_known = min(runtime.vocab_size for runtime in runtimes)
    shape = (num_sequences, spec.prompt_tokens)
    return torch.randint(num_known, shape, generator=generator).to(runtimes[0].device)


def time_request(runtime: Runtime, prompt_BT: torch.Tensor, num_output_tokens: int) -> TimedRequest:
    """Time one request; the answer always has `num_output_tokens`, end-of-text or not.

    The clock starts with the prompt on the device and the device idle, and is read when a
    token is on the host.
    """
    runtime.prepare(len(prompt_BT), prompt_BT.shape[1] + num_output_tokens)
    prompt_BT = prompt_BT.to(runtime.device)
    if prompt_BT.device.type == "cuda":
        torch.cuda.synchronize(prompt_BT.device)
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


class _Tell:
    """Counts turns for the run's progress."""

    def __init__(self, progress: Progress, total: int, **said: bool) -> None:
        self._progress, self.total, self._done, self._said = progress, total, 0, said
        progress("latency", 0, total, "turns", **said)

    def __call__(self, turn: TimedRequest) -> None:
        self._done += 1
        self._progress(
            "latency", self._done, self.total, "turns", tpot_ms=turn.tpot_ms, **self._said
        )


class _Timed:
    """What one model did at one level."""

    def __init__(self) -> None:
        self.turns: list[TimedRequest] = []
        self.spent: list[EnergyUse | None] = []
        self.peak_bytes: int | None = None

    @property
    def num_tokens(self) -> int:
        """Output tokens of one sequence, over all turns."""
        return sum(turn.num_output_tokens for turn in self.turns)


def _timed_level(
    runtimes: Sequence[Runtime],
    spec: LatencySpec,
    num_sequences: int,
    meter: EnergyMeter,
    tell: _Tell,
) -> list[_Timed]:
    """Let the models answer in turns with one batch size."""
    prompt_BT = random_prompt(runtimes, spec, num_sequences)
    timed = [_Timed() for _ in runtimes]
    collecting = gc.isenabled()
    try:
        for round_number in range(spec.warmup + spec.repeats):
            order = list(range(len(runtimes)))
            for which in order if round_number % 2 == 0 else reversed(order):
                # A collection in the middle of an answer would be timed with it.
                gc.collect()
                gc.disable()
                with runtimes[which].watch_memory() as peak:
                    meter.start()
                    turn = time_request(runtimes[which], prompt_BT, spec.output_tokens)
                    spent = meter.stop()
                if collecting:
                    gc.enable()
                if peak.num_bytes is not None:
                    timed[which].peak_bytes = max(peak.num_bytes, timed[which].peak_bytes or 0)
                if round_number >= spec.warmup:
                    timed[which].turns.append(turn)
                    timed[which].spent.append(spent)
                tell(turn)
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError):
            raise
        raise NoRoom(
            f"The memory of {prompt_BT.device} is too small to time {runtimes[0].name} with "
            f"{num_sequences} sequences of {spec.prompt_tokens} + {spec.output_tokens} tokens. "
            "Lower them in the spec's latency part."
        ) from error
    finally:
        if collecting:
            gc.enable()
    return timed


def _sweep(
    runtimes: Sequence[Runtime], spec: LatencySpec, meter: EnergyMeter, tell: _Tell
) -> tuple[list[list[LoadPoint]], list[str | None]]:
    """The levels of concurrency as batch sizes, each model until it is saturated.

    Memory that runs out at a level ends the sweep; the levels before it are kept.
    """
    curves: list[list[LoadPoint]] = [[] for _ in runtimes]
    notes: list[str | None] = [None for _ in runtimes]
    going = list(range(len(runtimes)))
    for level in spec.concurrency:
        if not going:
            break
        tell.total += (spec.warmup + spec.repeats) * len(going)
        try:
            timed = _timed_level([runtimes[i] for i in going], spec, level, meter, tell)
        except NoRoom as error:
            for i in going:
                notes[i] = str(error)
            break
        for i, one in zip(list(going), timed, strict=True):
            curves[i].append(_batch_point(level, one.turns))
            notes[i] = saturation_note(curves[i])
            if notes[i]:
                going.remove(i)
    return curves, notes


def _batch_point(level: int, turns: list[TimedRequest]) -> LoadPoint:
    rates = [1e3 * level * turn.num_output_tokens / turn.latency_ms for turn in turns]
    return LoadPoint(
        kind="batch",
        level=level,
        turns=turns,
        seconds=sum(turn.latency_ms for turn in turns) / 1e3,
        output_tokens_per_s=statistics.median(rates),
    )


def saturation_note(curve: Sequence[LoadPoint]) -> str | None:
    """A sentence when the last level makes hardly more tokens than the one before."""
    rates = [point.output_tokens_per_s for point in curve[-2:]]
    if len(rates) < 2 or rates[0] is None or rates[1] is None:
        return None
    if rates[1] >= SATURATED_GAIN * rates[0]:
        return None
    return (
        f"Saturated: {rates[1]:.3g} output tokens/s at {curve[-1].level:g}, {rates[0]:.3g} at "
        f"{curve[-2].level:g}. Higher levels would only wait longer."
    )


def _check_context(runtime: Runtime, spec: LatencySpec) -> None:
    wanted = spec.prompt_tokens + spec.output_tokens
    if runtime.context_tokens is not None and wanted > runtime.context_tokens:
        raise BadInput(
            f"latency asks for {spec.prompt_tokens} + {spec.output_tokens} tokens, but the "
            f"context of {runtime.name} holds {runtime.context_tokens}. Lower prompt_tokens or "
            "output_tokens."
        )
