"""The levels of a load test as a table, and the runtime in one sentence."""

import statistics

import pandas as pd

from explorer.analysis import numbers
from explorer.records import Timing
from explorer.records.quantiles import median_interval

COLUMNS = [
    "kind",
    "level",
    "num_requests",
    "num_failed",
    "output_tokens_per_s",
    "ttft_ms",
    "tpot_ms",
    "tpot_low_ms",
    "tpot_high_ms",
]
KINDS = {"batch": "sequences", "clients": "clients", "poisson": "requests/s"}
"""The unit of a level, by its kind."""


def load_table(timing: Timing) -> pd.DataFrame:
    """One row per level of load, in the order measured.

    Returns:
        `COLUMNS`. Medians are over answered requests and missing if none was answered; the
        interval of a median is missing below six answers.
    """
    rows = []
    for point in timing.curve:
        ttfts = [turn.ttft_ms for turn in point.turns]
        tpots = [turn.tpot_ms for turn in point.turns if turn.tpot_ms is not None]
        low, high = median_interval(tpots) or (None, None)
        rows.append(
            (
                point.kind,
                point.level,
                len(point.turns),
                point.num_failed,
                point.output_tokens_per_s,
                statistics.median(ttfts) if ttfts else None,
                statistics.median(tpots) if tpots else None,
                low,
                high,
            )
        )
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.astype({name: float for name in COLUMNS[4:]})


def runtime_sentence(timing: Timing) -> str:
    """The runtime, its load time, the size on disk, the energy and the failed requests."""
    facts, energy = timing.runtime, timing.energy
    parts = []
    if facts:
        parts.append(f"{facts.name} {facts.version or ''}".strip())
        if facts.load_s is not None:
            parts.append(f"loaded in {numbers.duration(facts.load_s)}")
        if facts.disk_bytes is not None:
            parts.append(f"{numbers.size(facts.disk_bytes)} on disk")
    if energy and energy.joules_per_token is not None:
        joules = numbers.significant(energy.joules_per_token)
        parts.append(f"{joules} J a token above idle ({energy.source})")
    elif energy and energy.reason:
        parts.append(f"energy not known: {energy.reason.rstrip('.')}")
    if timing.num_failed:
        kinds = ", ".join(f"{count} {kind}" for kind, count in timing.failures.items())
        parts.append(f"{timing.num_failed} requests failed ({kinds})")
    return "; ".join(parts) + "." if parts else "The runtime was not recorded."
