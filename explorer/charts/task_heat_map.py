"""What each model keeps on each task, as a heat map: models down, tasks across."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from explorer.analysis import numbers
from explorer.analysis.task_retention import uncounted_tasks
from explorer.charts import theme
from explorer.charts.theme import Template
from explorer.records.rows import row_dicts

ROW_PIXELS = 34
SCALES = {"light": ("#F1F4F7", "#7FB7DA"), "dark": ("#1A2029", "#1F6699")}
"""Colours of 0 and 100 %, on which the ink of the page is legible; the cells say the numbers."""
LETTERS_PER_LINE = 14


def task_heat_map(
    cells: pd.DataFrame, names: "pd.Series[str]", *, template: Template = "light"
) -> go.Figure:
    """Retention of each model on each task; the interval is on hover.

    A task on which no model has a retention has empty cells and a mark at its name.

    Args:
        cells: As from `index.by_task.retention_by_task`.
        names: What to call each run, by run id, in the order of the lines.
        template: Ink for a light or a dark page.
    """
    ink = theme.INKS[template]
    figure = go.Figure(layout=theme.layout(ink))
    tasks = list(dict.fromkeys(cells["task"]))
    figure.update_layout(
        height=110 + ROW_PIXELS * max(4, len(names)), margin={"l": 10, "r": 10, "t": 70, "b": 16}
    )
    if not tasks or names.empty:
        theme.add_empty_note(figure, "Nothing to draw: no student was evaluated on a task.", ink)
        return figure
    by_place = {(row["run_id"], row["task"]): row for row in row_dicts(cells)}
    rows = [[by_place.get((run_id, task)) for task in tasks] for run_id in names.index]
    values = [
        [
            np.nan if row is None or numbers.missing(row["retention"]) else 100 * row["retention"]
            for row in line
        ]
        for line in rows
    ]
    hovers = [
        [_hover(names[run_id], task, row) for task, row in zip(tasks, line, strict=True)]
        for run_id, line in zip(names.index, rows, strict=True)
    ]
    figure.add_heatmap(
        z=values,
        zmin=0,
        zmax=100,
        colorscale=[[end, colour] for end, colour in enumerate(SCALES[template])],
        showscale=False,
        xgap=2,
        ygap=2,
        text=[[numbers.percent(value / 100, digits=2) for value in line] for line in values],
        texttemplate="%{text}",
        textfont={"color": ink["text"], "size": 12},
        customdata=hovers,
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=True,
    )
    uncounted = uncounted_tasks(cells)
    figure.update_xaxes(
        side="top",
        showgrid=False,
        tickvals=list(range(len(tasks))),
        ticktext=[
            "<br>".join(textwrap.wrap(_spaced(task), LETTERS_PER_LINE))
            + ("<br>(does not count)" if task in uncounted else "")
            for task in tasks
        ],
        tickfont={"color": ink["text"], "size": 12},
    )
    figure.update_yaxes(
        autorange="reversed",
        showgrid=False,
        tickvals=list(range(len(names))),
        ticktext=[theme.escape(name) for name in names],
        tickfont={"color": ink["text"], "size": 13},
    )
    return figure


def _spaced(task: str) -> str:
    """A task's name with places to break it."""
    return theme.escape(task).replace("_", " ")


def _hover(name: str, task: str, row: dict[str, Any] | None) -> str:
    """What a cell says: the model, the task, the retention with its interval, or why none."""
    title = f"<b>{theme.escape(name)}</b>, {theme.escape(task)}"
    if row is None:
        return f"{title}<br>not evaluated"
    if numbers.missing(row["retention"]):
        return f"{title}<br>{theme.escape(row['reason'] or 'not known')}"
    kept = numbers.percent(row["retention"], row["retention_low"], row["retention_high"])
    return f"{title}<br>keeps {kept}"
