"""The chart of Explore, with its overlays and what stands under it."""

import pandas as pd
import streamlit as st

from explorer.analysis.cost import unit_cost
from explorer.analysis.pick.decide import Decision
from explorer.charts import chart_axes, retention_chart
from explorer.index import StoreIndex
from explorer.pages.explore import overlays, pick_card, removed
from explorer.pages.explore.axes import AXES, Axes
from explorer.pages.explore.needs import Needs
from explorer.pages.shared import chart_element, chart_width, text_format, widgets

WIDTH = 720
"""Pixels of the chart in a window of 1,440."""


def draw_chart(
    index: StoreIndex,
    runs: pd.DataFrame,
    task: str | None,
    shown: Axes,
    asked: Needs,
    decided: Decision | None,
    finding: str,
) -> None:
    """Draw the chart of these runs.

    Args:
        index: The index of the store.
        runs: With the columns of `retention.add_retention` and `unit_cost.add_costs`.
        task: The only task that counts; None for all.
        shown: The axes and overlays.
        asked: The limits.
        decided: The decision, if there is one.
        finding: What the chart says, for screen readers.
    """
    times = bool(shown.times and chart_axes.across(runs, shown.x, times=True).notna().any())
    drawn = runs
    if shown.y == "retention":
        cost = runs.assign(cost=chart_axes.costs(runs, shown.x, times=times))
        drawn = runs.assign(frontier_share=index.frontier_share(cost, "cost", task))
    laid = overlays.points(runs, shown.published, shown.estimate_on, utilisation=asked.utilisation)
    figure = retention_chart.retention_chart(
        pd.concat([drawn, *laid], ignore_index=True) if laid else drawn,
        x=shown.x,
        y=shown.y,
        template=widgets.template(),
        target=asked.limits.min_retention,
        selected=(shown.published and overlays.open_id()) or widgets.picked_run(),
        picked=decided.pick["run_id"] if decided and decided.pick else None,
        excluded=pick_card.excluded(runs, decided),
        highlighted=removed.highlighted(decided),
        x_limit=pick_card.axis_limit(asked, shown.x),
        times=times,
        scale=shown.scale,
        width=chart_width.chart_width(WIDTH),
    )
    # A zoom stays while the axes do.
    figure.update_layout(uirevision=f"{shown.x} {shown.y} {shown.scale} {times}")
    chart_element.draw(figure, "explore_chart", finding, on_pick=overlays.open_point)
    removed.removed_row(decided, runs)
    if shown.times and not times:
        st.caption("No teacher to compare with on this axis, so it shows absolute values.")
    st.caption("Drag to zoom, double-click to see all, click a point for its evidence.")
    overlays.notes(laid, shown.x, AXES[shown.x])
    if shown.published:
        overlays.published_card(widgets.read_only())
    if shown.x in ("usd_per_mtok", "output_tokens_per_usd"):
        st.caption(text_format.md(f"{unit_cost.conditions_text(runs)}."))
