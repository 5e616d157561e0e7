"""Which runs the table of Compare lists, in which order, and what a tick or a heading changes."""

from collections.abc import Collection

import pandas as pd
import streamlit as st

from explorer.analysis import studies
from explorer.analysis.tables import comparison
from explorer.pages.shared import glossary, table_events

STUDY, CHOSEN, ALL = "Study", "Chosen", "All runs"
SEARCHED = ("run_id", "label", "format", "teacher", "kind")
"""Columns in which the filter looks for its words."""


def listed_runs(finished: pd.DataFrame, chosen: pd.DataFrame, *, disabled: bool) -> pd.DataFrame:
    """Let a person choose which runs have a row; chosen ones always do.

    Args:
        finished: All runs that can be chosen.
        chosen: Those that are.
        disabled: Whether only the chosen ones are shown anyway.
    """
    rows = st.segmented_control(
        "List",
        (STUDY, CHOSEN, ALL),
        default=STUDY,
        required=True,
        key="list",
        bind="query-params",
        disabled=disabled,
        help=glossary.TERMS["listed"],
    )
    words = st.text_input(
        "Filter",
        key="filter",
        bind="query-params",
        placeholder="24 layers, q8_0, a study",
        disabled=disabled,
        width=200,
    )
    if disabled or rows == CHOSEN:
        return chosen
    candidates = finished if rows == ALL else studies.same_studies(finished, chosen)
    if candidates.empty:
        candidates = finished
    texts = (
        candidates[list(SEARCHED)]
        .astype(object)
        .fillna("")
        .astype(str)
        .agg(" ".join, axis=1)
        .str.lower()
    )
    matches = pd.Series(True, index=candidates.index)
    for word in (words or "").lower().split():
        matches &= texts.str.contains(word, regex=False)
    listed = {*candidates.loc[matches, "run_id"], *chosen["run_id"]}
    return finished[finished["run_id"].isin(listed)]


def order() -> tuple[str, bool]:
    """Let a person choose the order; a click on a heading does the same.

    Returns:
        A key of `comparison.ORDERS`, and whether the order is turned around.
    """
    by = st.selectbox(
        "Sort by",
        list(comparison.ORDERS),
        index=list(comparison.ORDERS).index(comparison.DEFAULT_ORDER),
        key="sort",
        bind="query-params",
        width=170,
    )
    reverse = st.toggle("Reversed", key="reversed", bind="query-params")
    return str(by), bool(reverse)


def order_text(order: str) -> str:
    """The order for a sentence: `retention`, `TPOT (ms)`."""
    text = order.removesuffix(" [95 %]")
    return text if text.isupper() or text[1:2].isupper() else text[0].lower() + text[1:]


def listen() -> None:
    """Take ticks and pressed headings of the table."""
    table_events.listen("compare_events", on_tick=_tick, on_sort=_sort)


def _tick(run_ids: Collection[str], checked: bool) -> None:
    chosen = list(st.session_state.get("runs", []))
    if checked:
        st.session_state["runs"] = [*chosen, *(i for i in run_ids if i not in chosen)]
    else:
        st.session_state["runs"] = [run_id for run_id in chosen if run_id not in run_ids]


def _sort(heading: str) -> None:
    """Sort by a column; the same column again turns the order around."""
    key = comparison.order_of(heading)
    if key is None:
        return
    same = st.session_state.get("sort") == key
    st.session_state["reversed"] = same and not st.session_state.get("reversed", False)
    st.session_state["sort"] = key
