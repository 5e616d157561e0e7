"""Parts of the Economics page: records, the choice of an API, notes and assumptions."""

from pathlib import Path

import pandas as pd
import streamlit as st

from explorer.analysis import numbers
from explorer.analysis.cost import unit_cost
from explorer.analysis.tables import run_table
from explorer.catalogue import api_prices
from explorer.catalogue.api_prices import ApiPrice
from explorer.catalogue.prices import Price
from explorer.pages.shared import glossary, text_format, widgets
from explorer.records import RunRecord
from explorer.records.rows import row_dicts
from explorer.store import disk

TERMS = glossary.TERMS
OWN = "your own price"


@st.cache_data(show_spinner=False, max_entries=512)
def _record(root: Path, run_id: str, version: str) -> RunRecord:
    """A record; `version` only makes the cache key change with its file."""
    return disk.load(root, run_id)


def records(root: Path, run_ids: list[str]) -> list[RunRecord]:
    """The records of these runs, each read once."""
    versions = widgets.load(root).versions
    return [_record(root, run_id, versions.get(run_id, "")) for run_id in run_ids]


def choose_api(root: Path) -> ApiPrice | None:
    """Let a person choose an API or type its prices; None compares with no API."""
    offers = {
        offer.name: offer for offer in widgets.attempt(lambda: api_prices.known_prices(root)) or []
    }
    left, middle, right = st.columns([3, 1, 1], vertical_alignment="bottom")
    with left:
        name = st.selectbox(
            "Compare with an API",
            [OWN, *sorted(offers)],
            index=None,
            placeholder="None. Choose one, or type provider/model",
            accept_new_options=True,
            key="api",
            bind="query-params",
            help=text_format.md(TERMS["api"]),
        )
    own = name == OWN
    with middle:
        dollars_in = st.number_input(
            "API $/1M input",
            min_value=0.0,
            value=0.15,
            step=0.05,
            key="api_in",
            format="%.3f",
            bind="query-params",
            disabled=not own,
        )
    with right:
        dollars_out = st.number_input(
            "API $/1M output",
            min_value=0.0,
            value=0.60,
            step=0.05,
            key="api_out",
            format="%.3f",
            bind="query-params",
            disabled=not own,
        )
    if own:
        return ApiPrice(
            provider="you",
            model="typed",
            input_usd_per_mtok=dollars_in,
            output_usd_per_mtok=dollars_out,
            note="typed on the page",
        )
    if not name:
        return None
    return offers.get(name) or widgets.attempt(lambda: api_prices.look_up_price(name))


def cell_notes(cells: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Hover text of each cell: why it is missing, or what its value includes."""
    notes = []
    for row in row_dicts(rows):
        note = f"Unknown without {row['missing']}." if row["missing"] else row["notes"]
        by_column = {
            **dict.fromkeys(
                (
                    "Devices",
                    "Fleet $/hour",
                    "Fleet $/month",
                    unit_cost.heading(row["utilisation"]),
                    "$/1,000 requests",
                    run_table.PREFILL,
                    run_table.DECODE,
                    run_table.BLENDED,
                ),
                note,
            ),
            "Paid back after": row["payback_note"],
            "API break-even": row["break_even"],
        }
        notes.append({name: by_column.get(name, "") for name in cells.columns})
    return pd.DataFrame(notes, columns=cells.columns, index=cells.index)


def assumptions(
    measured: pd.DataFrame, prices: dict[str, Price], chosen: ApiPrice | None, notes: list[str]
) -> None:
    """List every assumption that no control shows, with dates and sources."""
    lines = [
        f"**{text_format.md(name)}** {text_format.md(numbers.dollars(price.usd_per_hour))} "
        f"per hour, "
        f"{text_format.md(price.in_words())}"
        + (f" [Source]({price.source_url})" if price.source_url.startswith("http") else "")
        for name, price in prices.items()
    ]
    unpriced = sorted(set(measured["device_name"].dropna()) - set(prices))
    lines += [
        f"**{text_format.md(name)}** has no price in this set, so its costs are missing."
        for name in unpriced
    ]
    if chosen is not None:
        source = f" [Source]({chosen.source_url})" if chosen.source_url else ""
        asks = (
            f"{numbers.dollars(chosen.input_usd_per_mtok)} per million input tokens and "
            f"{numbers.dollars(chosen.output_usd_per_mtok)} per million output tokens, "
            f"{chosen.in_words()}"
        )
        lines.append(f"**API** {text_format.md(asks)}{source}")
        lines.append("The API serves a different model. Capability is not compared here.")
    lines += [text_format.md(f"{note[0].upper()}{note[1:]}.") for note in notes]
    lines += [
        "Fleets are whole devices; a month has 730 hours; limits apply to medians.",
        "Electricity is not included: these runs have no energy reading.",
        "The bill covers the teacher's targets (shared by the students shown), training, "
        "evaluation and timing, at this device price.",
    ]
    with st.expander("Assumptions", icon=":material/fact_check:", expanded=True):
        st.markdown("\n".join(f"- {line}" for line in lines))
