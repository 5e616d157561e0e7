"""Estimated rent of devices that are not measured here, for models of the catalogue."""

import streamlit as st

from explorer.analysis.cost import unit_cost
from explorer.analysis.planning import device_fit, roofline
from explorer.analysis.tables import run_table
from explorer.catalogue import load
from explorer.charts import cost_chart
from explorer.pages.shared import chart_element, glossary, text_format, widgets

TERMS = glossary.TERMS
ROW_PIXELS, HIGHEST = 35, 720
"""Height of a row of the table, and of the whole table at most."""


def other_devices(utilisation: float) -> None:
    """Choose models and devices, and show which devices hold each model and at what rent.

    Args:
        utilisation: Utilisation behind the estimated cost per token.
    """
    st.subheader("Other devices, estimated", anchor=False)
    sized = device_fit.sized_models(load.load_table("models"), load.load_table("shapes"))
    specs = load.load_table("hardware_specs")
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
            "Concurrent requests",
            1,
            64,
            8,
            key="together",
            bind="query-params",
            width=200,
            help=text_format.md(TERMS["concurrency"]),
        )
        reading = st.slider(
            "Share of peak compute",
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
            "Share of peak bandwidth",
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
        st.info("Choose at least one model and one device above.")
        return
    reached = roofline.stated_efficiency(reading / 100, writing / 100)
    rows = device_fit.device_fit(
        device_fit.models_named(models, sized),
        device_fit.devices_named(devices, specs),
        load.load_table("hardware"),
        concurrency=together,
        utilisation=utilisation,
        efficiency=reached,
    )
    chart_element.draw(
        cost_chart.rent_chart(rows, template=widgets.template()),
        "economics_rent",
        "Estimated rent of the devices that hold each model",
    )
    table = run_table.device_fit_table(rows)
    st.dataframe(table, hide_index=True, height=min(HIGHEST, ROW_PIXELS * (len(table) + 1) + 2))
    st.caption(
        text_format.md(
            f"Estimated, not measured: {device_fit.PROMPT_TOKENS} tokens in and "
            f"{device_fit.OUTPUT_TOKENS} out, {reached.in_words()}, "
            f"{unit_cost.utilisation_text(utilisation)}, "
            f"{device_fit.USABLE_MEMORY:.0%} of the memory used, no cost for communication between "
            "devices. Rent ranges from the cheapest to the dearest offer in the dated price book. "
            "8 and 4 bits cost some capability, which is not shown here."
        )
    )
