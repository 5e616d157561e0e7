"""Document by document: where a run lost what its reference knew, and where it gained."""

import numpy as np
import pandas as pd

LOST, GAINED, BOTH_RIGHT, BOTH_WRONG, EQUAL = "lost", "gained", "both right", "both wrong", "equal"
OUTCOMES = (LOST, GAINED, BOTH_RIGHT, BOTH_WRONG, EQUAL)


def answer_flips(
    answers: pd.DataFrame, reference: pd.DataFrame, task: str, metric: str
) -> pd.DataFrame:
    """A row a document of one task that both answered, ascending by id.

    Args:
        answers: The run's `disk.load_answers`.
        reference: Those of the run that it is held against.
        task: The task.
        metric: The metric that stands for it.

    Returns:
        `doc_id`, `doc_hash`, `run` and `reference` (values), `outcome`: lost where the
        reference's value is the higher one, gained where the run's is; else both right (1),
        both wrong (0), or equal for values between.
    """
    own, other = (
        one[(one["task"] == task) & (one["metric"] == metric)][["doc_id", "doc_hash", "value"]]
        for one in (answers, reference)
    )
    both = own.rename(columns={"value": "run"}).merge(
        other.rename(columns={"value": "reference"}), on=["doc_id", "doc_hash"]
    )
    both = both.drop_duplicates("doc_id").sort_values("doc_id", ignore_index=True)
    run, theirs = both["run"].astype(float), both["reference"].astype(float)
    kinds = [run < theirs, run > theirs, run == 1, run == 0]
    both["outcome"] = np.select(kinds, OUTCOMES[:4], default=EQUAL)
    return both
