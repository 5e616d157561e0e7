"""The main chart: retention against latency, cost, size or memory. Better is up and to the left.

    retention_chart(runs, x="tpot_ms").show()

Symbols repeat what colours say: see `theme.SYMBOLS`.
"""

import math
import textwrap
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from explorer.analysis import frontier, interference, numbers
from explorer.analysis.cost import unit_cost
from explorer.analysis.headline import TARGET_RETENTION
from explorer.analysis.pick import candidates
from explorer.analysis.pick.limits import NUMERIC
from explorer.analysis.stats.retention import INTERVALS
from explorer.charts import labels, marks, theme
from explorer.charts.labels import View
from explorer.charts.theme import Template
from explorer.charts.thinning import thin, thinned_text
from explorer.records.rows import row_dicts

AXES = {
    "tpot_ms": "TPOT, median (ms per token, less is better)",
    "ttft_ms": "TTFT, median (ms to the first token, less is better)",
    "usd_per_hour_at_load": "Cost at the teacher's load (US dollars per hour, less is better)",
    "usd_per_mtok": "Cost (US dollars per million output tokens, less is better)",
    "num_parameters": "Size (parameters, fewer is better)",
    "peak_memory_bytes": "Peak memory (bytes, less is better)",
}
"""Possible horizontal axes."""
HEIGHTS = {
    "retention": "Retention above chance (% of the teacher's, more is better)",
    "raw_ratio": "Raw ratio (% of the teacher's score, more is better)",
}
"""Possible vertical axes."""
PALE = 0.25
"""Opacity of the points that limits exclude."""
MANY_STEPS = 20
"""Above this many, the steps of a frontier share traces."""


def retention_chart(
    runs: pd.DataFrame,
    x: str = "tpot_ms",
    *,
    y: str = "retention",
    template: Template = "light",
    target: float = TARGET_RETENTION,
    selected: str | None = None,
    picked: str | None = None,
    excluded: Collection[str] = (),
    x_limit: float | None = None,
    width: int = 960,
) -> go.Figure:
    """What each model keeps of its teacher, with 95 % intervals, against latency or cost.

    Args:
        runs: With the columns of `retention.add_retention` and, for a cost axis, of
            `unit_cost.add_costs`. A column `frontier_share` in [0, 1] fades the uncertain parts
            of the frontier.
        x: A key of `AXES`.
        y: `retention` or `raw_ratio`.
        template: Ink for a light or a dark page.
        target: The labelled line; 1.0 is the teacher.
        selected: Run id of the point to ring.
        picked: Run id of the point to mark as the pick.
        excluded: Run ids that limits exclude; their points are pale.
        x_limit: The most that `x` may be, as a labelled line.
        width: Approximate width on the page in pixels, for placing labels.

    Returns:
        A figure in which `customdata[0]` of a point is its run id. Runs without both values are
        left out, and a note in the chart counts them. Of many runs a sample is drawn: see
        `thinning`. Runs that were timed on a busy machine are hollow and grey and never on the
        frontier. They stretch the horizontal axis only if there are no others; the note counts
        those beyond it.

    Raises:
        BadInput: An unknown axis.
    """
    theme.check_axes((x, AXES), (y, HEIGHTS))
    ink = theme.INKS[template]
    needed = (x, y, *INTERVALS[y], "format", "kind", "method")
    whole = runs.assign(**{name: np.nan for name in needed if name not in runs})
    shown = _in_percent(whole.dropna(subset=[x, y]), y).reset_index(drop=True)
    colours = _colours(shown, template)
    figure = go.Figure(layout=theme.layout(ink))
    view = _view(shown, x, y, target, width)
    _add_target_line(figure, target, ink)
    if x_limit is not None and not shown.empty:
        _add_x_limit(figure, x, x_limit, view, ink)
    several = len(colours) > 1
    fronts = _fronts(shown, x, y)
    for owner, best in fronts.items():
        _add_frontier(figure, best, x, y, view, colours[owner] if several else ink["text"])
    best = pd.concat([shown.iloc[:0], *fronts.values()])
    chosen = (shown["role"] == "teacher") | shown["run_id"].isin([selected, picked])
    drawn = thin(shown, x, y, first=[*best.index, *shown.index[chosen]])
    named: set[str] = set()
    kinds = marks.kinds(drawn)
    if len(drawn) <= marks.MANY_POINTS:
        _join_sizes(figure, drawn[~kinds.isin(marks.GREY)], x, y, colours)
    # Grey ones first, so that they are drawn below the others.
    for kind in sorted(dict.fromkeys(kinds), key=lambda kind: kind not in marks.GREY):
        for teacher, group in drawn[kinds == kind].groupby("teacher", sort=False):
            colour = ink["quiet"] if kind in marks.GREY else colours[str(teacher)]
            style = marks.marker(kind, colour, len(drawn), ink)
            # The legend takes the first point's opacity.
            group = group.sort_values("run_id", key=lambda ids: ids.isin(excluded), kind="stable")
            style["opacity"] = [PALE if run in excluded else 1.0 for run in group["run_id"]]
            # With one teacher the legend names shapes; with several, colours and then shapes.
            by_teacher = several and kind not in marks.GREY
            name = str(teacher) if by_teacher else marks.kind_name(kind)
            figure.add_trace(_points(group, x, y, style, name, len(drawn)))
            figure.data[-1].update(
                showlegend=name not in named,
                legendgroup=name,
                legendrank=1 if kind.startswith("teacher") else 5 if kind in marks.GREY else 2,
            )
            named.add(name)
    if several:
        shapes = [kind for kind in dict.fromkeys(kinds) if kind not in marks.GREY]
        marks.add_shape_legend(figure, shapes, ink)
    notes = _notes(runs, shown, drawn, x, view)
    _add_labels(figure, drawn, best, x, y, view, notes, ink)
    if selected is not None and selected != picked:
        theme.add_ring(figure, drawn[drawn["run_id"] == selected], x, y, ink)
    if picked is not None:
        theme.add_ring(figure, drawn[drawn["run_id"] == picked], x, y, ink, strong=True)
    if shown.empty:
        needs = "a price for the device" if x.startswith("usd") else "a finished, measured run"
        theme.add_empty_note(figure, f"Nothing to draw: this axis needs {needs}.", ink)
    elif notes:
        theme.add_corner_note(figure, "<br>".join(notes), ink)
    figure.update_xaxes(
        title_text=_title(x, runs, width), range=view.x_axis, type="log" if view.log else "linear"
    )
    figure.update_yaxes(title_text=HEIGHTS[y], range=view.y_range, ticksuffix=" %")
    if x.startswith("usd"):
        figure.update_xaxes(tickprefix="$")
    if x == "num_parameters":
        figure.update_xaxes(
            **theme.si_ticks(*view.x_range, ["", " k", " M", " B", " T"], log=view.log)
        )
    elif x == "peak_memory_bytes":
        figure.update_xaxes(
            **theme.si_ticks(*view.x_range, [" B", " kB", " MB", " GB", " TB"], log=view.log)
        )
    elif view.log:
        figure.update_xaxes(**theme.si_ticks(*view.x_range, [""], log=True))
    return figure


def _title(x: str, runs: pd.DataFrame, width: int) -> str:
    """Title of the horizontal axis, wrapped to the width; a cost states its utilisation."""
    title = AXES[x]
    if x == "usd_per_mtok":
        title = title.replace(
            "output tokens", f"output tokens {unit_cost.utilisation_text_of(runs)}"
        )
    return "<br>".join(textwrap.wrap(title, max(20, width // theme.PIXELS_PER_LETTER)))


def _view(shown: pd.DataFrame, x: str, y: str, target: float, width: int) -> View:
    """Ranges that start at zero if that costs little, include 100 % and cut wide intervals.

    Runs slowed down by a busy machine do not stretch them, unless there are no others.
    """
    plot_width = max(200, width - 110)
    rows = marks.legend_rows(shown, plot_width)
    plot_height = max(120, theme.HEIGHT - 110 - marks.LEGEND_ROW_PIXELS * (rows - 1))
    if shown.empty:
        return View((0, 1), (0, 110), False, plot_width, plot_height)
    low_name, high_name = INTERVALS[y]
    quiet = interference.without_busy(shown)
    costs = shown[x]
    if interference.rests_on_times(x) and not quiet.empty:
        costs = costs[costs <= quiet[x].max()]
    low, high = float(costs.min()), float(costs.max())
    log = low > 0 and high / low > 10
    start, end = (low / 1.6, high * 1.6) if log else theme.from_zero_if_near(low, high)
    shown = shown[shown[x].between(start, end)]
    values = shown[y]
    # An interval may be far wider than all points; the points decide the range.
    least, most = float(values.min()), float(values.max())
    bottom, top = min(85.0, least - 6), max(108.0, 100 * target + 6, most + 5)
    if shown[low_name].notna().any():
        bottom = min(bottom, max(float(shown[low_name].min()), least - 20) - 3)
        top = max(top, min(float(shown[high_name].max()), most + 20) + 3)
    return View((start, end), (bottom, top), log, plot_width, plot_height)


def _join_sizes(
    figure: go.Figure, drawn: pd.DataFrame, x: str, y: str, colours: dict[str, str]
) -> None:
    """A thin line through the sizes of each teacher's models in one number format."""
    measured = drawn[drawn["basis"] == "measured"]
    for (teacher, _), group in measured.groupby(["teacher", candidates.formats(measured)]):
        sizes = group.sort_values("num_parameters", kind="stable")
        if len(sizes) > 1 and sizes["num_parameters"].is_unique:
            figure.add_scatter(
                x=sizes[x],
                y=sizes[y],
                mode="lines",
                line={"color": theme.faded(colours[str(teacher)], 0.35), "width": 1},
                hoverinfo="skip",
                showlegend=False,
            )


def _add_x_limit(figure: go.Figure, x: str, limit: float, view: View, ink: dict[str, str]) -> None:
    """The most that the horizontal axis may be, if it lies in the view."""
    low, high = view.x_range
    if not low < limit < high:
        return
    figure.add_vline(x=limit, line={"color": ink["quiet"], "width": 1, "dash": "dash"})
    figure.add_annotation(
        x=math.log10(limit) if view.log else limit,
        y=1,
        yref="paper",
        yanchor="top",
        xanchor="left",
        xshift=4,
        text=f"at most {_LIMIT_TEXTS[x](limit)}",
        showarrow=False,
        font={"size": 12, "color": ink["quiet"]},
    )


def _in_percent(shown: pd.DataFrame, y: str) -> pd.DataFrame:
    """The vertical values in percent, because Plotly's own format writes 80% without a space."""
    low_name, high_name = INTERVALS[y]
    columns = (y, low_name, high_name)
    return shown.assign(**{name: 100 * shown[name].astype(float) for name in columns})


def _colours(runs: pd.DataFrame, template: Template) -> dict[str, str]:
    """A colour per teacher, in order of their number of runs."""
    palette = theme.COLOURS[template]
    teachers = runs["teacher"].value_counts().index
    return {
        name: palette[i] if i < len(palette) else theme.OTHERS for i, name in enumerate(teachers)
    }


def _fronts(shown: pd.DataFrame, x: str, y: str) -> dict[str, pd.DataFrame]:
    """The frontier of each teacher's measured runs.

    Retention is relative to one teacher, and published claims, estimates and timings on a busy
    machine are not comparable measurements. None of them may displace a measured run.
    """
    measured = shown[shown["basis"] == "measured"]
    return {
        str(teacher): frontier.pareto(group, maximise=y, minimise=x)
        for teacher, group in measured.groupby("teacher", sort=False)
    }


_LIMIT_TEXTS = {limit.column: limit.write for limit in NUMERIC} | {
    "num_parameters": numbers.parameters
}


def _points(
    group: pd.DataFrame, x: str, y: str, marker: dict[str, Any], name: str, num_shown: int
) -> go.Scatter:
    """One trace: the points of one teacher and one kind."""
    low_name, high_name = INTERVALS[y]
    faint = theme.faded(marker["color"], 0.2 if num_shown > marks.MANY_POINTS else 0.6)
    return go.Scatter(
        x=group[x],
        y=group[y],
        mode="markers",
        marker=marker,
        cliponaxis=False,
        name=theme.escape(name),
        customdata=np.stack([group["run_id"], _hover_lines(group, y)], axis=-1),
        hovertemplate="%{customdata[1]}<extra></extra>",
        error_y={
            "type": "data",
            "symmetric": False,
            "color": faint,
            "thickness": 1.5,
            "width": 0,
            "array": (group[high_name] - group[y]).fillna(0),
            "arrayminus": (group[y] - group[low_name]).fillna(0),
        },
    )


def _hover_lines(group: pd.DataFrame, y: str) -> list[str]:
    """The hover text of each point: its name, retention, speed, size and cost."""
    low_name, high_name = INTERVALS[y]
    per_token = unit_cost.heading_of(group)
    lines = []
    for row in row_dicts(group):
        facts = [
            ("keeps", _percent(row[y], row[low_name], row[high_name])),
            ("TPOT", numbers.milliseconds(row.get("tpot_ms"))),
            ("TTFT", numbers.milliseconds(row.get("ttft_ms"))),
            ("parameters", numbers.parameters(row.get("num_parameters"))),
            (per_token, numbers.dollars(row.get("usd_per_mtok"))),
            (
                "timed with",
                unit_cost.lengths_text(row.get("prompt_tokens"), row.get("output_tokens")),
            ),
        ]
        known = [f"{fact} {value}" for fact, value in facts if value != numbers.MISSING]
        name = (
            f"<b>{theme.escape(row['label'])}</b> of {theme.escape(row['teacher'])}, "
            f"{theme.escape(row['basis'])}"
        )
        if row["role"] == "teacher":
            name = f"<b>{theme.escape(row['teacher'])}</b>, the teacher"
        if row.get("machine_busy") is True:
            known.append(f"{interference.MARK}: no conclusion uses these times")
        lines.append("<br>".join([name, *known, theme.escape(row["run_id"])]))
    return lines


def _percent(value: float, low: float, high: float) -> str:
    return f"{numbers.significant(value)} % {numbers.interval(low, high)}".rstrip()


def _add_target_line(figure: go.Figure, target: float, ink: dict[str, str]) -> None:
    """The target line with its label."""
    figure.add_hline(y=100 * target, line={"color": ink["quiet"], "width": 1, "dash": "dash"})
    figure.add_annotation(
        x=0,
        xref="paper",
        xanchor="left",
        xshift=6,
        y=100 * target,
        yanchor="top",
        yshift=-1,
        text=f"{numbers.percent(target, digits=2)} of the teacher",
        showarrow=False,
        font={"size": 12, "color": ink["quiet"]},
    )


def _add_frontier(
    figure: go.Figure, best: pd.DataFrame, x: str, y: str, view: View, colour: str
) -> None:
    """A thin step line: the best retention at this cost or less.

    The more certain a run is to be on the frontier, the stronger its step. Many steps share one
    trace per tenth of certainty, because a trace costs the browser more than a point.
    """
    shares = best["frontier_share"].fillna(1) if "frontier_share" in best else best[y] * 0 + 1
    shares = shares.round(1) if len(best) > MANY_STEPS else shares
    xs = [*best[x].astype(float), view.x_range[1]]
    ys = [*best[y].astype(float)]
    lines: dict[object, tuple[list[float | None], list[float | None], float]] = {}
    for step, share in enumerate(shares):
        line_x, line_y, _ = lines.setdefault(
            share if len(best) > MANY_STEPS else step, ([], [], float(share))
        )
        if line_x:
            line_x.append(None)
            line_y.append(None)
        line_x += [xs[step], xs[step + 1], xs[step + 1]]
        line_y += [ys[step], ys[step], ys[min(step + 1, len(ys) - 1)]]
    named = any(trace.name == "frontier" for trace in figure.data)
    for line_x, line_y, share in lines.values():
        figure.add_scatter(
            x=line_x,
            y=line_y,
            mode="lines",
            line={"color": theme.faded(colour, 0.1 + 0.35 * share), "width": 1.2},
            name="frontier",
            legendgroup="frontier",
            legendrank=3,
            hoverinfo="skip",
            showlegend=not named,
        )
        named = True


def _add_labels(
    figure: go.Figure,
    drawn: pd.DataFrame,
    best: pd.DataFrame,
    x: str,
    y: str,
    view: View,
    notes: list[str],
    ink: dict[str, str],
) -> None:
    """Name the frontier and the teachers, each once, where there is room; hovering names all."""
    taken = labels.occupied_boxes(figure, zip(drawn[x], drawn[y], strict=True), view)
    taken.append(labels.corner_box(notes, view))
    teachers = drawn[(drawn["role"] == "teacher") & ~drawn.index.isin(best.index)]
    # The frontier's best point comes last and is named first.
    named = pd.concat([teachers.iloc[::-1], best])
    named = named.assign(
        text=named["label"].where(named["role"] != "teacher", named["teacher"]).astype(str)
    )
    # Of several runs with one label, the name stands at the best.
    named = named.drop_duplicates(["teacher", "text"], keep="last")
    wanted = [
        labels.Label(row[x], row[y], row["text"], of_star=row["role"] == "teacher")
        for row in row_dicts(named.loc[::-1, [x, y, "text", "role"]])
    ]
    labels.place_labels(figure, wanted, taken, view, ink)


def _notes(
    runs: pd.DataFrame, shown: pd.DataFrame, drawn: pd.DataFrame, x: str, view: View
) -> list[str]:
    """What the chart leaves out, a line each."""
    notes = [text] if (text := thinned_text(len(drawn), len(shown))) else []
    num_outside = int((~drawn[x].between(*view.x_range)).sum())
    if num_outside:
        which = "1 run" if num_outside == 1 else f"{num_outside} runs"
        verb = "lies" if num_outside == 1 else "lie"
        notes.append(f"{which} timed on a busy machine {verb} outside")
    num_left_out = len(runs) - len(shown)
    if num_left_out:
        which = "1 run" if num_left_out == 1 else f"{num_left_out} runs"
        notes.append(f"{which} without these values not shown")
    return notes
