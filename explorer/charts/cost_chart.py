"""Cost charts: dollars per month by traffic, payback over time, estimated rents."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from explorer.analysis import interference, numbers
from explorer.charts import theme
from explorer.charts.theme import Template
from explorer.records.rows import row_dicts

API = "API"
UNITS = (("minutes", 1 / 60), ("hours", 1.0), ("days", 24.0), ("months", 730.0))
"""Units of time and their hours."""
MOST_LINES = 6
"""More lines would be hard to distinguish; the table shows the others."""


def break_even_chart(
    months: pd.DataFrame,
    traffic_per_s: float,
    *,
    first: Sequence[str] = (),
    num_busy: int = 0,
    template: Template = "light",
) -> go.Figure:
    """Dollars per month by traffic: a staircase per candidate, a dashed line for the API.

    Args:
        months: As from `economics.cost_by_traffic`.
        traffic_per_s: The stated traffic, which is marked.
        first: Names that get a line before others do.
        num_busy: Number of runs without a line because they were timed on a busy machine.
        template: Ink for a light or a dark page.
    """
    ink = theme.INKS[template]
    figure = go.Figure(layout=theme.layout(ink))
    known = months.dropna(subset=["usd_per_month"])
    for name, colour in _colours(known, first, template, ink).items():
        line = known[known["name"] == name]
        dash = "dash" if name == API else "solid"
        figure.add_scatter(
            x=60 * line["traffic_per_s"],
            y=line["usd_per_month"],
            mode="lines",
            name=theme.escape(name),
            line={
                "color": colour,
                "width": 2,
                "dash": dash,
                "shape": "linear" if name == API else "vh",
            },
            customdata=line[["replicas"]],
            hovertemplate=(
                f"{theme.escape(name)}: $%{{y:,.0f}} a month at %{{x:.1f}} requests a minute"
                + ("" if name == API else ", %{customdata[0]:.0f} devices")
                + "<extra></extra>"
            ),
        )
    if known.empty:
        theme.add_empty_note(figure, _empty_text(num_busy), ink)
    else:
        figure.add_vline(
            x=60 * traffic_per_s, line={"color": ink["quiet"], "width": 1, "dash": "dot"}
        )
        figure.add_annotation(
            x=60 * traffic_per_s,
            y=1,
            yref="paper",
            yanchor="top",
            xanchor="left",
            xshift=5,
            text="your traffic",
            showarrow=False,
            font={"size": 12, "color": ink["quiet"]},
        )
        _note_busy_runs(figure, num_busy, ink)
    figure.update_layout(height=420)
    figure.update_xaxes(title_text="Traffic (requests per minute)", rangemode="tozero")
    figure.update_yaxes(
        title_text="Cost (US dollars per month, less is better)",
        rangemode="tozero",
        tickprefix="$",
        tickformat=",~r",
    )
    return figure


def payback_chart(
    spent: pd.DataFrame,
    paid: pd.DataFrame,
    *,
    first: Sequence[str] = (),
    num_busy: int = 0,
    template: Template = "light",
) -> go.Figure:
    """Dollars spent over time; each student starts at its bill.

    Args:
        spent: As from `economics.spending_over_time`.
        paid: `label`, `payback_hours`, `bill_usd`, `fleet_usd_per_hour`, for a mark where a
            student's line crosses its teacher's.
        first: As in `break_even_chart`.
        num_busy: Number of runs without a line because they were timed on a busy machine.
        template: Ink for a light or a dark page.
    """
    ink = theme.INKS[template]
    figure = go.Figure(layout=theme.layout(ink))
    known = spent.dropna(subset=["usd"])
    end = float(known["hours"].max()) if len(known) else 1.0
    unit, hours_each = next((u for u in UNITS if end <= 100 * u[1]), UNITS[-1])
    colours = _colours(known, first, template, ink)
    for name, colour in colours.items():
        line = known[known["name"] == name]
        figure.add_scatter(
            x=line["hours"] / hours_each,
            y=line["usd"],
            mode="lines",
            name=theme.escape(name),
            line={"color": colour, "width": 2},
            hovertemplate=f"{theme.escape(name)}: $%{{y:,.3r}} after %{{x:.3r}} {unit}"
            "<extra></extra>",
        )
    crossings = paid.dropna(subset=["payback_hours", "bill_usd", "fleet_usd_per_hour"])
    crossings = crossings[crossings["label"].isin(colours)]
    if len(crossings):
        at = crossings["payback_hours"]
        figure.add_scatter(
            x=at / hours_each,
            y=crossings["bill_usd"] + at * crossings["fleet_usd_per_hour"],
            mode="markers",
            name="paid back",
            marker={
                "symbol": "circle",
                "size": 9,
                "opacity": 1,
                "color": [colours[name] for name in crossings["label"]],
                "line": {"width": 1.5, "color": ink["halo"]},
            },
            customdata=[
                f"{theme.escape(name)}: paid back after {numbers.duration(3600 * hours)}"
                for name, hours in zip(crossings["label"], at, strict=True)
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )
    if known.empty:
        theme.add_empty_note(figure, _empty_text(num_busy), ink)
    else:
        _note_busy_runs(figure, num_busy, ink)
    figure.update_layout(height=420)
    figure.update_xaxes(title_text=f"Time of serving this traffic ({unit})", rangemode="tozero")
    figure.update_yaxes(
        title_text="Spent, distillation included (US dollars)",
        rangemode="tozero",
        tickprefix="$",
        tickformat=",~r",
    )
    return figure


def rent_chart(fitted: pd.DataFrame, *, template: Template = "light") -> go.Figure:
    """Estimated rent of the devices that hold a model, one dotted circle per precision.

    Args:
        fitted: As from `device_fit.device_fit`; the thin bar ends at the dearest offer.
        template: Ink for a light or a dark page.
    """
    ink = theme.INKS[template]
    figure = go.Figure(layout=theme.layout(ink))
    known = fitted.dropna(subset=["usd_per_hour"])
    palette = theme.COLOURS[template]
    rows = row_dicts(known[["hardware", "bits"]].drop_duplicates())
    lines = {(row["hardware"], row["bits"]): place for place, row in enumerate(rows)}
    models = list(dict.fromkeys(known["model"]))
    for place, model in enumerate(models):
        group = known[known["model"] == model]
        colour = palette[place] if place < len(palette) - 1 else theme.OTHERS
        # Each model has its own height in the row, or equal prices would hide each other.
        offset = 0.5 * (place + 0.5) / len(models) - 0.25
        ys = [
            lines[hardware, bits] + offset
            for hardware, bits in zip(group["hardware"], group["bits"], strict=True)
        ]
        figure.add_scatter(
            x=group["usd_per_hour"],
            y=ys,
            mode="markers",
            cliponaxis=False,
            name=theme.escape(model),
            marker={
                "symbol": theme.SYMBOLS["estimated"],
                "size": 12,
                "color": colour,
                "opacity": 1,
                "line": {"width": 1.7, "color": colour},
            },
            error_x={
                "type": "data",
                "symmetric": False,
                "thickness": 1.5,
                "width": 0,
                "array": group["usd_per_hour_high"] - group["usd_per_hour"],
                "arrayminus": [0.0] * len(group),
                "color": theme.faded(colour, 0.6),
            },
            customdata=[
                f"<b>{theme.escape(model)}</b>, estimated<br>{row['num_devices']:.0f} "
                f"{row['hardware']} at {row['bits']} bits, "
                f"{numbers.significant(row['memory_gb'])} GB<br>"
                f"{numbers.dollars(row['usd_per_hour'])} to "
                f"{numbers.dollars(row['usd_per_hour_high'])} per hour"
                for row in row_dicts(group)
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )
    if known.empty:
        theme.add_empty_note(figure, "No device with a price holds this model.", ink)
    figure.update_layout(height=150 + 38 * max(2, len(rows)), margin={"l": 10})
    high = float(known["usd_per_hour_high"].max()) if len(known) else 1.0
    figure.update_xaxes(
        title_text="Estimated rent ($/hour, less is better)",  # short, for a telephone
        tickprefix="$",
        range=[0, 1.05 * high],
    )
    figure.update_yaxes(
        tickvals=list(lines.values()),
        ticksuffix="  ",
        range=[len(rows) - 0.5, -0.5],
        ticktext=[f"{hardware}, {bits} bits" for hardware, bits in lines],
    )
    return figure


def _empty_text(num_busy: int) -> str:
    """Why a cost chart is empty."""
    needs = "a price of the device"
    if num_busy:
        needs += f" and {interference.IDLE_TIMING}"
    return f"Nothing to draw: this chart needs {needs}."


def _note_busy_runs(figure: go.Figure, num_busy: int, ink: dict[str, str]) -> None:
    """Note how many runs have no line because the machine was busy."""
    if num_busy:
        theme.add_corner_note(figure, interference.left_out_sentence(num_busy, "not drawn"), ink)


def _colours(
    known: pd.DataFrame, first: Sequence[str], template: Template, ink: dict[str, str]
) -> dict[str, str]:
    """A colour per line: ink for the API and the teacher, the palette for students."""
    names = sorted(dict.fromkeys(known["name"]), key=lambda name: name not in first)
    students = [name for name in names if name not in (API, "teacher")]
    colours = {
        name: ink["quiet"] if name == API else ink["text"]
        for name in names
        if name in (API, "teacher")
    }
    palette = theme.COLOURS[template]
    return colours | {name: palette[i] for i, name in enumerate(students[:MOST_LINES])}
