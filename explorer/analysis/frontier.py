"""The Pareto frontier: runs that no other run beats on both axes."""

import math

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
    values = pd.DataFrame(
        {
            label: draws[run_id] if run_id in draws else pd.Series(value, index=draws.index)
            for label, run_id, value in zip(
                known.index, known["run_id"], known[maximise], strict=True
            )
        },
        index=draws.index,
    )
    # Of runs with equal costs, only the best in a draw is on the frontier.
    costs = known[minimise].to_numpy()
    on_frontier = {}
    best_before = pd.Series(-math.inf, index=draws.index)
    for cost in pd.unique(costs):
        equal = values.loc[:, known.index[costs == cost]]
        best = equal.max(axis=1)
        for label in equal:
            on_frontier[label] = ((equal[label] > best_before) & (equal[label] == best)).mean()
        best_before = best_before.combine(best, max)
    return pd.Series(on_frontier, dtype=float).reindex(runs.index)
