"""All cost figures of measured runs for one traffic: fleets, months, bills, break-evens."""

import dataclasses
from collections.abc import Mapping, Sequence

import pandas as pd

from explorer.analysis import interference
from explorer.analysis.cost import breakeven, fleet, payback, serving_cost, unit_cost
from explorer.analysis.cost.fleet import NO_LIMITS, LatencyLimits
from explorer.analysis.cost.quantity import Quantity, from_value, median_quantity, unknown
from explorer.analysis.cost.serving_cost import MeasuredTiming, Workload
from explorer.records import LoadPoint, RunRecord, Timing
from explorer.records.rows import row_dicts

COLUMNS = [
    "run_id",
    "label",
    "role",
    "teacher_run_id",
    "device_name",
    "concurrency",
    "requests_per_s",
    "replicas",
    "replicas_low",
    "replicas_high",
    "fleet_usd_per_hour",
    "usd_per_month",
    "usd_per_month_low",
    "usd_per_month_high",
    "usd_per_mtok",
    "utilisation",
    "prompt_tokens",
    "output_tokens",
    "request_input_tokens",
    "request_output_tokens",
    "usd_per_request",
    "usd_per_request_low",
    "usd_per_request_high",
    "usd_per_mtok_prefill",
    "usd_per_mtok_decode",
    "usd_per_mtok_blended",
    "bill_usd",
    "payback_hours",
    "payback_note",
    "api_usd_per_month",
    "break_even_requests_per_hour",
    "break_even_utilisation",
    "break_even",
    "notes",
    "missing",
    "machine_busy",
]
TEXTS = {
    "run_id",
    "label",
    "role",
    "teacher_run_id",
    "device_name",
    "payback_note",
    "break_even",
    "notes",
    "missing",
}
"""Text columns; all others except `machine_busy` hold floats."""


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """The inputs of the figures, besides the measurements."""

    workload: Workload
    traffic_per_s: float
    """Requests per second at the busiest time."""
    utilisation: float
    """Share of a device's measured throughput to plan with."""
    usd_per_hour: Mapping[str, float]
    """Price by device name; other devices have none."""
    limits: LatencyLimits = NO_LIMITS
    api_usd_per_mtok_input: float | None = None
    api_usd_per_mtok_output: float | None = None

    def price(self, device_name: str) -> Quantity:
        """Price of a device per hour."""
        return from_value(self.usd_per_hour.get(device_name), f"the price of {device_name}")

    def api_usd_per_request(self) -> Quantity:
        """What the API charges for one request."""
        return breakeven.api_usd_per_request(
            self.workload,
            from_value(self.api_usd_per_mtok_input, "an API's price"),
            from_value(self.api_usd_per_mtok_output, "an API's price"),
        )


def timing_medians(timing: Timing) -> MeasuredTiming:
    """Median TTFT and TPOT of a timing, with their intervals; none of an imported summary."""
    if timing.summary and not timing.turns:
        return MeasuredTiming(
            Quantity(timing.summary.ttft_ms, uncertain=True),
            Quantity(timing.summary.tpot_ms, uncertain=True),
            timing.batch_size,
            timing.prompt_tokens,
        )
    return MeasuredTiming(
        median_quantity([turn.ttft_ms for turn in timing.turns]),
        median_quantity([turn.tpot_ms for turn in timing.turns if turn.tpot_ms is not None]),
        timing.batch_size,
        timing.prompt_tokens,
    )


def level_medians(timing: Timing, point: LoadPoint) -> MeasuredTiming:
    """Median TTFT and TPOT of one level of a load test, with their intervals."""
    level = timing.model_copy(update={"turns": point.turns, "batch_size": int(point.level)})
    return timing_medians(level)


def run_curve(record: RunRecord, workload: Workload) -> pd.DataFrame:
    """A run's concurrency curve: its own timing and the levels of its load test.

    Poisson arrivals have no fixed concurrency and are left out, as are levels at which at
    least half of the requests failed. A run that was timed on a busy machine has no curve.
    """
    if record.latency is None or record.latency.was_busy:
        return fleet.concurrency_curve([], workload)
    own = record.latency.own
    points = {own.batch_size: timing_medians(own)}
    for level in own.curve:
        if level.kind != "poisson" and level.num_failed < len(level.turns):
            points[int(level.level)] = level_medians(own, level)
    return fleet.concurrency_curve(
        [point for point in points.values() if point.ttft_ms.known], workload
    )


def candidates(
    records: Sequence[RunRecord], labels: Mapping[str, str], assumed: Assumptions
) -> pd.DataFrame:
    """One row per run with what it would cost.

    Args:
        records: Finished runs. Include the teachers, or students have no payback.
        labels: Displayed name by run id.
        assumed: Traffic, prices and limits.

    Returns:
        `COLUMNS`. An unknown figure is missing; the column `missing` names the unknown inputs. A
        student's payback compares it with its own teacher's run. `usd_per_mtok` holds for the
        lengths of the timing, `prompt_tokens` and `output_tokens`; the cost per request and its
        split hold for the workload, `request_input_tokens` and `request_output_tokens`. Rows
        with `machine_busy` keep `usd_per_mtok`, as in other tables, and no other figure that
        depends on the timing.

    Raises:
        BadInput: An impossible assumption, such as a negative price.
    """
    plans = {record.run_id: _plan(record, assumed) for record in records}
    num_sharing = _students_of_each_pass(records)
    rows = [_row(record, labels, assumed, plans, num_sharing) for record in records]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.astype(
        {name: float for name in COLUMNS if name not in TEXTS} | {"machine_busy": bool}
    )


def cost_by_price_set(
    records: Sequence[RunRecord],
    labels: Mapping[str, str],
    assumed: Assumptions,
    sets: Mapping[str, Mapping[str, float]],
) -> pd.DataFrame:
    """Dollars per month under each price set: one row per run, one column per set, `label` first.

    Args:
        records: As in `candidates`.
        labels: As in `candidates`.
        assumed: As in `candidates`; each set replaces its prices.
        sets: Prices by device, by the name of the set.
    """
    columns = {
        name: candidates(records, labels, dataclasses.replace(assumed, usd_per_hour=usd_per_hour))[
            "usd_per_month"
        ].tolist()
        for name, usd_per_hour in sets.items()
    }
    names = [labels[record.run_id] for record in records]
    return pd.DataFrame({"label": names, **columns})


def spending_over_time(rows: pd.DataFrame, points: int = 60) -> pd.DataFrame:
    """Dollars spent over time: `name`, `hours`, `usd`; a student starts at its bill.

    The time axis ends past the slowest payback, or after a year if nothing is paid back.

    Args:
        rows: The rows of `candidates`.
        points: Points per line.
    """
    paid = rows["payback_hours"].dropna()
    year = 12.0 * fleet.HOURS_PER_MONTH
    end = min(year, 1.6 * float(paid.max())) if len(paid) else year
    hours = [end * i / (points - 1) for i in range(points)]
    parts = []
    for row in row_dicts(rows):
        start = (
            from_value(row["bill_usd"], "the bill") if row["role"] == "student" else Quantity(0.0)
        )
        spent = payback.spent_after(start, from_value(row["fleet_usd_per_hour"], "a price"), hours)
        parts.append(pd.DataFrame({"name": row["label"], "hours": hours, "usd": spent}))
    columns = ["name", "hours", "usd"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def traffic_grid(assumed: Assumptions, points: int = 160) -> list[float]:
    """Requests per second at which costs are drawn: up to four times the stated traffic."""
    return [4 * assumed.traffic_per_s * (i + 1) / points for i in range(points)]


def cost_by_traffic(
    records: Sequence[RunRecord], labels: Mapping[str, str], assumed: Assumptions
) -> pd.DataFrame:
    """Dollars per month by traffic: `name`, `traffic_per_s`, `usd_per_month`, `replicas`.

    If the API has a price, its rows are named API.
    """
    grid = traffic_grid(assumed)
    parts = [
        fleet.monthly_costs(
            run_curve(record, assumed.workload),
            grid,
            utilisation=assumed.utilisation,
            usd_per_hour=assumed.price(_device_name(record)),
            limits=assumed.limits,
        ).assign(name=labels[record.run_id])
        for record in records
    ]
    api = assumed.api_usd_per_request()
    if api.value is not None:
        monthly = [api.value * t * 3600 * fleet.HOURS_PER_MONTH for t in grid]
        parts.append(
            pd.DataFrame({"traffic_per_s": grid, "usd_per_month": monthly}).assign(name="API")
        )
    columns = ["name", "traffic_per_s", "usd_per_month", "replicas"]
    if not parts:
        return pd.DataFrame(columns=columns)
    return pd.concat(parts, ignore_index=True)[columns]


def _device_name(record: RunRecord) -> str:
    """The device of a run; imported scores do not state one."""
    return record.device_name or "an unknown device"


def _was_busy(record: RunRecord) -> bool:
    return record.latency is not None and record.latency.was_busy


def _plan(record: RunRecord, assumed: Assumptions) -> fleet.Fleet:
    if _was_busy(record):
        return fleet.no_fleet(interference.IDLE_TIMING)
    return fleet.plan_fleet(
        run_curve(record, assumed.workload),
        traffic_per_s=assumed.traffic_per_s,
        utilisation=assumed.utilisation,
        usd_per_hour=assumed.price(_device_name(record)),
        limits=assumed.limits,
    )


def _students_of_each_pass(records: Sequence[RunRecord]) -> dict[str, int]:
    """Number of these students that learned from each pass of a teacher, by its key."""
    keys = [_teacher_pass(record) for record in records]
    return {key: keys.count(key) for key in keys}


def _teacher_pass(record: RunRecord) -> str:
    """The key of the teacher's pass that a student learned from; empty if there was none."""
    training = record.distillation
    return training.targets.key if training and training.targets else ""


def _row(
    record: RunRecord,
    labels: Mapping[str, str],
    assumed: Assumptions,
    plans: Mapping[str, fleet.Fleet],
    num_sharing: Mapping[str, int],
) -> dict[str, object]:
    plan = plans[record.run_id]
    price = assumed.price(_device_name(record))
    row: dict[str, object] = {
        "run_id": record.run_id,
        "label": labels[record.run_id],
        "role": "teacher" if record.spec.is_teacher else "student",
        "teacher_run_id": record.teacher_run_id,
        "device_name": _device_name(record),
        "concurrency": plan.concurrency,
        "requests_per_s": plan.requests_per_s.value,
        "replicas": plan.replicas.value,
        "replicas_low": plan.replicas.low,
        "replicas_high": plan.replicas.high,
        "fleet_usd_per_hour": plan.usd_per_hour.value,
        "usd_per_month": plan.usd_per_month.value,
        "usd_per_month_low": plan.usd_per_month.low,
        "usd_per_month_high": plan.usd_per_month.high,
        "utilisation": assumed.utilisation,
        "request_input_tokens": assumed.workload.input_tokens,
        "request_output_tokens": assumed.workload.output_tokens,
        "payback_note": "",
        "break_even": "",
        "notes": "; ".join(plan.notes),
        "missing": " and ".join(plan.usd_per_month.missing),
        "machine_busy": _was_busy(record),
    }
    if record.latency and record.latency.own.num_answered:
        timing = record.latency.own
        output_tokens_per_s = from_value(timing.output_tokens_per_s, "a measured throughput")
        row |= {
            "usd_per_mtok": unit_cost.usd_per_mtok(
                price, output_tokens_per_s, assumed.utilisation
            ).value,
            "prompt_tokens": timing.prompt_tokens,
            "output_tokens": timing.output_tokens,
        }
    if record.latency and record.latency.own.num_answered and not _was_busy(record):
        each = serving_cost.request_costs(
            timing_medians(record.latency.own), assumed.workload, price, assumed.utilisation
        )
        row |= {
            "usd_per_request": each.usd_per_request.value,
            "usd_per_request_low": each.usd_per_request.low,
            "usd_per_request_high": each.usd_per_request.high,
            "usd_per_mtok_prefill": each.usd_per_mtok_prefill.value,
            "usd_per_mtok_decode": each.usd_per_mtok_decode.value,
            "usd_per_mtok_blended": each.usd_per_mtok_blended.value,
        }
    return (
        row
        | _compared_with_teacher(record, price, plans, num_sharing)
        | _compared_with_api(plan, price, assumed)
    )


def _compared_with_teacher(
    record: RunRecord,
    price: Quantity,
    plans: Mapping[str, fleet.Fleet],
    num_sharing: Mapping[str, int],
) -> dict[str, object]:
    """A student's bill, and after how long its cheaper fleet has saved that much."""
    if record.spec.is_teacher:
        return {}
    shared_by = num_sharing.get(_teacher_pass(record), 1)
    total = payback.distillation_bill(
        payback.part_seconds(record), price, shared_by=shared_by
    ).total
    teacher = plans.get(record.teacher_run_id or "")
    teacher_usd = teacher.usd_per_hour if teacher else unknown("the teacher's own run")
    if interference.IDLE_TIMING in teacher_usd.missing:
        teacher_usd = unknown(f"{interference.IDLE_TIMING} of the teacher")
    hours = payback.payback_hours(total, teacher_usd, plans[record.run_id].usd_per_hour)
    return {
        "bill_usd": total.value,
        "payback_hours": hours.value,
        "payback_note": " and ".join(hours.missing),
    }


def _compared_with_api(
    plan: fleet.Fleet, price: Quantity, assumed: Assumptions
) -> dict[str, object]:
    api = assumed.api_usd_per_request()
    if not api.known:
        return {}
    even = breakeven.break_even(api, price, plan.requests_per_s, assumed.utilisation)
    monthly = api * (assumed.traffic_per_s * 3600 * fleet.HOURS_PER_MONTH)
    return {
        "api_usd_per_month": monthly.value,
        "break_even_requests_per_hour": even.requests_per_hour.value,
        "break_even_utilisation": even.utilisation.value,
        "break_even": even.verdict,
    }
