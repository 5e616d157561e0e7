"""Parts of the Compare page: the runs to begin with, the differences."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from explorer.analysis import numbers
from explorer.pages import detail, glossary, grid, widgets, words


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


def _study(name: str) -> str:
    """A run's name without the size that a sweep adds to it."""
    return name.rpartition("-")[0] or name


def differences(root: Path, runs: pd.DataFrame) -> None:
    """A row a student, a column a task: student minus teacher, with a verdict.

    Args:
        root: The store.
        runs: Ordered for people, with the columns of `retention.add`.
    """
    students = runs[runs["role"] == "student"]
    if students.empty:
        st.info("Choose a student and its teacher to see differences.")
        return
    finished = set(widgets.load_runs(root)["run_id"])
    texts, marks, hover = [], [], []
    for row in students.to_dict("records"):
        text, mark, said = {"Student": row["label"]}, {"Student": ""}, {"Student": row["run_id"]}
        if row["teacher_run_id"] in finished:
            tasks = detail.tasks_of(root, row["run_id"], row["teacher_run_id"])
            for one in tasks.to_dict("records"):
                name = one["task"]
                text[name] = _difference(one)
                mark[name] = one["verdict"] if isinstance(one["verdict"], str) else ""
                said[name] = _said(one)
        texts.append(text)
        marks.append(mark)
        hover.append(said)
    cells = pd.DataFrame(texts).fillna(numbers.MISSING)
    names = [name for name in cells.columns if name != "Student"]
    if not names:
        st.info("The teacher of these students is not in the store, so nothing can be paired.")
        return
    st.html(
        grid.table(
            cells,
            {"": ["Student"], "Student − teacher, in points of score [95 %]": names},
            pinned=[False] * len(cells),
            hover=pd.DataFrame(hover, columns=cells.columns).fillna("Not measured for both."),
            marks=pd.DataFrame(marks, columns=cells.columns).fillna(""),
        )
    )
    st.caption(words.md(glossary.TERMS["verdict"]))


def _difference(one: Mapping[Any, Any]) -> str:
    """`−12.5 worse [-16.0, -9.1]`, in points."""
    if numbers.missing(one["difference"]):
        return numbers.MISSING
    points = 100 * one["difference"]
    low, high = 100 * one["difference_low"], 100 * one["difference_high"]
    sign = "+" if points > 0 else ""
    verdict = f" {one['verdict']}" if isinstance(one["verdict"], str) else ""
    return f"{sign}{numbers.significant(points)}{verdict} {numbers.interval(low, high)}"


def _said(one: Mapping[Any, Any]) -> str:
    """What a difference says on hover: both scores, the test, or why it does not count."""
    if isinstance(one["reason"], str) and one["reason"]:
        return one["reason"]
    scores = f"student {numbers.significant(one['student'])}, teacher " + numbers.significant(
        one["teacher"]
    )
    if numbers.missing(one["p_value"]):
        return scores
    return f"{scores}, McNemar p = {numbers.significant(one['p_value'])}"


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
    excluded = sorted({text for text in runs["excluded_tasks"].dropna() if text})
    parts += [f"Left out of the retention: {text}." for text in excluded[:3]]
    return words.md(" ".join(parts))
