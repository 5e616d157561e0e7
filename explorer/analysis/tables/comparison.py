"""A comparison of runs: its order, the best value of each column, and its finding in a sentence."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from explorer.analysis import interference, numbers
from explorer.analysis.tables import run_table

PER_TOKEN = "Cost per token"
"""Stands for the heading of the cost per token, which states the utilisation."""
ORDERS: dict[str, tuple[str, bool]] = {
    "Model": ("label", True),
    "Layers": ("num_layers", False),
    "Parameters": ("num_parameters", True),
    "Retention [95 %]": ("retention", False),
    "Raw ratio [95 %]": ("raw_ratio", False),
    "KL (nats)": ("kl_after", True),
    "TPOT (ms)": ("tpot_ms", True),
    "TTFT (ms)": ("ttft_ms", True),
    "Latency vs teacher": ("tpot_ratio", True),
    PER_TOKEN: ("usd_per_mtok", True),
    "$/hour at load": ("usd_per_hour_at_load", True),
    "Memory": ("peak_memory_bytes", True),
    "Weights": ("weight_bytes", True),
}
"""Heading of each column to what it sorts by, and whether small values come first.

Except for the names and the layers, what comes first is better.
"""
DEFAULT_ORDER = "Retention [95 %]"
NOT_RATED = ("Model", "Layers", "Parameters")
OF_STUDENTS = ("retention", "raw_ratio", "kl_after", "tpot_ratio")
"""Columns that compare with the teacher, in which a teacher is not rated."""


def order_of(heading: str) -> str | None:
    """The key in `ORDERS` of a column's heading; None if the column sorts by nothing."""
    if heading.startswith("$/1M"):
        return PER_TOKEN
    return heading if heading in ORDERS else None


def sort_runs(runs: pd.DataFrame, order: str, *, reverse: bool = False) -> pd.DataFrame:
    """Teachers on top; within both groups by a column, missing values last.

    Args:
        runs: With the columns of `retention.add_retention` and `unit_cost.add_costs`.
        order: A key of `ORDERS`.
        reverse: Whether the order is turned around.
    """
    if order == DEFAULT_ORDER and not reverse:
        return run_table.ordered_for_people(runs)
    name, ascending = ORDERS[order]
    keys = pd.DataFrame({"student": runs["role"] != "teacher", "value": runs[name]})
    keys = keys.reset_index(drop=True)
    places = keys.sort_values(
        ["student", "value"],
        ascending=[True, ascending != reverse],
        kind="stable",
        na_position="last",
    )
    return runs.iloc[places.index]


def best_cells(cells: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Where a column has its best value; nowhere in a column with fewer than two values.

    Values that look the same are all best. Times taken on a busy machine don't count.

    Args:
        cells: From `run_table.comparison_table`.
        runs: The same rows in the same order.
    """
    best = pd.DataFrame(False, index=cells.index, columns=cells.columns)
    quiet = interference.without_times(runs)
    busy = interference.was_busy(runs).to_numpy()
    for heading in cells.columns:
        order = order_of(heading)
        if order is None or order in NOT_RATED or ORDERS[order][0] not in quiet:
            continue
        name, small = ORDERS[order]
        values = quiet[name].astype(float).to_numpy(copy=True)
        if name.startswith("usd"):
            values[busy] = float("nan")
        if name in OF_STUDENTS:
            values[(runs["role"] == "teacher").to_numpy()] = float("nan")
        if np.count_nonzero(~np.isnan(values)) < 2:
            continue
        place = int(np.nanargmin(values) if small else np.nanargmax(values))
        same = cells[heading].to_numpy() == cells[heading].iloc[place]
        best[heading] = same & ~np.isnan(values)
    return best


def pair_sentence(run: Mapping[Any, Any], reference: Mapping[Any, Any], verdict: str | None) -> str:
    """What a run loses and saves: `24 layers against teacher: 12 points of retention lost, ...`.

    Args:
        run: A row with the columns of `retention.add_retention`.
        reference: The row of the run that it is compared with.
        verdict: Of their suite's difference; None if it could not be computed.
    """
    parts = [_kept(run, reference, verdict)]
    times_count = not (run.get("machine_busy") or reference.get("machine_busy"))
    if times_count and run.get("device_name") == reference.get("device_name"):
        parts.append(_less(run, reference, "tpot_ms", ("faster", "slower"), "as fast"))
    parts.append(_less(run, reference, "weight_bytes", ("smaller", "larger"), "as large"))
    return f"{_name(run)} against {_name(reference)}: {', '.join(p for p in parts if p)}."


def table_sentence(verdicts: list[str | None], reference: str) -> str:
    """How many runs differ: `Of 5 runs, 3 score worse than the teacher and 2 ...`."""
    counts = [
        (verdicts.count("better"), f"better than {reference}"),
        (verdicts.count("worse"), f"worse than {reference}"),
    ]
    parts = [
        f"{count:,} score{'s' if count == 1 else ''} {what}" for count, what in counts if count
    ]
    unclear = verdicts.count("inconclusive")
    if unclear:
        parts.append(f"{unclear:,} can't be told apart from it")
    refused = verdicts.count(None)
    if refused:
        parts.append(f"{refused:,} can't be compared")
    total = f"{len(verdicts):,} run{'' if len(verdicts) == 1 else 's'}"
    *first, last = parts
    return f"Of {total}, {', '.join(first)}{' and ' if first else ''}{last}."


def _name(run: Mapping[Any, Any]) -> str:
    return f"{run['teacher']} (teacher)" if run["role"] == "teacher" else str(run["label"])


def _kept(run: Mapping[Any, Any], reference: Mapping[Any, Any], verdict: str | None) -> str:
    if verdict is None:
        return "their scores can't be compared"
    if verdict == "inconclusive":
        return "their scores can't be told apart"
    shares = [1.0 if row["role"] == "teacher" else row["retention"] for row in (run, reference)]
    if any(numbers.missing(share) for share in shares):
        return f"it scores {verdict}"
    points = 100 * (shares[0] - shares[1])
    lost = "lost" if points < 0 else "gained"
    return f"{numbers.significant(abs(points), 2)} points of retention {lost}"


def _less(
    run: Mapping[Any, Any],
    reference: Mapping[Any, Any],
    name: str,
    words: tuple[str, str],
    same: str,
) -> str:
    """`20 % faster`; empty if one of the values is missing."""
    own, other = run.get(name), reference.get(name)
    if own is None or other is None or numbers.missing(own) or numbers.missing(other) or not other:
        return ""
    change = 1 - float(own) / float(other)
    if abs(change) < 0.005:
        return same
    return f"{numbers.significant(100 * abs(change), 2)} % {words[0] if change > 0 else words[1]}"
