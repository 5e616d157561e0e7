"""The queue in three parts (now, done, failed), grouped by study, with the time that is left."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from explorer.analysis import numbers, studies
from explorer.analysis.planning import run_time
from explorer.errors import ExplorerError
from explorer.index.run_states import ACTIVE
from explorer.pages.shared import text_format, widgets
from explorer.store import disk

Row = Mapping[Any, Any]
PARTS: dict[str, tuple[str, ...]] = {
    "Now": ACTIVE,
    "Done": ("finished",),
    "Failed": ("failed", "cancelled", "interrupted"),
}
"""Heading of each part to the states in it."""
ESTIMATE_TTL_S = 30.0
"""An estimate of the waiting runs is used for this long, as the queue is drawn every second."""


def parts(rows: Sequence[Row]) -> list[tuple[str, list[tuple[str, list[Row]]]]]:
    """Each part of the queue that has a run: its heading, and its studies with their rows.

    A teacher's run stands with the students that it is measured for: those beside it.
    """
    split = []
    for heading, states in PARTS.items():
        inside = [row for row in rows if row["state"] in states]
        if inside:
            split.append((heading, _studies(inside)))
    return split


def _studies(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    names = [study_of(row) for row in rows]
    first = next((name for name in names if name), "teacher")
    groups: dict[str, list[Row]] = {}
    for name, row in zip(names, rows, strict=True):
        groups.setdefault(name or first, []).append(row)
    return list(groups.items())


def study_of(row: Row) -> str:
    """The study of a row of the queue; empty for a teacher's run, which studies share."""
    name = row["run_id"].rpartition("-")[0] if numbers.missing(row["name"]) else str(row["name"])
    return "" if name.startswith("teacher-") else studies.study_of(name)


def total(root: Path, study: str, rows: Sequence[Row]) -> str:
    """`**my-study**: 1 running, 2 queued, about 11 min left`, in Markdown."""
    counts = [
        f"{count:,} {state}"
        for state in ACTIVE
        if (count := sum(row["state"] == state for row in rows))
    ]
    seconds = _seconds_left(root, rows)
    left = f", about {numbers.duration(seconds)} left" if seconds is not None else ""
    return f"**{text_format.md(study)}**: {', '.join(counts)}{left}"


def _seconds_left(root: Path, rows: Sequence[Row]) -> float | None:
    """Of all these runs, one after the other; None if no earlier run tells."""
    waiting = _estimate(root, tuple(row["run_id"] for row in rows if row["state"] == "queued"))
    running = [row["seconds_left"] for row in rows if row["state"] == "running"]
    if waiting is None or any(map(numbers.missing, running)):
        return None
    return waiting + float(sum(running))


@st.cache_data(show_spinner=False, ttl=ESTIMATE_TTL_S, max_entries=32)
def _estimate(root: Path, run_ids: tuple[str, ...]) -> float | None:
    """Seconds of these queued runs; None if a part of them is not known."""
    if not run_ids:
        return 0.0
    snapshot = widgets.load(root)
    try:
        specs = [disk.read_spec(root, run_id) for run_id in run_ids]
    except ExplorerError:
        return None
    taken = run_time.estimate_runs(specs, snapshot.runs, snapshot.scores)
    return None if taken.unknown else taken.seconds
