"""Parts of the Compare page: the runs to begin with, the footnote."""

import pandas as pd
import streamlit as st

from explorer.analysis import headline, interference, numbers
from explorer.analysis.cost import unit_cost
from explorer.analysis.stats import retention
from explorer.pages.shared import text_format


def newest_study(finished: pd.DataFrame) -> list[str]:
    """The teacher and the students of the newest study, in all their formats.

    A study is what shares a teacher's run and the beginning of the name. Runs timed on a busy
    machine begin none where there are others.
    """
    students = finished[finished["role"] == "student"].sort_values("finished_at")
    if students.empty:
        return [str(finished.sort_values("finished_at").iloc[-1]["run_id"])]
    converted = headline.is_converted(students)
    own = students[~converted]
    candidates = students if own.empty else own
    quiet = interference.without_busy(candidates)
    newest = (candidates if quiet.empty else quiet).iloc[-1]
    of_study = converted | (students.apply(_study, axis=1) == _study(newest))
    same = students[of_study & (students["teacher_run_id"] == newest["teacher_run_id"])]
    if same.empty:  # an import without a teacher
        same = students[students["run_id"] == newest["run_id"]]
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


def _study(one: pd.Series) -> str:
    """A run's name without what a sweep adds to it: the size, and the format or the arm."""
    plain = str(one["name"]).removesuffix("-labels")
    if not numbers.missing(one["format"]):
        plain = plain.removesuffix(f"-{one['format']}")
    return plain.rpartition("-")[0] or plain


def footnote(runs: pd.DataFrame) -> str:
    """What one must know to read the table, in Markdown."""
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
            f"times. Explore offers to time {them} again."
        )
    notes = sorted(set(runs.loc[runs["usd_per_hour"].notna(), "price_note"]))
    parts += [f"Price: {note}." for note in notes]
    if not notes:
        parts.append("No price for this device: set one on the Explore page to see costs.")
    parts.append(retention.over_different_tasks(runs))
    excluded = sorted({text for text in runs["excluded_tasks"].dropna() if text})
    parts += [f"Left out of the retention: {text}." for text in excluded[:3]]
    return text_format.md(" ".join(part for part in parts if part))
