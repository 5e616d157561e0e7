"""The charts of one run: its tasks, timings, load test and training."""

from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from explorer.analysis import interference, numbers
from explorer.charts import theme
from explorer.charts.theme import Template


def per_task_bars(per_task: pd.DataFrame, *, template: Template = "light") -> go.Figure:
    """Student's and teacher's score on each task, with the chance level marked.

    Args:
        per_task: As from `retention.per_task`.
        template: Ink for a light or a dark page.
    """
    ink = theme.INKS[template]
    known = per_task.dropna(subset=["student", "teacher"]).iloc[::-1]
    names = [str(task) for task in known["task"]]
    figure = go.Figure(layout=theme.layout(ink))
    for name, colour in (("teacher", theme.OTHERS), ("student", theme.COLOURS[template][0])):
        figure.add_bar(
            y=names,
            x=known[name],
            orientation="h",
            name=name,
            marker_color=colour,
            text=[numbers.significant(value) for value in known[name]],
            textposition="outside",
            textfont={"color": ink["text"], "size": 11},
            cliponaxis=False,
            hovertemplate=f"%{{y}}: {name} %{{x:.3f}}<extra></extra>",
        )
    figure.add_scatter(
        x=known["chance"],
        y=names,
        mode="markers",
        name="chance",
        marker={"symbol": "line-ns-open", "size": 26, "color": ink["text"], "line": {"width": 2}},
        hovertemplate="%{y}: chance level %{x:.3f}<extra></extra>",
    )
    figure.update_layout(
        height=110 + 52 * max(1, len(known)),
        barmode="group",
        bargap=0.35,
        bargroupgap=0.08,
        margin={"l": 10, "r": 40, "t": 40, "b": 50},
        legend={"traceorder": "reversed"},
    )
    figure.update_xaxes(title_text="Score (more is better)", range=[0, 1.08], tickformat=".1f")
    figure.update_yaxes(showgrid=False, automargin=True, ticksuffix="  ")
    if known.empty:
        theme.add_empty_note(figure, "No task has scores of both.", ink)
    return figure


def latency_histogram(
    own_turns: pd.DataFrame,
    teacher_turns: pd.DataFrame | None = None,
    *,
    column: Literal["tpot_ms", "ttft_ms", "latency_ms"] = "tpot_ms",
    was_busy: bool = False,
    template: Template = "light",
) -> go.Figure:
    """Distribution of the measured requests of a model and of its teacher.

    Args:
        own_turns: As from `frames.turns`.
        teacher_turns: The teacher's, timed in turns; None or empty for a teacher's own run.
        column: The quantity to show, in ms.
        was_busy: Whether other processes used the machine, which the chart then notes.
        template: Ink for a light or a dark page.
    """
    ink = theme.INKS[template]
    figure = go.Figure(layout=theme.layout(ink))
    own = own_turns[column].dropna()
    sides = [("this model", own, theme.COLOURS[template][0])]
    if teacher_turns is not None and not teacher_turns.empty:
        sides.append(("its teacher", teacher_turns[column].dropna(), theme.OTHERS))
    everything = np.concatenate([values.to_numpy(dtype=float) for _, values, _ in sides])
    if not len(everything):
        theme.add_empty_note(figure, "Nothing was timed.", ink)
    else:
        low, high = float(everything.min()), float(everything.max())
        step = max((high - low) / 30, 1e-3 * high, 1e-9)
        for name, values, colour in sides:
            median = float(values.median())
            figure.add_histogram(
                x=values,
                name=f"{name}, median {numbers.milliseconds(median)}",
                marker_color=colour,
                opacity=0.75,
                xbins={"start": low - step / 2, "end": high + step, "size": step},
                hovertemplate="%{x} ms: %{y} requests<extra>" + name + "</extra>",
            )
            figure.add_vline(x=median, line={"color": colour, "width": 2, "dash": "dot"})
        figure.update_xaxes(range=theme.from_zero_if_near(low, high))
    words = {"tpot_ms": "TPOT (ms per token", "ttft_ms": "TTFT (ms", "latency_ms": "Latency (ms"}
    figure.update_layout(barmode="overlay", height=260, margin={"t": 40, "b": 50, "r": 20})
    busy = f"<br>{interference.MARK}" if was_busy else ""
    figure.update_xaxes(title_text=f"{words[column]}, less is better){busy}")
    figure.update_yaxes(title_text="Requests", rangemode="tozero", tickformat="d")
    return figure


def load_curve(levels: pd.DataFrame, *, template: Template = "light") -> go.Figure:
    """Output tokens per second and TPOT by the number of concurrent requests.

    Args:
        levels: As from `load_table.load_table`; Poisson arrivals are left out.
        template: Ink for a light or a dark page.
    """
    ink = theme.INKS[template]
    figure = go.Figure(layout=theme.layout(ink))
    rate, tpot, *_ = theme.COLOURS[template]
    shown = levels[levels["kind"] != "poisson"].dropna(subset=["output_tokens_per_s"])
    for column, name, colour, axis in (
        ("output_tokens_per_s", "output tokens/s", rate, "y"),
        ("tpot_ms", "TPOT, median", tpot, "y2"),
    ):
        figure.add_scatter(
            x=shown["level"],
            y=shown[column],
            name=name,
            mode="lines+markers",
            yaxis=axis,
            line=_line(colour, axis),
            marker={"size": 6},
            hovertemplate=f"%{{x}} concurrent: {name} %{{y:.3g}}<extra></extra>",
        )
    if shown.empty:
        theme.add_empty_note(figure, "No load level was measured.", ink)
    _two_axes(figure, ink, 300, {"rangemode": "tozero"})
    figure.update_layout(
        yaxis2_title_text="TPOT (ms, less is better)",
        yaxis_title_text="Output tokens/s (more is better)",
    )
    figure.update_xaxes(title_text="Concurrent requests", rangemode="tozero", tickformat="d")
    return figure


def training_curve(points: pd.DataFrame, *, template: Template = "light") -> go.Figure:
    """Training loss, held-out KL to the teacher and top-1 agreement by scored tokens.

    Args:
        points: `step`, `scored_tokens`, `loss`, and where measured `heldout_kl` and
            `heldout_top1`.
        template: Ink for a light or a dark page.
    """
    ink = theme.INKS[template]
    figure = go.Figure(layout=theme.layout(ink))
    loss, held_out, agreement, *_ = theme.COLOURS[template]
    series = (
        ("loss", "training loss", loss, "y", "lines", "%{y:.3f} nats"),
        ("heldout_kl", "held-out KL", held_out, "y", "lines+markers", "%{y:.3f} nats"),
        ("heldout_top1", "top-1 agreement", agreement, "y2", "lines+markers", "%{y:.3r} %"),
    )
    for column, name, colour, axis, mode, hover in series:
        known = points.dropna(subset=[column]) if column in points else points.iloc[:0]
        if known.empty:
            continue
        figure.add_scatter(
            x=known["scored_tokens"],
            y=known[column] * (100 if axis == "y2" else 1),
            name=name,
            mode=mode,
            yaxis=axis,
            line=_line(colour, axis),
            marker={"size": 5},
            customdata=known[["step"]],
            hovertemplate=f"{name} {hover}<br>step %{{customdata[0]}}, %{{x:,}} tokens"
            "<extra></extra>",
        )
    if points.empty:
        theme.add_empty_note(figure, "No training step has finished yet.", ink)
    ticks = {"tickmode": "array", "tickvals": [0, 25, 50, 75, 100], "ticksuffix": " %"}
    _two_axes(figure, ink, 320, {"range": [0, 102], **ticks})
    figure.update_layout(
        yaxis2_title_text="Top-1 agreement (more is better)",
        yaxis_title_text="Nats per token (less is better)",
    )
    figure.update_xaxes(title_text="Scored tokens", rangemode="tozero", tickformat="~s")
    return figure


def _line(colour: str, axis: str) -> dict[str, Any]:
    """Solid for the left axis, dotted for the right one."""
    return {"color": colour, "width": 2, "dash": "dot" if axis == "y2" else "solid"}


def _two_axes(figure: go.Figure, ink: dict[str, str], height: int, right: dict[str, Any]) -> None:
    """Add a second axis on the right; the left one starts at zero."""
    figure.update_layout(
        height=height,
        margin={"t": 40, "b": 50, "r": 60},
        yaxis2={**theme.axis(ink), "overlaying": "y", "side": "right", "showgrid": False, **right},
        yaxis_rangemode="tozero",
    )
