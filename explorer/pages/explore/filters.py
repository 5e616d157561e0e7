"""Which runs a page is about: filters in the sidebar, and a line that says what they leave."""

import pandas as pd
import streamlit as st

from explorer.analysis import interference
from explorer.pages.shared import glossary, text_format, widgets
from explorer.pages.shared.store_cache import Shelf

TAUGHT = {True: "Distilled", False: "Not distilled"}
STATES = {"finished": "Finished", "failed": "Failed", "cancelled": "Cancelled"}


def listed(shelf: Shelf) -> pd.DataFrame:
    """The runs that are not hidden, or all of them where the sidebar's switch says so."""
    hidden = shelf.runs["run_id"].isin(shelf.hidden)
    if not hidden.any():
        return shelf.runs
    with st.sidebar:
        show_all = st.toggle(
            f"Show {text_format.plural(int(hidden.sum()), 'hidden run')}",
            key="hidden",
            bind="query-params",
            help=glossary.TERMS["hidden_runs"],
        )
    return shelf.runs if show_all else widgets.listed(shelf)


def sidebar(runs: pd.DataFrame) -> pd.DataFrame:
    """Show a filter for everything in which the runs differ; return the runs that pass all."""
    kept = runs
    with st.sidebar:
        st.subheader("Filters", anchor=False)
        kept = _of(kept, runs, "teacher", "Teacher", "teacher")
        kept = _of(kept, runs, "device_name", "Device", "device")
        students = runs["role"] == "student"
        if runs.loc[students, "distilled"].nunique() > 1:
            taught = st.pills(
                "Students",
                list(TAUGHT.values()),
                selection_mode="multi",
                key="taught",
                bind="query-params",
                help=glossary.TERMS["distilled"],
            )
            if taught:
                passes = kept["distilled"].map(TAUGHT).isin(taught)
                kept = kept[passes | (kept["role"] == "teacher")]
        if runs["status"].nunique() > 1:
            states = st.pills(
                "State",
                list(STATES.values()),
                selection_mode="multi",
                key="state",
                bind="query-params",
            )
            if states:
                kept = kept[kept["status"].map(STATES).isin(states)]
        if len(kept) == len(runs):
            st.caption(f"{text_format.plural(len(runs), 'run')}, none filtered out.")
        else:
            st.caption(f"{len(kept):,} of {text_format.plural(len(runs), 'run')}.")
    return kept


def _of(kept: pd.DataFrame, runs: pd.DataFrame, column: str, label: str, key: str) -> pd.DataFrame:
    options = sorted(runs[column].dropna().unique())
    if len(options) < 2:
        return kept
    wanted = st.multiselect(
        label,
        options,
        key=key,
        bind="query-params",
        placeholder="All",
        help=glossary.TERMS[key],
    )
    return kept[kept[column].isin(wanted)] if wanted else kept


def said(runs: pd.DataFrame, all_runs: pd.DataFrame, shown: pd.DataFrame, task: str | None) -> None:
    """One quiet line: how many runs, where and when they were made, what was left out.

    Args:
        runs: The runs that pass the filters.
        all_runs: The whole store.
        shown: The finished ones, with the columns of `retention.add`.
        task: The one task that counts; None for all.
    """
    if runs.empty:
        return
    devices = runs["device_name"].dropna().unique()
    parts = [
        text_format.plural(len(runs), "run")
        if len(runs) == len(all_runs)
        else f"{len(runs):,} of {text_format.plural(len(all_runs), 'run')} (filtered)",
        f"on the task {task} alone" if task else "",
        f"timed on {devices[0]}"
        if len(devices) == 1
        else f"timed on {len(devices)} devices: compare latency within one",
    ]
    if num_busy := int(interference.was_busy(shown).sum()):
        parts.append(f"{num_busy:,} timed on a busy machine")
    line = " · ".join(widgets.text(part) for part in parts if part)
    newest = runs["finished_at"].dropna().max()
    if isinstance(newest, str):
        line += f" · newest {widgets.when(newest)}"
    # A teacher that was only timed has no scores, and is not expected to.
    students = shown[shown["role"] == "student"]
    excluded = sorted({text for text in students["excluded_tasks"].dropna() if text})
    if excluded:
        more = f" and {len(excluded) - 1} more notes" if len(excluded) > 1 else ""
        line += f"<br>Left out: {widgets.text(excluded[0])}{more}"
    st.html(f'<p class="quiet" style="margin:0">{line}</p>')
