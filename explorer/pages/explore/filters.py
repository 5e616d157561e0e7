"""Filters in the sidebar, and a line that says which runs pass them."""

import pandas as pd
import streamlit as st

from explorer.analysis import baseline, interference, studies
from explorer.analysis.pick import candidates
from explorer.index import Snapshot
from explorer.pages.shared import glossary, text_format, widgets

TRAINED = {True: "Distilled", False: "Not distilled"}
STATES = {"finished": "Finished", "failed": "Failed", "cancelled": "Cancelled"}


def visible_runs(snapshot: Snapshot) -> pd.DataFrame:
    """The runs that are not hidden, or all runs if the sidebar's switch is on."""
    hidden = snapshot.runs["run_id"].isin(snapshot.hidden)
    if not hidden.any():
        return snapshot.runs
    with st.sidebar:
        show_all = st.toggle(
            f"Show {text_format.plural(int(hidden.sum()), 'hidden run')}",
            key="hidden",
            bind="query-params",
            help=glossary.TERMS["hidden_runs"],
        )
    return snapshot.runs if show_all else widgets.visible_runs(snapshot)


def sidebar(runs: pd.DataFrame) -> pd.DataFrame:
    """A filter for each property in which the runs differ; returns the runs that pass all."""
    passing = runs
    with st.sidebar:
        st.subheader("Filters", anchor=False)
        passing = _filter_by(passing, runs, "teacher", "Teacher", "teacher")
        passing = _filter_by(passing, runs, "device_name", "Device", "device")
        students = runs["role"] == "student"
        if runs.loc[students, "distilled"].nunique() > 1:
            trained = st.pills(
                "Students",
                list(TRAINED.values()),
                selection_mode="multi",
                key="taught",
                bind="query-params",
                help=glossary.TERMS["distilled"],
            )
            if trained:
                chosen = passing["distilled"].map(TRAINED).isin(trained)
                passing = passing[chosen | (passing["role"] == "teacher")]
        if runs["status"].nunique() > 1:
            states = st.pills(
                "State",
                list(STATES.values()),
                selection_mode="multi",
                key="state",
                bind="query-params",
            )
            if states:
                passing = passing[passing["status"].map(STATES).isin(states)]
        if len(passing) == len(runs):
            st.caption(f"{text_format.plural(len(runs), 'run')}, none filtered out.")
        else:
            st.caption(f"{len(passing):,} of {text_format.plural(len(runs), 'run')}.")
    return passing


def controls(runs: pd.DataFrame) -> set[str]:
    """Ids of the control arms among these runs."""
    return set(runs.loc[runs["method"].eq(candidates.CONTROL), "run_id"])


def control_arms(runs: pd.DataFrame) -> bool:
    """A switch for the control arms, where there are any; whether the chart shows them."""
    number = len(controls(runs))
    if not number:
        return False
    with st.sidebar:
        return st.toggle(
            f"Show {text_format.plural(number, 'control arm')}",
            key="controls",
            bind="query-params",
            help=glossary.TERMS["control_arm"],
        )


def _filter_by(
    passing: pd.DataFrame, runs: pd.DataFrame, column: str, label: str, key: str
) -> pd.DataFrame:
    options = sorted(runs[column].dropna().unique())
    if len(options) < 2:
        return passing
    wanted = st.multiselect(
        label,
        options,
        key=key,
        bind="query-params",
        placeholder="All",
        help=glossary.TERMS[key],
    )
    return passing[passing[column].isin(wanted)] if wanted else passing


def summary_line(
    runs: pd.DataFrame, all_runs: pd.DataFrame, finished: pd.DataFrame, task: str | None
) -> None:
    """One quiet line: which study, how many runs, timed where, the newest, what was left out.

    Args:
        runs: The runs that pass the filters.
        all_runs: The whole store.
        finished: The finished ones among `runs`, with the columns of `retention.add_retention`.
        task: The only task that counts; None for all.
    """
    if runs.empty:
        return
    devices = runs["device_name"].dropna().unique()
    students = runs[(runs["role"] == "student") & ~baseline.is_converted(runs)]
    names = {studies.study_of(str(name)) for name in students["name"]}
    parts = [
        f"{names.pop()} study" if len(names) == 1 else f"{len(names):,} studies" if names else "",
        text_format.plural(len(runs), "run")
        if len(runs) == len(all_runs)
        else f"{len(runs):,} of {text_format.plural(len(all_runs), 'run')} (filtered)",
        f"task {task} only" if task else "",
        f"timed on {devices[0]}"
        if len(devices) == 1
        else f"timed on {len(devices)} devices: compare latency within one",
    ]
    if num_busy := int(interference.was_busy(finished).sum()):
        parts.append(f"{num_busy:,} timed on a busy machine")
    line = " · ".join(widgets.escape(part) for part in parts if part)
    newest = runs["finished_at"].dropna().max()
    if isinstance(newest, str):
        line += f" · newest {widgets.relative_time(newest)}"
    # A teacher that was only timed is not expected to have scores.
    students = finished[finished["role"] == "student"]
    excluded = sorted({text for text in students["excluded_tasks"].dropna() if text})
    if excluded:
        more = f" and {len(excluded) - 1} more notes" if len(excluded) > 1 else ""
        line += f"<br>Left out: {widgets.escape(excluded[0])}{more}"
    st.html(f'<p class="quiet" style="margin:0">{line}</p>')
