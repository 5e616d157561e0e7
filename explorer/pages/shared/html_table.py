"""A results table as HTML: groups of columns, intervals in small grey, reasons on hover."""

import html
import re
from collections.abc import Mapping, Sequence

import pandas as pd

from explorer.analysis import interference, numbers

TIMED = ("TPOT", "TTFT", "Latency", "$", "Memory")
"""How the columns begin that rest on the timing."""
INTERVAL = re.compile(r"(\[[^\]]*\])$")

LONG_HEADING = 24
"""Letters from which on a column's name may take several lines."""


def table(
    cells: pd.DataFrame,
    groups: Mapping[str, Sequence[str]],
    *,
    pinned: Sequence[bool],
    hover: pd.DataFrame | None = None,
    marks: pd.DataFrame | None = None,
) -> str:
    """The table as HTML; every text is escaped.

    Args:
        cells: Text; a trailing `[low, high]` becomes small and grey.
        groups: Heading to its columns, in order. The first group names the rows.
        pinned: For each row, whether it is a teacher's and stands out.
        hover: Same shape as `cells`: what a cell says on hover; empty says nothing.
        marks: Same shape as `cells`: a CSS class of a cell (better, worse, inconclusive, busy).
    """
    columns = [name for names in groups.values() for name in names]
    firsts = {names[0] for names in list(groups.values())[1:] if names}
    head = "".join(
        f'<th colspan="{len(names)}" scope="colgroup"{_class(names[0], firsts)}>'
        f"{html.escape(heading)}</th>"
        for heading, names in groups.items()
    )
    names = "".join(
        f'<th scope="col"{_class(name, firsts)}>{_heading(name)}</th>' for name in columns
    )
    rows = []
    for place, is_teacher in enumerate(pinned):
        row = "".join(
            _cell(
                str(cells[name].iloc[place]),
                "" if hover is None else str(hover[name].iloc[place]),
                " ".join(
                    part
                    for part in (
                        "first" if name in firsts else "",
                        "" if marks is None else str(marks[name].iloc[place]),
                    )
                    if part
                ),
            )
            for name in columns
        )
        rows.append(f"<tr{' class=teacher' if is_teacher else ''}>{row}</tr>")
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of results">'
        f'<table class="results"><thead><tr class="groups">{head}</tr><tr>{names}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _heading(name: str) -> str:
    """A column's name; a long one may take several lines, but not one a word."""
    shown = html.escape(name)
    return f'<span class="long">{shown}</span>' if len(name) > LONG_HEADING else shown


def _class(name: str, firsts: set[str]) -> str:
    return ' class="first"' if name in firsts else ""


def _cell(text: str, hover: str, kind: str) -> str:
    shown = INTERVAL.sub(r"<small>\1</small>", html.escape(text))
    title = f' title="{html.escape(hover, quote=True)}"' if hover else ""
    kind = f' class="{html.escape(kind, quote=True)}"' if kind else ""
    return f"<td{kind}{title}>{shown}</td>"


def reasons(cells: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """For each cell what it says on hover: why it is missing, or where its price is from.

    Args:
        cells: As `tables.comparison`.
        runs: The same rows in the same order, with the columns of `retention.add` and
            `cost.add`.
    """
    said = pd.DataFrame("", index=cells.index, columns=cells.columns)
    missing = cells == numbers.MISSING
    for name in cells.columns:
        if name.startswith("$"):
            said[name] = runs["price_note"].to_numpy()
        elif name.startswith(("Retention", "Raw")):
            said[name] = runs["excluded_tasks"].fillna("").to_numpy()
        elif name in ("Layers", "Parameters", "Weights"):
            said.loc[missing[name], name] = "The run did not get as far as reading the model."
        else:
            said.loc[missing[name], name] = "This run was not timed."
        if name.startswith(TIMED):
            busy = interference.was_busy(runs).to_numpy()
            warnings = runs.loc[busy, "latency_warning"].tolist()
            reasons_so_far = said.loc[busy, name].tolist()
            said.loc[busy, name] = [
                f"{reason} {warning}".strip()
                for reason, warning in zip(reasons_so_far, warnings, strict=True)
            ]
    return said


def busy_marks(cells: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The CSS class `busy` for each cell that rests on times taken on a busy machine.

    Args:
        cells: As `tables.comparison` or `tables.economics`.
        runs: The same rows in the same order.
    """
    marks = pd.DataFrame("", index=cells.index, columns=cells.columns)
    timed = [name for name in cells.columns if name.startswith(TIMED)]
    marks.loc[interference.was_busy(runs).to_numpy(), timed] = "busy"
    return marks
