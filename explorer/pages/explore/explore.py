"""Explore: the finding in one sentence, the chart, and the evidence for a point."""

import streamlit as st

from explorer.analysis import headline
from explorer.analysis.cost import unit_cost
from explorer.catalogue import prices
from explorer.charts import retention_chart
from explorer.pages.explore import evidence, failures, filters, needs, pick_card
from explorer.pages.shared import (
    chart_width,
    glossary,
    pricing,
    removal,
    submitting,
    text_format,
    widgets,
)
from explorer.specs import starter_sweep

HELP = glossary.TERMS
AXES = {
    "tpot_ms": "TPOT",
    "ttft_ms": "TTFT",
    "usd_per_hour_at_load": "$/hour at load",
    "usd_per_mtok": "$/1M output",
    "num_parameters": "Parameters",
    "peak_memory_bytes": "Memory",
}
OLD_AXES = {"$/hour": "usd_per_hour_at_load", "$/1M tokens": "usd_per_mtok"}
"""Names of axes in older addresses."""
AXIS_HELP = "\n\n".join(
    f"**{text_format.md(AXES[axis])}** {text_format.md(HELP[term])}"
    for axis, term in {
        "tpot_ms": "tpot",
        "ttft_ms": "ttft",
        "usd_per_hour_at_load": "usd_per_hour",
        "usd_per_mtok": "usd_per_mtok",
    }.items()
)
HEIGHTS = {"retention": "Corrected", "raw_ratio": "Raw"}

widgets.style()
if "x" not in st.session_state and st.query_params.get("x") in OLD_AXES:
    st.query_params["x"] = AXES[OLD_AXES[st.query_params["x"]]]
    st.rerun()
root = widgets.results_dir()
snapshot = widgets.load(root)

if snapshot.runs.empty:
    st.html(
        '<p class="finding">No runs yet. Distil the starter teacher to see how much its students '
        "keep.</p>"
    )
    with st.container(horizontal=True):
        if st.button("Go to the Run page", type="primary", icon=":material/play_circle:"):
            st.switch_page(widgets.RUN)
        if not widgets.read_only() and st.button("Start the starter sweep", key="explore_starter"):
            submitting.begin_runs(root, submitting.START, starter_sweep().runs())
            st.switch_page(widgets.RUN)
    widgets.unreadable_folders(snapshot.problems)
    st.stop()

widgets.expand_run_ids(snapshot.runs["run_id"], widgets.PICKED)
removal.undo_offer(root)
visible = filters.visible_runs(snapshot)
chosen = filters.sidebar(visible)
control_arms = filters.control_arms(chosen)
finished = chosen[chosen["status"] == "finished"]
widgets.follow_pick(widgets.PICKED, finished["run_id"])

# The sentence stands above the controls but depends on them: this reserves its place.
sentence = st.container(key="explore_sentence")
with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="explore_row"):
    x = st.segmented_control(
        "Horizontal axis",
        list(AXES),
        default="tpot_ms",
        required=True,
        format_func=lambda key: AXES[key],
        key="x",
        bind="query-params",
        help=AXIS_HELP,
        wrap=True,
    )
    y = st.segmented_control(
        "Capability kept",
        list(HEIGHTS),
        default="retention",
        required=True,
        format_func=lambda key: HEIGHTS[key],
        key="y",
        bind="query-params",
        help=f"**Corrected** {HELP['retention']}\n\n**Raw** {HELP['raw_ratio']}",
    )
    tasks = snapshot.tasks
    task = st.selectbox(
        "Task",
        tasks,
        index=None,
        placeholder="All tasks",
        key="task",
        bind="query-params",
        help=HELP["task"],
        width=190,
    )
    known_prices = widgets.attempt(lambda: prices.prices_for(chosen, root)) or {}
    pricing.price_popover(root, chosen, known_prices)

left, middle, right = st.columns([10, 36, 15], gap="medium")
with left, st.container(key="explore_needs", gap="small"):
    asked = needs.needs_panel()
runs = widgets.index(root).with_retention(finished, task)
runs = unit_cost.add_costs(runs, known_prices, utilisation=asked.utilisation)
decided = pick_card.decision(widgets.index(root), runs, asked) if task is None else None
drawn = runs if control_arms else runs[~runs["run_id"].isin(filters.controls(runs))]
if y == "retention":
    drawn = drawn.assign(frontier_share=widgets.index(root).frontier_share(drawn, x, task))

finding = headline.headline(runs)
with sentence:
    st.html(f'<p class="finding">{widgets.escape(finding)}</p>')
    filters.summary_line(chosen, visible, runs, task)

if runs.empty:
    st.info("No finished run matches the filters. Change them in the sidebar.")
elif x.startswith("usd") and runs[x].isna().all():
    with middle:
        pricing.missing_prices(root, runs, known_prices)
else:
    with middle:
        figure = retention_chart.retention_chart(
            drawn,
            x=x,
            y=y,
            template=widgets.template(),
            target=asked.limits.min_retention,
            selected=widgets.picked_run(),
            picked=decided.pick["run_id"] if decided and decided.pick else None,
            excluded=pick_card.excluded(runs, decided),
            x_limit=pick_card.axis_limit(asked, x),
            width=chart_width.chart_width(),
        )
        widgets.chart(figure, "explore_chart", finding, pick=True)
        st.caption("Drag to zoom, double-click to see all, click a point for its evidence.")
        if x == "usd_per_mtok":
            st.caption(text_format.md(f"{unit_cost.conditions_text(runs)}."))
    with right:
        pick_card.pick_card(widgets.index(root), runs, decided, task)
    pick_card.others(runs, decided)
    evidence.evidence_strip(root, runs, known_prices)

failures.failed_runs(root, chosen)
removal.trash_list(root)
widgets.unreadable_folders(snapshot.problems)
