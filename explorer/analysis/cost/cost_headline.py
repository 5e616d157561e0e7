"""What the traffic costs, in words, and with which model: the cheapest that keeps enough."""

import pandas as pd

from explorer.analysis import interference, numbers
from explorer.analysis.cost.economics import Assumptions
from explorer.analysis.headline import TARGET_RETENTION
from explorer.analysis.pick.candidates import CONTROL
from explorer.analysis.pick.limits import CONFIDENCE


def recommended(
    rows: pd.DataFrame, min_retention: float = TARGET_RETENTION, confidence: float = CONFIDENCE
) -> pd.Series | None:
    """The cheapest model for the traffic that keeps enough; else the one that loses least.

    Enough is what `pick` means by it: `sure`, the share of the draws in which a run keeps at least
    `min_retention`, is at least the confidence. Control arms are not recommended.

    Args:
        rows: The rows of `candidates`, perhaps with `retention`, `sure` and `method`.
        min_retention: Share of the teacher's capability to keep; used where `sure` is missing.
        confidence: How sure to be of it.

    Returns:
        A row; None if no cost is known.
    """
    known = rows.dropna(subset=["usd_per_month"]).sort_values("usd_per_month", kind="stable")
    if "method" in known:
        known = known[known["method"] != CONTROL]
    if known.empty:
        return None
    enough = _keeps_enough(known, min_retention, confidence)
    if enough.any():
        return known[enough].iloc[0]
    if "retention" in known and known["retention"].notna().any():
        return known.sort_values("retention", na_position="first", kind="stable").iloc[-1]
    return known.iloc[0]


def cost_headline(
    rows: pd.DataFrame,
    assumed: Assumptions,
    min_retention: float = TARGET_RETENTION,
    confidence: float = CONFIDENCE,
) -> str:
    """One sentence on what the traffic costs with the teacher and with the recommended model.

    A second sentence counts the runs that are left out because their machine was busy.

    Args:
        rows: As in `recommended`.
        assumed: The assumptions of these rows.
        min_retention: As in `recommended`.
        confidence: As in `recommended`.
    """
    per_minute = f"{60 * assumed.traffic_per_s:,.4g} requests a minute"
    known = rows.dropna(subset=["usd_per_month"])
    if rows.empty:
        return "No finished runs yet."
    best = recommended(rows, min_retention, confidence)
    if best is None:
        why = rows["missing"].iloc[0] or "a measured run"
        return f"The cost of {per_minute} is unknown without {why}."
    teachers = known[known["role"] == "teacher"].sort_values("usd_per_month")
    num_busy = int(interference.was_busy(rows).sum())
    busy = f" {interference.left_out_sentence(num_busy)}." if num_busy else ""
    sentence = f"{per_minute} cost {numbers.dollars(best['usd_per_month'])} a month with "
    sentence += f"{best['label']}"
    if len(known) > 1:
        keeping = rows.loc[_keeps_enough(rows, min_retention, confidence), "run_id"]
        enough = best["run_id"] in set(keeping)
        sentence += f", {_why_recommended(best, min_retention, enough)}"
    if best["role"] != "teacher" and "retention" in best and numbers.missing(best["retention"]):
        sentence += "; what it keeps of its teacher is not known"
    if teachers.empty or best["role"] == "teacher":
        return f"{sentence}.{busy}"
    teacher = teachers.iloc[0]
    sentence += f", and {numbers.dollars(teacher['usd_per_month'])} with the teacher"
    if not numbers.missing(best.get("retention")):
        sentence += f"; the former keeps {numbers.percent(best['retention'], digits=2)}"
    if not numbers.missing(best["payback_hours"]):
        paid = numbers.duration(3600 * best["payback_hours"])
        sentence += f" and has paid for itself after {paid}"
    return f"{sentence}.{busy}"


def _keeps_enough(rows: pd.DataFrame, min_retention: float, confidence: float) -> "pd.Series[bool]":
    """Whether each run keeps enough; a teacher does. Without `sure` the retention decides."""
    is_teacher = rows["role"] == "teacher"
    if "sure" in rows:
        return is_teacher | (rows["sure"] >= confidence)
    if "retention" in rows:
        return is_teacher | (rows["retention"] >= min_retention)
    return is_teacher


def _why_recommended(best: pd.Series, min_retention: float, enough: bool) -> str:
    """`the cheapest that keeps at least 95 %`, or that nothing does and this loses least."""
    if numbers.missing(best.get("retention")) and best["role"] != "teacher":
        return "the cheapest"
    floor = f"{100 * min_retention:g} %"
    return f"the cheapest that keeps at least {floor}" if enough else f"nearest to {floor} kept"
