"""The panel "I need": the limits and the objective of the pick, all in the page's address."""

import dataclasses
from typing import Any

import pandas as pd
import streamlit as st

from explorer.analysis.pick import candidates
from explorer.analysis.pick.limits import MEGABYTE, Limits
from explorer.pages.shared import glossary, pricing, retention_floor

HELP = glossary.TERMS
OBJECTIVES = {
    "cheapest": "Cheapest per token",
    "fastest": "Fastest",
    "smallest": "Smallest",
    "capable": "Most capable",
}
PLACES = {
    "runtime": ("Runtime", "runtime", "pick_runtime", "any"),
    "format": ("Format", "format", "pick_format", "any"),
    "device_name": ("Timed on", "timed_on", "pick_device", "as most runs"),
}
"""Where a model must run: the column to its label, query parameter, help and what no choice is."""

MORE = {
    "max_ttft_ms": ("First token at most (ms)", "max_ttft", "ttft"),
    "max_latency_ms": ("End to end at most (ms)", "max_latency", "latency"),
    "min_output_tokens_per_s": ("Tokens/s at least", "min_tokens_per_s", "throughput"),
    "max_usd_per_hour": ("$/hour at most", "max_usd_per_hour", "usd_per_hour"),
    "max_peak_memory_bytes": ("Memory at most (MB)", "max_memory", "peak_memory"),
}
"""The limits that are folded away: the field of `Limits` to its label, query parameter and help."""


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a person asked for."""

    limits: Limits
    objective: str
    utilisation: float
    device: str | None
    """Where a model must have been timed; None for where most were."""


def needs_panel(runs: pd.DataFrame) -> Needs:
    """Draw the panel; returns what it says.

    Args:
        runs: The finished runs on the page; a model may be asked to run on what they ran on.
    """
    st.markdown("**I need**", help=HELP["pick"])
    keep = retention_floor.keep(HELP["retention"], page="explore")
    sure = retention_floor.sure(page="explore")
    tpot = _limit("Per token at most (ms)", "max_tpot", "tpot")
    usd = _limit("$/1M output at most", "max_usd", "usd_per_mtok")
    weights = _limit("Weights at most (MB)", "max_weights", "weights")
    limits = Limits(
        min_retention=keep,
        confidence=sure,
        max_tpot_ms=tpot,
        max_usd_per_mtok=usd,
        max_weight_bytes=None if weights is None else weights * MEGABYTE,
    )
    limits, device = _more_limits(limits, runs)
    objective = st.selectbox(
        "Then choose the",
        list(OBJECTIVES),
        format_func=lambda key: OBJECTIVES[key],
        key="objective",
        bind="query-params",
        help=HELP["objective"],
    )
    utilisation = pricing.utilisation(HELP["utilisation"])
    return Needs(limits, objective, utilisation, device)


def _more_limits(limits: Limits, runs: pd.DataFrame) -> tuple[Limits, str | None]:
    """Draw the limits that are folded away; returns the limits with them, and the device."""
    keys = [key for _, key, *_ in (*MORE.values(), *PLACES.values())]
    # In the address, or from an earlier look at this page.
    is_set = any(key in st.query_params or st.session_state.get(key) is not None for key in keys)
    # Open where one is set. Decided once a visit: it must not close under somebody's hands.
    if "more_limits" not in st.session_state:
        st.session_state["more_limits_expanded"] = is_set
    folded = st.expander(
        "More limits",
        expanded=st.session_state["more_limits_expanded"],
        key="more_limits",
        on_change="rerun",
    )
    # A browser also draws what is in a closed expander, and these are many elements.
    if not folded.open and not is_set:
        return limits, None
    with folded:
        more: dict[str, Any] = {field: _limit(*shown) for field, shown in MORE.items()}
        places = _places(runs)
        if places:
            st.markdown("**Must run on**")
        runtime, number_format, device = (_one_of(places, column) for column in PLACES)
    memory = more["max_peak_memory_bytes"]
    more["max_peak_memory_bytes"] = None if memory is None else memory * MEGABYTE
    return dataclasses.replace(limits, **more, runtime=runtime, format=number_format), device


def _limit(label: str, key: str, term: str) -> float | None:
    """A limit that may be left empty."""
    value = st.number_input(
        label,
        min_value=0.0001,
        value=None,
        step=1.0,
        format="%g",
        placeholder="no limit",
        key=key,
        bind="query-params",
        help=HELP[term],
    )
    return None if value is None else float(value)


def _places(runs: pd.DataFrame) -> dict[str, list[str]]:
    """What these runs differ in, of runtime, format and device: the column and its values."""
    timed = runs[runs["tpot_ms"].notna()].assign(format=candidates.formats)
    values = {name: sorted(timed[name].dropna().unique()) for name in PLACES}
    return {name: options for name, options in values.items() if len(options) > 1}


def _one_of(places: dict[str, list[str]], column: str) -> str | None:
    """The value that a model must have; None without a choice."""
    if column not in places:
        return None
    label, key, term, placeholder = PLACES[column]
    value: str | None = st.selectbox(
        label,
        places[column],
        index=None,
        placeholder=placeholder,
        key=key,
        bind="query-params",
        help=HELP[term],
    )
    return value
