"""The marks of the retention chart: how a point is known and in which format, and the legend."""

import math
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from explorer.analysis import interference
from explorer.analysis.baseline import is_converted
from explorer.analysis.pick import candidates
from explorer.charts import theme

LEGEND_MARK_PIXELS, LEGEND_ROW_PIXELS = 40, 19
"""Width of a mark in the legend with its margins, and height of a row."""
MANY_POINTS = 60
"""Above this many, points are small and their intervals faint, so that they stay readable."""
GREY = dict.fromkeys(("busy", "busy teacher"), interference.MARK) | {
    "control": "control arm, no teacher"
}
"""Kinds that are grey for every teacher, and their names in the legend."""
NOT_MEASURED = {"published": "published", "estimated": "estimated, a floor"}
"""Kinds that were not measured here, and their names in the legend."""


def legend_rows(shown: pd.DataFrame, plot_width: int) -> int:
    """How many rows the legend takes above the plot, which it makes lower."""
    names = [*dict.fromkeys(map(kind_name, kinds(shown))), "frontier"]
    own = shown.loc[shown["basis"] != "published", "teacher"]
    if (teachers := own.unique()).size > 1:
        names += map(str, teachers)
    # Plotly gives every entry the width of the widest.
    widest = LEGEND_MARK_PIXELS + theme.PIXELS_PER_LETTER * max(map(len, names))
    return math.ceil(len(names) / max(1, plot_width // widest))


def kinds(shown: pd.DataFrame) -> "pd.Series[str]":
    """The kind of each point: a key of `theme.SYMBOLS`, or `measured` or `teacher` with a format.

    A teacher in another number format is a teacher, although it is compared with one as students
    are.
    """
    is_teacher = (shown["role"] == "teacher") | is_converted(shown)
    was_busy = interference.was_busy(shown)
    by_format = "measured " + candidates.formats(shown)
    known = shown["basis"].astype(object).mask(shown["basis"] == "measured", by_format)
    known = known.mask(is_teacher, "teacher " + candidates.formats(shown))
    known = known.mask(shown["method"].eq(candidates.CONTROL), "control")
    return known.mask(was_busy, "busy").mask(was_busy & is_teacher, "busy teacher").rename("kind")


def kind_name(kind: str) -> str:
    """A kind in the legend: `student, q8_0`, `teacher`, `machine was busy`."""
    source, _, format = kind.partition(" ")
    if kind in GREY or kind in NOT_MEASURED:
        return GREY.get(kind) or NOT_MEASURED[kind]
    if source == "teacher":
        return "teacher" if format == candidates.TORCH else f"teacher, {format}"
    return f"student, {format}" if source == "measured" else f"{kind} student"


def marker(kind: str, colour: str, num_shown: int, ink: dict[str, str]) -> dict[str, Any]:
    """Shape, size and outline of a point."""
    source, _, format = kind.partition(" ")
    if source == "teacher":
        outline = {"color": ink["halo"], "width": 1}
        symbol = theme.TEACHER_SYMBOLS.get(format, theme.OTHER_TEACHER)
        size = 19 if format == candidates.TORCH else 16
        return {"symbol": symbol, "size": size, "color": colour, "line": outline}
    if source == "measured":
        symbol = theme.FORMAT_SYMBOLS.get(format, theme.OTHER_FORMAT)
    else:
        symbol = theme.SYMBOLS.get(kind, "x-thin-open")
    hollow = "open" in symbol
    outline = {"color": colour, "width": 1.5} if hollow else {"color": ink["halo"], "width": 1}
    size = 17 if kind == "busy teacher" else 7 if num_shown > MANY_POINTS else 11
    return {"symbol": symbol, "size": size, "color": colour, "line": outline}


def add_shape_legend(figure: go.Figure, kinds: list[str], ink: dict[str, str]) -> None:
    """Legend entries in grey for the shapes, where colours stand for teachers."""
    for kind in kinds:
        theme.add_scatter(
            figure,
            x=[None],
            y=[None],
            mode="markers",
            hoverinfo="skip",
            legendrank=4,
            name=kind_name(kind),
            marker=marker(kind, ink["quiet"], 1, ink),
        )
