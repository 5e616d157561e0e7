"""Differences between two runs in words: cells and notes, for the shell and for the page."""

from collections.abc import Mapping, Sequence
from typing import Any

from explorer.analysis import numbers

Row = Mapping[Any, Any]
"""A row of `differences.tasks` or the dict of `differences.suite`."""


def difference_cell(row: Row) -> str:
    """`-12.5 [-16.0, -9.10]`, in points of score; an en dash where there is none."""
    if numbers.missing(row["difference"]):
        return numbers.MISSING
    points = 100 * row["difference"]
    ends = numbers.interval(100 * row["difference_low"], 100 * row["difference_high"])
    return f"{'+' if points > 0 else ''}{numbers.significant(points)} {ends}"


def p_value_cell(value: Any) -> str:
    """Two digits, and no more zeros than a reader can count."""
    if numbers.missing(value):
        return numbers.MISSING
    return "< 0.0001" if value < 1e-4 else numbers.significant(value, 2)


def verdict_cell(row: Row) -> str:
    """better, worse, inconclusive; or that there is none."""
    return row["verdict"] or "not compared"


def detectable_cell(row: Row) -> str:
    """How large a difference an inconclusive task would have shown, or nothing."""
    if row["verdict"] != "inconclusive" or numbers.missing(row["detectable"]):
        return ""
    return f"{numbers.significant(100 * row['detectable'], 2)} points would show"


def documents_cell(row: Row) -> str:
    """`155`, or `400 on 40 texts` where documents share passages."""
    count = f"{row['num_documents']:,}"
    if numbers.missing(row["num_clusters"]) or row["num_clusters"] == row["num_documents"]:
        return count
    return f"{count} on {row['num_clusters']:,.0f} texts"


def discordant_cell(row: Row) -> str:
    """Documents that only the run, and only the reference, got right: `7 / 18`."""
    if numbers.missing(row["num_only_student"]):
        return numbers.MISSING
    return f"{row['num_only_student']:.0f} / {row['num_only_teacher']:.0f}"


def difference_notes(tasks: Sequence[Row], suite: Row) -> list[str]:
    """What one must know to read the numbers: refused tasks, notes, spread over tasks."""
    said = [
        f"{row['task']} is not compared: {row['reason']}."
        for row in tasks
        if numbers.missing(row["difference"])
    ]
    said += [f"{row['task']}: {row['note']}." for row in tasks if row["note"]]
    if not numbers.missing(suite["stderr_tasks"]):
        here, elsewhere = (
            numbers.significant(100 * suite[name], 2) for name in ("stderr", "stderr_tasks")
        )
        said.append(
            f"The suite's standard error is {here} points on these tasks, and {elsewhere} for "
            "other tasks like them."
        )
    return said
