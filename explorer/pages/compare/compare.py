"""Compare: tick runs in a table, see them side by side or minus a reference, export the table."""

from functools import partial

import streamlit as st

from explorer.analysis import studies
from explorer.analysis.cost import unit_cost
from explorer.analysis.tables import comparison
from explorer.catalogue import prices
from explorer.charts import export, retention_chart
from explorer.index import keeping
from explorer.pages.compare import differences, import_results, results, row_choice
from explorer.pages.shared import (
    downloads,
    glossary,
    paging,
    pricing,
    retention_floor,
    study_summary,
    text_format,
    widgets,
)

MODES = ("Results", "Differences")
UNDECIDED = "Choose runs to compare"
"""The page's heading where there is no finding."""

root = widgets.results_dir()
snapshot = widgets.load(root)
visible = widgets.visible_runs(snapshot)
finished = visible[visible["status"] == "finished"]

import_results.show_outcome()
if finished.empty:
    widgets.empty_page("Nothing to compare yet: finish a run, or import lm-eval results.")
    import_results.import_popover(root, [])
    widgets.unreadable_folders(root, snapshot.problems)
    st.stop()

sentence = st.container(key="compare_sentence")
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
        results.COLUMN_GROUPS,
        selection_mode="multi",
        default=results.COLUMN_GROUPS,
        key="columns",
        bind="query-params",
        disabled=mode != MODES[0],
    )
    utilisation = pricing.utilisation(glossary.TERMS["utilisation"])
    export_place = st.container(width="content")
    import_results.import_popover(root, finished["run_id"].tolist())
with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="compare_rows"):
    chosen = study_summary.chosen_runs(finished, "runs")
    listed = row_choice.listed_runs(finished, chosen, disabled=mode != MODES[0])
    order, reverse = row_choice.order()
    against = (
        differences.choose_reference(chosen, finished) if mode != MODES[0] and len(chosen) else ""
    )

known_prices = widgets.attempt(lambda: prices.prices_for(listed, root)) or {}
listed = widgets.index(root).with_retention(listed)
listed = unit_cost.add_costs(listed, known_prices, utilisation=utilisation)
listed = comparison.sort_runs(listed, order, reverse=reverse)
runs = listed[listed["run_id"].isin(chosen["run_id"])]
with export_place:
    chart = retention_chart.retention_chart(runs, template="light", width=1100)
    name = studies.name_of(runs)
    downloads.export_popover(partial(export.write_runs, runs), chart, "compare", name)

finding = ""
if mode == MODES[0]:
    shown = listed.iloc[paging.page_rows(len(listed), "compare_page")]
    results.results_table(shown, runs, wanted, order, reverse=reverse)
    row_choice.listen()
    if len(listed) < len(finished):
        st.caption(f"{len(listed):,} of {text_format.plural(len(finished), 'run')} shown.")
    st.caption(study_summary.footnote(shown))
    paging.pager(len(listed), "compare_page", "run", row_choice.order_text(order))
    floor = retention_floor.followed()
    finding = keeping.finding(widgets.index(root), runs, *floor) if len(runs) else ""
elif len(runs):
    shown = runs.iloc[paging.page_rows(len(runs), "compare_page")]
    finding = differences.differences_table(root, shown, against)
    paging.pager(len(runs), "compare_page", "run", row_choice.order_text(order))
with sentence:
    widgets.finding(finding or UNDECIDED)
if runs.empty:
    st.info("Choose at least one run above.")
    st.stop()

with st.expander("Markdown of this table", icon=":material/markdown:"):
    st.code(export.write_runs(runs, "md").decode(), language="markdown", wrap_lines=False)
widgets.unreadable_folders(root, snapshot.index.problems())
