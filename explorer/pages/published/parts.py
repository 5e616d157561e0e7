"""Parts of the Published page: the data, the evidence for a point, the claims."""

import html
from typing import Any

import pandas as pd
import streamlit as st

from explorer.analysis import numbers
from explorer.analysis.published import check_claims, published_retention
from explorer.analysis.published.check_claims import Claim
from explorer.analysis.published.published_retention import Published
from explorer.catalogue import load
from explorer.charts import published_chart, published_overlay
from explorer.pages.shared import chart_element, text_format, widgets
from explorer.records.rows import row_dicts

COLOURS = {
    "Holds": "green",
    "Holds in part": "orange",
    "Not supported": "red",
    "Not known": "gray",
}
MAX_POINTS = 8
"""Points shown on each side; the table below has all."""


@st.cache_data(show_spinner="Reading the catalogue…")
def collected(bits: int, concurrency: int) -> Published:
    """The published comparisons. They ship with us and don't change while the app runs."""
    return published_retention.collect_published(
        load.all_tables(), bits=bits, concurrency=concurrency
    )


@st.cache_data(show_spinner=False)
def judged(bits: int, concurrency: int) -> list[Claim]:
    """The four claims with their verdicts."""
    published = collected(bits, concurrency)
    return check_claims.check_claims(
        published.rows, published.fitted, load.load_table("speeds"), load.load_table("deployments")
    )


def open_comparison(point: str) -> None:
    """Show the evidence for a point of the chart."""
    st.session_state["pair"] = point


def own_points() -> pd.DataFrame:
    """The students of this store, to draw beside the published ones."""
    root = widgets.results_dir()
    visible = widgets.visible_runs(widgets.load(root))
    finished = visible[visible["status"] == "finished"]
    return published_overlay.own_points(widgets.index(root).with_retention(finished))


def own_note(own: pd.DataFrame, y: str) -> str:
    """What the full dots are, and how many lie below the chart; in Markdown."""
    below = int((own[y] < published_overlay.LOWEST_SHARE).sum())
    left_out = ""
    if below:
        share = numbers.percent(published_overlay.LOWEST_SHARE)
        left_out = f" Not shown: {text_format.plural(below, 'run')} below {share}."
    return text_format.md(
        "Full dots are your own runs, measured here on other tasks than the published scores: "
        f"compare sizes and shapes, not single points.{left_out}"
    )


def link(url: str, text: str) -> str:
    """A link as HTML, opened in a new tab."""
    return f'<a href="{html.escape(url)}" target="_blank" rel="noopener">{html.escape(text)}</a>'


def comparison_evidence(published: Published, point: str) -> None:
    """The evidence for a point: its source, how the student was made, each benchmark."""
    row = row_dicts(published.rows.loc[[point]])[0]
    with st.container(border=True, key="published_evidence"):
        st.subheader(
            text_format.md(f"{row['student']}, compared with {row['compared_to']}"), anchor=False
        )
        left, right = st.columns([2, 3], gap="large")
        with left:
            widgets.facts_list(_facts(row))
        with right:
            detail = published.detail
            benchmarks = detail[
                (detail["student"] == row["student"])
                & (detail["table_id"] == row["table_id"])
                & (detail["compared_to"] == row["compared_to"])
            ]
            chart_element.draw(
                published_chart.per_benchmark_bars(benchmarks, template=widgets.template()),
                "published_bars",
                f"What {row['student']} keeps on each benchmark",
            )


def _facts(row: dict[Any, Any]) -> list[tuple[str, str]]:
    text = widgets.escape
    raw = f"{numbers.percent(row['raw_ratio'])}, mean of {row['num_benchmarks']} benchmarks"
    above = (
        f"{numbers.percent(row['retention'])}, mean of the {row['num_corrected']} with known chance"
        if row["num_corrected"]
        else f"{numbers.MISSING} no benchmark has a known chance level"
    )
    pairs = [
        ("Relation", text(row["relation"])),
        ("Method", text(row["method"])),
        ("Teacher, as stated", text(_or_dash(row["teacher_named"]))),
        ("Disclosed", text(row["teacher_disclosed"])),
        ("Raw ratio", text(raw)),
        ("Above chance", text(above)),
        ("Worst", text(f"{row['worst']}, {numbers.percent(row['raw_min'])}")),
        ("Best", text(f"{row['best']}, {numbers.percent(row['raw_max'])}")),
        ("Parameters", text(_sizes(row))),
        ("API price", _api(row)),
        ("Rent, estimated", text(_rent(row))),
        ("Measured by", text(row["publisher"])),
        ("Source", link(row["source_url"], row["source_title"])),
        ("Date seen", text(row["date_seen"])),
    ]
    if row["left_out"]:
        pairs.append(("Not counted", text(row["left_out"])))
    return pairs


def _or_dash(value: Any) -> str:
    return numbers.MISSING if numbers.missing(value) else str(value)


def _sizes(row: dict[Any, Any]) -> str:
    if numbers.missing(row["params_b"]):
        return f"{numbers.MISSING} not published"
    size = numbers.parameters(1e9 * row["params_b"])
    if numbers.missing(row["teacher_params_b"]):
        return f"{size}; the larger model's size is not published"
    whole = numbers.parameters(1e9 * row["teacher_params_b"])
    return f"{size} of {whole}, {numbers.significant(row['shrink'], 2)} times smaller"


def _api(row: dict[Any, Any]) -> str:
    if numbers.missing(row["api_usd_per_mtok_output"]):
        return f"{numbers.MISSING} none known"
    share = (
        ""
        if numbers.missing(row["price_share"])
        else f", {numbers.percent(row['price_share'])} of the larger model's"
    )
    price = (
        f"{numbers.dollars(row['api_usd_per_mtok_output'])} per million output tokens{share}, "
        f"{row['price_date']}, "
    )
    return widgets.escape(price) + link(row["price_url"], str(row["seller"]))


def _rent(row: dict[Any, Any]) -> str:
    if numbers.missing(row["usd_per_hour"]):
        return f"{numbers.MISSING} needs a published size"
    low, high = (
        numbers.dollars(row["usd_per_hour"]),
        numbers.dollars(row["usd_per_hour_high"]),
    )
    return f"{low} to {high} per hour on {row['devices']}"


def claim_card(claim: Claim) -> None:
    """A claim with its verdict, the reason, and the points on both sides."""
    with st.container(border=True, key=f"claim_{claim.key}", height="stretch"):
        st.markdown(f"**{text_format.md(claim.text)}**")
        st.badge(claim.verdict, color=COLOURS[claim.verdict])  # type: ignore[arg-type]  # the names are Streamlit's
        st.markdown(text_format.md(claim.why))
        with st.expander(
            f"{text_format.plural(len(claim.supporting), 'point')} for, "
            f"{len(claim.opposing):,} against"
        ):
            _side("For", claim.supporting)
            _side("Against", claim.opposing)


def _side(heading: str, points: pd.DataFrame) -> None:
    items = [
        f"<li>{html.escape(row['point'])}: <b>{html.escape(row['value'])}</b> "
        f"{html.escape(row['basis'])}, {link(row['source_url'], 'source')}</li>"
        if row["source_url"]
        else f"<li>{html.escape(row['point'])}: <b>{html.escape(row['value'])}</b></li>"
        for row in row_dicts(points.head(MAX_POINTS))
    ]
    more = len(points) - len(items)
    rest = f'<li class="quiet">and {more:,} more</li>' if more > 0 else ""
    none = '<li class="quiet">none</li>' if not items else ""
    st.html(f"<b>{heading}</b><ul>{''.join(items)}{rest}{none}</ul>")
