"""Which runs surely keep enough of their teacher: the statement of the pick, for any page.

Every page and command takes its finding from here, so that no two of them name different models.
"""

import pandas as pd

from explorer.analysis import baseline, headline
from explorer.analysis.pick import candidates
from explorer.index.store_index import FEW_RUNS, StoreIndex


def keeping(
    index: StoreIndex,
    runs: pd.DataFrame,
    min_retention: float,
    confidence: float,
    task: str | None = None,
) -> set[str] | None:
    """Ids of the runs that keep at least `min_retention` in a share `confidence` of the draws.

    Args:
        index: The index of the store.
        runs: With the columns of `retention.add_retention`.
        min_retention: Share of the teacher's capability to keep.
        confidence: How surely, in [0.5, 1).
        task: Only this task counts; None takes all.

    Returns:
        None for more than `FEW_RUNS` runs, whose draws would take too long.
    """
    if len(runs) > FEW_RUNS:
        return None
    sure = candidates.sure(runs, index.draws(runs, task), min_retention)
    return set(runs.loc[sure >= confidence, "run_id"])


def finding(
    index: StoreIndex,
    runs: pd.DataFrame,
    min_retention: float,
    confidence: float,
    *,
    task: str | None = None,
    against: str = baseline.SAME,
) -> str:
    """The finding of `headline.headline` for runs that surely keep enough.

    Args:
        index: The index of the store.
        runs: With the columns of `retention.add_retention`, and perhaps of `unit_cost.add_costs`.
        min_retention: As in `keeping`.
        confidence: As in `keeping`.
        task: As in `keeping`.
        against: What ratios compare with: a key of `baseline.CHOICES`.
    """
    reaching = keeping(index, runs, min_retention, confidence, task)
    return headline.headline(runs, target=min_retention, reaching=reaching, against=against)
