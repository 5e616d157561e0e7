"""Where the time of a request goes: a bar per model, prefill and decode."""

import numpy as np
import plotly.graph_objects as go

from explorer.analysis import interference, numbers
from explorer.analysis.cost import unit_cost
from explorer.analysis.request_time import RequestTimes
from explorer.charts import theme
from explorer.charts.theme import Template
from explorer.records.rows import row_dicts

ROW_PIXELS = 30
PARTS = {"prefill_ms": "prefill (TTFT)", "decode_ms": "decode (TPOT × other tokens)"}
"""The parts of a request and their names in the legend."""


def time_chart(
    times: RequestTimes, *, template: Template = "light", limit_ms: float | None = None
) -> go.Figure:
    """Prefill and decode of each model as stacked bars, the fastest on top.

    Bars of runs that were timed on a busy machine are hollow and grey. In the figure
    `customdata[0]` of a bar is its run id.

    Args:
        times: As from `request_time.request_times`.
        template: Ink for a light or a dark page.
        limit_ms: The most that a request may take, as a line.
    """
    ink = theme.INKS[template]
    rows = times.rows.reset_index(drop=True)
    figure = go.Figure(layout=theme.layout(ink))
    figure.update_layout(
        height=126 + ROW_PIXELS * max(4, len(rows)),
        margin={"l": 10, "r": 60, "t": 40, "b": 72},
        barmode="stack",
        bargap=0.35,
    )
    if rows.empty:
        theme.add_empty_note(figure, "Nothing to draw: no run was timed.", ink)
        return figure
    busy = rows["machine_busy"].to_numpy(bool)
    for number, (part, name) in enumerate(PARTS.items()):
        colour = theme.COLOURS[template][number]
        figure.add_bar(
            x=rows[part],
            y=rows.index,
            orientation="h",
            name=name,
            customdata=np.stack([rows["run_id"], _hovers(times)], axis=-1),
            hovertemplate="%{customdata[1]}<extra></extra>",
            marker={
                "color": np.where(busy, "rgba(0,0,0,0)", colour).tolist(),
                "line": {
                    "color": np.where(busy, ink["quiet"], colour).tolist(),
                    "width": np.where(busy, 1.0, 0.0).tolist(),
                },
            },
        )
    for place, row in enumerate(row_dicts(rows)):
        mark = f" ({interference.MARK})" if row["machine_busy"] else ""
        figure.add_annotation(
            x=row["total_ms"],
            y=place,
            text=numbers.significant(row["total_ms"]) + mark,
            showarrow=False,
            xanchor="left",
            xshift=6,
            font={"size": 12, "color": ink["quiet"]},
        )
    if limit_ms is not None:
        figure.add_vline(x=limit_ms, line={"color": ink["quiet"], "width": 1, "dash": "dash"})
    lengths = f"<br>{unit_cost.lengths_text(*times.lengths)}" if times.lengths else ""
    figure.update_xaxes(
        title_text=f"Time of a request (ms, less is better){lengths}", rangemode="tozero"
    )
    theme.name_rows(figure, rows["name"].tolist(), ink)
    return figure


def _hovers(times: RequestTimes) -> list[str]:
    """The hover text of each model: its two parts and their sum."""
    texts = []
    for row in row_dicts(times.rows):
        lines = [
            f"<b>{theme.escape(row['name'])}</b>",
            f"prefill {numbers.milliseconds(row['prefill_ms'])}",
            f"decode {numbers.milliseconds(row['decode_ms'])}, "
            f"{numbers.milliseconds(row['tpot_ms'])} per token",
            f"together {numbers.milliseconds(row['total_ms'])}",
        ]
        if row["machine_busy"]:
            lines.append(f"{interference.MARK}: no conclusion uses these times")
        texts.append("<br>".join([*lines, theme.escape(row["run_id"])]))
    return texts
