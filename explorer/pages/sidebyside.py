"""Parts of the Compare page: the runs to begin with, the footnote."""

import pandas as pd
import streamlit as st

from explorer.analysis import retention
from explorer.pages import words


def newest_study(finished: pd.DataFrame) -> list[str]:
    """The teacher and the students of the newest run's study.

    A study is what shares a teacher's run and the beginning of the name.
    """
    newest = finished.sort_values("finished_at").iloc[-1]
    students = finished[finished["role"] == "student"]
    if newest["role"] == "teacher":
        same = students[students["teacher_run_id"] == newest["run_id"]]
        if same.empty:
            return [str(newest["run_id"])]
        newest = same.sort_values("finished_at").iloc[-1]
    same = students[
        (students["teacher_run_id"] == newest["teacher_run_id"])
        & (students["name"].map(_study) == _study(newest["name"]))
    ]
    teacher = finished.loc[finished["run_id"] == newest["teacher_run_id"], "run_id"]
    return [*teacher, *same.sort_values("num_parameters", ascending=False)["run_id"]]


def chosen(finished: pd.DataFrame, key: str) -> pd.DataFrame:
    """Let runs be chosen, the newest study's at first; ends the page where none is.

    Args:
        finished: Out of these.
        key: Of the widget, and in the page's address.
    """
    known = set(finished["run_id"])
    at_first = [one for one in newest_study(finished) if one in known]
    ids = st.multiselect(
        "Runs",
        finished["run_id"].tolist(),
        # An import chooses its run itself.
        default=None if key in st.session_state else at_first,
        key=key,
        bind="query-params",
        placeholder="Choose runs to compare",
    )
    runs = finished[finished["run_id"].isin(ids)]
    if runs.empty:
        st.info("Choose at least one run above.")
        st.stop()
    return runs


def _study(name: str) -> str:
    """A run's name without the size that a sweep adds to it."""
    return name.rpartition("-")[0] or name


def footnote(runs: pd.DataFrame) -> str:
    """What one must know to read the table, in Markdown."""
    devices = sorted(runs["device_name"].dropna().unique())
    parts = [f"Timed on {', '.join(devices)}."]
    if len(devices) > 1:
        parts.append("Compare latency within one device.")
    notes = sorted(set(runs.loc[runs["usd_per_hour"].notna(), "price_note"]))
    parts += [f"Price: {note}." for note in notes]
    if not notes:
        parts.append("No price for this device: set one on the Explore page to see costs.")
    parts.append(retention.over_different_tasks(runs))
    excluded = sorted({text for text in runs["excluded_tasks"].dropna() if text})
    parts += [f"Left out of the retention: {text}." for text in excluded[:3]]
    return words.md(" ".join(part for part in parts if part))
