"""Results tables as HTML: column groups, small grey intervals, notes on hover."""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

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
    drawn: pd.DataFrame | None = None,
    boxes: Sequence[tuple[str, bool]] | None = None,
    sorts: Mapping[str, str] | None = None,
) -> str:
    """The table as HTML. All text is escaped.

    Args:
        cells: Text; a trailing `[low, high]` becomes small and grey.
        groups: Heading to its columns, in order. The first group names the rows.
        pinned: For each row, whether it is a teacher, which is highlighted.
        hover: Same shape as `cells`: the text on hover; empty for none.
        marks: Same shape as `cells`: the cell's CSS class (better, worse, inconclusive, busy,
            best).
        drawn: Same shape as `cells`: HTML before the text, from `interval_mark`; empty for none.
        boxes: For each row, its run id and whether its box is ticked; None shows no boxes.
        sorts: Headings that sort, to `ascending`, `descending`, or empty if the table has another
            order; `table_events` listens to both.
    """
    columns = [name for names in groups.values() for name in names]
    firsts = {names[0] for names in list(groups.values())[1:] if names}
    box_of_all = "" if boxes is None else _box("", "all rows shown", all(on for _, on in boxes))
    head = "".join(
        f'<th colspan="{len(names)}" scope="colgroup"{_class(names[0], firsts)}>'
        f"{html.escape(heading)}</th>"
        for heading, names in groups.items()
    )
    names = "".join(
        f'<th scope="col"{_class(name, firsts)}{_aria_sort(name, sorts)}>'
        f"{box_of_all if name == columns[0] else ''}{_heading(name, sorts)}</th>"
        for name in columns
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
                _before(place, name, columns[0], cells, drawn, boxes),
            )
            for name in columns
        )
        kinds = [
            *(["teacher"] if is_teacher else []),
            *(["unticked"] if boxes is not None and not boxes[place][1] else []),
        ]
        rows.append(f"<tr{_kinds(kinds)}>{row}</tr>")
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of results">'
        f'<table class="results"><thead><tr class="groups">{head}</tr><tr>{names}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _heading(name: str, sorts: Mapping[str, str] | None) -> str:
    """A column's heading. A long one may wrap, but not after every word."""
    shown = html.escape(name)
    shown = f'<span class="long">{shown}</span>' if len(name) > LONG_HEADING else shown
    if sorts is None or name not in sorts:
        return shown
    arrow = {"ascending": " ↑", "descending": " ↓"}.get(sorts[name], "")
    key = html.escape(name, quote=True)
    return f'<button type="button" class="sort" data-sort="{key}">{shown}{arrow}</button>'


def _aria_sort(name: str, sorts: Mapping[str, str] | None) -> str:
    return f' aria-sort="{sorts[name]}"' if sorts and sorts.get(name) else ""


def _kinds(kinds: Sequence[str]) -> str:
    """A row's classes; one alone needs no quotes."""
    if len(kinds) < 2:
        return f" class={kinds[0]}" if kinds else ""
    return f' class="{" ".join(kinds)}"'


def _box(run_id: str, name: str, ticked: bool) -> str:
    """A box that chooses a run; without an id, all rows of the table."""
    return (
        f'<input type="checkbox" data-run="{html.escape(run_id, quote=True)}" '
        f'aria-label="Choose {html.escape(name, quote=True)}"{" checked" if ticked else ""}> '
    )


def _before(
    place: int,
    name: str,
    first: str,
    cells: pd.DataFrame,
    drawn: pd.DataFrame | None,
    boxes: Sequence[tuple[str, bool]] | None,
) -> str:
    """HTML before a cell's text: the box of its row, or a mark."""
    if name == first and boxes is not None:
        return _box(boxes[place][0], str(cells[first].iloc[place]), boxes[place][1])
    return "" if drawn is None else str(drawn[name].iloc[place])


def interval_mark(
    value: Any, low: Any, high: Any, ends: tuple[float, float], *, at: float, kind: str = ""
) -> str:
    """A dot and its interval on a small axis, as HTML; empty without a value.

    Args:
        value: The dot.
        low: Lower end of the interval; without both ends only the dot is drawn.
        high: Upper end.
        ends: The values at both ends of the axis; what lies beyond is drawn at the end.
        at: Where the axis has a tick: no difference, or the whole teacher.
        kind: CSS class of the dot: `open` is hollow.
    """
    if numbers.missing(value):
        return ""

    def place(number: float) -> float:
        share = (number - ends[0]) / (ends[1] - ends[0])
        return 100 * min(1.0, max(0.0, share))

    line = ""
    if not numbers.missing(low) and not numbers.missing(high):
        start = place(low)
        line = f'<i style="left:{start:.1f}%;width:{place(high) - start:.1f}%"></i>'
    dot = f'<b{_kinds([kind] if kind else [])} style="left:{place(value):.1f}%"></b>'
    tick = f'<u style="left:{place(at):.1f}%"></u>'
    return f'<span class="range" aria-hidden="true">{tick}{line}{dot}</span>'


def _class(name: str, firsts: set[str]) -> str:
    return ' class="first"' if name in firsts else ""


def _cell(text: str, hover: str, kind: str, before: str) -> str:
    shown = INTERVAL.sub(r"<small>\1</small>", html.escape(text))
    title = f' title="{html.escape(hover, quote=True)}"' if hover else ""
    kind = f' class="{html.escape(kind, quote=True)}"' if kind else ""
    return f"<td{kind}{title}>{before}{shown}</td>"


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
