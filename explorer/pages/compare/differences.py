"""The Differences mode of Compare: each run minus a reference, task by task."""

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from explorer.analysis import numbers
from explorer.analysis.stats import pairing
from explorer.analysis.tables import difference_table
from explorer.pages.shared import glossary, html_table, text_format, widgets
from explorer.records.rows import row_dicts

OWN_TEACHER = "each student's own teacher"
SUITE = "Suite"


def choose_reference(runs: pd.DataFrame) -> str:
    """Let a person choose the reference; the default is each student's own teacher."""
    students = (runs["role"] == "student").any()
    widgets.expand_run_ids(runs["run_id"], "against")
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


def differences_table(root: Path, runs: pd.DataFrame, against: str) -> None:
    """A table of run minus reference, with a verdict: a row per run, a column per task.

    Args:
        root: The store.
        runs: In display order.
        against: A run id, or `OWN_TEACHER`.
    """
    known = set(widgets.load_runs(root)["run_id"])
    names = dict(zip(runs["run_id"], names_of(runs), strict=True))
    texts, marks, hover, notes = [], [], [], []
    pairs: dict[str, tuple[str, str]] = {}
    for row in row_dicts(runs):
        run_id = row["run_id"]
        other = row["teacher_run_id"] if against == OWN_TEACHER else against
        if other not in known or other == run_id:
            continue
        tasks, suite = between(root, run_id, other, own=row["teacher_run_id"] == other)
        rows = {SUITE: suite} | {result["task"]: result for result in tasks}
        name = names[run_id]
        pairs[name] = run_id, other
        texts.append({"Run": name} | {task: _cell(result) for task, result in rows.items()})
        marks.append({"Run": ""} | {task: _mark(result) for task, result in rows.items()})
        hover.append(
            {"Run": f"{run_id} against {other}"}
            | {task: _hover(result) for task, result in rows.items()}
        )
        notes += [f"{name}: {note}" for note in difference_table.difference_notes(tasks, suite)]
    cells = pd.DataFrame(texts).fillna(numbers.MISSING)
    if cells.empty:
        st.info("To see differences, choose two runs, or a student whose teacher is in the store.")
        return
    columns = [name for name in cells.columns if name != "Run"]
    st.html(
        html_table.results_table(
            cells,
            {"": ["Run"], "Run − reference, in points of score [95 %]": columns},
            pinned=[False] * len(cells),
            hover=pd.DataFrame(hover, columns=cells.columns).fillna("Not evaluated for both."),
            marks=pd.DataFrame(marks, columns=cells.columns).fillna(""),
        )
    )
    st.caption(text_format.md(glossary.TERMS["verdict"]))
    with st.container(horizontal=True, gap="medium", key="compare_answers"):
        for name, (run_id, other) in pairs.items():
            st.page_link(
                widgets.ANSWERS,
                label=f"Answers of {text_format.md(name)}",
                query_params={"student": run_id, "reference": other},
            )
    if notes:
        with st.expander("How to read these numbers", icon=":material/info:"):
            st.markdown("\n".join(f"- {text_format.md(note)}" for note in dict.fromkeys(notes)))


def names_of(runs: pd.DataFrame) -> list[str]:
    """A short name for each run, with its id added if two runs would share the name."""
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
    """Rows of `differences.compare_runs` for two runs, and the suite; computed once per record.

    Args:
        root: The store.
        run_id: The run.
        other: The reference run.
        own: Whether the reference is its own teacher, whose number format may differ.
    """
    versions = widgets.load(root).versions
    return _between_cached(
        root, run_id, other, own, versions.get(run_id, ""), versions.get(other, "")
    )


@st.cache_data(show_spinner=False, max_entries=500)
def _between_cached(
    root: Path, run_id: str, other: str, own: bool, version: str, other_version: str
) -> tuple[list[dict[Any, Any]], dict[str, Any]]:
    """Computed once; the versions only make the cache key change with the records."""
    allowed = pairing.OF_A_STUDENT if own else ()
    [(rows, suite)] = widgets.index(root).differences([(run_id, other)], lambda *_: allowed)
    return row_dicts(rows), suite


def _cell(row: dict[Any, Any]) -> str:
    """`-12.5 worse [-16.0, -9.1]`."""
    number, _, ends = difference_table.difference_cell(row).partition(" ")
    return f"{number} {difference_table.verdict_cell(row)} {ends}" if ends else number


def _mark(row: dict[Any, Any]) -> str:
    return row["verdict"] or ""


def _hover(row: dict[Any, Any]) -> str:
    """Hover text of a difference: both scores and the test, or why there is none."""
    if numbers.missing(row["difference"]):
        return str(row.get("reason") or "No task could be compared.")
    scores = (
        f"run {numbers.significant(row['student'])}, reference "
        f"{numbers.significant(row['teacher'])} on {row['num_documents']:,} documents"
    )
    if "test" not in row:
        p_value = difference_table.p_value_cell(row["p_value"])
        return f"{scores}; mean over {row['num_tasks']} tasks, p = {p_value}"
    parts = [
        scores,
        f"{row['test']}: p = {difference_table.p_value_cell(row['p_value'])}",
        f"adjusted for the number of tasks (Holm) {difference_table.p_value_cell(row['p_holm'])}",
        difference_table.detectable_cell(row),
        row["note"],
    ]
    return "; ".join(part for part in parts if part)
