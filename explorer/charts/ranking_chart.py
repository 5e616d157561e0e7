"""Models in the order of what they keep: a line each, and brackets around those not told apart.

ranking_chart(ranking.rank(runs, draws)).show()
"""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from explorer.analysis import numbers
from explorer.analysis.ranking import Ranking
from explorer.charts import marks, theme
from explorer.charts.theme import Template
from explorer.records.rows import row_dicts

ROW_PIXELS = 30
"""Height of a model's line."""
BRACKET_PIXELS = 12
"""Distance of two brackets."""


def ranking_chart(
    ranking: Ranking,
    *,
    template: Template = "light",
    target: float | None = None,
    selected: str | None = None,
    picked: str | None = None,
) -> go.Figure:
    """Retention of each model with its 95 % interval, the best on top.

    A bracket on the right joins models of which no two can be told apart. In the figure
    `customdata[0]` of a point is its run id.

    Args:
        ranking: As from `ranking.rank`.
        template: Ink for a light or a dark page.
        target: The retention asked for, as a line; None draws none.
        selected: Run id of the point to ring.
        picked: Run id of the point to mark as the pick.
    """
    ink = theme.INKS[template]
    rows = ranking.rows.reset_index(drop=True)
    figure = go.Figure(layout=theme.layout(ink))
    height = 106 + ROW_PIXELS * max(4, len(rows))
    brackets = _levels(ranking)
    right = 30 + BRACKET_PIXELS * (1 + max(brackets, default=0))
    figure.update_layout(height=height, margin={"l": 10, "r": right, "t": 16, "b": 72})
    if rows.empty:
        theme.add_empty_note(figure, "Nothing to rank: no model has an interval.", ink)
        return figure
    if target is not None:
        figure.add_vline(x=100 * target, line={"color": ink["quiet"], "width": 1, "dash": "dash"})
    # A timing on a busy machine says nothing about what a model keeps.
    kinds = marks.kinds(rows.assign(machine_busy=False))
    values = 100 * rows["retention"].astype(float)
    low, high = 100 * rows["retention_low"], 100 * rows["retention_high"]
    for kind in dict.fromkeys(kinds):
        of_kind = kinds == kind
        colour = ink["quiet"] if kind in marks.GREY else theme.COLOURS[template][0]
        figure.add_scatter(
            x=values[of_kind],
            y=rows.index[of_kind],
            mode="markers",
            name=marks.kind_name(kind),
            marker=marks.marker(kind, colour, len(rows), ink),
            cliponaxis=False,
            showlegend=False,
            customdata=np.stack(
                [rows.loc[of_kind, "run_id"], _hovers(ranking, rows[of_kind])], axis=-1
            ),
            hovertemplate="%{customdata[1]}<extra></extra>",
            error_x={
                "type": "data",
                "symmetric": False,
                "color": theme.faded(colour, 0.6),
                "thickness": 2,
                "width": 0,
                "array": (high - values)[of_kind].fillna(0),
                "arrayminus": (values - low)[of_kind].fillna(0),
            },
        )
    for run_id, strong in ((selected, False), (picked, True)):
        chosen = rows.assign(at=values, place=rows.index)[rows["run_id"] == run_id]
        if not chosen.empty:
            theme.add_ring(figure, chosen, "at", "place", ink, strong=strong)
    _add_brackets(figure, ranking, brackets, ink)
    ends = (min(float(low.min()), float(values.min())), max(float(high.max()), 100.0))
    margin = 0.04 * (ends[1] - ends[0])
    figure.update_xaxes(
        title_text="Retention above chance<br>(% of the teacher's, more is better)",
        range=[ends[0] - margin, ends[1] + margin],
        ticksuffix=" %",
    )
    theme.name_rows(figure, rows["name"].tolist(), ink)
    return figure


def _hovers(ranking: Ranking, rows: pd.DataFrame) -> list[str]:
    """The hover text of each model: what it keeps, and from whom it can't be told apart."""
    names = dict(zip(ranking.rows["run_id"], ranking.rows["name"], strict=True))
    texts = []
    for row in row_dicts(rows):
        own = row["run_id"]
        near = {other for group in ranking.groups if own in group for other in group} - {own}
        kept = numbers.percent(row["retention"], row["retention_low"], row["retention_high"])
        lines = [f"<b>{theme.escape(row['name'])}</b>", f"keeps {kept}"]
        if near:
            listed = ", ".join(names[other] for other in names if other in near)
            lines.append(f"not told apart from {theme.escape(listed)}")
        texts.append("<br>".join([*lines, theme.escape(own)]))
    return texts


def _levels(ranking: Ranking) -> list[int]:
    """The column of each group's bracket: groups that overlap stand beside each other."""
    places = {run_id: place for place, run_id in enumerate(ranking.rows["run_id"])}
    last_of_level: list[int] = []
    levels = []
    for group in ranking.groups:
        first, last = places[group[0]], places[group[-1]]
        level = next((i for i, end in enumerate(last_of_level) if end < first), len(last_of_level))
        last_of_level[level : level + 1] = [last]
        levels.append(level)
    return levels


def _add_brackets(
    figure: go.Figure, ranking: Ranking, levels: list[int], ink: dict[str, str]
) -> None:
    """A vertical line in the right margin along each group."""
    places = {run_id: place for place, run_id in enumerate(ranking.rows["run_id"])}
    for group, level in zip(ranking.groups, levels, strict=True):
        at = 12 + BRACKET_PIXELS * level
        figure.add_shape(
            type="path",
            xref="paper",
            yref="y",
            xsizemode="pixel",
            xanchor=1,
            path=f"M {at - 5} {places[group[0]] - 0.25} L {at} {places[group[0]] - 0.25} "
            f"L {at} {places[group[-1]] + 0.25} L {at - 5} {places[group[-1]] + 0.25}",
            line={"color": ink["text"], "width": 2},
        )
