"""Explore: the finding in one sentence, the chart, and the evidence for a point."""

import streamlit as st

from explorer.catalogue import prices
from explorer.pages.explore import (
    axes,
    chart,
    comparison,
    evidence,
    evidence_panel,
    failures,
    filters,
    needs,
    pick_card,
    removed,
    views,
)
from explorer.pages.shared import pricing, removal, submitting, widgets
from explorer.specs import starter_sweep

axes.translate_old_addresses()
root = widgets.results_dir()
snapshot = widgets.load(root)

if snapshot.runs.empty:
    widgets.finding("No runs yet. Distil the starter teacher to see how much its students keep.")
    with st.container(horizontal=True):
        if st.button("Go to the Run page", type="primary", icon=":material/play_circle:"):
            st.switch_page(widgets.RUN)
        if not widgets.read_only() and st.button("Start the starter sweep", key="explore_starter"):
            submitting.begin_runs(root, submitting.START, starter_sweep().runs())
            st.switch_page(widgets.RUN)
    widgets.unreadable_folders(root, snapshot.problems)
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
left, middle, right = st.columns([10, 36, 15], gap="medium")
known_prices = widgets.attempt(lambda: prices.prices_for(chosen, root)) or {}
with left, st.container(key="explore_needs", gap="small"):
    asked = needs.needs_panel(finished)
    pricing.price_popover(root, chosen, known_prices)
with middle:
    view = views.choose_view()
    shown = axes.axes_row(snapshot.tasks, of_chart=view == views.CHART)
index = snapshot.index
found = comparison.compare(snapshot, finished, known_prices, asked, shown.task, shown.against)
runs, decided, finding = found.runs, found.decided, found.finding
picked = decided.pick["run_id"] if decided and decided.pick else None
# Control arms are hidden until asked for: by the switch, or as what a rule removed.
hidden = set() if control_arms else filters.controls(runs) - removed.highlighted(decided)
drawn = runs[~runs["run_id"].isin(hidden)]

with sentence:
    widgets.finding(finding)
    filters.summary_line(chosen, visible, runs, shown.task)

with middle:
    if runs.empty:
        st.info("No finished run matches the filters. Change them in the sidebar.")
    elif view != views.CHART:
        views.draw_view(view, index, drawn, shown.task, asked.limits, picked)
    elif "usd" in shown.x and runs[shown.x].isna().all():
        pricing.missing_prices(root, runs, known_prices)
    else:
        chart.draw_chart(index, drawn, shown, asked, decided, finding)
if not runs.empty:
    with right:
        clicked = evidence.choose_run(runs)
        if clicked is not None and clicked != picked:
            evidence_panel.evidence_panel(root, runs, clicked, decided, shown.against)
            st.divider()
        pick_card.pick_card(index, runs, decided, shown.task)
    pick_card.others(runs, decided)
    if clicked is not None:
        evidence.evidence_strip(root, runs, clicked, known_prices, shown.against)

failures.failed_runs(root, chosen)
removal.trash_list(root)
widgets.unreadable_folders(root, snapshot.index.problems())
