"""How fast a model could be on a device that is not at hand: an estimate, never a measurement.

Prefill is limited by arithmetic, decode by memory bandwidth (the roofline, Williams et al.
2009). The share of either peak that a real program reaches is its efficiency; without one, the
estimate is a ceiling that nothing exceeds.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from explorer.analysis import numbers
from explorer.errors import BadInput

BITS_STORED = {16: 16.0, 8: 8.5, 4: 4.5}
"""Bits of a weight in memory; GGUF's Q8_0 and Q4_0 add a 16-bit scale per 32 weights."""
KV_BYTES = 2
"""Bytes of a number in the KV cache, which stays at 16 bits."""


@dataclasses.dataclass(frozen=True)
class Efficiency:
    """The share of a device's published peak that a program reaches."""

    prefill: float = 1.0
    """Share of the arithmetic during prefill, in (0, 1]."""
    decode: float = 1.0
    """Share of the bandwidth during decode, in (0, 1]."""
    basis: str = "the ceiling: all of the published arithmetic and bandwidth"
    """Source of the shares."""

    def __post_init__(self) -> None:
        """Refuse impossible shares.

        Raises:
            BadInput: A share outside (0, 1].
        """
        for name in ("prefill", "decode"):
            share = getattr(self, name)
            if not 0 < share <= 1:
                raise BadInput(
                    f"The {name} efficiency must be above 0 and at most 1, got {share}. It is the "
                    "share of the device's peak that is reached: 0.5 for half."
                )

    def in_words(self) -> str:
        """`reaching 36 % of the arithmetic and 58 % of the bandwidth, as you stated`."""
        if self == CEILING:
            return f"reaching {self.basis}, which no program quite does"
        return (
            f"reaching {numbers.percent(self.prefill, digits=2)} of the arithmetic and "
            f"{numbers.percent(self.decode, digits=2)} of the bandwidth, {self.basis}"
        )


CEILING = Efficiency()


def stated_efficiency(prefill: float, decode: float) -> Efficiency:
    """Shares stated by the user; the ceiling if both are 1."""
    if (prefill, decode) == (1, 1):
        return CEILING
    return Efficiency(prefill, decode, "as you stated")


@dataclasses.dataclass(frozen=True)
class EstimatedSpeed:
    """An estimated speed at a stated concurrency."""

    ttft_ms: float
    tpot_ms: float
    tokens_per_s: float
    """Output tokens per second of all requests together, during decode."""


def weight_bytes(num_parameters: float, bits: int) -> float:
    """Bytes of the weights at 16, 8 or 4 bits.

    Raises:
        BadInput: A number of bits other than these.
    """
    if bits not in BITS_STORED:
        raise BadInput(f"Weights must have 16, 8 or 4 bits, got {bits}.")
    return num_parameters * BITS_STORED[bits] / 8


def kv_bytes_per_token(num_layers: int, kv_values_per_layer: int) -> float:
    """Bytes of KV cache per token."""
    return float(num_layers * kv_values_per_layer * KV_BYTES)


def estimated_speed(
    *,
    num_parameters: float,
    num_active_parameters: float,
    kv_bytes: float,
    bits: int,
    prompt_tokens: int,
    context_tokens: int,
    concurrency: int,
    tflops: float,
    bandwidth_gb_s: float,
    num_devices: int = 1,
    efficiency: Efficiency = CEILING,
) -> EstimatedSpeed:
    """Times of a request on devices that share the work evenly, links between them free.

    Args:
        num_parameters: All parameters.
        num_active_parameters: Parameters active per token; all of them in a dense model.
        kv_bytes: KV cache per token; 0 if unknown.
        bits: Bits of a weight: 16, 8 or 4.
        prompt_tokens: Length of the prompt.
        context_tokens: Prompt and answer together.
        concurrency: Requests answered at once, each at its full length.
        tflops: Dense arithmetic of one device, in 10^12 FLOP/s.
        bandwidth_gb_s: Memory bandwidth of one device, in 10^9 bytes/s.
        num_devices: Devices that share the model.
        efficiency: Share of both peaks that is reached.
    """
    operations_per_s = tflops * 1e12 * num_devices * efficiency.prefill
    bytes_per_s = bandwidth_gb_s * 1e9 * num_devices * efficiency.decode
    weights = weight_bytes(num_parameters, bits)
    prefill_s = 2 * num_active_parameters * prompt_tokens / operations_per_s
    # Each request of a mixture of experts may use other experts; at most all of them are read.
    read = min(weights, concurrency * weight_bytes(num_active_parameters, bits))
    step_s = max(
        (read + concurrency * context_tokens * kv_bytes) / bytes_per_s,
        2 * num_active_parameters * concurrency / operations_per_s,
    )
    return EstimatedSpeed(
        1e3 * max(prefill_s, read / bytes_per_s), 1e3 * step_s, concurrency / step_s
    )


def calibrated_efficiency(
    run: Mapping[str, Any], *, tflops: float, bandwidth_gb_s: float
) -> Efficiency:
    """The share of its own device's peak that a measured run reached.

    Args:
        run: A row of `frames.runs`: a dense model, timed.
        tflops: Peak of the run's device at the run's precision, in 10^12 FLOP/s.
        bandwidth_gb_s: Bandwidth of that device's memory, in 10^9 bytes/s.

    Raises:
        BadInput: The run has no timing, was timed on a busy machine, or is faster than the stated
            peak allows, so that the peak is wrong.
    """
    if bool(run.get("machine_busy", False)):
        raise BadInput(
            f"{run['run_id']} was timed on a busy machine, so it does not show what the device "
            f"reaches. Time it again on an idle one: explorer run {run['run_id']} --again"
        )
    needed = (
        "ttft_ms",
        "tpot_ms",
        "num_parameters",
        "weight_bytes",
        "prompt_tokens",
        "batch_size",
    )
    missing = [name for name in needed if numbers.missing(run.get(name))]
    if missing:
        raise BadInput(f"{run['run_id']} has no {', '.join(missing)}. Choose a run with a timing.")
    operations = 2 * run["num_parameters"] * run["prompt_tokens"] * run["batch_size"]
    prefill = operations / (run["ttft_ms"] / 1e3 * tflops * 1e12)
    decode = run["weight_bytes"] / (run["tpot_ms"] / 1e3 * bandwidth_gb_s * 1e9)
    for name, share, peak in (
        ("prefill", prefill, f"{tflops:g} TFLOP/s"),
        ("decode", decode, f"{bandwidth_gb_s:g} GB/s"),
    ):
        if share > 1:
            raise BadInput(
                f"{run['run_id']} reached {share:.2f} times the stated peak during {name}, which "
                f"is impossible: {run['device_name']} must have more than {peak}."
            )
    return Efficiency(prefill, decode, f"as {run['run_id']} reached on {run['device_name']}")
