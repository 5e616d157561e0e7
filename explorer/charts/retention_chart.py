"""The main chart: retention against latency, cost, size or memory. Better is up and to the left.

    retention_chart(runs, x="tpot_ms").show()

Symbols repeat what colours say: see `theme.SYMBOLS`.
"""

from collections.abc import Collection

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from explorer.analysis import frontier
from explorer.analysis.baseline import is_converted
from explorer.analysis.headline import TARGET_RETENTION
from explorer.analysis.pick import candidates
from explorer.analysis.stats.retention import INTERVALS
from explorer.charts import chart_axes, labels, marks, run_points, theme
from explorer.charts.chart_axes import ACROSS
from explorer.charts.chart_axes import AXES as AXES
from explorer.charts.chart_axes import HEIGHTS as HEIGHTS
from explorer.charts.labels import View
from explorer.charts.theme import Template
from explorer.charts.thinning import thin, thinned_text
from explorer.records.rows import row_dicts

CERTAINTY_STEPS = 4
"""Certainty is rounded to a quarter, so a frontier has at most five shades, a trace each."""


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
    highlighted: Collection[str] = (),
    x_limit: float | None = None,
    times: bool = False,
    scale: chart_axes.Scale = "auto",
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
        highlighted: Run ids that stand out, while all others are pale.
        x_limit: The most (or least, where more is better) that `x` may be, as a labelled line.
        times: Whether the horizontal axis has multiples of the teacher's own value.
        scale: Of the horizontal axis; `auto` is logarithmic over more than a factor of ten.
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
    whole[ACROSS] = chart_axes.across(whole, x, times=times)
    shown = _in_percent(whole.dropna(subset=[ACROSS, y]), y).reset_index(drop=True)
    colours = _colours(shown, template)
    figure = go.Figure(layout=theme.layout(ink))
    view = chart_axes.view(shown, x, y, target, width, scale)
    fronts = _fronts(shown, x, y)
    best = pd.concat([shown.iloc[:0], *fronts.values()])
    ringed_ids = list(dict.fromkeys([selected, picked]))
    chosen = (shown["role"] == "teacher") | shown["run_id"].isin([*ringed_ids, *highlighted])
    drawn = thin(shown, ACROSS, y, first=[*best.index, *shown.index[chosen]])
    ringed = drawn[drawn["run_id"].isin(ringed_ids)]
    places, rings = (zip(part[ACROSS], part[y], strict=True) for part in (drawn, ringed))
    boxes = labels.point_boxes(places, view, rings)
    chart_axes.add_target_line(figure, target, ink, boxes, view)
    if x_limit is not None and not shown.empty:
        place = chart_axes.limit_place(
            runs, x, x_limit, candidates.main_teacher(whole), times=times
        )
        chart_axes.add_x_limit(figure, x, x_limit, place, view, ink)
    several = len(colours) > 1
    for owner, front in fronts.items():
        _add_frontier(figure, front, y, view, colours[owner] if several else ink["text"])
    kinds = marks.kinds(drawn)
    # Clicking an entry of the legend hides everything of its group, names and rings included.
    groups = _legend_groups(drawn, kinds, several)
    pale = set(drawn["run_id"]) - {*highlighted, picked} if highlighted else set(excluded)
    if len(drawn) <= marks.MANY_POINTS:
        _join_sizes(figure, drawn[~kinds.isin(marks.GREY)], y, colours, groups)
    run_points.add_points(figure, drawn, x, y, kinds, groups, colours, pale, template)
    if several:
        own_entry = marks.GREY | marks.NOT_MEASURED
        shapes = [kind for kind in dict.fromkeys(kinds) if kind not in own_entry]
        marks.add_shape_legend(figure, shapes, ink)
    notes = _notes(runs, shown, drawn, view)
    first = drawn[drawn["run_id"].isin([picked, *highlighted])]
    taken = [*boxes, *labels.limit_boxes(figure, view), labels.corner_box(notes, view)]
    _add_labels(figure, drawn, pd.concat([best, first]), y, view, taken, groups, ink, ringed_ids)
    for run_id in ringed_ids:
        point = ringed[ringed["run_id"] == run_id]
        if not point.empty:
            theme.add_ring(figure, point, ACROSS, y, ink, strong=run_id == picked)
            figure.data[-1].legendgroup = groups[point.index[0]]
    if shown.empty:
        if whole[ACROSS].notna().any():
            needs = "retention needs the teacher's scores on the same tasks"
        elif "usd" in x:
            needs = "this axis needs a price for the device"
        else:
            needs = "this axis needs a finished, measured run"
        theme.add_empty_note(figure, f"Nothing to draw: {needs}.", ink)
    elif notes:
        theme.add_corner_note(figure, "<br>".join(notes), ink)
    figure.update_xaxes(
        title_text=chart_axes.title(x, runs, width, times=times),
        **chart_axes.ticks(x, view, times=times),
    )
    figure.update_yaxes(title_text=HEIGHTS[y], range=view.y_range, ticksuffix=" %")
    return figure


def _legend_groups(drawn: pd.DataFrame, kinds: "pd.Series[str]", several: bool) -> "pd.Series[str]":
    """The entry of the legend that each point belongs to.

    With one teacher the legend names shapes; with several, colours and then shapes.
    """
    shapes = kinds.map(marks.kind_name).astype(object)
    if not several:
        return shapes
    own_entry = kinds.isin(marks.GREY | marks.NOT_MEASURED)
    return shapes.where(own_entry, drawn["teacher"].astype(str))


def _join_sizes(
    figure: go.Figure,
    drawn: pd.DataFrame,
    y: str,
    colours: dict[str, str],
    groups: "pd.Series[str]",
) -> None:
    """A thin line through the sizes of each teacher's models in one number format."""
    measured = drawn[drawn["basis"] == "measured"]
    for (teacher, _), group in measured.groupby(["teacher", candidates.formats(measured)]):
        sizes = group.sort_values("num_parameters", kind="stable")
        if len(sizes) > 1 and sizes["num_parameters"].is_unique:
            students = sizes.index[~is_converted(sizes) & sizes["role"].ne("teacher")]
            theme.add_scatter(
                figure,
                x=sizes[ACROSS].to_numpy(),
                y=sizes[y].to_numpy(),
                mode="lines",
                legendgroup=groups[students[0] if len(students) else sizes.index[0]],
                line={"color": theme.faded(colours[str(teacher)], 0.35), "width": 1},
                hoverinfo="skip",
                showlegend=False,
            )


def _in_percent(shown: pd.DataFrame, y: str) -> pd.DataFrame:
    """The vertical values in percent, because Plotly's own format writes 80% without a space."""
    low_name, high_name = INTERVALS[y]
    columns = (y, low_name, high_name)
    return shown.assign(**{name: 100 * shown[name].astype(float) for name in columns})


def _colours(runs: pd.DataFrame, template: Template) -> dict[str, str]:
    """A colour per teacher of own runs, in order of their number of runs."""
    palette = theme.COLOURS[template]
    teachers = runs.loc[runs["basis"] != "published", "teacher"].value_counts().index
    return {
        name: palette[i] if i < len(palette) else theme.OTHERS for i, name in enumerate(teachers)
    }


def _fronts(shown: pd.DataFrame, x: str, y: str) -> dict[str, pd.DataFrame]:
    """The frontier of each teacher's measured runs.

    Retention is relative to one teacher, and published claims, estimates and timings on a busy
    machine are not comparable measurements. None of them may displace a measured run.
    """
    measured = shown[shown["basis"] == "measured"]
    sign = -1 if AXES[x].more_is_better else 1
    measured = measured.assign(cost=sign * measured[ACROSS])
    return {
        str(teacher): frontier.pareto(group, maximise=y, minimise="cost")
        for teacher, group in measured.groupby("teacher", sort=False)
    }


def _add_frontier(figure: go.Figure, best: pd.DataFrame, y: str, view: View, colour: str) -> None:
    """A thin step line: the best retention at this cost or less.

    The more certain a run is to be on the frontier, the stronger its step. Steps of about the same
    certainty share a trace, because a trace costs the browser more than a point.
    """
    shares = best["frontier_share"].fillna(1) if "frontier_share" in best else best[y] * 0 + 1
    xs = [*best[ACROSS].astype(float), view.x_range[1]]
    ys = [*best[y].astype(float)]
    lines: dict[float, tuple[list[float | None], list[float | None]]] = {}
    for step, share in enumerate((CERTAINTY_STEPS * shares).round() / CERTAINTY_STEPS):
        line_x, line_y = lines.setdefault(float(share), ([], []))
        if line_x:
            line_x.append(None)
            line_y.append(None)
        line_x += [xs[step], xs[step + 1], xs[step + 1]]
        line_y += [ys[step], ys[step], ys[min(step + 1, len(ys) - 1)]]
    named = any(trace.name == "frontier" for trace in figure.data)
    for share, (line_x, line_y) in lines.items():
        theme.add_scatter(
            figure,
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
    y: str,
    view: View,
    taken: list[labels.Box],
    groups: "pd.Series[str]",
    ink: dict[str, str],
    ringed_ids: list[str | None],
) -> None:
    """Name `best` and the teachers, each once, where there is room; hovering names all."""
    teachers = drawn[(drawn["role"] == "teacher") & ~drawn.index.isin(best.index)]
    # The best point comes last and is named first.
    named = pd.concat([teachers.iloc[::-1], best])
    named = named.assign(
        text=named["label"].where(named["role"] != "teacher", named["teacher"]).astype(str),
        group=groups.reindex(named.index),
        ringed=named["run_id"].isin(ringed_ids),
    )
    # Of several runs with one label, the name stands at the best.
    named = named.drop_duplicates(["teacher", "text"], keep="last")
    wanted = [
        labels.Label(
            row[ACROSS],
            row[y],
            row["text"],
            of_star=row["role"] == "teacher",
            group=row["group"],
            ringed=row["ringed"],
        )
        for row in row_dicts(named.loc[::-1, [ACROSS, y, "text", "role", "group", "ringed"]])
    ]
    ends = drawn[[ACROSS, *INTERVALS[y]]].dropna().to_numpy(dtype=float).tolist()
    intervals = labels.interval_boxes(ends, view) if len(drawn) <= marks.MANY_POINTS else []
    labels.add_names(figure, labels.place_labels(wanted, taken, view, intervals), ink)


def _notes(runs: pd.DataFrame, shown: pd.DataFrame, drawn: pd.DataFrame, view: View) -> list[str]:
    """What the chart leaves out, a line each."""
    notes = [text] if (text := thinned_text(len(drawn), len(shown))) else []
    low, high = sorted(view.x_range)
    num_outside = int((~drawn[ACROSS].between(low, high)).sum())
    if num_outside:
        which = "1 run" if num_outside == 1 else f"{num_outside} runs"
        verb = "lies" if num_outside == 1 else "lie"
        notes.append(f"{which} timed on a busy machine {verb} outside")
    # The page says which published students and estimates an axis cannot show.
    own = [~frame["basis"].isin(marks.NOT_MEASURED) for frame in (runs, shown)]
    num_left_out = int(own[0].sum() - own[1].sum())
    if num_left_out:
        which = "1 run" if num_left_out == 1 else f"{num_left_out} runs"
        notes.append(f"{which} without these values not shown")
    return notes
