"""The panel "I need": the limits and the objective of the pick, all in the page's address."""

import dataclasses

import streamlit as st

from explorer.analysis.pick.limits import MEGABYTE, Limits
from explorer.pages.shared import glossary, pricing, retention_floor

HELP = glossary.TERMS
OBJECTIVES = {
    "cheapest": "Cheapest per token",
    "fastest": "Fastest",
    "smallest": "Smallest",
    "capable": "Most capable",
}


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a person asked for."""

    limits: Limits
    objective: str
    utilisation: float


def needs_panel() -> Needs:
    """Draw the panel; returns what it says."""
    st.markdown("**I need**", help=HELP["pick"])
    keep = retention_floor.keep(HELP["retention"], page="explore")
    sure = retention_floor.sure(page="explore")
    tpot = _limit("Per token at most (ms)", "max_tpot", "tpot")
    usd = _limit("$/1M output at most", "max_usd", "usd_per_mtok")
    weights = _limit("Weights at most (MB)", "max_weights", "weights")
    with st.expander("More limits"):
        ttft = _limit("First token at most (ms)", "max_ttft", "ttft")
        latency = _limit("End to end at most (ms)", "max_latency", "latency")
        per_s = _limit("Tokens/s at least", "min_tokens_per_s", "throughput")
        hour = _limit("$/hour at most", "max_usd_per_hour", "usd_per_hour")
        memory = _limit("Memory at most (MB)", "max_memory", "peak_memory")
    objective = st.selectbox(
        "Then choose the",
        list(OBJECTIVES),
        format_func=lambda key: OBJECTIVES[key],
        key="objective",
        bind="query-params",
        help=HELP["objective"],
    )
    utilisation = pricing.utilisation(HELP["utilisation"])
    limits = Limits(
        min_retention=keep,
        confidence=sure,
        max_tpot_ms=tpot,
        max_ttft_ms=ttft,
        max_latency_ms=latency,
        min_output_tokens_per_s=per_s,
        max_usd_per_hour=hour,
        max_usd_per_mtok=usd,
        max_weight_bytes=None if weights is None else weights * MEGABYTE,
        max_peak_memory_bytes=None if memory is None else memory * MEGABYTE,
    )
    return Needs(limits, objective, utilisation)


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
