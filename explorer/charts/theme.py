"""What all charts share: colours, symbols, axes and notes.

Every figure has a transparent background and exists in two inks, for a light and a dark page.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from explorer.errors import BadInput

Template = Literal["light", "dark"]

# Okabe and Ito 2008, each page in the order in which they stand out on it.
COLOURS = {
    "light": ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442"),
    "dark": ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2"),
}
OTHERS = "#8A8F98"
"""Teachers beyond the seventh share one grey; more colours would be hard to distinguish."""
INKS: dict[str, dict[str, str]] = {
    "light": {"text": "#1F2933", "quiet": "#5F6B7A", "grid": "#E4E7EB", "halo": "#FFFFFF"},
    "dark": {"text": "#E5E9F0", "quiet": "#A3ADBA", "grid": "#2C333D", "halo": "#0E1117"},
}
HEIGHT = 520
PIXELS_PER_LETTER = 8
"""Approximate width of a letter of a title or a legend."""
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"

FORMAT_SYMBOLS = {"torch": "circle", "q8_0": "square", "q4_k_m": "triangle-up"}
"""Symbol of a measured model by its number format; other formats share `OTHER_FORMAT`."""
TEACHER_SYMBOLS = {"torch": "star", "q8_0": "star-square", "q4_k_m": "star-triangle-up"}
"""Symbol of a teacher by its number format."""
OTHER_FORMAT, OTHER_TEACHER = "pentagon", "hexagram"
SYMBOLS = {
    "measured": "circle",
    "published": "diamond-open",
    "estimated": "circle-open-dot",
    "busy": "circle-open",
    "busy teacher": "star-open",
    "control": "x-thin-open",
}
"""Symbol by source of a point. Busy and control points are grey for every teacher."""


def layout(ink: dict[str, str]) -> go.Layout:
    """The layout of all figures: no background, a faint grid, the legend on top."""
    return go.Layout(
        height=HEIGHT,
        margin={"l": 60, "r": 24, "t": 44, "b": 60},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13, "color": ink["text"]},
        xaxis=axis(ink),
        yaxis=axis(ink),
        hovermode="closest",
        dragmode="zoom",
        hoverlabel={"align": "left", "font": {"family": FONT, "size": 12}},
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.01,
            "xanchor": "left",
            "yanchor": "bottom",
            "font": {"color": ink["quiet"], "size": 12},
            "bgcolor": "rgba(0,0,0,0)",
        },
        # Plotly's default template would add a background and colours of its own.
        template="none",
    )


def axis(ink: dict[str, str]) -> dict[str, Any]:
    """Faint tick labels, moved away from the corner where two zeros would touch."""
    return {
        "gridcolor": ink["grid"],
        "zeroline": False,
        "showline": False,
        "ticks": "",
        "ticklabelstandoff": 6,
        "tickfont": {"color": ink["quiet"], "size": 12},
        "automargin": True,
        "title": {"font": {"color": ink["text"], "size": 13}, "standoff": 12},
    }


def check_axes(*chosen: tuple[str, Mapping[str, Any]]) -> None:
    """Refuse axes that a chart does not have.

    Args:
        chosen: Pairs of a chosen axis and the possible ones.

    Raises:
        BadInput: The message lists the possible axes.
    """
    for given, possible in chosen:
        if given not in possible:
            raise BadInput(f"The chart has no axis {given!r}. Choose {', '.join(possible)}.")


def name_rows(figure: go.Figure, names: Sequence[str], ink: Mapping[str, str]) -> None:
    """Name the rows of a chart, which lie at 0, 1, 2 and so on from the top."""
    figure.update_yaxes(
        range=[len(names) - 0.4, -0.6],
        tickvals=list(range(len(names))),
        ticktext=[escape(name) for name in names],
        tickfont={"color": ink["text"], "size": 13},
        showgrid=False,
    )


def add_scatter(figure: go.Figure, **settings: Any) -> None:
    """As `figure.add_scatter`, which validates each trace twice."""
    figure.add_trace({"type": "scatter", **settings})


def add_ring(
    figure: go.Figure,
    selected: pd.DataFrame,
    x: str,
    y: str,
    ink: dict[str, str],
    *,
    strong: bool = False,
) -> None:
    """Draw a ring around a point: thin around the selected one, strong around the pick."""
    add_scatter(
        figure,
        x=selected[x].to_numpy(),
        y=selected[y].to_numpy(),
        mode="markers",
        showlegend=False,
        hoverinfo="skip",
        marker={
            "symbol": "circle-open",
            "size": PICK_RING_PIXELS - 3 if strong else 24,
            "color": ink["text"],
            "line": {"width": 3 if strong else 1.5},
        },
    )


PICK_RING_PIXELS = 31
"""Width of the ring around the pick, its line included."""


def add_corner_note(figure: go.Figure, text: str, ink: dict[str, str]) -> None:
    """Add a small note in the corner about what the chart leaves out."""
    figure.add_annotation(
        x=1,
        xref="paper",
        xanchor="right",
        y=0,
        yref="paper",
        yanchor="bottom",
        yshift=4,
        text=text,
        showarrow=False,
        align="right",
        font={"size": 11, "color": ink["quiet"]},
    )


def add_empty_note(figure: go.Figure, text: str, ink: dict[str, str]) -> None:
    """Add a sentence in the middle of an empty chart."""
    figure.add_annotation(
        x=0.5,
        y=0.5,
        xref="paper",
        yref="paper",
        text=text,
        showarrow=False,
        font={"size": 15, "color": ink["quiet"]},
    )


def escape(text: Any) -> str:
    """Text with Plotly's tags escaped."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def faded(colour: str, opacity: float) -> str:
    """A colour of the palette with an opacity: 0 is invisible, 1 is solid."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:.2f})"


def from_zero_if_near(low: float, high: float) -> tuple[float, float]:
    """A range with margins that starts at zero unless that wastes most of the axis."""
    if 0 <= low < 0.6 * high:
        return 0.0, high * 1.08
    margin = max((high - low) * 0.12, abs(high) * 0.02, 1e-9)
    return low - margin, high + margin


def round_values(low: float, high: float, *, log: bool) -> list[float]:
    """Round numbers between two ends, in rising order: 1, 2 and 5 times the powers of ten."""
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        values = [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5)]
    else:
        rough = (high - low) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(s - rough))
        values = list(np.arange(math.ceil(low / step) * step, high, step))
    return [v for v in values if low <= v <= high]


def with_si_unit(value: float, units: Sequence[str]) -> str:
    """A value with k, M or B; Plotly's own prefixes would write a billion as G."""
    if not value:
        return "0"
    level = min(len(units) - 1, max(0, int(math.log10(value) // 3)))
    return f"{value / 1000**level:g}{units[level]}"
