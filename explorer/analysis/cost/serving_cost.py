"""What a request costs on a measured device, and its split into prefill and decode.

The device answers `concurrency` requests at once. It is also paid for while idle; the
utilisation accounts for that. Prefill is the time to the first token, decode the rest. The
cost per output token, prefill included, is `unit_cost.usd_per_mtok`.
"""

import dataclasses
import math

from explorer.analysis.cost.quantity import Quantity, from_value
from explorer.analysis.cost.unit_cost import SECONDS_PER_HOUR, check_utilisation
from explorer.errors import BadInput


@dataclasses.dataclass(frozen=True)
class Workload:
    """The lengths of a request."""

    input_tokens: int
    output_tokens: int

    def __post_init__(self) -> None:
        """Refuse impossible lengths.

        Raises:
            BadInput: A length below 1.
        """
        for name in ("input", "output"):
            length = getattr(self, f"{name}_tokens")
            if length < 1:
                raise BadInput(f"A request needs at least 1 {name} token, got {length}.")

    def in_words(self) -> str:
        """`128 tokens in and 64 out`."""
        plural = "token" if self.input_tokens == 1 else "tokens"
        return f"{self.input_tokens:,} {plural} in and {self.output_tokens:,} out"


@dataclasses.dataclass(frozen=True)
class MeasuredTiming:
    """Times of a model on a device at one concurrency."""

    ttft_ms: Quantity
    tpot_ms: Quantity
    concurrency: int
    """Requests answered at once."""
    prompt_tokens: int | None
    """Length of each prompt; None if an endpoint did not count."""


@dataclasses.dataclass(frozen=True)
class RequestCosts:
    """Costs in US dollars; each may be unknown."""

    usd_per_request: Quantity
    usd_per_mtok_prefill: Quantity
    """Prefill, per million input tokens."""
    usd_per_mtok_decode: Quantity
    """Decode after the first token, per million output tokens."""
    usd_per_mtok_blended: Quantity
    """The whole request, per million tokens, input and output together."""


def ttft_ms(measured: MeasuredTiming, workload: Workload) -> Quantity:
    """Time to the first token, scaled from the measured prompt length to this one."""
    measured_tokens = from_value(measured.prompt_tokens, "the length of the timed prompts")
    return measured.ttft_ms * (workload.input_tokens / measured_tokens)


def latency_ms(measured: MeasuredTiming, workload: Workload) -> Quantity:
    """Time of a whole request."""
    return ttft_ms(measured, workload) + measured.tpot_ms * (workload.output_tokens - 1)


def requests_per_s(measured: MeasuredTiming, workload: Workload) -> Quantity:
    """Requests per second of one device that always answers `concurrency` at once."""
    return 1e3 * measured.concurrency / latency_ms(measured, workload)


def request_costs(
    measured: MeasuredTiming, workload: Workload, usd_per_hour: Quantity, utilisation: float
) -> RequestCosts:
    """Dollars per request, and their split into prefill and decode per million tokens.

    Args:
        measured: Times at the concurrency at which the device will run.
        workload: Lengths of the requests.
        usd_per_hour: Price of the device.
        utilisation: Share of the paid hours in which the device is busy, in (0, 1].

    Raises:
        BadInput: A negative price, or a utilisation outside (0, 1].
    """
    check_utilisation(utilisation)
    check_dollars(usd_per_hour.value, "device's price per hour")
    usd_per_s = usd_per_hour / SECONDS_PER_HOUR / utilisation / measured.concurrency
    prefill_s = ttft_ms(measured, workload) / 1e3
    decode_s = measured.tpot_ms * (workload.output_tokens - 1) / 1e3
    request = usd_per_s * (prefill_s + decode_s)
    return RequestCosts(
        request,
        usd_per_s * prefill_s * (1e6 / workload.input_tokens),
        usd_per_s * decode_s * (1e6 / workload.output_tokens),
        request * (1e6 / (workload.input_tokens + workload.output_tokens)),
    )


def check_dollars(value: float | None, what: str) -> None:
    """Refuse a negative or infinite amount; None passes.

    Raises:
        BadInput: Negative, infinite or not a number.
    """
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise BadInput(
            f"The {what} must be US dollars, 0 or more, got {value}; convert other currencies "
            "first."
        )
