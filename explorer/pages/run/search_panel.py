"""The tournaments and their standings, refreshed while one is active."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from explorer.errors import ExplorerError
from explorer.index.run_states import ACTIVE
from explorer.pages.run import queue_panel
from explorer.pages.shared import glossary, submitting, text_format, widgets
from explorer.records.rows import row_dicts
from explorer.search import queued, successive_halving
from explorer.specs import RunSpec

MAX_LISTED = 5
"""Tournaments shown, latest first."""


def tournament_panel(root: Path) -> bool:
    """Draw the tournaments, refreshed while one is active; returns whether one is."""
    listing = queued.status_table(root)
    if listing.empty:
        return False
    active = bool(listing["state"].isin(ACTIVE).any())
    fragment = st.fragment(_draw, run_every=queue_panel.REFRESH_S if active else None)
    fragment(root, active)
    return active


def _draw(root: Path, was_active: bool) -> None:
    listing = queued.status_table(root)
    if bool(listing["state"].isin(ACTIVE).any()) != was_active:
        # The refresh timer belongs to the page: redraw it to start or stop the timer.
        st.rerun()
    st.subheader("Tournaments", anchor=False)
    for row in row_dicts(listing.head(MAX_LISTED)):
        _tournament(root, row)


def _tournament(root: Path, row: Mapping[Any, Any]) -> None:
    """One tournament: its progress, standings and actions."""
    tune_id, state = row["run_id"], row["state"]
    with st.container(key=f"tune_{tune_id.replace('.', '-')}", border=True):
        name, middle, actions = st.columns(queue_panel.DONE_COLUMNS, vertical_alignment="center")
        name.markdown(f"**{text_format.md(tune_id)}**")
        try:
            spec = successive_halving.read_spec(root, tune_id)
            standings = successive_halving.round_status(spec, root)
        except ExplorerError as error:
            middle.markdown(text_format.md(str(error)))
            return
        best = standings.results[0]
        if state in ACTIVE:
            done = standings.num_runs - len(standings.missing)
            progress = f"{standings.title} · {done} of {standings.num_runs} runs"
            middle.progress(done / standings.num_runs, text_format.md(progress.capitalize()))
        elif state == "finished":
            middle.markdown(f"Best: **{text_format.md(best.changes)}**")
        else:
            middle.markdown(queue_panel.stop_reason(row))
        with actions:
            _actions(root, tune_id, row, best.spec)
        st.dataframe(successive_halving.results_table(spec, standings.results), hide_index=True)


def _actions(root: Path, tune_id: str, row: Mapping[Any, Any], best: RunSpec) -> None:
    if widgets.read_only():
        return
    if row["state"] in ACTIVE:
        if row["cancel_requested"]:
            st.button("Stopping…", key=f"tune_cancel_{tune_id}", disabled=True, width="stretch")
        elif st.button(
            "Cancel", key=f"tune_cancel_{tune_id}", icon=":material/stop:", width="stretch"
        ):
            widgets.attempt(lambda: queued.cancel(root, tune_id))
            st.rerun(scope="fragment")
    elif row["state"] == "finished":
        if st.button(
            "Start the best",
            key=f"tune_best_{tune_id}",
            icon=":material/play_arrow:",
            width="stretch",
            help=glossary.TERMS["tune_best"],
            disabled=submitting.is_running(root, f"best of {tune_id}"),
        ):
            submitting.begin_runs(root, f"best of {tune_id}", [best])
            st.rerun()
    elif st.button(
        "Resume",
        key=f"tune_resume_{tune_id}",
        icon=":material/replay:",
        width="stretch",
        disabled=submitting.is_running(root, submitting.key_of(tune_id)),
    ):
        submitting.begin(
            root,
            submitting.key_of(tune_id),
            tune_id,
            lambda on_progress: queued.resume(root, tune_id, on_progress),
        )
        st.rerun()
