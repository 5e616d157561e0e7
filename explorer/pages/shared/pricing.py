"""A device without a price is a blank that asks for one."""

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


@st.cache_data(show_spinner=False)
def _book() -> pd.DataFrame:
    return prices.book()


def utilisation(help: str) -> float:
    """Let the utilisation be chosen that every cost per token on the page has, in (0, 1]."""
    chosen = st.slider(
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
    return chosen / 100


def popover(root: Path, runs: pd.DataFrame, known: dict[str, Price]) -> None:
    """A button that shows the devices' prices and lets them be changed."""
    devices = _devices(runs)
    unpriced = [name for name in devices if name not in known]
    label = "Prices" if not unpriced else "Set a price"
    with st.popover(label, icon=":material/payments:", help=glossary.TERMS["price"]):
        for name in devices:
            _device(root, name, devices[name], known.get(name), "pop")


def ask(root: Path, runs: pd.DataFrame, known: dict[str, Price]) -> None:
    """In the chart's place: ask for the prices without which there is no chart."""
    for name, num_cpus in _devices(runs).items():
        if name not in known:
            with st.container(border=True, key=f"ask_{len(name)}_{num_cpus}"):
                _device(root, name, num_cpus, None, "ask")


def _devices(runs: pd.DataFrame) -> dict[str, int]:
    rows = runs.dropna(subset=["device_name"]).drop_duplicates("device_name")
    return {row["device_name"]: int(row["num_cpus"]) for row in row_dicts(rows)}


def _device(root: Path, name: str, num_cpus: int, price: Price | None, place: str) -> None:
    """One device: its price with source and date, or the question for it."""
    st.markdown(f"**{text_format.md(name)}**")
    if price is not None:
        st.markdown(text_format.md(f"{numbers.dollars(price.usd_per_hour)} per hour"))
        source = f" [Source]({price.source_url})" if price.source_url.startswith("http") else ""
        st.caption(text_format.md(price.in_words()) + source)
    else:
        st.caption("No price is known for this device. Choose one or type your own.")
    if widgets.read_only():
        return
    path = root / prices.OVERRIDES
    suggested = prices.suggest(name, num_cpus, _book())[:MAX_SUGGESTED]
    if suggested:
        chosen = st.selectbox(
            "From the price list",
            suggested,
            index=None,
            format_func=_one_line,
            placeholder="Choose a dated price",
            key=f"explore_{place}_pick_{name}",
        )
        if chosen is not None:
            st.caption(text_format.md(chosen.in_words()))
    else:
        chosen = None
    typed = st.text_input(
        "Or your own, in dollars per hour", key=f"explore_{place}_own_{name}", placeholder="0.05"
    )
    if st.button(
        "Use this price", key=f"explore_{place}_save_{name}", disabled=not (chosen or typed)
    ):
        with widgets.errors_shown():
            prices.write_override(path, name, prices.own(typed, "Your price") if typed else chosen)
            st.rerun()


def _one_line(price: Price) -> str:
    who = " ".join(part for part in (price.provider, price.instance, price.tier) if part)
    return f"{numbers.dollars(price.usd_per_hour)} per hour · {who} · {price.date_seen}"
