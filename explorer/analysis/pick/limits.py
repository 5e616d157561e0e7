"""The limits that a model must meet, and the objective that chooses among those that do."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from explorer.analysis import numbers
from explorer.analysis.cost import unit_cost
from explorer.analysis.headline import TARGET_RETENTION
from explorer.errors import BadInput

CONFIDENCE = 0.9
"""Default confidence of the statement that a model keeps at least the asked retention."""
MEGABYTE = 1_000_000
"""Bytes in the unit in which people state limits on sizes."""
OBJECTIVES = {
    "cheapest": "usd_per_mtok",
    "fastest": "tpot_ms",
    "smallest": "weight_bytes",
    "capable": "retention",
}
"""What to choose among models that meet all limits, and the column that decides it."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a model must meet. None means no limit."""

    min_retention: float = TARGET_RETENTION
    """Share of the teacher's capability to keep at least; 1.0 is all of it."""
    confidence: float = CONFIDENCE
    """Probability, by the paired draws, with which `min_retention` must be kept."""
    max_tpot_ms: float | None = None
    max_ttft_ms: float | None = None
    max_latency_ms: float | None = None
    """End to end: time to first token plus all further tokens of the timed answer."""
    min_output_tokens_per_s: float | None = None
    max_usd_per_hour: float | None = None
    """For serving the teacher's load."""
    max_usd_per_mtok: float | None = None
    max_weight_bytes: float | None = None
    max_peak_memory_bytes: float | None = None
    runtime: str | None = None
    format: str | None = None
    """A number format such as `q8_0`; `torch` for models that were not converted."""

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            BadInput: A share outside its range, or a limit that is not a positive number.
        """
        if not 0 <= self.min_retention <= 1:
            raise BadInput(
                f"The retention to keep must be from 0 to 1, got {self.min_retention:g}. Write 0.8 "
                "for 80 %."
            )
        if not 0.5 <= self.confidence < 1:
            raise BadInput(
                f"The confidence must be at least 0.5 and below 1, got {self.confidence:g}. Write "
                "0.9 for 90 %."
            )
        for limit in NUMERIC:
            value = getattr(self, limit.name)
            if value is not None and not 0 < value < float("inf"):
                raise BadInput(
                    f"{limit.title} must be limited to a positive number, got {value:g}."
                )


@dataclasses.dataclass(frozen=True)
class Numeric:
    """One limit on a measured number."""

    name: str
    """The field of `Limits`."""
    column: str
    """The column of the frame of runs."""
    title: str
    write: Callable[[Any], str]
    """A value as text with its unit."""

    @property
    def is_minimum(self) -> bool:
        """Whether the value must be at least, rather than at most, the limit."""
        return self.name.startswith("min_")

    def allows(self, value: float, limit: float) -> bool:
        """Whether a known value meets the limit."""
        return value >= limit if self.is_minimum else value <= limit


def _tokens_per_s(value: Any) -> str:
    return f"{numbers.significant(value)} tokens/s"


NUMERIC = (
    Numeric("max_tpot_ms", "tpot_ms", "Time per token", numbers.milliseconds),
    Numeric("max_ttft_ms", "ttft_ms", "Time to first token", numbers.milliseconds),
    Numeric("max_latency_ms", "latency_ms", "End-to-end time", numbers.milliseconds),
    Numeric("min_output_tokens_per_s", "output_tokens_per_s", "Throughput", _tokens_per_s),
    Numeric("max_usd_per_hour", "usd_per_hour_at_load", "Cost per hour at load", numbers.dollars),
    Numeric("max_usd_per_mtok", "usd_per_mtok", "Cost per 1M output tokens", numbers.dollars),
    Numeric("max_weight_bytes", "weight_bytes", "Weights on disk", numbers.size),
    Numeric("max_peak_memory_bytes", "peak_memory_bytes", "Peak memory", numbers.size),
)
"""Every numeric limit, in the order in which tables and sentences name them."""


def check_objective(objective: str) -> str:
    """The column that an objective compares.

    Raises:
        BadInput: An unknown objective.
    """
    if objective not in OBJECTIVES:
        raise BadInput(f"The objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}.")
    return OBJECTIVES[objective]


def objective_text(objective: str, run: Mapping[Any, Any]) -> str:
    """The deciding value of a run, as in `$0.283 per 1M output tokens at 50 % busy`."""
    if objective == "cheapest":
        busy = unit_cost.utilisation_text(run["utilisation"])
        return f"{numbers.dollars(run['usd_per_mtok'])} per 1M output tokens {busy}"
    if objective == "fastest":
        return f"{numbers.milliseconds(run['tpot_ms'])} per token"
    if objective == "smallest":
        return f"{numbers.size(run['weight_bytes'])} of weights"
    return f"{numbers.percent(run['retention'])} kept"
