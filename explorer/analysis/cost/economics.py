"""What each measured run would cost for a traffic: fleets, months, bills, break-evens."""

import dataclasses
from collections.abc import Mapping, Sequence

import pandas as pd

from explorer.analysis import interference, numbers
from explorer.analysis.cost import breakeven, fleet, payback, serving_cost, unit_cost
from explorer.analysis.cost.fleet import LatencyLimits
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
"""Columns that hold words; all others but `machine_busy` hold numbers, or nothing."""


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """What the figures rest on, besides the measurements."""

    workload: Workload
    traffic_per_s: float
    """Requests a second at the busiest time."""
    utilisation: float
    """Share of a device's measured throughput that is planned with."""
    usd_per_hour: Mapping[str, float]
    """Device name to its price; a device that is not there has none."""
    limits: LatencyLimits = LatencyLimits()  # noqa: RUF009 frozen, so shared safely
    api_usd_per_mtok_input: float | None = None
    api_usd_per_mtok_output: float | None = None

    def price(self, device_name: str) -> Quantity:
        """Dollars per hour of a device."""
        return from_value(self.usd_per_hour.get(device_name), f"the price of {device_name}")

    def api_usd_per_request(self) -> Quantity:
        """What the API asks for a request."""
        return breakeven.api_usd_per_request(
            self.workload,
            from_value(self.api_usd_per_mtok_input, "an API's price"),
            from_value(self.api_usd_per_mtok_output, "an API's price"),
        )


def timing_medians(timing: Timing) -> MeasuredTiming:
    """The medians of a timing, with their intervals."""
    return MeasuredTiming(
        median_quantity([turn.ttft_ms for turn in timing.turns]),
        median_quantity([turn.tpot_ms for turn in timing.turns if turn.tpot_ms is not None]),
        timing.batch_size,
        timing.prompt_tokens,
    )


def level_medians(timing: Timing, point: LoadPoint) -> MeasuredTiming:
    """The medians of one level of a sweep, with their intervals."""
    alike = timing.model_copy(update={"turns": point.turns, "batch_size": int(point.level)})
    return timing_medians(alike)


def run_curve(record: RunRecord, workload: Workload) -> pd.DataFrame:
    """A run's concurrency curve for these requests: its own timing and the levels of its sweep.

    Requests that arrive at random have no concurrency, and a level at which half of them failed
    serves nobody: neither is in it. A run that was timed on a busy machine has no curve.
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
    found: Sequence[RunRecord], labels: Mapping[str, str], assumed: Assumptions
) -> pd.DataFrame:
    """A row a run with what it would cost.

    Args:
        found: Finished runs, their teachers among them where they are to be compared.
        labels: Run id to the name to show.
        assumed: Traffic, prices and limits.

    Returns:
        `COLUMNS`; a figure that is not known is missing, and `missing` says for want of what.
        A student's payback is against its teacher's own run. `usd_per_mtok` is for the lengths
        at which the run was timed, `prompt_tokens` and `output_tokens`; the request's cost and
        its split are for the workload's lengths, `request_input_tokens` and
        `request_output_tokens`. `machine_busy` says where a run was timed on a busy machine: of
        what rests on its times it keeps `usd_per_mtok` alone, as other tables show it.

    Raises:
        BadInput: An assumption that cannot be.
    """
    plans = {record.run_id: _plan(record, assumed) for record in found}
    shared = _students_of_a_pass(found)
    rows = [_row(record, labels, assumed, plans, shared) for record in found]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.astype(
        {name: float for name in COLUMNS if name not in TEXTS} | {"machine_busy": bool}
    )


def cost_headline(rows: pd.DataFrame, assumed: Assumptions) -> str:
    """What the traffic costs with the teacher and with the cheapest student, in a sentence.

    A second one counts the runs that were timed on a busy machine: neither is one of them.

    Args:
        rows: As `candidates`, with `retention` where it is known.
        assumed: What they rest on.
    """
    per_minute = f"{60 * assumed.traffic_per_s:,.4g} requests a minute"
    known = rows.dropna(subset=["usd_per_month"])
    if rows.empty:
        return "No finished run to compute with yet."
    if known.empty:
        why = rows["missing"].iloc[0] or "a measured run"
        return f"What {per_minute} cost is not known: this needs {why}."
    cheapest = known.sort_values("usd_per_month", kind="stable").iloc[0]
    teachers = known[known["role"] == "teacher"].sort_values("usd_per_month")
    num_busy = int(interference.was_busy(rows).sum())
    others = f" {interference.left_out_sentence(num_busy)}." if num_busy else ""
    said = f"{per_minute} cost {numbers.dollars(cheapest['usd_per_month'])} a month with "
    if teachers.empty or cheapest["role"] == "teacher":
        return f"{said}{cheapest['label']}.{others}"
    teacher = teachers.iloc[0]
    said += f"{cheapest['label']} and {numbers.dollars(teacher['usd_per_month'])} with the teacher"
    if not numbers.missing(cheapest.get("retention")):
        said += f"; the former keeps {numbers.percent(cheapest['retention'], digits=2)}"
    if not numbers.missing(cheapest["payback_hours"]):
        paid = numbers.duration(3600 * cheapest["payback_hours"])
        said += f" and has paid for itself after {paid}"
    return f"{said}.{others}"


def cost_by_price_set(
    found: Sequence[RunRecord],
    labels: Mapping[str, str],
    assumed: Assumptions,
    sets: Mapping[str, Mapping[str, float]],
) -> pd.DataFrame:
    """Dollars a month under each price set: a row a run, a column a set, `label` first.

    Args:
        found: As in `candidates`.
        labels: As in `candidates`.
        assumed: Their own prices are replaced by each set's.
        sets: Name to the price of each device.
    """
    columns = {
        name: candidates(found, labels, dataclasses.replace(assumed, usd_per_hour=usd_per_hour))[
            "usd_per_month"
        ].tolist()
        for name, usd_per_hour in sets.items()
    }
    names = [labels[record.run_id] for record in found]
    return pd.DataFrame({"label": names, **columns})


def spending_over_time(rows: pd.DataFrame, points: int = 60) -> pd.DataFrame:
    """Dollars spent while serving: `name`, `hours`, `usd`; a student's begin with its bill.

    As far as the slowest payback is plain to see, and a year where nothing is paid back.

    Args:
        rows: As `candidates` gives them.
        points: Of each line.
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
    """Requests a second to draw: from nothing to four times the stated traffic."""
    return [4 * assumed.traffic_per_s * (i + 1) / points for i in range(points)]


def cost_by_traffic(
    found: Sequence[RunRecord], labels: Mapping[str, str], assumed: Assumptions
) -> pd.DataFrame:
    """Dollars a month by traffic: `name`, `traffic_per_s`, `usd_per_month`, `replicas`.

    The API, if it has a price, is the row named API.
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
        for record in found
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
    """The device that a run was made on; imported results do not say."""
    return record.environment.device_name if record.environment else "an unknown device"


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


def _students_of_a_pass(found: Sequence[RunRecord]) -> dict[str, int]:
    """Key of a teacher's pass to the number of these students that learnt from it."""
    keys = [_pass_of(record) for record in found]
    return {key: keys.count(key) for key in keys}


def _pass_of(record: RunRecord) -> str:
    """The key of the teacher's pass that a student learnt from; empty where there was none."""
    taught = record.distillation
    return taught.targets.key if taught and taught.targets else ""


def _row(
    record: RunRecord,
    labels: Mapping[str, str],
    assumed: Assumptions,
    plans: Mapping[str, fleet.Fleet],
    shared: Mapping[str, int],
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
    if record.latency and record.latency.own.turns:
        timing = record.latency.own
        output_tokens_per_s = from_value(timing.output_tokens_per_s, "a measured throughput")
        row |= {
            "usd_per_mtok": unit_cost.usd_per_mtok(
                price, output_tokens_per_s, assumed.utilisation
            ).value,
            "prompt_tokens": timing.prompt_tokens,
            "output_tokens": timing.output_tokens,
        }
    if record.latency and record.latency.own.turns and not _was_busy(record):
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
        | _against_the_teacher(record, price, plans, shared)
        | _against_the_api(plan, price, assumed)
    )


def _against_the_teacher(
    record: RunRecord, price: Quantity, plans: Mapping[str, fleet.Fleet], shared: Mapping[str, int]
) -> dict[str, object]:
    """The bill of a student, and when its teacher's fleet would have cost as much more."""
    if record.spec.is_teacher:
        return {}
    shared_by = shared.get(_pass_of(record), 1)
    total = payback.distillation_bill(
        payback.part_seconds(record), price, shared_by=shared_by
    ).total
    teacher = plans.get(record.teacher_run_id or "")
    theirs = teacher.usd_per_hour if teacher else unknown("the teacher's own run")
    if interference.IDLE_TIMING in theirs.missing:
        theirs = unknown(f"{interference.IDLE_TIMING} of the teacher")
    hours = payback.payback_hours(total, theirs, plans[record.run_id].usd_per_hour)
    return {
        "bill_usd": total.value,
        "payback_hours": hours.value,
        "payback_note": " and ".join(hours.missing),
    }


def _against_the_api(plan: fleet.Fleet, price: Quantity, assumed: Assumptions) -> dict[str, object]:
    api = assumed.api_usd_per_request()
    if not api.known:
        return {}
    found = breakeven.break_even(api, price, plan.requests_per_s, assumed.utilisation)
    monthly = api * (assumed.traffic_per_s * 3600 * fleet.HOURS_PER_MONTH)
    return {
        "api_usd_per_month": monthly.value,
        "break_even_requests_per_hour": found.requests_per_hour.value,
        "break_even_utilisation": found.utilisation.value,
        "break_even": found.verdict,
    }
