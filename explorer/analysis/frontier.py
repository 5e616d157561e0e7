"""The Pareto frontier: runs that no other run beats on both axes."""

import math
from collections.abc import Hashable

import numpy as np
import pandas as pd

from explorer.analysis import interference


def pareto(runs: pd.DataFrame, *, maximise: str, minimise: str) -> pd.DataFrame:
    """Runs that no other run beats on both axes; of equal runs, one. Cheapest first.

    Runs missing either value are left out, not counted as zero. So are runs that were timed on
    a busy machine, whatever the axes: see `interference`.
    """
    known = interference.without_busy(runs).dropna(subset=[maximise, minimise])
    known = known.sort_values([minimise, maximise], ascending=[True, False], kind="stable")
    best_so_far = known[maximise].cummax().shift(fill_value=-math.inf)
    return known[known[maximise] > best_so_far]


def membership(
    runs: pd.DataFrame, draws: pd.DataFrame, *, maximise: str, minimise: str
) -> "pd.Series[float]":
    """Share of bootstrap draws in which each run is on the frontier, in [0, 1].

    Args:
        runs: With `run_id`, `maximise` and `minimise`.
        draws: `maximise` in each draw: one row per draw, one column per run id, as from
            `retention.draws_by_run`. A run without draws keeps its measured value.
        maximise: The uncertain axis, on which more is better.
        minimise: The axis on which less is better, taken as exact.

    Returns:
        Shares on the index of `runs`; missing where either value is missing, and for runs that
        were timed on a busy machine.
    """
    known = (
        interference.without_busy(runs)
        .dropna(subset=[maximise, minimise])
        .sort_values(minimise, kind="stable")
    )
    # Of runs with equal costs, only the best in a draw is on the frontier.
    best_before_D = np.full(len(draws), -math.inf)
    on_frontier: dict[Hashable, float] = {}
    for _, equal in known.groupby(minimise, sort=True):
        values_RD = np.array(
            [
                draws[run_id].to_numpy() if run_id in draws else np.full(len(draws), value)
                for run_id, value in zip(equal["run_id"], equal[maximise], strict=True)
            ]
        )
        best_D = values_RD.max(axis=0)
        best_here_RD = (values_RD > best_before_D) & (values_RD == best_D)
        on_frontier |= dict(zip(equal.index, best_here_RD.mean(axis=1), strict=True))
        best_before_D = np.maximum(best_before_D, best_D)
    return pd.Series(on_frontier, dtype=float).reindex(runs.index)
