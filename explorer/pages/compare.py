"""Compare: choose runs or bring them in, read them side by side, take the table away."""

from functools import partial

import streamlit as st

from explorer.analysis import cost
from explorer.catalogue import prices
from explorer.pages import (
    bringing,
    differences,
    glossary,
    grid,
    pricing,
    sidebyside,
    takeaway,
    widgets,
    words,
)
from explorer.report import export, figures, tables

GROUPS = {
    "": ["Model", "Layers", "Parameters"],
    "Capability": ["Retention [95 %]", "Raw ratio [95 %]"],
    "Latency": ["TPOT (ms)", "TTFT (ms)", "Latency vs teacher"],
    "Cost": ["$/hour at load"],
    "Memory": ["Memory", "Weights"],
}
COLUMN_GROUPS = list(GROUPS)[1:]
MODES = ("Results", "Differences")

widgets.style()
root = widgets.results_dir()
shelf = widgets.load(root)
listed = widgets.listed(shelf)
finished = listed[listed["status"] == "finished"]

bringing.outcome()
if finished.empty:
    widgets.nothing_yet("Nothing to compare yet: finish a run first, or import lm-eval's results.")
    bringing.button(root, [])
    widgets.problems_shown(shelf.problems)
    st.stop()

runs = sidebyside.chosen(finished, "runs")

with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="compare_row"):
    mode = st.segmented_control(
        "Show",
        MODES,
        default=MODES[0],
        required=True,
        key="show",
        bind="query-params",
        help=words.md(glossary.TERMS["verdict"]),
    )
    wanted = st.pills(
        "Columns",
        COLUMN_GROUPS,
        selection_mode="multi",
        default=COLUMN_GROUPS,
        key="columns",
        bind="query-params",
        disabled=mode != MODES[0],
    )
    utilisation = pricing.utilisation(glossary.TERMS["utilisation"])
    known_prices = widgets.attempt(lambda: prices.prices_for(runs, root)) or {}
    runs = widgets.index(root).with_retention(runs)
    runs = cost.add(runs, known_prices, utilisation=utilisation)
    runs = tables.ordered_for_people(runs)
    chart = figures.retention_chart(runs, template="light", width=1100)
    takeaway.button(partial(export.write, runs), chart, "compare", "comparison")
    bringing.button(root, finished["run_id"].tolist())

is_teacher = (runs["role"] == "teacher").tolist()
if mode == MODES[0]:
    cells = tables.without_equal_lengths(tables.comparison(runs))
    groups = {name: GROUPS[name] for name in ["", *wanted]}
    if "Cost" in groups:
        beside = [tables.LENGTHS] if tables.LENGTHS in cells else []
        groups["Cost"] = [cost.label_of(runs), *beside, *GROUPS["Cost"]]
    hover, marks = grid.reasons(cells, runs), grid.busy_marks(cells, runs)
    st.html(grid.table(cells, groups, pinned=is_teacher, hover=hover, marks=marks))
    st.caption(sidebyside.footnote(runs))
else:
    differences.show(root, runs, differences.reference(runs))

with st.expander("Markdown of this table", icon=":material/markdown:"):
    st.code(export.write(runs, "md").decode(), language="markdown", wrap_lines=False)
widgets.problems_shown(shelf.problems)
