"""The Results mode of Compare: a row per run with a box, the best of each column in bold."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st

from explorer.analysis.cost import unit_cost
from explorer.analysis.stats.retention import INTERVALS
from explorer.analysis.tables import comparison, run_table
from explorer.pages.shared import html_table

RETENTION = "Retention [95 %]"
GROUPS = {
    "": ["Model", "Layers", "Parameters"],
    "Capability": [RETENTION, "Raw ratio [95 %]", "KL (nats)"],
    "Latency": ["TPOT (ms)", "TTFT (ms)", "Latency vs teacher"],
    "Cost": ["$/hour at load"],
    "Memory": ["Memory", "Weights"],
}
COLUMN_GROUPS = list(GROUPS)[1:]


def results_table(
    runs: pd.DataFrame,
    chosen: pd.DataFrame,
    wanted: Sequence[str],
    order: str,
    *,
    reverse: bool,
) -> None:
    """Draw the table.

    Args:
        runs: The rows in their order, with retention and costs.
        chosen: The runs whose boxes are ticked, on other pages of the table too.
        wanted: The groups of columns to show.
        order: The key of `comparison.ORDERS` by which the rows are sorted.
        reverse: Whether that order is turned around.
    """
    cells = run_table.without_equal_lengths(run_table.comparison_table(runs).loc[runs.index])
    groups = {name: list(GROUPS[name]) for name in ["", *wanted]}
    if "Capability" in groups and runs["kl_after"].isna().all():
        groups["Capability"].remove("KL (nats)")
    if "Cost" in groups:
        beside = [run_table.LENGTHS] if run_table.LENGTHS in cells else []
        groups["Cost"] = [unit_cost.heading_of(runs), *beside, *GROUPS["Cost"]]
    ticked = runs.index.isin(chosen.index)
    marks = html_table.busy_marks(cells, runs)
    chosen_cells = run_table.comparison_table(chosen).loc[chosen.index]
    best = comparison.best_cells(chosen_cells, chosen).reindex(cells.index, fill_value=False)
    best = best[cells.columns].astype(bool)
    st.html(
        html_table.results_table(
            cells,
            groups,
            pinned=(runs["role"] == "teacher").tolist(),
            hover=html_table.cell_notes(cells, runs),
            marks=marks.where(~best, marks + " best").apply(lambda column: column.str.strip()),
            drawn=_drawn(cells, runs),
            boxes=list(zip(runs["run_id"], ticked.tolist(), strict=True)),
            sorts=_sorts(cells, order, reverse=reverse),
        )
    )


def _drawn(cells: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Retention as a dot and its interval, between nothing and the whole teacher."""
    drawn = pd.DataFrame("", index=cells.index, columns=cells.columns)
    highest = float(np.nanmax([1.0, *runs["retention"].astype(float)]))
    shares = (runs[column] for column in ("retention", *INTERVALS["retention"]))
    drawn[RETENTION] = [
        html_table.interval_mark(value, low, high, (0.0, highest), at=1.0)
        for value, low, high in zip(*shares, strict=True)
    ]
    return drawn


def _sorts(cells: pd.DataFrame, order: str, *, reverse: bool) -> dict[str, str]:
    """Each heading that sorts, to the direction of the table's order."""
    sorts = {}
    for heading in cells.columns:
        key = comparison.order_of(heading)
        if key is not None:
            ascending = comparison.ORDERS[key][1] != reverse
            now = "ascending" if ascending else "descending"
            sorts[heading] = now if key == order else ""
    return sorts
