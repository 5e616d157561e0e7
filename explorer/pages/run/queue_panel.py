"""The queue: a line per run, refreshed while a run is active."""

import html
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from explorer import jobs
from explorer.analysis import interference, numbers
from explorer.errors import ExplorerError
from explorer.index.run_states import ACTIVE
from explorer.pages.run import queue_groups, yaml_form
from explorer.pages.shared import glossary, removal, submitting, text_format, widgets
from explorer.records.rows import row_dicts
from explorer.search import queued
from explorer.store import disk

REFRESH_S = 1.0
MAX_LISTED = 12
"""Runs listed; the others are on the Explore page."""
EDITED = "queue_edited"
"""Session key: an order was put into the form, which is drawn again."""
STAGES = {
    "prepare": "Preparing",
    "targets": "Computing teacher targets",
    "distil": "Training",
    "capability": "Evaluating",
    "latency": "Timing",
    "record": "Saving the record",
}
SPARK_COLOUR = "#3d94d1"
"""Readable on both themes: an image can't take the page's text colour."""
COLUMNS = [3, 4, 2, 2]
DONE_COLUMNS = [3, 5, 3]
FAILED_COLUMNS = [3, 4, 4]


def queue_panel(root: Path, *, more_to_come: bool = False) -> None:
    """Draw the queue; it refreshes every second while a run is active or more are coming."""
    active = (
        bool(_active(_listing(root, 0, frozenset()))) or more_to_come or submitting.is_running(root)
    )
    fragment = st.fragment(_draw, run_every=REFRESH_S if active else None)
    fragment(root, active, more_to_come)


def _listing(root: Path, limit: int, without: frozenset[str]) -> pd.DataFrame:
    try:
        return jobs.status_table(root, limit=limit, without=without)
    except ExplorerError as error:
        st.error(text_format.md(str(error)), icon=":material/error:")
        return pd.DataFrame(columns=["run_id", "state"])


def _active(listing: pd.DataFrame) -> int:
    return int(listing["state"].isin(ACTIVE).sum())


def _draw(root: Path, was_active: bool, more_to_come: bool) -> None:
    hidden = widgets.load(root).hidden
    show_hidden = bool(st.session_state.get("queue_hidden"))
    listing = _listing(root, MAX_LISTED, frozenset() if show_hidden else hidden)
    active = _active(listing)
    st.subheader("Queue", anchor=False)
    submitting.progress_lines(root, exclude=(submitting.START,))
    if st.session_state.pop(EDITED, False):
        # The form is outside this fragment.
        st.rerun()
    if (bool(active) or more_to_come or submitting.is_running(root)) != was_active:
        # The refresh timer belongs to the page: redraw it to start or stop the timer.
        submitting.redraw(root)
    removal.undo_offer(root)
    # An active run is always shown.
    active_hidden = listing["run_id"].isin(hidden) & listing["state"].isin(ACTIVE)
    num_hidden = widgets.index(root).num_states(hidden) - int(active_hidden.sum())
    if listing.empty and not num_hidden:
        st.caption("No runs yet.")
    for heading, studies in queue_groups.parts(row_dicts(listing)):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.html(f'<p class="step">{heading}</p>')
            if heading == "Now" and active > 1:
                _cancel_all(root, active)
        for study, rows in studies:
            if heading == "Now":
                st.markdown(queue_groups.total(root, study, rows))
            elif len(studies) > 1:
                st.caption(text_format.md(study))
            for row in rows:
                _line(root, row)
    earlier = widgets.index(root).num_states() - len(listing)
    if not show_hidden:
        earlier -= num_hidden
    if earlier > 0:
        st.caption(f"and {earlier:,} earlier ones: see Explore.")
    if num_hidden:
        st.toggle(f"Show {text_format.plural(num_hidden, 'hidden run')}", key="queue_hidden")
    removal.trash_list(root)


def _line(root: Path, row: Mapping[Any, Any]) -> None:
    """One run: its name, progress, loss curve and actions."""
    run_id, state = row["run_id"], row["state"]
    done = state == "finished"
    with st.container(key=f"queue_{run_id.replace('.', '-')}", border=not done):
        # Only an active run needs its loss curve.
        widths = DONE_COLUMNS if done else COLUMNS if state in ACTIVE else FAILED_COLUMNS
        name, middle, *curve, actions = st.columns(widths, vertical_alignment="center")
        name.markdown(f"**{text_format.md(run_id)}**")
        if state == "running":
            if is_known(row["device"]):
                name.caption(text_format.md(row["device"]))
            _running(row, middle, curve[0])
        elif state == "queued":
            middle.progress(0.0, "Queued")
        elif done:
            with middle.container(horizontal=True, vertical_alignment="center"):
                runs = widgets.load(root).runs
                runs = runs[runs["run_id"] == run_id]
                st.markdown(_result(root, runs), width="content")
                _time_again(root, run_id, runs)
            if is_known(row["error"]):
                middle.caption(text_format.md(row["error"]))
        else:
            middle.markdown(stop_reason(row))
        if is_known(row["note"]) and not done:
            middle.caption(text_format.md(row["note"]))
        with actions.container(
            horizontal=True, horizontal_alignment="right", vertical_alignment="center"
        ):
            _actions(root, run_id, state, bool(row["cancel_requested"]))
        if not done:
            # The log of a finished run is on the Explore page, with its other evidence.
            _log(root, run_id)


def _running(row: Mapping[Any, Any], middle: Any, spark: Any) -> None:
    total = row["total"] if is_known(row["total"]) else 0
    share = min(1.0, row["done"] / total) if total else 0.0
    parts = [STAGES.get(row["stage"], str(row["stage"] or "Starting").capitalize())]
    if total:
        parts.append(f"{row['done']:,.0f} of {total:,.0f} {row['unit'] or ''}".strip())
    if is_known(row["tokens_per_s"]):
        parts.append(f"{numbers.significant(row['tokens_per_s'])} tokens/s")
    if is_known(row["seconds_left"]):
        parts.append(f"{numbers.duration(row['seconds_left'])} left")
    if row["busy"] is True:
        parts.append("other processes keep this machine busy")
    middle.progress(share, text_format.md(" · ".join(parts)))
    if isinstance(row["losses"], list):
        spark.html(sparkline(row["losses"]))


def _result(root: Path, runs: pd.DataFrame) -> str:
    """A finished run in one line.

    Args:
        root: The store.
        runs: The run's row; none if its record cannot be read.
    """
    if runs.empty:
        return "Finished"
    try:
        run = widgets.index(root).with_retention(runs).iloc[0]
    except ExplorerError as error:
        return text_format.md(str(error))
    parts = []
    if run["role"] == "student" and is_known(run["retention"]):
        share = numbers.percent(run["retention"], run["retention_low"], run["retention_high"])
        parts.append(f"keeps {share}")
    if is_known(run["tpot_ms"]):
        tpot = f"{numbers.milliseconds(run['tpot_ms'])} per token"
        was_busy = run["machine_busy"]
        parts.append(f"{tpot} ({interference.MARK}, not used)" if was_busy else tpot)
    return text_format.md("Finished: " + ", ".join(parts)) if parts else "Finished"


def stop_reason(row: Mapping[Any, Any]) -> str:
    """Why a run or tournament failed, was cancelled or was interrupted; in Markdown."""
    colour = "red" if row["state"] == "failed" else "orange"
    reason = row["error"] if is_known(row["error"]) else ""
    return f":{colour}[{row['state'].capitalize()}] {text_format.md(str(reason))}".strip()


def _actions(root: Path, run_id: str, state: str, cancelling: bool) -> None:
    if state == "finished":
        st.page_link(
            widgets.EXPLORE,
            label="See on chart",
            icon=":material/scatter_plot:",
            query_params={"run": run_id},
        )
    elif widgets.read_only():
        return
    elif state in ACTIVE:
        if cancelling:
            st.button("Stopping…", key=f"cancel_{run_id}", disabled=True, width="stretch")
        elif st.button("Cancel", key=f"cancel_{run_id}", icon=":material/stop:", width="stretch"):
            widgets.attempt(lambda: jobs.cancel(root, run_id))
            st.rerun(scope="fragment")
        return
    else:
        st.button(
            "Resume",
            key=f"resume_{run_id}",
            icon=":material/replay:",
            disabled=submitting.is_running(root, submitting.key_of(run_id)),
            on_click=submitting.begin_again,
            args=(root, run_id),
        )
        _edit_and_delete(root, run_id)
    removal.run_menu(root, run_id, place="queue")


def _cancel_all(root: Path, active: int) -> None:
    """Offer to stop everything in the queue, and ask once more."""
    if widgets.read_only():
        return
    with st.popover("Cancel all", icon=":material/stop:", key="queue_cancel_all"):
        st.markdown(
            f"Stop all {active:,} queued and running runs? Checkpoints stay, so that each can be "
            "resumed."
        )
        st.button(
            f"Cancel {active:,} runs",
            key="queue_cancel_all_sure",
            type="primary",
            on_click=_stop_all,
            args=(root,),
        )


def _stop_all(root: Path) -> None:
    widgets.attempt(lambda: queued.cancel_all(root))


def _edit_and_delete(root: Path, run_id: str) -> None:
    """For a run that has not finished: put its order back into the form, or delete it."""
    st.button(
        "Edit",
        key=f"edit_{run_id}",
        icon=":material/edit:",
        help="Puts this order into the form above, as YAML.",
        on_click=_edit,
        args=(root, run_id),
    )
    st.button(
        "Delete",
        key=f"delete_{run_id}",
        icon=":material/delete:",
        on_click=removal.delete,
        args=(root, run_id),
    )


def _edit(root: Path, run_id: str) -> None:
    spec = widgets.attempt(lambda: disk.read_spec(root, run_id))
    if spec is not None:
        yaml_form.edit(spec.to_yaml())
        st.session_state[EDITED] = True


def _time_again(root: Path, run_id: str, runs: pd.DataFrame) -> None:
    """Offer to time a finished run again if the machine was busy; `runs` is its row."""
    if (
        interference.was_busy(runs).any()
        and not widgets.read_only()
        and st.button(
            "Time it again",
            key=f"time_again_{run_id}",
            icon=":material/timer:",
            help=glossary.TERMS["machine_busy"],
        )
    ):
        submitting.begin_again(root, run_id)
        st.rerun()


def _log(root: Path, run_id: str) -> None:
    """The end of the log, read only when the expander is open."""
    with st.expander("Log", on_change="rerun", key=f"log_{run_id}", type="compact") as log:
        if log.open:
            text = widgets.attempt(lambda: jobs.log_tail(root, run_id, 60))
            st.code(text or "The log is empty.", language=None, height=240, wrap_lines=True)


def is_known(value: Any) -> bool:
    """Whether the listing has this value."""
    return not numbers.missing(value)


def sparkline(values: list[float]) -> str:
    """A loss curve as an image, with its last value; the alt text states both ends."""
    last = f'<span class="quiet">loss {numbers.significant(values[-1])}</span>'
    if len(values) < 2:
        return last
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    points = " ".join(
        f"{100 * i / (len(values) - 1):.1f},{28 - 26 * (value - low) / span:.1f}"
        for i, value in enumerate(values)
    )
    # A data URL, because st.html removes inline SVG.
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 30" preserveAspectRatio="none">'
        f'<polyline points="{points}" fill="none" stroke="{SPARK_COLOUR}" stroke-width="1.5" '
        f'vector-effect="non-scaling-stroke"/></svg>'
    )
    alt = f"Loss from {numbers.significant(values[0])} to {numbers.significant(values[-1])}"
    url = f"data:image/svg+xml,{urllib.parse.quote(svg)}"
    return f'<img class="spark" alt="{html.escape(alt)}" src="{url}">{last}'
