"""Parts of the Published page: the catalogue in memory, the evidence of a point, the claims."""

import html
from typing import Any

import pandas as pd
import streamlit as st

from explorer.analysis import numbers
from explorer.analysis.published import check_claims, published_retention
from explorer.analysis.published.check_claims import Claim
from explorer.analysis.published.published_retention import Published
from explorer.catalogue import load
from explorer.charts import published_chart as charts
from explorer.pages.shared import text_format, widgets
from explorer.records.rows import row_dicts

COLOURS = {
    "Holds": "green",
    "Holds in part": "orange",
    "Not supported": "red",
    "Not known": "gray",
}
MOST_POINTS = 8
"""Points shown of each side; the table below holds all."""


@st.cache_data(show_spinner="Reading the catalogue…")
def collected(bits: int, concurrency: int) -> Published:
    """The catalogue put together; it ships with us and does not change while we run."""
    return published_retention.collect_published(
        load.all_tables(), bits=bits, concurrency=concurrency
    )


@st.cache_data(show_spinner=False)
def judged(bits: int, concurrency: int) -> list[Claim]:
    """The four claims."""
    found = collected(bits, concurrency)
    return check_claims.check_claims(
        found.rows, found.fitted, load.table("speeds"), load.table("deployments")
    )


def link(url: str, text: str) -> str:
    """A link to a source as HTML."""
    return f'<a href="{html.escape(url)}" target="_blank" rel="noopener">{html.escape(text)}</a>'


def evidence(found: Published, point: str) -> None:
    """Why a point should be believed: who says it, how it was made, each benchmark."""
    row = row_dicts(found.rows.loc[[point]])[0]
    with st.container(border=True, key="published_evidence"):
        st.subheader(
            text_format.md(f"{row['student']}, compared with {row['compared_to']}"), anchor=False
        )
        left, right = st.columns([2, 3], gap="large")
        with left:
            widgets.facts(_facts(row))
        with right:
            detail = found.detail
            mine = detail[
                (detail["student"] == row["student"])
                & (detail["table_id"] == row["table_id"])
                & (detail["compared_to"] == row["compared_to"])
            ]
            widgets.chart(
                charts.per_benchmark_bars(mine, template=widgets.template()),
                "published_bars",
                f"What {row['student']} keeps on each benchmark",
            )


def _facts(row: dict[Any, Any]) -> list[tuple[str, str]]:
    text = widgets.text
    raw = f"{numbers.percent(row['raw_ratio'])}, the mean of {row['num_benchmarks']} benchmarks"
    above = (
        f"{numbers.percent(row['retention'])}, of the {row['num_corrected']} whose chance is known"
        if row["num_corrected"]
        else f"{numbers.MISSING} no benchmark's chance level is known"
    )
    pairs = [
        ("Relation", text(row["relation"])),
        ("Method", text(row["method"])),
        ("Teacher, as named", text(_or_dash(row["teacher_named"]))),
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
        ("Seen", text(row["date_seen"])),
    ]
    if row["left_out"]:
        pairs.append(("Not counted", text(row["left_out"])))
    return pairs


def _or_dash(value: Any) -> str:
    return numbers.MISSING if numbers.missing(value) else str(value)


def _sizes(row: dict[Any, Any]) -> str:
    if numbers.missing(row["params_b"]):
        return f"{numbers.MISSING} not published"
    said = numbers.parameters(1e9 * row["params_b"])
    if numbers.missing(row["teacher_params_b"]):
        return f"{said}; the larger model's are not published"
    whole = numbers.parameters(1e9 * row["teacher_params_b"])
    return f"{said} of {whole}, {numbers.significant(row['shrink'], 2)} times smaller"


def _api(row: dict[Any, Any]) -> str:
    if numbers.missing(row["api_usd_per_mtok_output"]):
        return f"{numbers.MISSING} none known"
    share = (
        ""
        if numbers.missing(row["price_share"])
        else f", {numbers.percent(row['price_share'])} of the larger model's"
    )
    said = (
        f"{numbers.dollars(row['api_usd_per_mtok_output'])} per million output tokens{share}, "
        f"{row['price_date']}, "
    )
    return widgets.text(said) + link(row["price_url"], str(row["seller"]))


def _rent(row: dict[Any, Any]) -> str:
    if numbers.missing(row["usd_per_hour"]):
        return f"{numbers.MISSING} needs a published size"
    low, high = (
        numbers.dollars(row["usd_per_hour"]),
        numbers.dollars(row["usd_per_hour_high"]),
    )
    return f"{low} to {high} per hour on {row['devices']}"


def claim(one: Claim) -> None:
    """A claim with its verdict, the reason, and the points on both sides."""
    with st.container(border=True, key=f"claim_{one.key}", height="stretch"):
        st.markdown(f"**{text_format.md(one.said)}**")
        st.badge(one.verdict, color=COLOURS[one.verdict])  # type: ignore[arg-type]
        st.markdown(text_format.md(one.why))
        with st.expander(
            f"{text_format.plural(len(one.supporting), 'point')} for, {len(one.opposing):,} against"
        ):
            _side("For", one.supporting)
            _side("Against", one.opposing)


def _side(heading: str, points: pd.DataFrame) -> None:
    items = [
        f"<li>{html.escape(row['point'])}: <b>{html.escape(row['value'])}</b> "
        f"{html.escape(row['basis'])}, {link(row['source_url'], 'source')}</li>"
        if row["source_url"]
        else f"<li>{html.escape(row['point'])}: <b>{html.escape(row['value'])}</b></li>"
        for row in row_dicts(points.head(MOST_POINTS))
    ]
    more = len(points) - len(items)
    rest = f'<li class="quiet">and {more:,} more</li>' if more > 0 else ""
    none = '<li class="quiet">none</li>' if not items else ""
    st.html(f"<b>{heading}</b><ul>{''.join(items)}{rest}{none}</ul>")
