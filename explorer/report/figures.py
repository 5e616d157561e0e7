"""The charts. Better is up and to the left; shape repeats what colour says.

    figures.retention_chart(runs, x="tpot_ms").show()

Every figure has a transparent background and two inks, for a light and a dark page.
"""

import dataclasses
import math
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from explorer.analysis import frontier, numbers
from explorer.analysis.advise import TARGET_RETENTION
from explorer.errors import BadInput

Template = Literal["light", "dark"]

# Okabe and Ito 2008, each page in the order in which they stand out on it.
COLOURS = {
    "light": ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442"),
    "dark": ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2"),
}
OTHERS = "#8A8F98"
"""Teachers beyond the seventh share one grey: more colours cannot be told apart."""
INKS: dict[str, dict[str, str]] = {
    "light": {"text": "#1F2933", "quiet": "#5F6B7A", "grid": "#E4E7EB", "halo": "#FFFFFF"},
    "dark": {"text": "#E5E9F0", "quiet": "#A3ADBA", "grid": "#2C333D", "halo": "#0E1117"},
}
HEIGHT = 520
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"

AXES = {
    "tpot_ms": "TPOT, median (ms per token, less is better)",
    "ttft_ms": "TTFT, median (ms to the first token, less is better)",
    "usd_per_hour_at_load": "Cost at the teacher's load (US dollars per hour, less is better)",
    "usd_per_mtok": "Cost (US dollars per million output tokens, less is better)",
    "num_parameters": "Size (parameters, fewer is better)",
    "peak_memory_bytes": "Peak memory (bytes, less is better)",
}
"""What the horizontal axis can be."""
HEIGHTS = {
    "retention": (
        "retention_low",
        "retention_high",
        "Retention above chance (% of the teacher's, more is better)",
    ),
    "raw_ratio": ("raw_low", "raw_high", "Raw ratio (% of the teacher's score, more is better)"),
}
"""What the vertical axis can be, with the ends of its interval."""

SYMBOLS = {"measured": "circle", "published": "diamond-open", "estimated": "circle-open-dot"}
MANY_POINTS = 60
"""From here on points are small and their intervals faint, or nothing can be seen."""


def retention_chart(
    runs: pd.DataFrame,
    x: str = "tpot_ms",
    *,
    y: str = "retention",
    template: Template = "light",
    target: float = TARGET_RETENTION,
    selected: str | None = None,
    width: int = 960,
) -> go.Figure:
    """What each model keeps of its teacher, with its 95 % interval, against latency or cost.

    Args:
        runs: With the columns of `retention.add` and, for a cost axis, of `cost.add`. A
            column `frontier_share` in [0, 1], if there, fades the uncertain frontier.
        x: A key of `AXES`.
        y: `retention` or `raw_ratio`.
        template: Ink for a light or a dark page.
        target: Where the labelled line is, 1.0 is the teacher.
        selected: Run id of the point to ring.
        width: Pixels it will probably be shown at; only the choice of labels needs it.

    Returns:
        A figure in which `customdata[0]` of a point is its run id. Runs without either value
        are left out, and a note in the chart counts them.

    Raises:
        BadInput: An axis that is not offered.
    """
    for given, offered in ((x, AXES), (y, HEIGHTS)):
        if given not in offered:
            raise BadInput(f"The chart has no axis {given!r}; it offers {', '.join(offered)}.")
    ink = INKS[template]
    needed = (x, y, *HEIGHTS[y][:2])
    whole = runs.assign(**{name: np.nan for name in needed if name not in runs})
    shown = _in_percent(whole.dropna(subset=[x, y]), y)
    colours = _colours(runs, template)
    figure = go.Figure(layout=_layout(ink))
    view = _view(shown, x, y, target, width)
    _add_target_line(figure, target, ink)
    several = len(colours) > 1
    fronts = _fronts(shown, x, y)
    for owner, best in fronts.items():
        _add_frontier(figure, best, x, y, view, colours[owner] if several else ink["text"])
    named: set[str] = set()
    for kind, of_kind in shown.groupby(_kind(shown), sort=False):
        for teacher, group in of_kind.groupby("teacher", sort=False):
            style = _marker(str(kind), colours[str(teacher)], len(shown), ink)
            # One teacher: the legend names shapes. Several: colours, and shapes after them.
            name = str(teacher) if several else _KIND_NAMES.get(str(kind), f"{kind} student")
            figure.add_trace(_points(group, x, y, style, name, len(shown)))
            figure.data[-1].update(
                showlegend=name not in named,
                legendgroup=name,
                legendrank=1 if kind == "teacher" else 2,
            )
            named.add(name)
    if several:
        _add_shape_legend(figure, list(dict.fromkeys(_kind(shown))), ink)
    _add_labels(figure, shown, pd.concat([shown.iloc[:0], *fronts.values()]), x, y, view, ink)
    if selected is not None:
        _add_ring(figure, shown[shown["run_id"] == selected], x, y, ink)
    _add_note(figure, runs, shown, x, ink)
    figure.update_xaxes(title_text=AXES[x], range=view.x_axis, type="log" if view.log else "linear")
    figure.update_yaxes(title_text=HEIGHTS[y][2], range=view.y_range, ticksuffix=" %")
    if x.startswith("usd"):
        figure.update_xaxes(tickprefix="$")
    elif x == "num_parameters":
        figure.update_xaxes(**_si_ticks(view, ["", " k", " M", " B", " T"]))
    elif x == "peak_memory_bytes":
        figure.update_xaxes(**_si_ticks(view, [" B", " kB", " MB", " GB", " TB"]))
    return figure


def per_task_bars(per_task: pd.DataFrame, *, template: Template = "light") -> go.Figure:
    """Student's and teacher's score on each task, with the level of guessing marked.

    Args:
        per_task: As `retention.per_task` gives it.
        template: Ink for a light or a dark page.
    """
    ink = INKS[template]
    known = per_task.dropna(subset=["student", "teacher"]).iloc[::-1]
    names = [str(task) for task in known["task"]]
    figure = go.Figure(layout=_layout(ink))
    for name, colour in (("teacher", OTHERS), ("student", COLOURS[template][0])):
        figure.add_bar(
            y=names, x=known[name], orientation="h", name=name, marker_color=colour,
            text=[numbers.significant(value) for value in known[name]], textposition="outside",
            textfont={"color": ink["text"], "size": 11}, cliponaxis=False,
            hovertemplate=f"%{{y}}: {name} %{{x:.3f}}<extra></extra>",
        )  # fmt: skip
    figure.add_scatter(
        x=known["chance"], y=names, mode="markers", name="chance",
        marker={"symbol": "line-ns-open", "size": 26, "color": ink["text"], "line": {"width": 2}},
        hovertemplate="%{y}: guessing gives %{x:.3f}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        height=110 + 52 * max(1, len(known)), barmode="group", bargap=0.35, bargroupgap=0.08,
        margin={"l": 10, "r": 40, "t": 40, "b": 50}, legend={"traceorder": "reversed"},
    )  # fmt: skip
    figure.update_xaxes(title_text="Score (more is better)", range=[0, 1.08], tickformat=".1f")
    figure.update_yaxes(showgrid=False, automargin=True, ticksuffix="  ")
    if known.empty:
        _say(figure, "No task was answered by both.", ink)
    return figure


def latency_histogram(
    own_turns: pd.DataFrame,
    teacher_turns: pd.DataFrame | None = None,
    *,
    column: Literal["tpot_ms", "ttft_ms", "latency_ms"] = "tpot_ms",
    template: Template = "light",
) -> go.Figure:
    """How the counted turns of a model, and of the teacher timed between them, spread.

    Args:
        own_turns: As `store.turns` gives it.
        teacher_turns: The teacher's; None or empty for a teacher's own run.
        column: What is counted, in ms.
        template: Ink for a light or a dark page.
    """
    ink = INKS[template]
    figure = go.Figure(layout=_layout(ink))
    own = own_turns[column].dropna()
    sides = [("this model", own, COLOURS[template][0])]
    if teacher_turns is not None and not teacher_turns.empty:
        sides.append(("its teacher", teacher_turns[column].dropna(), OTHERS))
    everything = np.concatenate([values.to_numpy(dtype=float) for _, values, _ in sides])
    if not len(everything):
        _say(figure, "Nothing was timed.", ink)
    else:
        low, high = float(everything.min()), float(everything.max())
        step = max((high - low) / 30, 1e-3 * high, 1e-9)
        for name, values, colour in sides:
            median = float(values.median())
            figure.add_histogram(
                x=values, name=f"{name}, median {numbers.milliseconds(median)}",
                marker_color=colour, opacity=0.75,
                xbins={"start": low - step / 2, "end": high + step, "size": step},
                hovertemplate="%{x} ms: %{y} turns<extra>" + name + "</extra>",
            )  # fmt: skip
            figure.add_vline(x=median, line={"color": colour, "width": 2, "dash": "dot"})
        figure.update_xaxes(range=_from_zero_if_near(low, high))
    words = {"tpot_ms": "TPOT (ms per token", "ttft_ms": "TTFT (ms", "latency_ms": "Latency (ms"}
    figure.update_layout(barmode="overlay", height=260, margin={"t": 40, "b": 50, "r": 20})
    figure.update_xaxes(title_text=f"{words[column]}, less is better)")
    figure.update_yaxes(title_text="Turns", rangemode="tozero", tickformat="d")
    return figure


def training_curve(points: pd.DataFrame, *, template: Template = "light") -> go.Figure:
    """Training loss, held-out KL to the teacher and top-1 agreement over scored tokens.

    Args:
        points: `step`, `scored_tokens`, `loss`, and where measured `heldout_kl` and
            `heldout_top1`.
        template: Ink for a light or a dark page.
    """
    ink = INKS[template]
    figure = go.Figure(layout=_layout(ink))
    loss, held_out, agreement, *_ = COLOURS[template]
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
            x=known["scored_tokens"], y=known[column] * (100 if axis == "y2" else 1),
            name=name, mode=mode, yaxis=axis,
            line={"color": colour, "width": 2, "dash": "dot" if axis == "y2" else "solid"},
            marker={"size": 5}, customdata=known[["step"]],
            hovertemplate=f"{name} {hover}<br>step %{{customdata[0]}}, %{{x:,}} tokens"
            "<extra></extra>",
        )  # fmt: skip
    if points.empty:
        _say(figure, "No training step is done yet.", ink)
    figure.update_layout(
        height=320,
        margin={"t": 40, "b": 50, "r": 60},
        yaxis2={
            **_axis(ink), "overlaying": "y", "side": "right", "range": [0, 102],
            "tickmode": "array", "tickvals": [0, 25, 50, 75, 100], "ticksuffix": " %",
            "showgrid": False,
        },
        yaxis2_title_text="Top-1 agreement (more is better)",
        yaxis_title_text="Nats per token (less is better)",
        yaxis_rangemode="tozero",
    )  # fmt: skip
    figure.update_xaxes(title_text="Scored tokens", rangemode="tozero", tickformat="~s")
    return figure


@dataclasses.dataclass(frozen=True)
class _View:
    """What part of the plane is shown, and how large a pixel is in it."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log: bool
    width: int
    height: int

    @property
    def x_axis(self) -> list[float]:
        """The range as Plotly wants it: exponents on a logarithmic axis."""
        return [math.log10(v) for v in self.x_range] if self.log else list(self.x_range)

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Pixels from the left and from the top of the plot's area."""
        low, high = self.x_axis
        at = math.log10(x) if self.log else x
        bottom, top = self.y_range
        return (
            (at - low) / (high - low) * self.width,
            (top - y) / (top - bottom) * self.height,
        )


def _view(shown: pd.DataFrame, x: str, y: str, target: float, width: int) -> _View:
    """From zero where that costs little, past 100 % always, wide intervals cut."""
    plot_width, plot_height = max(200, width - 110), HEIGHT - 110
    if shown.empty:
        return _View((0, 1), (0, 110), False, plot_width, plot_height)
    low_name, high_name, _ = HEIGHTS[y]
    values, costs = shown[y], shown[x]
    # An interval may be far wider than all points; the points decide what is seen.
    least, most = float(values.min()), float(values.max())
    bottom, top = min(85.0, least - 6), max(108.0, 100 * target + 6, most + 5)
    if shown[low_name].notna().any():
        bottom = min(bottom, max(float(shown[low_name].min()), least - 20) - 3)
        top = max(top, min(float(shown[high_name].max()), most + 20) + 3)
    low, high = float(costs.min()), float(costs.max())
    log = low > 0 and high / low > 25
    if log:
        return _View((low / 1.6, high * 1.6), (bottom, top), True, plot_width, plot_height)
    start, end = _from_zero_if_near(low, high)
    return _View((start, end), (bottom, top), False, plot_width, plot_height)


def _from_zero_if_near(low: float, high: float) -> tuple[float, float]:
    """A range with margins that starts at zero unless that wastes most of it."""
    if 0 <= low < 0.6 * high:
        return 0.0, high * 1.08
    margin = max((high - low) * 0.12, abs(high) * 0.02, 1e-9)
    return low - margin, high + margin


def _kind(shown: pd.DataFrame) -> "pd.Series[str]":
    """teacher, or the basis of a student: measured, published, estimated."""
    return shown["basis"].where(shown["role"] != "teacher", "teacher").rename("kind")


def _in_percent(shown: pd.DataFrame, y: str) -> pd.DataFrame:
    """The vertical axis is in percent: Plotly's own format writes 80% where we write 80 %."""
    low_name, high_name, _ = HEIGHTS[y]
    columns = (y, low_name, high_name)
    return shown.assign(**{name: 100 * shown[name].astype(float) for name in columns})


def _colours(runs: pd.DataFrame, template: Template) -> dict[str, str]:
    """A colour for each teacher, the one with most runs first."""
    palette = COLOURS[template]
    teachers = runs["teacher"].value_counts().index
    return {name: palette[i] if i < len(palette) else OTHERS for i, name in enumerate(teachers)}


def _fronts(shown: pd.DataFrame, x: str, y: str) -> dict[str, pd.DataFrame]:
    """The frontier of each teacher's measured runs.

    A share of one teacher is no share of another, and a claim is no measurement: neither
    may push a measured run off the line.
    """
    measured = shown[shown["basis"] == "measured"]
    return {
        str(teacher): frontier.pareto(group, maximise=y, minimise=x)
        for teacher, group in measured.groupby("teacher", sort=False)
    }


_KIND_NAMES = {"teacher": "teacher", "measured": "measured student"}


def _marker(kind: str, colour: str, num_shown: int, ink: dict[str, str]) -> dict[str, Any]:
    """Shape, size and outline of a point."""
    if kind == "teacher":
        outline = {"color": ink["halo"], "width": 1}
        return {"symbol": "star", "size": 19, "color": colour, "opacity": 1, "line": outline}
    symbol = SYMBOLS.get(kind, "x-thin-open")
    hollow = "open" in symbol
    outline = {"color": colour, "width": 1.5} if hollow else {"color": ink["halo"], "width": 1}
    size = 7 if num_shown > MANY_POINTS else 11
    return {"symbol": symbol, "size": size, "color": colour, "opacity": 1, "line": outline}


def _points(
    group: pd.DataFrame, x: str, y: str, marker: dict[str, Any], name: str, num_shown: int
) -> go.Scatter:
    """One trace: the points of one teacher that are known in the same way."""
    low_name, high_name, _ = HEIGHTS[y]
    faint = _faded(marker["color"], 0.2 if num_shown > MANY_POINTS else 0.6)
    return go.Scatter(
        x=group[x], y=group[y], mode="markers", marker=marker, cliponaxis=False, name=_safe(name),
        customdata=np.stack([group["run_id"], _hover_lines(group, y)], axis=-1),
        hovertemplate="%{customdata[1]}<extra></extra>",
        error_y={
            "type": "data", "symmetric": False, "color": faint, "thickness": 1.5, "width": 0,
            "array": (group[high_name] - group[y]).fillna(0),
            "arrayminus": (group[y] - group[low_name]).fillna(0),
        },
    )  # fmt: skip


def _add_shape_legend(figure: go.Figure, kinds: list[str], ink: dict[str, str]) -> None:
    """What the shapes mean, in grey, where the colours stand for teachers."""
    for kind in kinds:
        figure.add_scatter(
            x=[None], y=[None], mode="markers", hoverinfo="skip", legendrank=4,
            name=_KIND_NAMES.get(kind, f"{kind} student"),
            marker=_marker(kind, ink["quiet"], 1, ink),
        )  # fmt: skip


def _hover_lines(group: pd.DataFrame, y: str) -> list[str]:
    """What a point says when it is hovered: who, what it keeps, how fast, what it costs."""
    low_name, high_name, _ = HEIGHTS[y]
    lines = []
    for row in group.to_dict("records"):
        facts = [
            ("keeps", _percent(row[y], row[low_name], row[high_name])),
            ("TPOT", numbers.milliseconds(row.get("tpot_ms"))),
            ("TTFT", numbers.milliseconds(row.get("ttft_ms"))),
            ("parameters", numbers.parameters(row.get("num_parameters"))),
            ("per million tokens", numbers.dollars(row.get("usd_per_mtok"))),
        ]
        known = [f"{name} {value}" for name, value in facts if value != numbers.MISSING]
        who = f"<b>{_safe(row['label'])}</b> of {_safe(row['teacher'])}, {_safe(row['basis'])}"
        if row["role"] == "teacher":
            who = f"<b>{_safe(row['teacher'])}</b>, the teacher"
        lines.append("<br>".join([who, *known, _safe(row["run_id"])]))
    return lines


def _percent(value: float, low: float, high: float) -> str:
    return f"{numbers.significant(value)} % {numbers.interval(low, high)}".rstrip()


def _safe(text: Any) -> str:
    """Text in which Plotly sees no tags."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _add_target_line(figure: go.Figure, target: float, ink: dict[str, str]) -> None:
    """The promise of distillation, named on the line itself."""
    figure.add_hline(y=100 * target, line={"color": ink["quiet"], "width": 1, "dash": "dash"})
    figure.add_annotation(
        x=0, xref="paper", xanchor="left", xshift=6, y=100 * target, yanchor="top", yshift=-1,
        text=f"{numbers.percent(target, digits=2)} of the teacher", showarrow=False,
        font={"size": 12, "color": ink["quiet"]},
    )  # fmt: skip


def _add_frontier(
    figure: go.Figure, best: pd.DataFrame, x: str, y: str, view: _View, colour: str
) -> None:
    """A thin step line: the most that can be kept at this cost or less.

    Each step is as strong as its run is sure to be on the frontier.
    """
    shares = best["frontier_share"].fillna(1) if "frontier_share" in best else best[y] * 0 + 1
    xs = [*best[x].astype(float), view.x_range[1]]
    ys = [*best[y].astype(float)]
    shown = any(trace.name == "frontier" for trace in figure.data)
    for i, share in enumerate(shares):
        end_y = ys[min(i + 1, len(ys) - 1)]
        figure.add_scatter(
            x=[xs[i], xs[i + 1], xs[i + 1]], y=[ys[i], ys[i], end_y], mode="lines",
            line={"color": _faded(colour, 0.1 + 0.35 * float(share)), "width": 1.2},
            name="frontier", legendgroup="frontier", legendrank=3, hoverinfo="skip",
            showlegend=not shown and i == 0,
        )  # fmt: skip


def _add_labels(
    figure: go.Figure, shown: pd.DataFrame, best: pd.DataFrame, x: str, y: str, view: _View,
    ink: dict[str, str],
) -> None:  # fmt: skip
    """Names beside the frontier's points where they hide nothing; others are on hover."""
    taken = [_around(view.pixel(px, py), 9, 9) for px, py in zip(shown[x], shown[y], strict=True)]
    for note in figure.layout.annotations:  # the name of the target line
        _, line = view.pixel(view.x_range[0], note.y)
        taken.append((0, line, 7.0 * len(note.text), line + 18))
    for row in best.iloc[::-1].to_dict("records"):
        text = str(row["teacher"] if row["role"] == "teacher" else row["label"])
        at_x, at_y = view.pixel(row[x], row[y])
        wide, high = 7.0 * len(text) + 4, 16.0
        # The frontier runs below and to the right, so left of a point is free most often.
        places = [(-14, 0), (-14, -14), (14, 14), (14, 0), (0, -20)]
        if row["role"] == "teacher":
            places.insert(0, (-10, -16))  # clear of the line at 100 %
        for dx, dy in places:
            left = at_x + dx - (wide if dx < 0 else wide / 2 if dx == 0 else 0)
            box = (left, at_y + dy - high / 2, left + wide, at_y + dy + high / 2)
            inside = box[0] > 0 and box[2] < view.width and box[1] > 0 and box[3] < view.height
            if inside and not any(_overlap(box, other) for other in taken):
                break
        else:
            continue
        taken.append(box)
        figure.add_annotation(
            x=math.log10(row[x]) if view.log else row[x], y=row[y], text=_safe(text),
            showarrow=False, xshift=dx, yshift=-dy, yanchor="middle",
            xanchor="right" if dx < 0 else "left" if dx > 0 else "center",
            font={"size": 13, "color": ink["text"]},
        )  # fmt: skip


def _around(centre: tuple[float, float], dx: float, dy: float) -> tuple[float, ...]:
    return centre[0] - dx, centre[1] - dy, centre[0] + dx, centre[1] + dy


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _add_ring(figure: go.Figure, one: pd.DataFrame, x: str, y: str, ink: dict[str, str]) -> None:
    """A ring around the run whose facts are shown below."""
    figure.add_scatter(
        x=one[x], y=one[y], mode="markers", showlegend=False, hoverinfo="skip",
        marker={
            "symbol": "circle-open", "size": 24, "color": ink["text"], "line": {"width": 1.5},
        },
    )  # fmt: skip


def _add_note(
    figure: go.Figure, runs: pd.DataFrame, shown: pd.DataFrame, x: str, ink: dict[str, str]
) -> None:
    """Say what is not in the chart, so that nothing goes missing silently."""
    left_out = len(runs) - len(shown)
    if shown.empty:
        needs = "a price for the device" if x.startswith("usd") else "a finished, measured run"
        _say(figure, f"Nothing to draw: this axis needs {needs}.", ink)
    elif left_out:
        what = "1 run without" if left_out == 1 else f"{left_out} runs without"
        figure.add_annotation(
            x=1, xref="paper", xanchor="right", y=0, yref="paper", yanchor="bottom", yshift=4,
            text=f"{what} these values not shown", showarrow=False,
            font={"size": 11, "color": ink["quiet"]},
        )  # fmt: skip


def _say(figure: go.Figure, text: str, ink: dict[str, str]) -> None:
    figure.add_annotation(
        x=0.5, y=0.5, xref="paper", yref="paper", text=text, showarrow=False,
        font={"size": 15, "color": ink["quiet"]},
    )  # fmt: skip


def _si_ticks(view: _View, units: list[str]) -> dict[str, Any]:
    """Ticks in k, M, B: Plotly's own prefixes would write a billion as G."""
    low, high = view.x_range
    if view.log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        values = [m * 10.0**e for e in range(first, last + 1) for m in (1, 3)]
    else:
        rough = (high - low) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(s - rough))
        values = list(np.arange(math.ceil(low / step) * step, high, step))
    shown = [v for v in values if low <= v <= high]
    texts = []
    for value in shown:
        level = 0 if value == 0 else min(len(units) - 1, max(0, int(math.log10(value) // 3)))
        texts.append(f"{value / 1000**level:g}{units[level]}" if value else "0")
    return {"tickvals": shown, "ticktext": texts}


def _faded(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:.2f})"


def _layout(ink: dict[str, str]) -> go.Layout:
    """What all figures share: no background, quiet grid, legend above."""
    return go.Layout(
        height=HEIGHT, margin={"l": 60, "r": 24, "t": 44, "b": 60},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13, "color": ink["text"]},
        xaxis=_axis(ink), yaxis=_axis(ink), hovermode="closest", dragmode="pan",
        hoverlabel={"align": "left", "font": {"family": FONT, "size": 12}},
        legend={
            "orientation": "h", "x": 0, "y": 1.01, "xanchor": "left", "yanchor": "bottom",
            "font": {"color": ink["quiet"], "size": 12}, "bgcolor": "rgba(0,0,0,0)",
        },
        # Plotly's default template would paint a background and colours of its own.
        template="none",
    )  # fmt: skip


def _axis(ink: dict[str, str]) -> dict[str, Any]:
    """Quiet ticks away from the corner, where two zeros would touch."""
    return {
        "gridcolor": ink["grid"], "zeroline": False, "showline": False, "ticks": "",
        "ticklabelstandoff": 6, "tickfont": {"color": ink["quiet"], "size": 12},
        "automargin": True, "title": {"font": {"color": ink["text"], "size": 13}, "standoff": 12},
    }  # fmt: skip
