"""Parts of the Economics page: assumptions from widgets, records, the estimate elsewhere."""

from pathlib import Path

import pandas as pd
import streamlit as st

from explorer.analysis import numbers
from explorer.analysis.cost import unit_cost
from explorer.analysis.planning import device_fit, roofline
from explorer.analysis.tables import run_table
from explorer.catalogue import api_prices, load
from explorer.catalogue.api_prices import ApiPrice
from explorer.catalogue.prices import Price
from explorer.charts import cost_chart as charts
from explorer.pages.shared import glossary, text_format, widgets
from explorer.records import RunRecord
from explorer.records.rows import row_dicts
from explorer.store import disk

TERMS = glossary.TERMS
OWN = "your own price"


@st.cache_data(show_spinner=False, max_entries=512)
def _record(root: Path, run_id: str, version: str) -> RunRecord:
    """A record; `version` changes when its file does."""
    return disk.load(root, run_id)


def records(root: Path, run_ids: list[str]) -> list[RunRecord]:
    """Records of runs, each read once."""
    versions = widgets.load(root).versions
    return [_record(root, run_id, versions.get(run_id, "")) for run_id in run_ids]


def api(root: Path) -> ApiPrice | None:
    """Let an API be chosen, or prices typed; None compares with none."""
    offers = {one.name: one for one in widgets.attempt(lambda: api_prices.offers(root)) or []}
    left, middle, right = st.columns([3, 1, 1], vertical_alignment="bottom")
    with left:
        name = st.selectbox(
            "Compare with an API",
            [OWN, *sorted(offers)],
            index=None,
            placeholder="None: choose one, or type provider/model",
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
    return offers.get(name) or widgets.attempt(lambda: api_prices.lookup(name))


def reasons(cells: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """What each cell says on hover: why it is missing, or what is known of how it was made."""
    said = []
    for row in row_dicts(rows):
        why = f"Not known without {row['missing']}." if row["missing"] else row["notes"]
        known = {
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
                why,
            ),
            "Paid back after": row["payback_note"],
            "API break-even": row["break_even"],
        }
        said.append({name: known.get(name, "") for name in cells.columns})
    return pd.DataFrame(said, columns=cells.columns, index=cells.index)


def rests_on(
    measured: pd.DataFrame, prices: dict[str, Price], chosen: ApiPrice | None, notes: list[str]
) -> None:
    """Every assumption that no control shows, with dates and sources."""
    lines = [
        f"**{text_format.md(name)}** {text_format.md(numbers.dollars(price.usd_per_hour))} "
        f"per hour, "
        f"{text_format.md(price.in_words())}"
        + (f" [Source]({price.source_url})" if price.source_url.startswith("http") else "")
        for name, price in prices.items()
    ]
    unpriced = sorted(set(measured["device_name"].dropna()) - set(prices))
    lines += [
        f"**{text_format.md(name)}** has no price in this set, so nothing that needs one is shown."
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
        lines.append("An API sells another model: what it can do is not compared here.")
    lines += [text_format.md(f"{note[0].upper()}{note[1:]}.") for note in notes]
    lines += [
        "Fleets are whole devices; a month has 730 hours; the limits are on the medians.",
        "Electricity is not in it: these runs have no energy reading.",
        "The bill is the teacher's pass, shared by the students shown, training, evaluation and "
        "timing, at this price of the device.",
    ]
    with st.expander("What this rests on", icon=":material/fact_check:", expanded=True):
        st.markdown("\n".join(f"- {line}" for line in lines))


def elsewhere(utilisation: float) -> None:
    """Which devices that are not at hand would hold a model: estimated.

    Args:
        utilisation: Of the estimated cost per token.
    """
    st.subheader("On devices that are not at hand: estimated", anchor=False)
    sized = device_fit.sized_models(load.table("models"), load.table("shapes"))
    specs = load.table("hardware_specs")
    left, right = st.columns(2)
    with left:
        models = st.multiselect(
            "Models",
            sized["model"].tolist(),
            default=device_fit.EXAMPLE_MODELS,
            key="models",
            bind="query-params",
        )
    with right:
        devices = st.multiselect(
            "Devices",
            specs["hardware"].tolist(),
            default=device_fit.EXAMPLE_DEVICES,
            key="devices",
            bind="query-params",
        )
    with st.container(horizontal=True, gap="medium", key="economics_fit_row"):
        together = st.slider(
            "Requests at once",
            1,
            64,
            8,
            key="together",
            bind="query-params",
            width=200,
            help=text_format.md(TERMS["concurrency"]),
        )
        reading = st.slider(
            "Arithmetic reached",
            5,
            100,
            100,
            5,
            format="%d %%",
            key="reading",
            width=200,
            bind="query-params",
            help=text_format.md(TERMS["efficiency"]),
        )
        writing = st.slider(
            "Bandwidth reached",
            5,
            100,
            100,
            5,
            format="%d %%",
            key="writing",
            width=200,
            bind="query-params",
            help=text_format.md(TERMS["efficiency"]),
        )
    if not models or not devices:
        st.info("Choose a model and a device above.")
        return
    reached = roofline.stated_efficiency(reading / 100, writing / 100)
    rows = device_fit.device_fit(
        device_fit.models_named(models, sized),
        device_fit.devices_named(devices, specs),
        load.table("hardware"),
        concurrency=together,
        utilisation=utilisation,
        efficiency=reached,
    )
    widgets.chart(
        charts.rent_chart(rows, template=widgets.template()),
        "economics_rent",
        "Estimated rent of the devices that hold each model",
    )
    st.dataframe(run_table.device_fit_table(rows), hide_index=True)
    st.caption(
        text_format.md(
            f"Estimated, not measured: {device_fit.PROMPT_TOKENS} tokens in and "
            f"{device_fit.OUTPUT_TOKENS} out, {reached.in_words()}, "
            f"{unit_cost.utilisation_text(utilisation)}, "
            f"{device_fit.USABLE_MEMORY:.0%} of the memory used, links between devices free. Rent "
            "runs from the cheapest to the dearest offer of the dated price book; 8 and 4 bits take"
            " some capability that is not shown here."
        )
    )
