"""Device prices: shown, chosen from the price book or typed; and the utilisation slider."""

import functools
from pathlib import Path

import pandas as pd
import streamlit as st

from explorer.analysis import numbers
from explorer.analysis.cost import unit_cost
from explorer.catalogue import prices
from explorer.catalogue.prices import Price
from explorer.pages.shared import glossary, text_format, widgets
from explorer.records.rows import row_dicts

MAX_SUGGESTED = 12


@functools.cache
def _suggested(device_name: str, num_cpus: int) -> list[Price]:
    """Offers of the price book, which comes with the package."""
    return prices.suggest_prices(device_name, num_cpus, prices.price_book())[:MAX_SUGGESTED]


def utilisation(help: str) -> float:
    """A slider for the utilisation behind every cost per token on the page; in (0, 1]."""
    percent = st.slider(
        "Utilisation",
        5,
        100,
        round(100 * unit_cost.UTILISATION),
        5,
        format="%d %%",
        key="utilisation",
        bind="query-params",
        help=help,
        width=150,
    )
    return percent / 100


def price_popover(root: Path, runs: pd.DataFrame, known: dict[str, Price]) -> None:
    """A popover that shows the devices' prices and lets a person change them."""
    devices = _devices(runs)
    unpriced = [name for name in devices if name not in known]
    label = "Prices" if not unpriced else "Set a price"
    with st.popover(label, icon=":material/payments:", help=glossary.TERMS["price"]):
        for name in devices:
            _device(root, name, devices[name], known.get(name), "pop")


def missing_prices(root: Path, runs: pd.DataFrame, known: dict[str, Price]) -> None:
    """In place of the chart: a form for each device whose price the chart needs."""
    for name, num_cpus in _devices(runs).items():
        if name not in known:
            with st.container(border=True, key=f"ask_{len(name)}_{num_cpus}"):
                _device(root, name, num_cpus, None, "ask")


def _devices(runs: pd.DataFrame) -> dict[str, int]:
    rows = runs[["device_name", "num_cpus"]].dropna(subset=["device_name"])
    rows = rows.drop_duplicates("device_name")
    return {row["device_name"]: int(row["num_cpus"]) for row in row_dicts(rows)}


def _device(root: Path, name: str, num_cpus: int, price: Price | None, place: str) -> None:
    """One device: its price with source and date, and the form that sets it."""
    st.markdown(f"**{text_format.md(name)}**")
    if price is not None:
        st.markdown(text_format.md(f"{numbers.dollars(price.usd_per_hour)} per hour"))
        source = f" [Source]({price.source_url})" if price.source_url.startswith("http") else ""
        st.caption(text_format.md(price.in_words()) + source)
    else:
        st.caption("This device has no price yet. Choose one or type your own.")
    if widgets.read_only():
        return
    path = root / prices.OVERRIDES
    suggested = _suggested(name, num_cpus)
    if suggested:
        choice = st.selectbox(
            "From the price list",
            suggested,
            index=None,
            format_func=_one_line,
            placeholder="Choose a dated price",
            key=f"explore_{place}_pick_{name}",
        )
        if choice is not None:
            st.caption(text_format.md(choice.in_words()))
    else:
        choice = None
    typed = st.text_input(
        "Or your own, in dollars per hour",
        key=f"explore_{place}_own_{name}",
        placeholder="0.05",
    )
    if st.button(
        "Use this price", key=f"explore_{place}_save_{name}", disabled=not (choice or typed)
    ):
        with widgets.errors_shown():
            prices.write_override(
                path, name, prices.typed_price(typed, "Your price") if typed else choice
            )
            st.rerun()


def _one_line(price: Price) -> str:
    offer = " ".join(part for part in (price.provider, price.instance, price.tier) if part)
    return f"{numbers.dollars(price.usd_per_hour)} per hour · {offer} · {price.date_seen}"
