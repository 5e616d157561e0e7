"""What each run keeps on each task: kept retention, read task by task."""

import pandas as pd

from explorer.analysis import task_retention
from explorer.index.store_index import StoreIndex


def retention_by_task(index: StoreIndex, runs: pd.DataFrame) -> pd.DataFrame:
    """A row per run and task, with `task_retention.COLUMNS`.

    Args:
        index: The index of the store.
        runs: Rows of its `runs`; few, since each task is computed on its own.
    """
    scores = index.scores(runs["run_id"])
    parts = []
    for task in sorted(scores.loc[scores["headline"], "task"].unique()):
        own = index.with_retention(runs, task)
        reasons = own["excluded_tasks"].fillna("").str.removeprefix(f"{task}: ")
        parts.append(own.assign(task=task, reason=reasons)[task_retention.COLUMNS])
    nothing = pd.DataFrame(columns=task_retention.COLUMNS)
    return pd.concat(parts, ignore_index=True) if parts else nothing
