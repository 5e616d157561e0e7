"""What is drawn over the published points: one's own runs, and lines from student to teacher."""

import pandas as pd
import plotly.graph_objects as go

from explorer.analysis import numbers
from explorer.analysis.stats.retention import INTERVALS
from explorer.charts import theme
from explorer.charts.theme import Template
from explorer.records.rows import row_dicts

LOWEST_SHARE = 0.4
"""Own runs that keep less would squeeze the published points; the page counts them."""


def own_points(runs: pd.DataFrame) -> pd.DataFrame:
    """One's own students of known size and retention, with their size in billions of parameters.

    Control arms and other number formats of a model are left out.

    Args:
        runs: With the columns of `retention.add_retention`.
    """
    students = runs[(runs["role"] == "student") & runs["format"].isna()]
    students = students[students["method"] != "labels"]
    known = students.dropna(subset=["num_parameters", "raw_ratio", "retention"])
    return known.assign(params_b=known["num_parameters"].astype(float) / 1e9)


def add_own_runs(figure: go.Figure, own: pd.DataFrame, y: str, template: Template) -> None:
    """Full dots with their intervals: what was measured here never looks like what was published.

    Args:
        figure: The chart against size.
        own: From `own_points`; `y` in percent.
        y: `raw_ratio` or `retention`.
        template: Ink for a light or a dark page.
    """
    if own.empty:
        return
    ink = theme.INKS[template]
    low, high = (100 * own[name].astype(float) for name in INTERVALS[y])
    figure.add_scatter(
        x=own["params_b"],
        y=own[y],
        mode="markers",
        name="your runs",
        marker={"symbol": "circle", "size": 9, "color": ink["text"]},
        error_y={
            "type": "data",
            "array": (high - own[y]).fillna(0.0),
            "arrayminus": (own[y] - low).fillna(0.0),
            "color": theme.faded(ink["text"], 0.4),
            "thickness": 1,
            "width": 0,
        },
        text=[
            f"<b>{theme.escape(row['label'])}</b> of {theme.escape(row['teacher'])}, measured "
            f"here<br>{numbers.parameters(1e9 * row['params_b'])} parameters, "
            f"{numbers.significant(row[y])} %"
            for row in row_dicts(own)
        ],
        hovertemplate="%{text}<extra></extra>",
        legendrank=1050,
    )


def add_teacher_lines(
    figure: go.Figure, students: pd.DataFrame, x: str, teacher_x: str, y: str, ink: dict[str, str]
) -> None:
    """A thin line from each student to the larger model that it is compared with.

    Args:
        figure: The chart.
        students: Rows with `x`, `teacher_x` and `y` in percent.
        x: The column of the horizontal axis.
        teacher_x: The column with the larger model's value on it.
        y: The column of the vertical axis.
        ink: Colours of the page.
    """
    pairs = students.dropna(subset=[x, teacher_x, y])
    if pairs.empty:
        return
    xs, ys = [], []
    for row in row_dicts(pairs):
        xs += [row[x], row[teacher_x], None]
        ys += [row[y], 100.0, None]
    figure.add_scatter(
        x=xs,
        y=ys,
        mode="lines",
        line={"color": theme.faded(ink["quiet"], 0.35), "width": 1},
        hoverinfo="skip",
        showlegend=False,
        name="to the larger model",
    )
