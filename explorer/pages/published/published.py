"""Published: what others report that their students keep, each number with its source."""

from functools import partial

import pandas as pd
import streamlit as st

from explorer.analysis.published import published_retention
from explorer.analysis.tables import run_table
from explorer.charts import export, published_chart
from explorer.pages.published import parts
from explorer.pages.shared import (
    chart_element,
    chart_width,
    downloads,
    glossary,
    text_format,
    widgets,
)

AXES = {
    "params_b": "Size",
    "api_usd_per_mtok_output": "API price",
    "usd_per_hour": "Estimated $/hour",
}
HEIGHTS = {"raw_ratio": "Raw", "retention": "Corrected"}
RELATIONS = {
    "Distilled": "distilled",
    "Smaller siblings": "smaller sibling",
    "Not distilled": "not distilled",
}
BITS = (16, 8, 4)
CONCURRENCY = 8
WIDTH = 1280
"""Pixels of the chart in a window of 1,440."""


# The sentence stands above the controls but depends on them: this reserves its place.
sentence = st.container(key="published_sentence")
with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="published_row"):
    x = st.segmented_control(
        "Horizontal axis",
        list(AXES),
        default="params_b",
        required=True,
        format_func=lambda key: AXES[key],
        key="against",
        wrap=True,
        bind="query-params",
        help=text_format.md(glossary.TERMS["published_axis"]),
    )
    y = st.segmented_control(
        "Capability kept",
        list(HEIGHTS),
        default="raw_ratio",
        required=True,
        format_func=lambda key: HEIGHTS[key],
        key="kept",
        bind="query-params",
        help=text_format.md(glossary.TERMS["published_retention"]),
    )
    bits = st.segmented_control(
        "Weights",
        list(BITS),
        default=16,
        required=True,
        format_func=lambda number: f"{number} bits",
        key="bits",
        bind="query-params",
        help=text_format.md(glossary.TERMS["bits"]),
        disabled=x != "usd_per_hour",
    )
    with_own = st.toggle(
        "Your runs",
        True,
        key="own",
        bind="query-params",
        disabled=x != "params_b",
        help=glossary.TERMS["own_runs"],
    )
own = parts.own_points() if with_own and x == "params_b" else None
published = parts.collected(int(bits), CONCURRENCY)
with st.container(horizontal=True, gap="medium", key="published_filters"):
    families = st.pills(
        "Family",
        list(dict.fromkeys([*published_chart.FAMILIES, *published.rows["family"]])),
        selection_mode="multi",
        key="family",
        wrap=True,
        bind="query-params",
    )
    relations = st.pills(
        "Relation",
        list(RELATIONS),
        selection_mode="multi",
        key="relation",
        wrap=True,
        bind="query-params",
        help=text_format.md(glossary.TERMS["relation"]),
    )
rows = published.rows
if families:
    rows = rows[rows["family"].isin(families)]
if relations:
    wanted = tuple(RELATIONS[name] for name in relations)
    rows = rows[rows["relation"].str.startswith(wanted)]

finding = published_retention.published_headline(rows)
measured = "None of this was measured here."
if own is not None and len(own):
    measured = "Only the full dots were measured here."
with sentence:
    widgets.finding(finding)
    st.html(
        f'<p class="quiet">{text_format.plural(len(rows), "comparison")} of {len(published.rows)}, '
        "each within one table of one publisher, on the same benchmarks and settings. Published "
        f"scores have no intervals. {measured}</p>"
    )

if rows.empty:
    st.info("No published comparison matches the filters. Remove one above.")
else:
    picked = st.session_state.get("pair", st.query_params.get("pair"))
    figure = published_chart.published_chart(
        rows,
        x,
        y=y,
        template=widgets.template(),
        selected=picked if picked in rows.index else None,
        own=own,
        width=chart_width.chart_width(WIDTH),
    )
    chart_element.draw(figure, "published_chart", finding, on_pick=parts.open_comparison)
    if own is not None and len(own):
        st.caption(parts.own_note(own, y))
    with st.container(horizontal=True, vertical_alignment="bottom", key="published_pick"):
        point = st.selectbox(
            "Evidence for",
            rows.index.tolist(),
            index=None,
            placeholder="Click a point, or choose one",
            key="pair",
            bind="query-params",
        )
        light = published_chart.published_chart(rows, x, y=y, own=own, width=1100)
        downloads.export_popover(
            partial(
                export.write_table, rows.reset_index(drop=True), run_table.published_table(rows)
            ),
            light,
            "published",
            "published",
        )
    if point is not None:
        parts.comparison_evidence(published, point)

st.subheader("Four claims everyone repeats", anchor=False)
for pair in (0, 2):
    for column, claim in zip(
        st.columns(2), parts.judged(16, CONCURRENCY)[pair : pair + 2], strict=True
    ):
        with column:
            parts.claim_card(claim)
st.caption(
    "Verdicts are computed: holds if every point agrees, in part if some do, not supported if none "
    "does. Estimated points use sizes and dated prices, at eight concurrent requests."
)

if not rows.empty:
    st.subheader("All comparisons", anchor=False)
    table: pd.DataFrame = run_table.published_table(rows)
    st.dataframe(
        table,
        hide_index=True,
        column_config={"Source": st.column_config.LinkColumn(display_text="source")},
    )
