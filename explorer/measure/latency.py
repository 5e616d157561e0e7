"""How fast a model answers: TTFT, TPOT and end-to-end, student and teacher in turns.

A request is a prompt of random tokens and an answer of fixed length, decoded greedily with
a KV cache. Every token reaches the host before the next one is asked for, as in a server
that streams. The two models answer in turns (A B, B A, A B, ...), so a machine that slows
down slows both, and their ratio holds.

    explorer run spec.yaml
"""

import gc
import inspect
import time
from typing import Any

import psutil
import torch
from transformers import PreTrainedModel

from explorer.errors import BadInput, NoRoom
from explorer.measure import memory
from explorer.models.loading import Loaded
from explorer.progress import Progress
from explorer.records import Latency, Timing, Turn
from explorer.specs import LatencySpec

# Shape letters: B sequences answered together, T prompt tokens, V vocabulary.

BUSY_SHARE = 0.2
"""Share of the processor's time that others may take before the record says so."""


def time_in_turns(
    model: Loaded,
    teacher: Loaded | None,
    spec: LatencySpec,
    progress: Progress,
    *,
    load_name: str | None = None,
) -> Latency:
    """Time a model, and its teacher in turns with it.

    Args:
        model: The model that the run measures.
        teacher: Its teacher, or None when the run measures a teacher.
        spec: Lengths, warm-up and repeats.
        progress: Told of every turn as stage "latency"; may raise to stop.
        load_name: A name that `models.loading.load` knows `model` by. With it, a CPU run
            also measures the model's peak memory, in a process of its own
            (`memory.peak_memory_bytes`); on CUDA it is read in this process.

    Returns:
        Every counted turn. With `batch_size` B a turn answers B sequences at once: its
        times are one request's, and `num_output_tokens` is one sequence's.

    Raises:
        BadInput: Prompt and answer do not fit into a model's context.
        NoRoom: The device's memory is too small.
        RunCancelled: Passed through from `progress`.
    """
    began = time.monotonic()
    models = [model.model] + ([teacher.model] if teacher else [])
    for each in models:
        _check_context(each, spec)
    prompt_BT = random_prompt(models, spec)
    turns: list[list[Turn]] = [[] for _ in models]
    peaks: list[int | None] = [None for _ in models]
    total = (spec.warmup + spec.repeats) * len(models)
    done = 0
    progress("latency", 0, total, "turns")
    others = OthersShare()
    collecting = gc.isenabled()
    try:
        for round_number in range(spec.warmup + spec.repeats):
            order = list(range(len(models)))
            for which in order if round_number % 2 == 0 else reversed(order):
                # A collection in the middle of an answer would be timed with it.
                gc.collect()
                gc.disable()
                with memory.CudaPeak(models[which]) as peak:
                    turn = answer(models[which], prompt_BT, spec.output_tokens)
                if collecting:
                    gc.enable()
                if peak.num_bytes is not None:
                    peaks[which] = max(peak.num_bytes, peaks[which] or 0)
                if round_number >= spec.warmup:
                    turns[which].append(turn)
                done += 1
                progress("latency", done, total, "turns", tpot_ms=turn.tpot_ms)
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError):
            raise
        raise NoRoom(
            f"The memory of {prompt_BT.device} is too small to time {model.name} with batch_size "
            f"{spec.batch_size} and {spec.prompt_tokens} + {spec.output_tokens} tokens. Lower them "
            "in the spec's latency part."
        ) from error
    finally:
        if collecting:
            gc.enable()
    warning = others.warning()
    if load_name is not None and prompt_BT.device.type == "cpu":
        peaks[0] = memory.peak_memory_bytes(load_name, spec, prompt_BT.device, model.model.dtype)
    timings = [
        Timing(
            batch_size=spec.batch_size,
            prompt_tokens=spec.prompt_tokens,
            turns=counted,
            peak_memory_bytes=peak_bytes,
        )
        for counted, peak_bytes in zip(turns, peaks, strict=True)
    ]
    return Latency(
        own=timings[0],
        teacher=timings[1] if teacher else None,
        seconds=time.monotonic() - began,
        warning=warning,
    )


def random_prompt(models: list[PreTrainedModel], spec: LatencySpec) -> torch.Tensor:
    """Token ids [B, T] that every one of the models knows, on the first one's device."""
    generator = torch.Generator().manual_seed(spec.seed)
    num_known = min(int(model.config.get_text_config().vocab_size) for model in models)
    shape = (spec.batch_size, spec.prompt_tokens)
    return torch.randint(num_known, shape, generator=generator).to(models[0].device)


@torch.inference_mode()
def answer(model: PreTrainedModel, prompt_BT: torch.Tensor, num_output_tokens: int) -> Turn:
    """Time one request; the answer always has `num_output_tokens`, end-of-text or not.

    The clock starts with the prompt on the device and the device idle, and is read when a
    token is on the host.
    """
    options: dict[str, Any] = {"use_cache": True}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = 1
    if prompt_BT.device.type == "cuda":
        torch.cuda.synchronize(prompt_BT.device)
    began_s = time.perf_counter()
    output = model(prompt_BT, **options)
    token_B1 = output.logits[:, -1].argmax(-1, keepdim=True)
    token_B1.tolist()
    first_s = time.perf_counter()
    for _ in range(num_output_tokens - 1):
        output = model(token_B1, past_key_values=output.past_key_values, **options)
        token_B1 = output.logits[:, -1].argmax(-1, keepdim=True)
        token_B1.tolist()
    last_s = time.perf_counter()
    return Turn(
        ttft_ms=1e3 * (first_s - began_s),
        latency_ms=1e3 * (last_s - began_s),
        num_output_tokens=num_output_tokens,
    )


class OthersShare:
    """The share of the processor that other processes and guests take, from now on."""

    def __init__(self) -> None:
        """Start to watch; half a second of looking makes even a short timing judgeable."""
        self._before = _busy_and_total_s()
        time.sleep(0.5)

    def share(self) -> float | None:
        """Between 0 and 1 of all processors; None where the system does not count."""
        busy_s, total_s = (
            now - then for now, then in zip(_busy_and_total_s(), self._before, strict=True)
        )
        return min(max(busy_s / total_s, 0.0), 1.0) if total_s > 0 else None

    def warning(self) -> str | None:
        """A sentence for the record when others took more than a fifth."""
        share = self.share()
        if share is None or share <= BUSY_SHARE:
            return None
        return (
            f"Other processes used {share:.0%} of the processor while this was timed; the times "
            "are longer and noisier than on an idle machine."
        )


def _busy_and_total_s() -> tuple[float, float]:
    """Seconds that others kept all processors busy, and all seconds there were."""
    times = psutil.cpu_times()._asdict()
    # Linux counts a guest's seconds in user and nice already.
    total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
    own = psutil.Process().cpu_times()
    busy = total - times["idle"] - times.get("iowait", 0.0) - own.user - own.system
    return busy, total


def _check_context(model: PreTrainedModel, spec: LatencySpec) -> None:
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    wanted = spec.prompt_tokens + spec.output_tokens
    if context is not None and wanted > context:
        raise BadInput(
            f"latency asks for {spec.prompt_tokens} + {spec.output_tokens} tokens, but the model's "
            f"context holds {context}. Lower prompt_tokens or output_tokens."
        )
