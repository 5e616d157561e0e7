"""Published students: what they keep of the larger model against size or price."""

import dataclasses
import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from explorer.analysis import frontier, numbers
from explorer.analysis.headline import TARGET_RETENTION
from explorer.analysis.published.published_retention import is_distilled
from explorer.charts import chart_axes, labels, published_overlay, theme
from explorer.charts.labels import Label, View
from explorer.charts.theme import Template
from explorer.records.rows import row_dicts

AXES = {
    "params_b": "Size (parameters, fewer is better)",
    "api_usd_per_mtok_output": "API price (US dollars per million output tokens, less is better)",
    "usd_per_hour": "Estimated rent (US dollars per hour, less is better)",
}
"""Possible horizontal axes."""
HEIGHTS = {
    "raw_ratio": "Raw ratio (% of the larger model's score, more is better)",
    "retention": "Retention above chance (% of the larger model's, more is better)",
}
"""Possible vertical axes."""
FAMILIES = (
    "DeepSeek-R1",
    "Gemini",
    "OpenAI",
    "Llama",
    "Mistral",
    "Qwen3",
    "Gemma",
)
"""Families with their own colour; the others share one grey."""
TEACHER_X = {"params_b": "teacher_params_b"}
"""The column with the larger model's value, by axis."""
SYMBOLS = {True: "diamond-open", False: "diamond-cross-open"}
"""Symbol by whether the student was distilled; a cross means that it is only smaller."""
ESTIMATED = "diamond-open-dot"
"""Symbol of a published score against an estimated cost."""
NARROW = 600
"""Below this width in pixels, the legend goes under the chart."""
MANY_LABELS = 30
"""Above this number of points, names are shown on hover only."""


def published_chart(
    rows: pd.DataFrame,
    x: str = "params_b",
    *,
    y: str = "raw_ratio",
    template: Template = "light",
    selected: str | None = None,
    own: pd.DataFrame | None = None,
    width: int = 960,
) -> go.Figure:
    """What published students keep, one hollow diamond per student and table.

    Args:
        rows: As from `published_retention.published_retention`, with the column of `x`. Their
            index names the points.
        x: A key of `AXES`.
        y: `raw_ratio` or `retention`.
        template: Ink for a light or a dark page.
        selected: Index of the point to ring.
        own: From `published_overlay.own_points`, drawn against size; None draws none.
        width: Approximate width on the page in pixels, for labels and the legend.

    Returns:
        A figure in which `customdata[0]` of a point is its row's index, as text. Models without
        a published size are in a separate band; other rows without both values are left out,
        and a note counts them.

    Raises:
        BadInput: An unknown axis.
    """
    theme.check_axes((x, AXES), (y, HEIGHTS))
    ink = theme.INKS[template]
    figure = go.Figure(layout=theme.layout(ink))
    figure.update_layout(legend={"entrywidth": 98, "entrywidthmode": "pixels"})
    shown = rows.dropna(subset=[x, y])
    shown = shown.assign(hover=_hover(shown, x), **{y: 100 * shown[y].astype(float)})
    mine = _own_in_view(own, x, y)
    view = _view(pd.concat([shown, mine]), x, y, width)
    sized = view
    unsized = rows[rows[x].isna()].dropna(subset=[y]) if x == "params_b" else rows.iloc[:0]
    if len(shown) and len(unsized):
        unsized = unsized.assign(hover=_hover(unsized, x), **{y: 100 * unsized[y].astype(float)})
        view, placed = _with_band(figure, view, unsized, x, y, ink)
        shown = pd.concat([shown, placed])
    ringed = shown[shown.index == selected]
    places, rings, own_places = (
        zip(part[x], part[y], strict=True) for part in (shown, ringed, mine)
    )
    boxes = labels.point_boxes(places, view, rings)
    taken = [*boxes, *labels.point_boxes(own_places, view)]
    figure.add_hline(y=100, line={"color": ink["quiet"], "width": 1})
    chart_axes.add_target_line(figure, TARGET_RETENTION, ink, taken, view, "the larger model")
    if x in TEACHER_X:
        linked = shown if len(shown) <= MANY_LABELS else shown[shown.index == selected]
        published_overlay.add_teacher_lines(figure, linked, x, TEACHER_X[x], y, ink)
    for family in [*FAMILIES, *sorted(set(shown["family"]) - set(FAMILIES))]:
        group = shown[shown["family"] == family]
        if len(group):
            _add_family(figure, group, family, x, y, template, ink)
    _add_teachers(figure, shown, x, ink)
    published_overlay.add_own_runs(figure, mine, y, template)
    _add_shapes(figure, shown, x, ink)
    if len(shown) <= MANY_LABELS:
        _add_labels(figure, shown, x, y, view, ink, selected, boxes)
    if not ringed.empty:
        theme.add_ring(figure, ringed, x, y, ink)
    _add_note(figure, len(rows) - len(shown), shown, x, ink)
    figure.update_xaxes(title_text=AXES[x], range=view.x_axis, type="log" if view.log else "linear")
    figure.update_yaxes(title_text=HEIGHTS[y], range=view.y_range, ticksuffix=" %")
    if width < NARROW:
        _narrow(figure, y)
    if len(shown):
        values = theme.round_values(*sized.x_range, log=view.log)
        figure.update_xaxes(**labels.fitting_ticks(values, [_tick(x, v) for v in values], view))
    return figure


def _own_in_view(own: pd.DataFrame | None, x: str, y: str) -> pd.DataFrame:
    """One's own runs that the chart shows, with `y` in percent."""
    if own is None or x != "params_b":
        return pd.DataFrame(columns=[x, y])
    near = own[own[y] >= published_overlay.LOWEST_SHARE]
    return near.assign(**{y: 100 * near[y].astype(float)})


def _narrow(figure: go.Figure, y: str) -> None:
    """Adapt to a telephone: a short axis title and a small legend below."""
    figure.update_layout(
        height=theme.HEIGHT + 160,
        margin={"l": 10, "r": 8},
        legend={"y": -0.3, "yanchor": "top", "font": {"size": 11}, "entrywidth": 88},
    )
    figure.update_yaxes(title_text="Raw ratio" if y == "raw_ratio" else "Retention above chance")
    figure.update_xaxes(tickangle=0)


def _tick(x: str, value: float) -> str:
    """What the horizontal axis says at a value: 30 M, 1 B, $2."""
    if x == "params_b":
        return theme.with_si_unit(1e9 * value, chart_axes.AXES["num_parameters"].ticks)
    return f"${value:g}"


def _view(shown: pd.DataFrame, x: str, y: str, width: int) -> View:
    plot_width, plot_height = max(200, width - 110), theme.HEIGHT - 110
    if shown.empty:
        return View((0, 1), (0, 110), False, plot_width, plot_height)
    low, high = float(shown[x].min()), float(shown[x].max())
    if x in TEACHER_X:
        teachers = shown[TEACHER_X[x]].dropna()
        high = max(high, float(teachers.max())) if len(teachers) else high
    bottom, top = min(60.0, float(shown[y].min()) - 6), max(108.0, float(shown[y].max()) + 5)
    log = high / low > 12
    x_range = (low / 1.7, high * 1.7) if log else theme.from_zero_if_near(low, high)
    return View(x_range, (bottom, top), log, plot_width, plot_height)


def _with_band(
    figure: go.Figure, view: View, unsized: pd.DataFrame, x: str, y: str, ink: dict[str, str]
) -> tuple[View, pd.DataFrame]:
    """Add a band on the right for models without a published size, one column per family.

    Closed models are quoted most. Their horizontal position in the band has no meaning.
    """
    low, high = view.x_range
    end = high * (high / low) ** 0.2 if view.log else high + 0.2 * (high - low)
    families = list(dict.fromkeys(unsized["family"]))

    def at(share: float) -> float:
        """A position in the band, from 0 at its start to 1 at its end."""
        return high * (end / high) ** share if view.log else high + share * (end - high)

    step = 1 / (len(families) + 1)
    places = [at(step * (families.index(family) + 1)) for family in unsized["family"]]
    figure.add_shape(
        type="rect",
        x0=high,
        x1=end,
        y0=0,
        y1=1,
        yref="paper",
        line={"width": 0},
        fillcolor=theme.faded(ink["quiet"], 0.08),
        layer="below",
    )
    figure.add_annotation(
        x=math.log10(at(0.5)) if view.log else at(0.5),
        y=0,
        yref="paper",
        yanchor="bottom",
        text="size not<br>published",
        showarrow=False,
        font={"size": 11, "color": ink["quiet"]},
    )
    values = unsized[y]
    wider = dataclasses.replace(
        view,
        x_range=(low, end),
        y_range=(
            min(view.y_range[0], float(values.min()) - 6),
            max(view.y_range[1], float(values.max()) + 5),
        ),
    )
    return wider, unsized.assign(**{x: places})


def _add_family(
    figure: go.Figure,
    group: pd.DataFrame,
    family: str,
    x: str,
    y: str,
    template: Template,
    ink: dict[str, str],
) -> None:
    """The points of one family in its colour; the symbol shows whether it was distilled."""
    at = FAMILIES.index(family) if family in FAMILIES else None
    colour = theme.OTHERS
    if at is not None:
        # The palette's last colour is too pale for a thin line; ink replaces it.
        colour = [*theme.COLOURS[template][:6], ink["text"]][at]
    distilled = is_distilled(group)
    symbols = [ESTIMATED if x == "usd_per_hour" else SYMBOLS[bool(value)] for value in distilled]
    figure.add_scatter(
        x=group[x],
        y=group[y],
        mode="markers",
        name=theme.escape(family),
        cliponaxis=False,
        marker={
            "symbol": symbols,
            "size": 11,
            "color": colour,
            "opacity": 1,
            "line": {"color": colour, "width": 1.7},
        },
        customdata=np.stack([group.index.astype(str), group["hover"]], axis=-1),
        hovertemplate="%{customdata[1]}<extra></extra>",
    )


def _add_teachers(figure: go.Figure, shown: pd.DataFrame, x: str, ink: dict[str, str]) -> None:
    """Hollow stars for larger models of known size."""
    stars = _teachers(shown, x)
    if stars.empty:
        return
    figure.add_scatter(
        x=stars[TEACHER_X[x]],
        y=[100.0] * len(stars),
        mode="markers",
        name="larger model",
        marker={
            "symbol": "star-open",
            "size": 13,
            "color": ink["quiet"],
            "opacity": 1,
            "line": {"width": 1.3},
        },
        text=[theme.escape(name) for name in stars["compared_to"]],
        hovertemplate="%{text}: the larger model of these comparisons<extra></extra>",
        legendrank=1100,
    )


def _add_labels(
    figure: go.Figure,
    shown: pd.DataFrame,
    x: str,
    y: str,
    view: View,
    ink: dict[str, str],
    selected: str | None,
    boxes: list[labels.Box],
) -> None:
    """Name the frontier of each larger model and the larger models; hovering names all."""
    fronts = [
        frontier.pareto(group, maximise=y, minimise=x)
        for _, group in shown.groupby("compared_to", sort=False)
    ]
    best = pd.concat([shown.iloc[:0], *fronts]).sort_values(y, ascending=False)
    best = best.drop_duplicates("student")
    wanted = [
        Label(row[x], row[y], row["student"], ringed=place == selected)
        for place, row in zip(best.index, row_dicts(best), strict=True)
    ]
    stars = [
        Label(row[TEACHER_X[x]], 100.0, row["compared_to"], of_star=True)
        for row in row_dicts(_teachers(shown, x))
    ]
    taken = [*boxes, *labels.limit_boxes(figure, view)]
    taken += labels.point_boxes([(star.x, star.y) for star in stars], view)
    labels.add_names(figure, labels.place_labels(wanted + stars, taken, view), ink)


def _teachers(shown: pd.DataFrame, x: str) -> pd.DataFrame:
    """One row per larger model whose value on this axis is known."""
    if x not in TEACHER_X:
        return shown.iloc[:0]
    return shown.dropna(subset=[TEACHER_X[x]]).drop_duplicates("compared_to")


def _add_shapes(figure: go.Figure, shown: pd.DataFrame, x: str, ink: dict[str, str]) -> None:
    """Legend entries in grey for the symbols."""
    distilled = set(is_distilled(shown))
    names = {True: "distilled", False: "only smaller"}
    kinds = [(SYMBOLS[kind], names[kind]) for kind in (True, False) if kind in distilled]
    if x == "usd_per_hour" and len(shown):
        kinds = [(ESTIMATED, "estimated rent")]
    for symbol, name in kinds:
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            hoverinfo="skip",
            legendrank=1200,
            name=name,
            marker={"symbol": symbol, "size": 11, "color": ink["quiet"], "line": {"width": 1.7}},
        )


def _hover(group: pd.DataFrame, x: str) -> list[str]:
    """The hover text of each point: both models, what is kept, and the source."""
    texts = []
    for row in row_dicts(group):
        facts = [
            f"<b>{theme.escape(row['student'])}</b>",
            f"compared with {theme.escape(row['compared_to'])}: {row['relation']}",
            f"{_means(row)}, mean of {row['num_benchmarks']} benchmarks",
            f"worst {theme.escape(row['worst'])} {numbers.percent(row['raw_min'])}, "
            f"best {theme.escape(row['best'])} {numbers.percent(row['raw_max'])}",
            *_about(row, x),
            theme.escape(row["source_title"]),
        ]
        texts.append("<br>".join(facts))
    return texts


def _means(row: dict[Any, Any]) -> str:
    raw = f"{numbers.percent(row['raw_ratio'])} raw"
    if numbers.missing(row["retention"]):
        return raw
    return f"{raw}, {numbers.percent(row['retention'])} above chance"


def _about(row: dict[Any, Any], x: str) -> list[str]:
    """Size and price, where known."""
    lines = []
    if not numbers.missing(row["params_b"]):
        shrink = row["shrink"]
        smaller = "" if numbers.missing(shrink) else f", {numbers.significant(shrink, 2)}× smaller"
        lines.append(f"{numbers.parameters(1e9 * row['params_b'])} parameters{smaller}")
    if not numbers.missing(row.get("api_usd_per_mtok_output")):
        lines.append(
            f"API price {numbers.dollars(row['api_usd_per_mtok_output'])} per million output "
            f"tokens at "
            f"{theme.escape(row['seller'])}"
        )
    if x == "usd_per_hour":
        lines.append(
            f"estimated {numbers.dollars(row['usd_per_hour'])} per hour on "
            f"{theme.escape(row['devices'])}"
        )
    return lines


def _add_note(
    figure: go.Figure, left_out: int, shown: pd.DataFrame, x: str, ink: dict[str, str]
) -> None:
    """Note what the chart leaves out."""
    needs = {
        "params_b": "a published size",
        "api_usd_per_mtok_output": "an API price",
        "usd_per_hour": "a published size and a price of a device that holds it",
    }[x]
    if shown.empty:
        theme.add_empty_note(figure, f"Nothing to draw: this axis needs {needs}.", ink)
    elif left_out:
        theme.add_corner_note(figure, f"{left_out} without {needs} not shown", ink)


def per_benchmark_bars(detail: pd.DataFrame, *, template: Template = "light") -> go.Figure:
    """A student's ratio on each benchmark of one table, the worst at the bottom.

    Args:
        detail: Rows of `published_retention.benchmark_pairs` for one pair and table.
        template: Ink for a light or a dark page.
    """
    ink = theme.INKS[template]
    figure = go.Figure(layout=theme.layout(ink))
    known = detail[detail["left_out"] == ""].sort_values("raw_ratio")
    figure.add_bar(
        x=100 * known["raw_ratio"],
        y=[str(name) for name in known["benchmark"]],
        orientation="h",
        marker_color=theme.COLOURS[template][0],
        name="raw ratio",
        text=[
            f"{numbers.significant(s)} of {numbers.significant(t)}"
            for s, t in zip(known["student_score"], known["teacher_score"], strict=True)
        ],
        textposition="outside",
        cliponaxis=False,
        textfont={"size": 11, "color": ink["text"]},
        hovertemplate="%{y}: %{x:.1f} % raw<extra></extra>",
    )
    figure.add_scatter(
        x=100 * known["retention"],
        y=[str(name) for name in known["benchmark"]],
        mode="markers",
        name="above chance",
        marker={"symbol": "line-ns-open", "size": 14, "color": ink["text"], "line": {"width": 2}},
        hovertemplate="%{y}: %{x:.1f} % above chance<extra></extra>",
    )
    most = max(110.0, 100 * float(known["raw_ratio"].max())) if len(known) else 110.0
    figure.update_layout(
        height=90 + 25 * max(2, len(known)), margin={"l": 10, "r": 90, "t": 40, "b": 44}
    )
    figure.update_xaxes(
        title_text="% of the larger model's score (more is better)",
        range=[min(0.0, 100 * float(known["retention"].min()) if len(known) else 0.0) - 1, most],
        ticksuffix=" %",
    )
    figure.update_yaxes(showgrid=False, automargin=True, ticksuffix="  ")
    if known.empty:
        theme.add_empty_note(figure, "No benchmark counts.", ink)
    return figure
