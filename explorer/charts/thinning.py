"""Which points a crowded chart draws: all that decide something, and a sample of the rest.

drawn = thin(runs, "tpot_ms", "retention", first=frontier_ids)
caption = thinned_text(len(drawn), len(runs))
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

MOST_POINTS = 300
"""Above this many points a chart draws a sample."""
COLUMNS_OF_ENVELOPE = 48
"""Vertical strips of the chart; the highest and the lowest point of each is drawn."""


def thin(
    points: pd.DataFrame,
    x: str,
    y: str,
    *,
    first: Iterable[Any] = (),
    most: int = MOST_POINTS,
) -> pd.DataFrame:
    """At most `most` points that look like all of them; the same ones every time.

    Drawn are, as long as there is room: the points named in `first`, the highest and the lowest
    point of each vertical strip, so that the cloud keeps its outline, and points spread evenly
    over the horizontal axis.

    Args:
        points: With `x` and `y`, as any chart has them; points without either value are never
            drawn.
        x: The horizontal axis. Strips are equally wide on a logarithmic scale where all values
            are positive and span more than a factor of ten.
        y: The vertical axis.
        first: Labels of the index of `points` that must be drawn: the frontier, the teachers, the
            selected run. Where they alone are more than `most`, they are thinned too.
        most: How many points to draw.

    Returns:
        Rows of `points` in their own order; all of those with both values where these are few.
    """
    known = points.dropna(subset=[x, y])
    if len(known) <= most:
        return known
    values = known[x].to_numpy(dtype=float)
    heights = known[y].to_numpy(dtype=float)
    chosen = np.zeros(len(known), dtype=bool)
    for group in (
        np.flatnonzero(known.index.isin(list(first))),
        _outline(values, heights),
        np.arange(len(known)),
    ):
        new = group[~chosen[group]]
        room = most - int(chosen.sum())
        chosen[_evenly(new[np.argsort(values[new], kind="stable")], room)] = True
    return known[chosen]


def thinned_text(num_drawn: int, num_all: int) -> str:
    """`300 of 10,000 runs drawn: the frontier, the teachers and a sample`; empty if all are."""
    if num_drawn >= num_all:
        return ""
    return f"{num_drawn:,} of {num_all:,} runs drawn: the frontier, the teachers and a sample"


def _outline(
    values_N: npt.NDArray[np.float64], heights_N: npt.NDArray[np.float64]
) -> npt.NDArray[np.intp]:
    """Places of the highest and the lowest point of each vertical strip."""
    low, high = values_N.min(), values_N.max()
    if low > 0 and high / low > 10:
        values_N, low, high = np.log(values_N), np.log(low), np.log(high)
    width = (high - low) or 1.0
    strips_N = np.minimum(
        ((values_N - low) / width * COLUMNS_OF_ENVELOPE).astype(int), COLUMNS_OF_ENVELOPE - 1
    )
    order = np.lexsort((heights_N, strips_N))
    ends = np.flatnonzero(np.diff(strips_N[order]))
    lowest, highest = np.append(0, ends + 1), np.append(ends, len(order) - 1)
    return np.unique(order[np.concatenate([lowest, highest])])


def _evenly(places: npt.NDArray[np.intp], room: int) -> npt.NDArray[np.intp]:
    """At most `room` of these, evenly spaced, the first and the last among them."""
    if len(places) <= room:
        return places
    chosen: npt.NDArray[np.intp] = places[np.linspace(0, len(places) - 1, room).round().astype(int)]
    return chosen
