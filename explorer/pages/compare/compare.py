"""Compare: choose or import runs, see them side by side, export the table."""

from functools import partial

import streamlit as st

from explorer.analysis.cost import unit_cost
from explorer.analysis.tables import run_table
from explorer.catalogue import prices
from explorer.charts import export, retention_chart
from explorer.pages.compare import differences, import_results
from explorer.pages.shared import (
    downloads,
    glossary,
    html_table,
    paging,
    pricing,
    study_summary,
    text_format,
    widgets,
)

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
snapshot = widgets.load(root)
visible = widgets.visible_runs(snapshot)
finished = visible[visible["status"] == "finished"]

import_results.show_outcome()
if finished.empty:
    widgets.empty_page("Nothing to compare yet: finish a run, or import lm-eval results.")
    import_results.import_popover(root, [])
    widgets.unreadable_folders(snapshot.problems)
    st.stop()

runs = study_summary.choose_runs(finished, "runs")

with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="compare_row"):
    mode = st.segmented_control(
        "Show",
        MODES,
        default=MODES[0],
        required=True,
        key="show",
        bind="query-params",
        help=text_format.md(glossary.TERMS["verdict"]),
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
    runs = unit_cost.add_costs(runs, known_prices, utilisation=utilisation)
    runs = run_table.ordered_for_people(runs)
    chart = retention_chart.retention_chart(runs, template="light", width=1100)
    downloads.export_popover(partial(export.write_runs, runs), chart, "compare", "comparison")
    import_results.import_popover(root, finished["run_id"].tolist())

shown = runs.iloc[paging.page_rows(len(runs), "compare_page")]
if mode == MODES[0]:
    cells = run_table.without_equal_lengths(run_table.comparison_table(shown))
    groups = {name: GROUPS[name] for name in ["", *wanted]}
    if "Cost" in groups:
        beside = [run_table.LENGTHS] if run_table.LENGTHS in cells else []
        groups["Cost"] = [unit_cost.heading_of(runs), *beside, *GROUPS["Cost"]]
    hover, marks = html_table.cell_notes(cells, shown), html_table.busy_marks(cells, shown)
    is_teacher = (shown["role"] == "teacher").tolist()
    st.html(html_table.results_table(cells, groups, pinned=is_teacher, hover=hover, marks=marks))
    st.caption(study_summary.footnote(runs))
else:
    differences.differences_table(root, shown, differences.choose_reference(runs))
paging.pager(len(runs), "compare_page", "run", "retention")

with st.expander("Markdown of this table", icon=":material/markdown:"):
    st.code(export.write_runs(shown, "md").decode(), language="markdown", wrap_lines=False)
widgets.unreadable_folders(snapshot.problems)
