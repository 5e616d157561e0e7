"""What the chart shows: its axes, its units and the task that counts, in a row above it.

The axes change nothing but the chart, so their controls draw only that again. For this they are a
fragment of the page, and so is `views.draw`. The task and what ratios compare with also change the
pick and the finding.
"""

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
FRAGMENT = "chart"
"""Key of the fragment that the axes change."""
HEIGHTS = {"retention": "Corrected", "raw_ratio": "Raw"}
UNITS = {True: "Times the teacher", False: "Absolute"}
SCALES: dict[Scale, str] = {"auto": "Automatic", "linear": "Linear", "log": "Logarithmic"}


@dataclasses.dataclass(frozen=True)
class Axes:
    """What a person chose for the chart."""

    x: str
    y: str
    times: bool
    """Whether the horizontal axis has multiples of the teacher's value."""
    scale: Scale
    published: bool
    """Whether published students lie over the chart."""
    estimate_on: str | None
    """The device on which estimates lie over the chart."""


def translate_old_addresses() -> None:
    """Let the names of axes in older addresses stand for those of today."""
    if "x" not in st.session_state and st.query_params.get("x") in OLD_AXES:
        st.query_params["x"] = AXES[OLD_AXES[st.query_params["x"]]]
        st.rerun()


def chosen() -> Axes:
    """What the controls of `axes_row` say now, also where they are not drawn again."""
    state = st.session_state
    return Axes(
        x=state["x"],
        y=state["y"],
        times=state["unit"],
        scale=state["scale"],
        published=state["published"],
        estimate_on=state["estimate"],
    )


@st.fragment
def axes_row(tasks: list[str], *, of_chart: bool) -> tuple[str | None, str]:
    """Draw the controls.

    Args:
        tasks: Names of all tasks that have a score.
        of_chart: Whether the chart is shown; the other views have axes of their own.

    Returns:
        The only task that counts, None for all; what ratios compare with, a key of
        `baseline.CHOICES`. Both matter for the whole page, the others are in `chosen`.
    """
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.selectbox(
            "Across",
            list(AXES),
            format_func=lambda key: AXES[key],
            key="x",
            on_change=redraw_chart,
            bind="query-params",
            disabled=not of_chart,
            help=AXIS_HELP,
            width=170,
        )
        st.selectbox(
            "Unit",
            list(UNITS),
            format_func=lambda key: UNITS[key],
            key="unit",
            on_change=redraw_chart,
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
            on_change=st.rerun,
            bind="query-params",
            help=HELP["task"],
            width=170,
        )
        with st.popover("More", icon=":material/tune:"):
            st.segmented_control(
                "Scale",
                list(SCALES),
                default="auto",
                required=True,
                format_func=lambda key: SCALES[key],
                key="scale",
                on_change=redraw_chart,
                bind="query-params",
                disabled=not of_chart,
                help=HELP["scale"],
            )
            st.segmented_control(
                "Capability kept",
                list(HEIGHTS),
                default="retention",
                required=True,
                format_func=lambda key: HEIGHTS[key],
                key="y",
                on_change=redraw_chart,
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
                on_change=st.rerun,
                bind="query-params",
                help=HELP["against"],
            )
            overlays.choose_overlays(redraw_chart)
    return task, against


def redraw_chart() -> None:
    """Draw only the chart again. For a control's `on_change`."""
    st.rerun(FRAGMENT)
