"""Which measurement would settle the decision: a new timing, more documents or another size."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from explorer.analysis import numbers
from explorer.analysis.pick.limits import Limits
from explorer.records.rows import missing, row_dicts

if TYPE_CHECKING:
    from explorer.analysis.pick.decide import Broken

Row = Mapping[Any, Any]
MOST_TIMES = 20
"""A decision that needs more than this many times the documents is not worth the attempt."""


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """A measurement that could change or confirm the pick."""

    kind: str
    """`timing`, `documents` or `size`."""
    text: str
    run_id: str | None = None
    """The run to measure further, or to start from."""
    num_documents: int | None = None
    """Documents to add, for `documents`."""
    num_layers: int | None = None
    """The size to distil, for `size`."""


def suggest(
    best: Row | None,
    eligible: pd.DataFrame,
    considered: pd.DataFrame,
    broken: "Mapping[str, Sequence[Broken]]",
    draws: pd.DataFrame,
    limits: Limits,
    objective: str,
) -> Suggestion | None:
    """The first of three that applies: time again, score more documents, distil another size.

    Args:
        best: The picked run.
        eligible: The runs that may be picked, the best by the objective first.
        considered: All runs, with `removed`.
        broken: The limits that each eligible run breaks.
        draws: As in `decide.pick`.
        limits: As in `decide.pick`.
        objective: The column that decides.
    """
    better = _better(best, eligible, broken)
    return (
        _timing(best, considered, limits, objective)
        or _documents(better, draws, limits)
        or _size(best, eligible, broken)
    )


def _timing(
    best: Row | None, considered: pd.DataFrame, limits: Limits, objective: str
) -> Suggestion | None:
    """A run that keeps enough, and only lacks a timing on an idle machine."""
    waiting = considered[
        considered["removed"].isin(["busy"]) & (considered["sure"] >= limits.confidence)
    ]
    if best is not None and objective == "weight_bytes":
        waiting = waiting[waiting[objective] < best[objective]]
    if waiting.empty:
        return None
    run = row_dicts(waiting.sort_values(["num_parameters", "run_id"]))[0]
    return Suggestion(
        "timing",
        f"Time {run['label']} again on an idle machine: explorer run {run['run_id']} --again",
        run_id=run["run_id"],
    )


def _better(
    best: Row | None, eligible: pd.DataFrame, broken: "Mapping[str, Sequence[Broken]]"
) -> list[Row]:
    """Runs ahead of the pick by the objective, for which only the retention is in doubt."""
    ahead: list[Row] = []
    for row in row_dicts(eligible):
        if best is not None and row["run_id"] == best["run_id"]:
            break
        if [one.limit for one in broken[row["run_id"]]] == ["min_retention"]:
            ahead.append(row)
    return ahead


def _documents(better: Sequence[Row], draws: pd.DataFrame, limits: Limits) -> Suggestion | None:
    """More documents, where a better run may keep enough: the run that needs the fewest.

    The interval shrinks with the square root of the number of documents. If the measured
    retention stays as it is, the statement holds from the number at which the one-sided interval
    no longer contains the limit.
    """
    z = statistics.NormalDist().inv_cdf(limits.confidence)
    needed: list[tuple[int, Row]] = []
    for run in better:
        distance = run["retention"] - limits.min_retention
        if distance <= 0 or missing(run["num_documents"]):
            continue
        times = (z * float(draws[run["run_id"]].to_numpy().std()) / distance) ** 2
        if 1 < times <= MOST_TIMES:
            needed.append((math.ceil((times - 1) * run["num_documents"]), run))
    if not needed:
        return None
    more, run = min(needed, key=lambda pair: (pair[0], pair[1]["run_id"]))
    digits = max(0, len(str(more)) - 2)
    more = math.ceil(more / 10**digits) * 10**digits
    return Suggestion(
        "documents",
        f"Score {run['label']} and its teacher on about {more:,} more documents than the "
        f"{run['num_documents']:,.0f} of now. If it still keeps "
        f"{numbers.percent(run['retention'], digits=2)}, it meets the limit and is picked.",
        run_id=run["run_id"],
        num_documents=more,
    )


def _size(
    best: Row | None, eligible: pd.DataFrame, broken: "Mapping[str, Sequence[Broken]]"
) -> Suggestion | None:
    """A size between the pick and the next smaller model of its format, which keeps too little."""
    if best is None or missing(best["num_layers"]):
        return None
    alike = eligible[
        eligible["format"].eq(best["format"])
        & eligible["runtime"].eq(best["runtime"])
        & eligible["num_layers"].lt(best["num_layers"])
    ]
    if alike.empty:
        return None
    below = row_dicts(alike.sort_values("num_layers"))[-1]
    if [one.limit for one in broken[below["run_id"]]] != ["min_retention"]:
        return None
    between = (int(best["num_layers"]) + int(below["num_layers"])) // 2
    if between == int(below["num_layers"]):
        return None
    return Suggestion(
        "size",
        f"Distil a student of {between} layers in the same format: {best['label']} meets the "
        f"limits and {below['label']} does not, and no size between them has been measured.",
        run_id=below["run_id"],
        num_layers=between,
    )
