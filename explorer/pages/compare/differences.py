"""The Differences mode of Compare: each run minus a reference, task by task."""

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from explorer.analysis import numbers, studies
from explorer.analysis.stats import pairing
from explorer.analysis.tables import comparison, difference_table
from explorer.pages.shared import glossary, html_table, text_format, widgets
from explorer.records.rows import row_dicts

OWN_TEACHER = "each student's own teacher"
SUITE = "Suite"
KL, LOST, GAINED = "KL (nats)", "Lost", "Gained"
ENDS = ("difference_low", "difference_high")
NO_TEST = "Not evaluated for both."


def choose_reference(chosen: pd.DataFrame, finished: pd.DataFrame) -> str:
    """Let a person choose the reference; the default is each student's own teacher.

    Args:
        chosen: The runs to compare.
        finished: All runs; those of the same studies can be the reference, chosen or not.
    """
    students = (chosen["role"] == "student").any()
    runs = studies.same_studies(finished, chosen)
    names = dict(zip(runs["run_id"], studies.names_of(runs), strict=True))
    widgets.expand_run_ids(runs["run_id"], "against")
    # Older addresses name a run by its id, or by a label and its id; those of today as the page.
    run_id = st.query_params.get("against", "").rpartition(", ")[2]
    if "against" not in st.session_state and run_id in names:
        st.query_params["against"] = names[run_id]
        st.rerun()
    options = [*([OWN_TEACHER] if students else []), *runs["run_id"]]
    reference = st.selectbox(
        "Against",
        options,
        format_func=lambda run_id: names.get(run_id, run_id),
        key="against",
        bind="query-params",
        help=glossary.TERMS["reference"],
        width=330,
    )
    return str(reference)


def differences_table(root: Path, runs: pd.DataFrame, against: str) -> str:
    """A table of run minus reference: a row per run, a column per task, real differences marked.

    Args:
        root: The store.
        runs: In display order, with retention.
        against: A run id, or `OWN_TEACHER`.

    Returns:
        The finding in one sentence; empty if nothing could be compared.
    """
    known = widgets.load_runs(root).set_index("run_id", drop=False)
    names = dict(zip(runs["run_id"], studies.names_of(runs), strict=True))
    found = []
    for run in row_dicts(runs):
        other = run["teacher_run_id"] if against == OWN_TEACHER else against
        if other in known.index and other != run["run_id"]:
            own = run["teacher_run_id"] == other
            tasks, suite = between(root, run["run_id"], other, own=own)
            found.append((run, other, {SUITE: suite} | {row["task"]: row for row in tasks}))
    if not found:
        st.info("To see differences, choose two runs, or a student whose teacher is in the store.")
        return ""
    columns = list(dict.fromkeys(task for *_, rows in found for task in rows))
    _table([(names[run["run_id"]], run, other, rows) for run, other, rows in found], columns)
    st.caption(text_format.md(glossary.TERMS["verdict"]))
    with st.popover("Read the answers", icon=":material/quiz:", key="compare_answers"):
        for run, other, _ in found:
            st.page_link(
                widgets.ANSWERS,
                label=f"Answers of {text_format.md(names[run['run_id']])}",
                query_params={"student": run["run_id"], "reference": other},
            )
    notes = [
        f"{names[run['run_id']]}: {note}"
        for run, _, rows in found
        for note in difference_table.difference_notes(
            [row for task, row in rows.items() if task != SUITE], rows[SUITE]
        )
    ]
    if notes:
        with st.expander("How to read these numbers", icon=":material/info:"):
            st.markdown("\n".join(f"- {text_format.md(note)}" for note in dict.fromkeys(notes)))
    return _sentence(root, runs, found, against)


def _sentence(
    root: Path, runs: pd.DataFrame, found: list[tuple[Any, str, dict[str, Any]]], against: str
) -> str:
    """What one run loses and saves against its reference, or how many of several differ."""
    if len(found) > 1:
        verdicts = [rows[SUITE]["verdict"] or None for *_, rows in found]
        if against == OWN_TEACHER:
            return comparison.table_sentence(verdicts, "the teacher")
        stored = widgets.load_runs(root)
        (reference,) = studies.names_of(stored[stored["run_id"] == against])
        return comparison.table_sentence(verdicts, reference)
    [(run, other, rows)] = found
    beside = runs[runs["run_id"] == other]
    if beside.empty:
        stored = widgets.load_runs(root)
        beside = widgets.index(root).with_retention(stored[stored["run_id"] == other])
    return comparison.pair_sentence(run, row_dicts(beside)[0], rows[SUITE]["verdict"] or None)


def _table(found: list[tuple[str, Any, str, dict[str, Any]]], tasks: list[str]) -> None:
    """Draw the table of these runs: name, run, reference id, and a difference per task."""
    ends = [row[end] for *_, rows in found for row in rows.values() for end in ENDS]
    limit = max((abs(100 * end) for end in ends if not numbers.missing(end)), default=1.0) or 1.0
    texts, marks, hover, drawn = [], [], [], []
    for name, run, other, rows in found:
        lost, gained = _flips(rows)
        texts.append(
            {"Run": name, KL: numbers.significant(run.get("kl_after")), LOST: lost, GAINED: gained}
            | {task: _cell(row) for task, row in rows.items()}
        )
        marks.append({task: row["verdict"] or "" for task, row in rows.items()})
        hover.append(
            {
                "Run": f"{run['run_id']} against {other}",
                KL: glossary.TERMS["kl"],
                LOST: "Answers that the reference has right and the run has wrong.",
                GAINED: "Answers that the run has right and the reference has wrong.",
            }
            | {task: _hover(row) for task, row in rows.items()}
        )
        drawn.append({task: _drawn(row, limit) for task, row in rows.items()})
    columns = ["Run", KL, LOST, GAINED, *tasks]
    cells = pd.DataFrame(texts, columns=columns, dtype=object).fillna(numbers.MISSING)
    beside = [name for name in (KL, LOST, GAINED) if (cells[name] != numbers.MISSING).any()]
    st.html(
        html_table.results_table(
            cells,
            {
                "": ["Run"],
                **({"Beside the score": beside} if beside else {}),
                "Run − reference, in points of score [95 %]": tasks,
            },
            pinned=[False] * len(cells),
            hover=pd.DataFrame(hover, columns=columns, dtype=object).fillna(NO_TEST),
            marks=pd.DataFrame(marks, columns=columns, dtype=object).fillna(""),
            drawn=pd.DataFrame(drawn, columns=columns, dtype=object).fillna(""),
        )
    )


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
    """`-12.5 worse [-16.0, -9.1]`; a difference that is not shown has a dot for the verdict."""
    number, _, ends = difference_table.difference_cell(row).partition(" ")
    if not ends:
        return number
    verdict = difference_table.verdict_cell(row)
    return f"{number} {'·' if verdict == 'inconclusive' else verdict} {ends}"


def _drawn(row: dict[Any, Any], limit: float) -> str:
    """The difference as a dot and its interval around zero; hollow if it is not shown."""
    if numbers.missing(row["difference"]):
        return ""
    value, low, high = (100 * row[name] for name in ("difference", *ENDS))
    kind = "" if row["verdict"] in ("better", "worse") else "open"
    return html_table.interval_mark(value, low, high, (-limit, limit), at=0.0, kind=kind)


def _flips(rows: dict[str, Any]) -> tuple[str, str]:
    """How many answers all tasks together lost and gained."""
    tasks = [row for task, row in rows.items() if task != SUITE]
    counts = [
        [row[name] for row in tasks if not numbers.missing(row[name])]
        for name in ("num_only_teacher", "num_only_student")
    ]
    lost, gained = (f"{sum(known):,.0f}" if known else numbers.MISSING for known in counts)
    return lost, gained


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
