"""The axes of the retention chart: what they may show, titles, ranges, ticks and limits."""

import dataclasses
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pandas as pd
import plotly.graph_objects as go

from explorer.analysis import baseline, interference, numbers
from explorer.analysis.cost import unit_cost
from explorer.analysis.stats.retention import INTERVALS
from explorer.charts import labels, marks, theme
from explorer.charts.labels import View

Scale = Literal["auto", "linear", "log"]
ACROSS = "across"
"""The column with a point's place on the horizontal axis."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """What a horizontal axis shows. Better is always to the left."""

    name: str
    unit: str
    write: Callable[[Any], str]
    """A value as text with its unit."""
    ticks: tuple[str, ...] = ("",)
    """Units of a tick: as it is, in thousands, millions and so on."""
    prefix: str = ""
    better: str = "less is better"

    @property
    def more_is_better(self) -> bool:
        """Whether the axis runs from right to left."""
        return self.better.startswith("more")


def _with_unit(unit: str) -> Callable[[Any], str]:
    return lambda value: f"{numbers.significant(value)} {unit}"


BYTES = (" B", " kB", " MB", " GB", " TB")
AXES = {
    "tpot_ms": Axis("TPOT, median", "ms per token", numbers.milliseconds),
    "ttft_ms": Axis("TTFT, median", "ms to the first token", numbers.milliseconds),
    "latency_ms": Axis("End-to-end time, median", "ms per request", numbers.milliseconds),
    "output_tokens_per_s": Axis(
        "Throughput", "output tokens per second", _with_unit("tokens/s"), better="more is better"
    ),
    "usd_per_hour_at_load": Axis(
        "Cost at the teacher's load", "US dollars per hour", numbers.dollars, prefix="$"
    ),
    "usd_per_mtok": Axis(
        "Cost", "US dollars per million output tokens", numbers.dollars, prefix="$"
    ),
    "output_tokens_per_usd": Axis(
        "Tokens per dollar",
        "output tokens per US dollar",
        lambda value: f"{numbers.parameters(value)} tokens",
        ("", " k", " M", " B", " T"),
        better="more is better",
    ),
    "num_parameters": Axis(
        "Size",
        "parameters",
        numbers.parameters,
        ("", " k", " M", " B", " T"),
        better="fewer is better",
    ),
    "peak_memory_bytes": Axis("Peak memory", "bytes", numbers.size, BYTES),
    "weight_bytes": Axis("Weights on disk", "bytes", numbers.size, BYTES),
    "joules_per_token": Axis("Energy", "joules per output token", _with_unit("J")),
}
"""Possible horizontal axes."""
HEIGHTS = {
    "retention": "Retention above chance (% of the teacher's, more is better)",
    "raw_ratio": "Raw ratio (% of the teacher's score, more is better)",
}
"""Possible vertical axes."""


def across(runs: pd.DataFrame, x: str, *, times: bool = False) -> "pd.Series[float]":
    """Each run's place on the horizontal axis, on the index of `runs`; missing if unknown.

    Args:
        runs: As `retention_chart` takes them.
        x: A key of `AXES`.
        times: As a multiple of the teacher's own value, measured in turns where it was.
    """
    if x not in runs:
        return pd.Series(float("nan"), index=runs.index)
    if not times:
        return runs[x].astype(float)
    own = baseline.times(runs, x, baseline.ORIGINAL, fill=True)
    # Points that were not measured here bring multiples of their own teacher's value.
    given = f"{x}_times"
    return own.fillna(runs[given].astype(float)) if given in runs else own


def costs(runs: pd.DataFrame, x: str, *, times: bool = False) -> "pd.Series[float]":
    """`across` with its sign changed where more is better: what a frontier minimises."""
    values = across(runs, x, times=times)
    return -values if AXES[x].more_is_better else values


def title(x: str, runs: pd.DataFrame, width: int, *, times: bool = False) -> str:
    """Title of the horizontal axis, wrapped to the width; a cost states its utilisation."""
    axis = AXES[x]
    unit = "times the teacher's" if times else axis.unit
    if x in ("usd_per_mtok", "output_tokens_per_usd"):
        busy = unit_cost.utilisation_text_of(runs)
        unit = f"{unit} {busy}" if not times else unit
    text = f"{axis.name} ({unit}, {axis.better})"
    return "<br>".join(textwrap.wrap(text, max(20, width // theme.PIXELS_PER_LETTER)))


def view(
    shown: pd.DataFrame, x: str, y: str, target: float, width: int, scale: Scale = "auto"
) -> View:
    """Ranges that start at zero if that costs little, include 100 % and cut wide intervals.

    Runs slowed down by a busy machine do not stretch them, unless there are no others.

    Args:
        shown: The points, with `ACROSS`, and `y` in percent.
        x: A key of `AXES`.
        y: A key of `HEIGHTS`.
        target: The labelled line; 1.0 is the teacher.
        width: Width on the page in pixels.
        scale: `auto` is logarithmic where the values span more than a factor of ten.
    """
    plot_width = max(200, width - 110)
    rows = marks.legend_rows(shown, plot_width)
    plot_height = max(120, theme.HEIGHT - 110 - marks.LEGEND_ROW_PIXELS * (rows - 1))
    if shown.empty:
        return View((0, 1), (0, 110), False, plot_width, plot_height)
    low_name, high_name = INTERVALS[y]
    quiet = interference.without_busy(shown)
    places = shown[ACROSS]
    if interference.rests_on_times(x) and not quiet.empty:
        slowest, fastest = quiet[ACROSS].max(), quiet[ACROSS].min()
        places = places[places >= fastest if AXES[x].more_is_better else places <= slowest]
    low, high = float(places.min()), float(places.max())
    log = low > 0 and (scale == "log" or (scale == "auto" and high / low > 10))
    start, end = (low / 1.6, high * 1.6) if log else theme.from_zero_if_near(low, high)
    shown = shown[shown[ACROSS].between(start, end)]
    values = shown[y]
    # An interval may be far wider than all points; the points decide the range.
    least, most = float(values.min()), float(values.max())
    bottom, top = min(85.0, least - 6), max(108.0, 100 * target + 6, most + 5)
    if shown[low_name].notna().any():
        bottom = min(bottom, max(float(shown[low_name].min()), least - 20) - 3)
        top = max(top, min(float(shown[high_name].max()), most + 20) + 3)
    ends = (end, start) if AXES[x].more_is_better else (start, end)
    return View(ends, (bottom, top), log, plot_width, plot_height)


def ticks(x: str, view: View, *, times: bool = False) -> dict[str, Any]:
    """Settings of the horizontal axis: its ticks with their unit, and the scale."""
    axis = AXES[x]
    settings: dict[str, Any] = {
        "range": view.x_axis,
        "type": "log" if view.log else "linear",
        "tickprefix": "" if times else axis.prefix,
        "ticksuffix": "×" if times else "",
    }
    units = ("×",) if times else axis.ticks
    if not view.log and len(units) == 1:
        return settings
    low, high = sorted(view.x_range)
    values = theme.round_values(low, high, log=view.log)
    # Plotly adds neither prefix nor suffix to texts that it is given.
    texts = [settings["tickprefix"] + theme.with_si_unit(value, units) for value in values]
    return settings | labels.fitting_ticks(values, texts, view)


def limit_place(
    runs: pd.DataFrame, x: str, limit: float, teacher: str | None, *, times: bool = False
) -> float | None:
    """Where a limit lies on the horizontal axis; None if the teacher's value is unknown.

    Args:
        runs: As `retention_chart` takes them.
        x: A key of `AXES`.
        limit: In the unit of `x`.
        teacher: The run of the teacher, of whose value the axis shows multiples.
        times: Whether it does.
    """
    if not times:
        return limit
    own = runs.loc[runs["run_id"] == teacher, x].dropna()
    return limit / float(own.iloc[0]) if len(own) else None


def add_x_limit(
    figure: go.Figure, x: str, limit: float, place: float | None, view: View, ink: dict[str, str]
) -> None:
    """The most or least that the horizontal axis may be, if it lies in the view."""
    low, high = sorted(view.x_range)
    if place is None or not low < place < high:
        return
    side = "at least" if AXES[x].more_is_better else "at most"
    figure.add_vline(x=place, line={"color": ink["quiet"], "width": 1, "dash": "dash"})
    figure.add_annotation(
        x=math.log10(place) if view.log else place,
        y=1,
        yref="paper",
        yanchor="top",
        xanchor="left",
        xshift=4,
        text=f"{side} {AXES[x].write(limit)}",
        showarrow=False,
        font={"size": 12, "color": ink["quiet"]},
    )


def add_target_line(
    figure: go.Figure,
    target: float,
    ink: dict[str, str],
    taken: Sequence[labels.Box],
    view: View,
    whose: str = "the teacher",
) -> None:
    """The target line with its name at the end where it covers less of what is taken."""
    figure.add_hline(y=100 * target, line={"color": ink["quiet"], "width": 1, "dash": "dash"})
    text = f"{numbers.percent(target, digits=2)} of {whose}"
    side = labels.roomier_end(text, 100 * target, taken, view)
    figure.add_annotation(
        x=0 if side == "left" else 1,
        xref="paper",
        xanchor=side,
        xshift=6 if side == "left" else -6,
        y=100 * target,
        yanchor="top",
        yshift=-1,
        text=text,
        showarrow=False,
        font={"size": 12, "color": ink["quiet"]},
    )
