"""The Compare page's second mode: what each run does better or worse than a reference."""

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from explorer.analysis import numbers
from explorer.analysis.stats import differences, pairing
from explorer.analysis.tables import difference_table as said
from explorer.pages.shared import glossary, html_table, text_format, widgets
from explorer.records.rows import row_dicts

OWN_TEACHER = "each student's own teacher"
SUITE = "Suite"


def reference(runs: pd.DataFrame) -> str:
    """Let a person choose what the runs are held against; each student's teacher at first."""
    students = (runs["role"] == "student").any()
    options = [*([OWN_TEACHER] if students else []), *runs["run_id"]]
    chosen = st.selectbox(
        "Against",
        options,
        key="against",
        bind="query-params",
        help=glossary.TERMS["reference"],
        width=330,
    )
    return str(chosen)


def show(root: Path, runs: pd.DataFrame, against: str) -> None:
    """A row a run, a column a task and one for the suite: run minus reference, and a verdict.

    Args:
        root: The store.
        runs: Ordered for people.
        against: A run id, or `OWN_TEACHER`.
    """
    known = set(widgets.load_runs(root)["run_id"])
    names = dict(zip(runs["run_id"], names_of(runs), strict=True))
    texts, marks, hover, notes = [], [], [], []
    couples: dict[str, tuple[str, str]] = {}
    for row in row_dicts(runs):
        run_id = row["run_id"]
        other = row["teacher_run_id"] if against == OWN_TEACHER else against
        if other not in known or other == run_id:
            continue
        tasks, suite = between(root, run_id, other, own=row["teacher_run_id"] == other)
        rows = {SUITE: suite} | {one["task"]: one for one in tasks}
        name = names[run_id]
        couples[name] = run_id, other
        texts.append({"Run": name} | {task: _cell(one) for task, one in rows.items()})
        marks.append({"Run": ""} | {task: _mark(one) for task, one in rows.items()})
        hover.append({"Run": f"{run_id} against {other}"} | {t: _said(o) for t, o in rows.items()})
        notes += [f"{name}: {note}" for note in said.difference_notes(tasks, suite)]
    cells = pd.DataFrame(texts).fillna(numbers.MISSING)
    if cells.empty:
        st.info("Choose two runs, or a student whose teacher is in the store, to see differences.")
        return
    columns = [name for name in cells.columns if name != "Run"]
    st.html(
        html_table.table(
            cells,
            {"": ["Run"], "Run − reference, in points of score [95 %]": columns},
            pinned=[False] * len(cells),
            hover=pd.DataFrame(hover, columns=cells.columns).fillna("Not measured for both."),
            marks=pd.DataFrame(marks, columns=cells.columns).fillna(""),
        )
    )
    st.caption(text_format.md(glossary.TERMS["verdict"]))
    with st.container(horizontal=True, gap="medium", key="compare_answers"):
        for name, (run_id, other) in couples.items():
            asked = {"student": run_id, "reference": other}
            st.page_link(
                widgets.ANSWERS, label=f"Answers of {text_format.md(name)}", query_params=asked
            )
    if notes:
        with st.expander("How to read these numbers", icon=":material/info:"):
            st.markdown("\n".join(f"- {text_format.md(note)}" for note in dict.fromkeys(notes)))


def names_of(runs: pd.DataFrame) -> list[str]:
    """A short name a run, with its id where the short one would name two."""
    short = [
        f"{row['teacher']} (teacher)" if row["role"] == "teacher" else str(row["label"])
        for row in row_dicts(runs)
    ]
    return [
        name if short.count(name) == 1 else f"{name}, {run_id}"
        for name, run_id in zip(short, runs["run_id"], strict=True)
    ]


def between(
    root: Path, run_id: str, other: str, *, own: bool
) -> tuple[list[dict[Any, Any]], dict[str, Any]]:
    """`differences.between` of two runs, as rows, computed once for their records.

    Args:
        root: The store.
        run_id: The run.
        other: The run that it is held against.
        own: Whether that is its own teacher, from which it may differ in number format.
    """
    versions = widgets.load(root).versions
    return _between_cached(
        root, run_id, other, own, versions.get(run_id, ""), versions.get(other, "")
    )


@st.cache_data(show_spinner=False, max_entries=500)
def _between_cached(
    root: Path, run_id: str, other: str, own: bool, version: str, other_version: str
) -> tuple[list[dict[Any, Any]], dict[str, Any]]:
    """The versions are only part of the key: another record is another table."""
    index = widgets.index(root)
    scores = index.shelf().scores
    rows, suite = differences.compare_runs(
        scores[scores["run_id"] == run_id],
        scores[scores["run_id"] == other],
        index.answers(run_id),
        index.answers(other),
        allow=pairing.OF_A_STUDENT if own else (),
    )
    return row_dicts(rows), suite


def _cell(row: dict[Any, Any]) -> str:
    """`-12.5 worse [-16.0, -9.1]`."""
    number, _, ends = said.difference_cell(row).partition(" ")
    return f"{number} {said.verdict_cell(row)} {ends}" if ends else number


def _mark(row: dict[Any, Any]) -> str:
    return row["verdict"] or ""


def _said(row: dict[Any, Any]) -> str:
    """What a difference says on hover: both scores, the test, or why there is none."""
    if numbers.missing(row["difference"]):
        return str(row.get("reason") or "No task could be compared.")
    scores = (
        f"run {numbers.significant(row['student'])}, reference "
        f"{numbers.significant(row['teacher'])} on {row['num_documents']:,} documents"
    )
    if "test" not in row:
        return (
            f"{scores}; mean over {row['num_tasks']} tasks, p = {said.p_value_cell(row['p_value'])}"
        )
    parts = [
        scores,
        f"{row['test']}: p = {said.p_value_cell(row['p_value'])}",
        f"adjusted for the number of tasks (Holm) {said.p_value_cell(row['p_holm'])}",
        said.detectable_cell(row),
        row["note"],
    ]
    return "; ".join(part for part in parts if part)
