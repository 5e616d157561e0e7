"""The runs that Compare and Economics start with, and the footnote of their tables."""

import pandas as pd
import streamlit as st

from explorer.analysis import headline, interference, numbers
from explorer.analysis.cost import unit_cost
from explorer.analysis.stats import retention
from explorer.pages.shared import text_format, widgets


def newest_study(finished: pd.DataFrame) -> list[str]:
    """Run ids of the newest study: the teacher, then its students in all formats, largest first.

    A study is the runs that share a teacher's run and the prefix of their names. Runs timed on a
    busy machine, and lone students, decide which study is newest only if there are no others.
    """
    students = finished[finished["role"] == "student"].sort_values("finished_at")
    if students.empty:
        return [str(finished.sort_values("finished_at").iloc[-1]["run_id"])]
    converted = headline.is_converted(students)
    students = students.assign(study=_studies(students))
    own = students[~converted]
    candidates = students if own.empty else own
    quiet = interference.without_busy(candidates)
    candidates = candidates if quiet.empty else quiet
    several = candidates[candidates.duplicated(["teacher_run_id", "study"], keep=False)]
    newest = (candidates if several.empty else several).iloc[-1]
    of_study = converted | (students["study"] == newest["study"])
    members = students[of_study & (students["teacher_run_id"] == newest["teacher_run_id"])]
    if members.empty:  # an import without a teacher
        members = students[students["run_id"] == newest["run_id"]]
    teacher = finished.loc[finished["run_id"] == newest["teacher_run_id"], "run_id"]
    return [*teacher, *members.sort_values("num_parameters", ascending=False)["run_id"]]


def choose_runs(finished: pd.DataFrame, key: str) -> pd.DataFrame:
    """Let a person choose runs, starting with the newest study; stop the page if none is chosen.

    Args:
        finished: The runs to choose from.
        key: Key of the widget and query parameter of the page.
    """
    widgets.expand_run_ids(finished["run_id"], key)
    known = set(finished["run_id"])
    default = [run_id for run_id in newest_study(finished) if run_id in known]
    ids = st.multiselect(
        "Runs",
        finished["run_id"].tolist(),
        # An import selects its run itself.
        default=None if key in st.session_state else default,
        key=key,
        bind="query-params",
        placeholder="Choose runs to compare",
    )
    runs = finished[finished["run_id"].isin(ids)]
    if runs.empty:
        st.info("Choose at least one run above.")
        st.stop()
    return runs


def _studies(runs: pd.DataFrame) -> list[str]:
    """Names of the runs without what a sweep adds: the size, and the format or control arm."""
    studies = []
    for name, number_format in zip(runs["name"], runs["format"], strict=True):
        plain = str(name).removesuffix("-labels")
        if not numbers.missing(number_format):
            plain = plain.removesuffix(f"-{number_format}")
        studies.append(plain.rpartition("-")[0] or plain)
    return studies


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
