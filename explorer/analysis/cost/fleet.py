"""How many devices a traffic needs under latency limits, and what they cost.

Only measured concurrencies count: nothing is interpolated or extrapolated. Where a higher
concurrency might do better, the plan says so.
"""

import dataclasses
import math
from collections.abc import Sequence

import pandas as pd

from explorer.analysis.cost.quantity import Quantity, unknown
from explorer.analysis.cost.serving_cost import (
    MeasuredTiming,
    Workload,
    check_dollars,
    requests_per_s,
    ttft_ms,
)
from explorer.analysis.cost.unit_cost import check_utilisation
from explorer.errors import BadInput

HOURS_PER_MONTH = 730
"""365 days of 24 hours, divided by 12."""
CURVE_COLUMNS = [
    "concurrency",
    "ttft_ms",
    "tpot_ms",
    "requests_per_s",
    "requests_per_s_low",
    "requests_per_s_high",
]


@dataclasses.dataclass(frozen=True)
class LatencyLimits:
    """How long a user may have to wait; None sets no limit."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None

    def __post_init__(self) -> None:
        """Refuse impossible limits.

        Raises:
            BadInput: A limit that is not above 0.
        """
        for name in ("ttft", "tpot"):
            limit = getattr(self, f"{name}_ms")
            if limit is not None and not limit > 0:
                raise BadInput(f"The limit on {name.upper()} must be above 0 ms, got {limit}.")


NO_LIMITS = LatencyLimits()


@dataclasses.dataclass(frozen=True)
class Fleet:
    """The devices that a traffic needs."""

    replicas: Quantity
    """Whole devices; the interval comes from the measured throughput."""
    usd_per_hour: Quantity
    usd_per_month: Quantity
    concurrency: int | None
    """Concurrency of each device; None if no measured one meets the limits."""
    requests_per_s: Quantity
    """Throughput of one device at this concurrency, before applying the utilisation."""
    notes: tuple[str, ...]
    """Caveats about the measured curve."""


def concurrency_curve(points: Sequence[MeasuredTiming], workload: Workload) -> pd.DataFrame:
    """Throughput and times by concurrency, from timings of one model on one device.

    Returns:
        `CURVE_COLUMNS`, sorted by concurrency; interval ends are missing if a timing has none.
    """
    rows = []
    for point in sorted(points, key=lambda point: point.concurrency):
        rate = requests_per_s(point, workload)
        rows.append(
            (
                point.concurrency,
                ttft_ms(point, workload).value,
                point.tpot_ms.value,
                rate.value,
                rate.low,
                rate.high,
            )
        )
    return pd.DataFrame(rows, columns=CURVE_COLUMNS).astype(float)


def plan_fleet(
    measured: pd.DataFrame,
    *,
    traffic_per_s: float,
    utilisation: float,
    usd_per_hour: Quantity,
    limits: LatencyLimits = NO_LIMITS,
) -> Fleet:
    """The fewest devices that serve a traffic within the limits.

    Args:
        measured: A curve of `concurrency_curve`.
        traffic_per_s: Average requests per second at the busiest time.
        utilisation: Share of the measured throughput to plan with, in (0, 1].
        usd_per_hour: Price of one device.
        limits: Limits on median TTFT and TPOT.

    Raises:
        BadInput: A traffic not above 0, a negative price, or a utilisation outside (0, 1].
    """
    check_utilisation(utilisation)
    check_dollars(usd_per_hour.value, "device's price per hour")
    if not (math.isfinite(traffic_per_s) and traffic_per_s > 0):
        raise BadInput(f"The traffic must be above 0 requests a second, got {traffic_per_s}.")
    known = measured.dropna(subset=["requests_per_s"])
    if known.empty:
        return no_fleet("a measured throughput")
    fits = known
    for name in ("ttft_ms", "tpot_ms"):
        limit = getattr(limits, name)
        if limit is not None:
            fits = fits[fits[name] <= limit]
    if fits.empty:
        least = known.sort_values("concurrency").iloc[0]
        return no_fleet(
            f"a measured concurrency within the limits: at {least['concurrency']:.0f} the medians "
            f"are TTFT {least['ttft_ms']:.0f} ms and TPOT {least['tpot_ms']:.1f} ms"
        )
    best = fits.sort_values("requests_per_s", kind="stable").iloc[-1]
    rate = Quantity(
        float(best["requests_per_s"]),
        _end(best["requests_per_s_low"]),
        _end(best["requests_per_s_high"]),
        uncertain=_end(best["requests_per_s_low"]) is None,
    )
    needed = traffic_per_s / (rate * utilisation)
    replicas = Quantity(
        _whole(needed.value),
        _whole(needed.low),
        _whole(needed.high),
        needed.missing,
        needed.uncertain,
    )
    hourly = replicas * usd_per_hour
    notes = []
    if len(known) == 1:
        notes.append(
            f"only concurrency {best['concurrency']:.0f} was measured: a higher one may need fewer "
            "devices"
        )
    elif best["concurrency"] == known["concurrency"].max():
        notes.append(
            f"the measured curve ends at concurrency {best['concurrency']:.0f}, still within the "
            "limits: a higher one may need fewer devices"
        )
    return Fleet(
        replicas, hourly, hourly * HOURS_PER_MONTH, int(best["concurrency"]), rate, tuple(notes)
    )


def monthly_costs(
    measured: pd.DataFrame,
    traffics_per_s: Sequence[float],
    *,
    utilisation: float,
    usd_per_hour: Quantity,
    limits: LatencyLimits = NO_LIMITS,
) -> pd.DataFrame:
    """Dollars a month at each traffic: `traffic_per_s`, `replicas`, `usd_per_month`."""
    # Which concurrency is best does not depend on the traffic, so one plan serves all.
    fleet = plan_fleet(
        measured,
        traffic_per_s=1.0,
        utilisation=utilisation,
        usd_per_hour=usd_per_hour,
        limits=limits,
    )
    rate, price = fleet.requests_per_s.value, usd_per_hour.value
    rows = []
    for traffic in traffics_per_s:
        replicas = _whole(None if not rate else traffic / (rate * utilisation))
        usd = None if replicas is None or price is None else replicas * price * HOURS_PER_MONTH
        rows.append((traffic, replicas, usd))
    return pd.DataFrame(rows, columns=["traffic_per_s", "replicas", "usd_per_month"]).astype(float)


def no_fleet(missing: str) -> Fleet:
    """A fleet of which nothing is known, because `missing` is."""
    blank = unknown(missing)
    return Fleet(blank, blank, blank, None, blank, ())


def _whole(value: float | None) -> float | None:
    # Slightly above a whole number is a rounding error, not another device.
    return None if value is None else float(max(1, math.ceil(value - 1e-9)))


def _end(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
