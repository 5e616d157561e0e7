"""The cells and notes of a comparison of two runs, for the shell and the pages."""

from collections.abc import Mapping, Sequence
from typing import Any

from explorer.analysis import numbers

DifferenceRow = Mapping[Any, Any]
"""A row of `differences.task_differences`, or the dict of `differences.suite_difference`."""


def difference_cell(row: DifferenceRow) -> str:
    """`-12.5 [-16.0, -9.10]`, in points of the score; an en dash if missing."""
    if numbers.missing(row["difference"]):
        return numbers.MISSING
    points = 100 * row["difference"]
    ends = numbers.interval(100 * row["difference_low"], 100 * row["difference_high"])
    return f"{'+' if points > 0 else ''}{numbers.significant(points)} {ends}"


def p_value_cell(value: Any) -> str:
    """Two significant digits; `< 0.0001` below that."""
    if numbers.missing(value):
        return numbers.MISSING
    return "< 0.0001" if value < 1e-4 else numbers.significant(value, 2)


def verdict_cell(row: DifferenceRow) -> str:
    """`better`, `worse`, `inconclusive` or `not compared`."""
    return row["verdict"] or "not compared"


def detectable_cell(row: DifferenceRow) -> str:
    """The smallest difference that an inconclusive task would likely have shown; else empty."""
    if row["verdict"] != "inconclusive" or numbers.missing(row["detectable"]):
        return ""
    return f"{numbers.significant(100 * row['detectable'], 2)} points would show"


def documents_cell(row: DifferenceRow) -> str:
    """`155`, or `400 on 40 texts` if documents share passages."""
    count = f"{row['num_documents']:,}"
    if numbers.missing(row["num_clusters"]) or row["num_clusters"] == row["num_documents"]:
        return count
    return f"{count} on {row['num_clusters']:,.0f} texts"


def discordant_cell(row: DifferenceRow) -> str:
    """Documents that only the run / only the reference got right: `7 / 18`."""
    if numbers.missing(row["num_only_student"]):
        return numbers.MISSING
    return f"{row['num_only_student']:.0f} / {row['num_only_teacher']:.0f}"


def difference_notes(tasks: Sequence[DifferenceRow], suite: DifferenceRow) -> list[str]:
    """What a reader of the table needs to know: refused tasks, notes, spread over tasks."""
    lines = [
        f"{row['task']} is not compared: {row['reason']}."
        for row in tasks
        if numbers.missing(row["difference"])
    ]
    lines += [f"{row['task']}: {row['note']}." for row in tasks if row["note"]]
    if not numbers.missing(suite["stderr_tasks"]):
        these_tasks, other_tasks = (
            numbers.significant(100 * suite[name], 2) for name in ("stderr", "stderr_tasks")
        )
        lines.append(
            f"The suite's standard error is {these_tasks} points for these tasks, and "
            f"{other_tasks} for other tasks like them."
        )
    return lines
