"""Document by document: what a run lost and gained against its reference."""

import numpy as np
import pandas as pd

LOST, GAINED, BOTH_RIGHT, BOTH_WRONG, EQUAL = "lost", "gained", "both right", "both wrong", "equal"
OUTCOMES = (LOST, GAINED, BOTH_RIGHT, BOTH_WRONG, EQUAL)


def answer_flips(
    answers: pd.DataFrame, reference: pd.DataFrame, task: str, metric: str
) -> pd.DataFrame:
    """One row per document of a task that both answered, sorted by id.

    Args:
        answers: The run's `disk.load_answers`.
        reference: The answers of the run that it is compared with.
        task: The task.
        metric: The metric that represents the task.

    Returns:
        `doc_id`, `doc_hash`, `run` and `reference` (values), `outcome`: lost where the
        reference's value is the higher one, gained where the run's is; else both right (1),
        both wrong (0), or equal for values between.
    """
    own, other = (
        side[(side["task"] == task) & (side["metric"] == metric)][["doc_id", "doc_hash", "value"]]
        for side in (answers, reference)
    )
    both = own.rename(columns={"value": "run"}).merge(
        other.rename(columns={"value": "reference"}), on=["doc_id", "doc_hash"]
    )
    both = both.drop_duplicates("doc_id").sort_values("doc_id", ignore_index=True)
    run, other_run = both["run"].astype(float), both["reference"].astype(float)
    kinds = [run < other_run, run > other_run, run == 1, run == 0]
    both["outcome"] = np.select(kinds, OUTCOMES[:4], default=EQUAL)
    return both
