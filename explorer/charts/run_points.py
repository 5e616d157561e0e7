"""The points of the retention chart: a trace for each kind, with intervals and hover texts."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from explorer.analysis import interference, numbers
from explorer.analysis.cost import unit_cost
from explorer.analysis.stats.retention import INTERVALS
from explorer.charts import marks, theme
from explorer.charts.chart_axes import ACROSS, AXES
from explorer.charts.theme import Template
from explorer.records.rows import row_dicts

PALE = 0.25
"""Opacity of the points that limits exclude, and of their intervals."""
PUBLISHED_COLOUR = 2
"""Place in the palette of the colour of published students."""


def add_points(
    figure: go.Figure,
    drawn: pd.DataFrame,
    x: str,
    y: str,
    kinds: "pd.Series[str]",
    groups: "pd.Series[str]",
    colours: Mapping[str, str],
    pale: Collection[str],
    template: Template,
) -> None:
    """Draw the points of these runs, pale ones below the others.

    Args:
        figure: The chart.
        drawn: The runs, with `ACROSS`, and `y` in percent.
        x: A key of `AXES`.
        y: A key of `HEIGHTS`.
        kinds: The kind of each point, as from `marks.kinds`.
        groups: The entry of the legend that each point belongs to.
        colours: Teacher to colour.
        pale: Ids of the runs whose points recede.
        template: Ink for a light or a dark page.
    """
    ink = theme.INKS[template]
    named: set[str] = set()
    # Grey ones first, so that they are drawn below the others.
    for kind in sorted(dict.fromkeys(kinds), key=lambda kind: kind not in marks.GREY):
        # Published students are of many teachers and share one colour.
        owners = drawn["teacher"].where(kinds != "published", "")[kinds == kind]
        for teacher, group in drawn[kinds == kind].groupby(owners, sort=False):
            others = theme.COLOURS[template][PUBLISHED_COLOUR]
            colour = ink["quiet"] if kind in marks.GREY else colours.get(str(teacher), others)
            style = marks.marker(kind, colour, len(drawn), ink)
            name = groups[group.index[0]]
            entry = {
                "name": theme.escape(name),
                "legendgroup": name,
                "legendrank": 1 if kind.startswith("teacher") else 5 if kind in marks.GREY else 2,
            }
            recedes = group["run_id"].isin(pale)
            if recedes.any():
                part = group[recedes]
                own = entry | {"showlegend": False}
                theme.add_scatter(
                    figure, **_points(part, x, y, style, own, len(drawn), opacity=PALE)
                )
            if not recedes.all():
                part = group[~recedes]
                own = entry | {"showlegend": name not in named}
                theme.add_scatter(figure, **_points(part, x, y, style, own, len(drawn)))
            elif name not in named:
                # The mark in the legend is not pale, even where all of its points are.
                theme.add_scatter(figure, x=[None], y=[None], mode="markers", marker=style, **entry)
            named.add(name)


def _points(
    group: pd.DataFrame,
    x: str,
    y: str,
    marker: dict[str, Any],
    entry: dict[str, Any],
    num_shown: int,
    *,
    opacity: float = 1.0,
) -> dict[str, Any]:
    """The trace of points of one teacher and one kind, with their entry in the legend."""
    low, middle, high = (
        group[name].to_numpy(float) for name in (INTERVALS[y][0], y, INTERVALS[y][1])
    )
    faint = theme.faded(marker["color"], opacity * (0.2 if num_shown > marks.MANY_POINTS else 0.6))
    return dict(
        **entry,
        x=group[ACROSS].to_numpy(float),
        y=middle,
        mode="markers",
        marker=marker | {"opacity": [opacity] * len(group)},
        cliponaxis=False,
        customdata=np.stack([group["run_id"], _hover_lines(group, x, y)], axis=-1),
        hovertemplate="%{customdata[1]}<extra></extra>",
        error_y={
            "type": "data",
            "symmetric": False,
            "color": faint,
            "thickness": 1.5,
            "width": 0,
            "array": np.nan_to_num(high - middle),
            "arrayminus": np.nan_to_num(middle - low),
        },
    )


def _hover_lines(group: pd.DataFrame, x: str, y: str) -> list[str]:
    """The hover text of each point: its name, retention, speed, size and cost."""
    low_name, high_name = INTERVALS[y]
    per_token = unit_cost.heading_of(group)
    lines = []
    for row in row_dicts(group):
        own = () if x in HOVERED else ((AXES[x].name, _written(x, row[x])),)
        facts = [
            ("keeps", _percent(row[y], row[low_name], row[high_name])),
            *own,
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


HOVERED = ("tpot_ms", "ttft_ms", "num_parameters", "usd_per_mtok")
"""Axes whose value every hover text has."""


def _written(x: str, value: Any) -> str:
    return numbers.MISSING if numbers.missing(value) else AXES[x].write(value)


def _percent(value: float, low: float, high: float) -> str:
    return f"{numbers.significant(value)} % {numbers.interval(low, high)}".rstrip()
