"""What the chart shows: its axes, its units and the task that counts, in a row above it."""

import dataclasses

import streamlit as st

from explorer.analysis import baseline
from explorer.charts.chart_axes import Scale
from explorer.pages.explore import overlays
from explorer.pages.shared import glossary, text_format

HELP = glossary.TERMS
AXES = {
    "tpot_ms": "TPOT",
    "ttft_ms": "TTFT",
    "latency_ms": "End to end",
    "output_tokens_per_s": "Throughput",
    "usd_per_hour_at_load": "$/hour at load",
    "usd_per_mtok": "$/1M output",
    "output_tokens_per_usd": "Tokens per dollar",
    "num_parameters": "Parameters",
    "weight_bytes": "Weights on disk",
    "peak_memory_bytes": "Memory",
    "joules_per_token": "Energy",
}
OLD_AXES = {"$/hour": "usd_per_hour_at_load", "$/1M tokens": "usd_per_mtok"} | {
    key: key for key in AXES
}
"""Names of axes in older addresses, and in those that name a column."""
TERMS = {
    "tpot_ms": "tpot",
    "ttft_ms": "ttft",
    "latency_ms": "latency",
    "output_tokens_per_s": "throughput",
    "usd_per_hour_at_load": "usd_per_hour",
    "usd_per_mtok": "usd_per_mtok",
    "output_tokens_per_usd": "output_tokens_per_usd",
    "joules_per_token": "energy",
}
AXIS_HELP = "\n\n".join(
    f"**{text_format.md(AXES[axis])}** {text_format.md(HELP[term])}" for axis, term in TERMS.items()
)
HEIGHTS = {"retention": "Corrected", "raw_ratio": "Raw"}
UNITS = {True: "Times the teacher", False: "Absolute"}
SCALES: dict[Scale, str] = {"auto": "Automatic", "linear": "Linear", "log": "Logarithmic"}


@dataclasses.dataclass(frozen=True)
class Axes:
    """What a person chose."""

    x: str
    y: str
    task: str | None
    """The only task that counts; None for all."""
    times: bool
    """Whether the horizontal axis has multiples of the teacher's value."""
    scale: Scale
    against: str
    """What ratios compare with: a key of `baseline.CHOICES`."""
    published: bool
    """Whether published students lie over the chart."""
    estimate_on: str | None
    """The device on which estimates lie over the chart."""


def translate_old_addresses() -> None:
    """Let the names of axes in older addresses stand for those of today."""
    if "x" not in st.session_state and st.query_params.get("x") in OLD_AXES:
        st.query_params["x"] = AXES[OLD_AXES[st.query_params["x"]]]
        st.rerun()


def axes_row(tasks: list[str], *, of_chart: bool) -> Axes:
    """Draw the controls; returns what they say.

    Args:
        tasks: Names of all tasks that have a score.
        of_chart: Whether the chart is shown; the other views have axes of their own.
    """
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        x = st.selectbox(
            "Across",
            list(AXES),
            format_func=lambda key: AXES[key],
            key="x",
            bind="query-params",
            disabled=not of_chart,
            help=AXIS_HELP,
            width=170,
        )
        times = st.selectbox(
            "Unit",
            list(UNITS),
            format_func=lambda key: UNITS[key],
            key="unit",
            bind="query-params",
            disabled=not of_chart,
            help=HELP["times"],
            width=170,
        )
        task = st.selectbox(
            "Task",
            tasks,
            index=None,
            placeholder="All tasks",
            key="task",
            bind="query-params",
            help=HELP["task"],
            width=170,
        )
        with st.popover("More", icon=":material/tune:"):
            scale = st.segmented_control(
                "Scale",
                list(SCALES),
                default="auto",
                required=True,
                format_func=lambda key: SCALES[key],
                key="scale",
                bind="query-params",
                disabled=not of_chart,
                help=HELP["scale"],
            )
            y = st.segmented_control(
                "Capability kept",
                list(HEIGHTS),
                default="retention",
                required=True,
                format_func=lambda key: HEIGHTS[key],
                key="y",
                bind="query-params",
                disabled=not of_chart,
                help=f"**Corrected** {HELP['retention']}\n\n**Raw** {HELP['raw_ratio']}",
            )
            against = st.segmented_control(
                "Compare with",
                list(baseline.CHOICES),
                default=baseline.SAME,
                required=True,
                format_func=lambda key: baseline.CHOICES[key],
                key="against",
                bind="query-params",
                help=HELP["against"],
            )
            published, estimate_on = overlays.choose_overlays()
    return Axes(x, y, task, times, scale, against, published, estimate_on)
