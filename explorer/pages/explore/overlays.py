"""What may lie over the chart: published students, and estimates on another device."""

from collections.abc import Callable

import pandas as pd
import streamlit as st

from explorer.analysis import numbers, overlays
from explorer.analysis.planning.roofline import CEILING
from explorer.catalogue import load
from explorer.pages.published import parts
from explorer.pages.shared import glossary, text_format, widgets
from explorer.records.rows import row_dicts

HELP = glossary.TERMS
PAIR = "pair"
"""Query parameter of a published comparison, as on the Published page."""
BITS, CONCURRENCY = 16, 8
"""As the Published page opens."""


def choose_overlays(on_change: Callable[[], None]) -> None:
    """Draw the switches: published students, and the device of estimates.

    Args:
        on_change: Called when one of them is changed.
    """
    st.toggle(
        "Published students",
        key="published",
        on_change=on_change,
        bind="query-params",
        help=HELP["overlay_published"],
    )
    st.selectbox(
        "Estimate on",
        load.load_table("hardware_specs")["hardware"].tolist(),
        index=None,
        placeholder="No device",
        key="estimate",
        on_change=on_change,
        bind="query-params",
        help=HELP["overlay_estimated"],
    )


def points(
    runs: pd.DataFrame, published: bool, device: str | None, *, utilisation: float
) -> list[pd.DataFrame]:
    """The overlays that are switched on, as frames that the chart draws beside the runs.

    Args:
        runs: The runs on the chart.
        published: Whether published students are wanted.
        device: Name of the device to estimate on, if any.
        utilisation: Share of the paid hours in which a device is busy.
    """
    frames = []
    if published:
        frames.append(overlays.published_points(parts.collected(BITS, CONCURRENCY).rows))
    if device is not None:
        specs = load.load_table("hardware_specs")
        frames.append(
            overlays.estimated_points(
                runs,
                specs[specs["hardware"] == device],
                load.load_table("hardware"),
                utilisation=utilisation,
            )
        )
    return [frame for frame in frames if not frame.empty]


def notes(frames: list[pd.DataFrame], x: str, title: str) -> None:
    """What the overlays rest on, and which of them this axis cannot show.

    Args:
        frames: As from `points`.
        x: The column of the horizontal axis.
        title: Its name.
    """
    for frame in frames:
        basis = frame["basis"].iloc[0]
        if x not in frame or frame[x].isna().all():
            text = f"Estimates have no {title}, so none is drawn."
            if basis == "published":
                text = (
                    f"Published students have no {title} measured beside their larger model's, so "
                    "none is drawn. Sizes and API prices are published: choose Parameters, $/1M "
                    "output or Tokens per dollar across."
                )
            st.caption(text_format.md(text))
        elif basis == "published":
            price = "; the cost is what an API charges for output tokens" if "usd" in x else ""
            st.caption(
                "Hollow diamonds: published, of other teachers and on other tasks, without "
                f"intervals{price}. Click one for its source."
            )
        else:
            device = frame["device_name"].iloc[0]
            st.caption(
                text_format.md(
                    f"Dotted circles: estimated on {device}, {CEILING.in_words()}; retention as "
                    "measured here."
                )
            )


def published_card(read_only: bool) -> None:
    """The clicked published student: its source, and a way to measure it here."""
    rows = parts.collected(BITS, CONCURRENCY).rows
    point = st.query_params.get(PAIR)
    if point is None or point not in rows.index:
        return
    row = row_dicts(rows.loc[[point]])[0]
    with st.container(border=True, key="explore_published"):
        kept = numbers.percent(row["raw_ratio"])
        st.markdown(
            f"**{text_format.md(row['student'])}**, published: {kept} of "
            f"{text_format.md(row['compared_to'])}'s score over "
            f"{text_format.plural(row['num_benchmarks'], 'benchmark')}, "
            f"{text_format.md(row['relation'])}. "
            f"[{text_format.md(row['source_title'])}]({row['source_url']}), "
            f"seen {row['date_seen']}."
        )
        ids = hub_ids(row["student"], row["compared_to"])
        with st.container(horizontal=True, gap="small"):
            if ids is not None and not read_only:
                if st.button(
                    "Measure it yourself",
                    key="explore_measure",
                    icon=":material/science:",
                    help=HELP["measure_it"],
                ):
                    student, teacher = ids
                    st.session_state["run_teacher"] = teacher
                    st.session_state["run_kind"] = "checkpoint"
                    st.session_state["run_models"] = [student]
                    # Without an address of its own, bound widgets would forbid to leave.
                    st.switch_page(widgets.RUN, query_params={})
            elif ids is None:
                st.caption("Its weights have no address on the hub, so it cannot be measured here.")
            st.page_link(widgets.PUBLISHED, label="All of its evidence", query_params={PAIR: point})
            st.button("Close", key="explore_close", type="tertiary", on_click=_close)


def open_id() -> str | None:
    """Id of the published point that is open, as it is on the chart."""
    point = st.query_params.get(PAIR)
    return None if point is None else f"{overlays.PUBLISHED}{point}"


def hub_ids(student: str, teacher: str) -> tuple[str, str] | None:
    """Ids on the hub of a published student and its larger model; None if either has none."""
    models = load.load_table("models").set_index("model")["hf_id"].dropna()
    if student not in models or teacher not in models:
        return None
    return str(models[student]), str(models[teacher])


def _close() -> None:
    del st.query_params[PAIR]


def open_point(point_id: str) -> None:
    """Open what was clicked: a run, the run behind an estimate, or a published comparison."""
    if point_id.startswith(overlays.PUBLISHED):
        st.query_params[PAIR] = point_id.removeprefix(overlays.PUBLISHED)
    else:
        pick_run(point_id.removeprefix(overlays.ESTIMATED))


def pick_run(run_id: str) -> None:
    """Pick the clicked run. Its evidence is beside the chart, so the whole page is drawn again."""
    widgets.pick_run(run_id)
    st.rerun()
