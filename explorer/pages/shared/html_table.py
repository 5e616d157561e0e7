"""Results tables as HTML: column groups, small grey intervals, notes on hover."""

import html
import re
from collections.abc import Mapping, Sequence

import pandas as pd

from explorer.analysis import interference, numbers

TIMED = ("TPOT", "TTFT", "Latency", "$", "Memory")
"""Prefixes of the columns that come from timing."""
INTERVAL = re.compile(r"(\[[^\]]*\])$")

LONG_HEADING = 24
"""Characters above which a heading may wrap."""


def results_table(
    cells: pd.DataFrame,
    groups: Mapping[str, Sequence[str]],
    *,
    pinned: Sequence[bool],
    hover: pd.DataFrame | None = None,
    marks: pd.DataFrame | None = None,
) -> str:
    """The table as HTML. All text is escaped.

    Args:
        cells: Text; a trailing `[low, high]` becomes small and grey.
        groups: Heading to its columns, in order. The first group names the rows.
        pinned: For each row, whether it is a teacher, which is highlighted.
        hover: Same shape as `cells`: the text on hover; empty for none.
        marks: Same shape as `cells`: the cell's CSS class (better, worse, inconclusive, busy).
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
    """A column's heading. A long one may wrap, but not after every word."""
    shown = html.escape(name)
    return f'<span class="long">{shown}</span>' if len(name) > LONG_HEADING else shown


def _class(name: str, firsts: set[str]) -> str:
    return ' class="first"' if name in firsts else ""


def _cell(text: str, hover: str, kind: str) -> str:
    shown = INTERVAL.sub(r"<small>\1</small>", html.escape(text))
    title = f' title="{html.escape(hover, quote=True)}"' if hover else ""
    kind = f' class="{html.escape(kind, quote=True)}"' if kind else ""
    return f"<td{kind}{title}>{shown}</td>"


def cell_notes(cells: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Hover text of each cell: why it is missing, or the source of its price.

    Args:
        cells: From `run_table.comparison_table`.
        runs: The same rows in the same order, with the columns of `retention.add_retention` and
            `unit_cost.add_costs`.
    """
    notes = pd.DataFrame("", index=cells.index, columns=cells.columns)
    missing = cells == numbers.MISSING
    for name in cells.columns:
        if name.startswith("$"):
            notes[name] = runs["price_note"].to_numpy()
        elif name.startswith(("Retention", "Raw")):
            notes[name] = runs["excluded_tasks"].fillna("").to_numpy()
        elif name in ("Layers", "Parameters", "Weights"):
            notes.loc[missing[name], name] = "The run ended before it loaded the model."
        else:
            notes.loc[missing[name], name] = "This run was not timed."
        if name.startswith(TIMED):
            busy = interference.was_busy(runs).to_numpy()
            warnings = runs.loc[busy, "latency_warning"].tolist()
            notes_so_far = notes.loc[busy, name].tolist()
            notes.loc[busy, name] = [
                f"{note} {warning}".strip()
                for note, warning in zip(notes_so_far, warnings, strict=True)
            ]
    return notes


def busy_marks(cells: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The CSS class `busy` for each cell that depends on times taken on a busy machine.

    Args:
        cells: From `run_table.comparison_table` or `run_table.economics_table`.
        runs: The same rows in the same order.
    """
    marks = pd.DataFrame("", index=cells.index, columns=cells.columns)
    timed = [name for name in cells.columns if name.startswith(TIMED)]
    marks.loc[interference.was_busy(runs).to_numpy(), timed] = "busy"
    return marks
