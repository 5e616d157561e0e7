"""The tournaments that were started: how they stand, refreshed while one is active."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from explorer.errors import ExplorerError
from explorer.jobs.states import ACTIVE
from explorer.pages.run import queue_panel
from explorer.pages.shared import glossary, submitting, text_format, widgets
from explorer.records.rows import row_dicts
from explorer.search import queued as tunes
from explorer.search import successive_halving
from explorer.specs import RunSpec

SHOWN = 5
"""Tournaments listed at once, the latest."""


def show(root: Path) -> bool:
    """Draw the tournaments that were started, refreshed while one is under way; whether one is."""
    listing = tunes.status_table(root)
    if listing.empty:
        return False
    active = bool(listing["state"].isin(ACTIVE).any())
    fragment = st.fragment(_draw, run_every=queue_panel.REFRESH_S if active else None)
    fragment(root, active)
    return active


def _draw(root: Path, was_active: bool) -> None:
    listing = tunes.status_table(root)
    if bool(listing["state"].isin(ACTIVE).any()) != was_active:
        # The timer belongs to the whole page: start or stop it there.
        st.rerun()
    st.subheader("Tournaments", anchor=False)
    for row in row_dicts(listing.head(SHOWN)):
        _one(root, row)


def _one(root: Path, row: Mapping[Any, Any]) -> None:
    """One tournament: how far, how its contenders stand, what one can do."""
    tune_id, state = row["run_id"], row["state"]
    with st.container(key=f"tune_{tune_id.replace('.', '-')}", border=True):
        name, middle, actions = st.columns(queue_panel.DONE_COLUMNS, vertical_alignment="center")
        name.markdown(f"**{text_format.md(tune_id)}**")
        try:
            spec = successive_halving.read_spec(root, tune_id)
            now = successive_halving.round_status(spec, root)
        except ExplorerError as error:
            middle.markdown(text_format.md(str(error)))
            return
        best = now.results[0]
        if state in ACTIVE:
            done = now.num_runs - len(now.missing)
            said = f"{now.title} · {done} of {now.num_runs} runs"
            middle.progress(done / now.num_runs, text_format.md(said.capitalize()))
        elif state == "finished":
            middle.markdown(f"Best: **{text_format.md(best.changes)}**")
        else:
            middle.markdown(queue_panel.stopped(row))
        with actions:
            _actions(root, tune_id, row, best.spec)
        st.dataframe(successive_halving.results_table(spec, now.results), hide_index=True)


def _actions(root: Path, tune_id: str, row: Mapping[Any, Any], best: RunSpec) -> None:
    if widgets.read_only():
        return
    if row["state"] in ACTIVE:
        if row["cancel_requested"]:
            st.button("Stopping…", key=f"tune_cancel_{tune_id}", disabled=True, width="stretch")
        elif st.button(
            "Cancel", key=f"tune_cancel_{tune_id}", icon=":material/stop:", width="stretch"
        ):
            widgets.attempt(lambda: tunes.cancel(root, tune_id))
            st.rerun(scope="fragment")
    elif row["state"] == "finished":
        if st.button(
            "Start the best one",
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
            lambda on_progress: tunes.resume(root, tune_id, on_progress),
        )
        st.rerun()
