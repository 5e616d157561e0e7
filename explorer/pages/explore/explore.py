"""Explore: the finding in one sentence, the chart, and the evidence for a point."""

import streamlit as st

from explorer.catalogue import prices
from explorer.pages.explore import (
    axes,
    comparison,
    evidence,
    evidence_panel,
    failures,
    filters,
    needs,
    pick_card,
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
    task, against = axes.axes_row(snapshot.tasks, of_chart=view == views.CHART)
index = snapshot.index
found = comparison.compare(snapshot, finished, known_prices, asked, task, against)
runs, decided = found.runs, found.decided

with sentence:
    widgets.finding(found.finding)
    filters.summary_line(chosen, visible, runs, task)

with middle:
    views.draw(root, index, view, found, asked, task, known_prices, control_arms=control_arms)
if not runs.empty:
    with right:
        clicked = evidence.choose_run(runs)
        if clicked is not None and clicked != found.picked:
            evidence_panel.evidence_panel(root, runs, clicked, decided, against)
            st.divider()
        pick_card.pick_card(index, runs, decided, task)
    pick_card.others(runs, decided)
    if clicked is not None:
        evidence.evidence_strip(root, runs, clicked, known_prices, against)

failures.failed_runs(root, chosen)
removal.trash_list(root)
widgets.unreadable_folders(root, snapshot.index.problems())
