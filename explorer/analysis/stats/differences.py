"""What one run does better or worse than another, task by task and for the suite.

`explorer compare A B`, the Compare page and a student's evidence all use these functions. A
difference is run - reference, over the documents that both answered.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd

from explorer.analysis.stats import bootstrap, few_answers, intervals, paired_tests, pairing
from explorer.analysis.stats.pairing import TaskPair

# Shape letters: R rows of values (the two runs), D draws.

COLUMNS = [
    "task",
    "metric",
    "num_documents",
    "num_clusters",
    "student",
    "teacher",
    "difference",
    "difference_low",
    "difference_high",
    "num_only_student",
    "num_only_teacher",
    "detectable",
    "test",
    "p_value",
    "p_holm",
    "verdict",
    "reason",
    "note",
]


def compare_runs(
    scores: pd.DataFrame,
    reference_scores: pd.DataFrame,
    answers: pd.DataFrame,
    reference_answers: pd.DataFrame,
    *,
    allow: Collection[str] = (),
    draws: int = 2000,
    seed: int = 0,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Compare any two runs: `task_differences` and `suite_difference` of their pairs.

    Args:
        scores: The run's rows of `frames.scores`.
        reference_scores: The rows of the run that it is compared with.
        answers: The run's `disk.load_answers`.
        reference_answers: The reference's.
        allow: Conditions of `pairing.ALLOWED` that may differ; others are refused.
        draws: Bootstrap draws.
        seed: Same seed, same interval.
    """
    pairs = pairing.pair_tasks(
        scores,
        reference_scores,
        answers,
        reference_answers,
        allow=allow,
        names=("run", "reference"),
    )
    return task_differences(pairs, draws=draws, seed=seed), suite_difference(
        pairs, draws=draws, seed=seed
    )


def task_differences(
    pairs: Sequence[TaskPair], *, draws: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """One row per task. The run is called student, the reference teacher.

    Returns:
        `task`, `metric`, `num_documents`, `num_clusters` (passages, or documents),
        `student` and `teacher` (scores), `difference` with its 95 % bootstrap interval
        (`difference_low`, `difference_high`), `num_only_student` and `num_only_teacher`
        (documents that only one of them got right), `detectable` (the smallest difference that
        this many documents likely show), `test`, `p_value`, `p_holm` (adjusted for all tasks of
        the frame), `verdict` from `p_holm` (better, worse, inconclusive; missing if nothing can
        be paired), `reason` why it cannot, `note` on what differs.
    """
    rows = pd.DataFrame([_row(pair, draws, seed) for pair in pairs], columns=COLUMNS)
    numbers = [
        name
        for name in COLUMNS
        if name not in ("task", "metric", "test", "verdict", "reason", "note")
    ]
    rows[numbers] = rows[numbers].astype(float)
    rows["num_documents"] = rows["num_documents"].astype(int)
    rows["p_holm"] = paired_tests.holm(rows["p_value"].to_numpy())
    rows["verdict"] = [
        None if np.isnan(p_value) else paired_tests.verdict(difference, p_value)
        for difference, p_value in zip(rows["difference"], rows["p_holm"], strict=True)
    ]
    return rows


def suite_difference(
    pairs: Sequence[TaskPair], *, draws: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """The mean of the tasks' differences, with equal weights.

    Returns:
        `num_tasks`, `num_documents`, `student`, `teacher`, `difference`, its bootstrap
        interval, `stderr` (these tasks, other documents), `between_sd` (spread of the true
        differences over tasks), `stderr_tasks` (other tasks too), `p_value` (that of
        `few_answers.suite_p_value`) and `verdict`. This is a single test chosen beforehand, so it
        is not adjusted. Missing if no task can be paired.
    """
    used = [pair for pair in pairs if len(pair.teacher_N)]
    row: dict[str, Any] = {"num_tasks": len(used), "num_documents": 0, "verdict": None} | (
        dict.fromkeys(
            (
                "student",
                "teacher",
                "difference",
                "difference_low",
                "difference_high",
                "stderr",
                "between_sd",
                "stderr_tasks",
                "p_value",
            )
        )
    )
    if not used:
        return row
    mean = intervals.suite_mean(
        [float((pair.student_N - pair.teacher_N).mean()) for pair in used],
        [_stderr(pair) for pair in used],
    )
    if len(used) == 1:
        low, high = few_answers.difference_interval(used[0], _drawn(used[0], draws, seed))
    else:
        drawn_D = np.mean([_drawn(pair, draws, seed) for pair in used], axis=0)
        low, high = few_answers.around(bootstrap.percentile_interval(drawn_D), mean.mean)
    p_value = few_answers.suite_p_value(used, mean.mean, mean.within_stderr, seed)
    return row | {
        "num_documents": sum(len(pair.teacher_N) for pair in used),
        "student": float(np.mean([pair.student_N.mean() for pair in used])),
        "teacher": float(np.mean([pair.teacher_N.mean() for pair in used])),
        "difference": mean.mean,
        "difference_low": low,
        "difference_high": high,
        "stderr": mean.within_stderr,
        "between_sd": _known(mean.between_sd),
        "stderr_tasks": _known(mean.stderr),
        "p_value": p_value,
        "verdict": paired_tests.verdict(mean.mean, p_value),
    }


def _row(pair: TaskPair, draws: int, seed: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "task": pair.task,
        "metric": pair.metric,
        "num_documents": len(pair.teacher_N),
        "reason": pair.reason,
        "note": pair.note,
    }
    if not len(pair.teacher_N):
        return row
    low, high = few_answers.difference_interval(pair, _drawn(pair, draws, seed))
    p_value, test = paired_tests.paired_test(pair.student_N, pair.teacher_N, pair.clusters_N)
    row |= {
        "num_clusters": pair.num_clusters,
        "student": float(pair.student_N.mean()),
        "teacher": float(pair.teacher_N.mean()),
        "difference": float((pair.student_N - pair.teacher_N).mean()),
        "difference_low": low,
        "difference_high": high,
        "test": test,
        "p_value": p_value,
    }
    if paired_tests.is_binary(pair.student_N) and paired_tests.is_binary(pair.teacher_N):
        row["num_only_student"] = int((pair.student_N > pair.teacher_N).sum())
        row["num_only_teacher"] = int((pair.student_N < pair.teacher_N).sum())
        apart = float((pair.student_N != pair.teacher_N).mean())
        if apart and pair.clusters_N is None:
            row["detectable"] = paired_tests.smallest_detectable_difference(
                len(pair.teacher_N), apart
            )
    return row


def _stderr(pair: TaskPair) -> float:
    """Standard error of a task's difference over its documents."""
    rows_RN = np.stack([pair.student_N, pair.teacher_N])
    _, spread_RR = few_answers.means_and_covariance(rows_RN, pair)
    if np.isinf(spread_RR).any():
        return np.inf
    return float(np.sqrt(max(0.0, spread_RR[0, 0] + spread_RR[1, 1] - 2 * spread_RR[0, 1])))


def _drawn(pair: TaskPair, draws: int, seed: int) -> bootstrap.Values:
    """The difference in each draw; student and teacher share the resampled documents."""
    values_RN = np.stack([pair.student_N, pair.teacher_N])
    means_DR = bootstrap.bootstrap_means(values_RN, pair.task, draws, seed, pair.clusters_N)
    if few_answers.is_few(pair):
        means_DR = few_answers.with_halves(means_DR, pair, seed)
    difference_D: bootstrap.Values = means_DR[:, 0] - means_DR[:, 1]
    return difference_D


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value
