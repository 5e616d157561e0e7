"""The runs that Compare and Economics start with, and the footnote of their tables."""

import pandas as pd
import streamlit as st

from explorer.analysis import interference
from explorer.analysis.cost import unit_cost
from explorer.analysis.stats import retention
from explorer.analysis.studies import newest_study as newest_study
from explorer.pages.shared import text_format, widgets

CHOSEN = "chosen_runs"
"""Session key of the runs that a person chose on one page, for the next one."""
CHOSEN_WITH = "chosen_with"
"""Session key of the key of the widget that they were chosen with."""


def followed_runs() -> list[str]:
    """The runs that a person looked at on another page: the picked one, then the chosen ones."""
    picked = widgets.last_picked_run()
    return [*([picked] if picked else []), *st.session_state.get(CHOSEN, [])]


def choose_runs(finished: pd.DataFrame, key: str) -> pd.DataFrame:
    """Let a person choose runs, starting with the newest study or with what another page chose.

    Stops the page if none is chosen.

    Args:
        finished: The runs to choose from.
        key: Key of the widget and query parameter of the page.
    """
    runs = chosen_runs(finished, key)
    if runs.empty:
        st.info("Choose at least one run above.")
        st.stop()
    return runs


def chosen_runs(finished: pd.DataFrame, key: str) -> pd.DataFrame:
    """As `choose_runs`, for a page that goes on without a run."""
    widgets.expand_run_ids(finished["run_id"], key)
    known = set(finished["run_id"])
    chosen_before = st.session_state.get(CHOSEN, [])
    default = [run_id for run_id in chosen_before if run_id in known] or [
        run_id for run_id in newest_study(finished) if run_id in known
    ]
    if st.session_state.get(CHOSEN_WITH, key) != key and not st.query_params.get_all(key):
        st.session_state[key] = default
    # Names, not ids, stand in the table; this list is for ids that somebody sent.
    num_chosen = len(st.session_state.get(key, st.query_params.get_all(key) or default))
    with st.popover(f"{text_format.plural(num_chosen, 'run')} chosen", icon=":material/checklist:"):
        ids = st.multiselect(
            "Runs",
            finished["run_id"].tolist(),
            # An import selects its run itself.
            default=None if key in st.session_state else default,
            key=key,
            bind="query-params",
            placeholder="Choose runs to compare",
        )
    # What is chosen here follows to the next page. The newest study is no choice: a newer one
    # takes its place.
    st.session_state[CHOSEN_WITH] = key
    st.session_state[CHOSEN] = [] if sorted(ids) == sorted(newest_study(finished)) else list(ids)
    return finished[finished["run_id"].isin(ids)]


def footnote(runs: pd.DataFrame) -> str:
    """What a reader has to know about the table, in Markdown."""
    devices = sorted(runs["device_name"].dropna().unique())
    parts = [f"Timed on {', '.join(devices)}."]
    if len(devices) > 1:
        parts.append("Compare latency within one device.")
    if runs["usd_per_mtok"].notna().any():
        parts.append(f"{unit_cost.conditions_text(runs)}.")
    num_busy = int(interference.was_busy(runs).sum())
    if num_busy:
        them = "it" if num_busy == 1 else "them"
        parts.append(
            f"{interference.left_out_sentence(num_busy, 'in italics')}: no conclusion uses these "
            f"times. To time {them} again, use the Explore page."
        )
    notes = sorted(set(runs.loc[runs["usd_per_hour"].notna(), "price_note"]))
    parts += [f"Price: {note}." for note in notes]
    if not notes:
        parts.append("This device has no price: set one on the Explore page to see costs.")
    parts.append(retention.over_different_tasks(runs))
    excluded = sorted({text for text in runs["excluded_tasks"].dropna() if text})
    parts += [f"Left out of retention: {text}." for text in excluded[:3]]
    return text_format.md(" ".join(part for part in parts if part))
