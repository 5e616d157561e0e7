"""Did distillation help, or would training on the text alone have done as much?

A control arm is the same student, trained on the same corpus with the same budget but without a
teacher. The difference in retention has an interval from the same paired bootstrap as retention
itself: a document brings the answers of teacher, student and control along. If an arm has several
seeds, seeds are resampled as well.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd

from explorer.analysis import numbers
from explorer.analysis.stats import bootstrap, retention
from explorer.analysis.stats.pairing import TaskPair


@dataclasses.dataclass(frozen=True)
class DistillationEffect:
    """What the teacher's distributions added, in shares of the teacher's capability."""

    difference: float
    """Mean retention of the student's runs minus that of the control arm's."""
    low: float
    high: float
    num_seeds: int
    num_control_seeds: int

    @property
    def verdict(self) -> str:
        """`helped` or `hurt` if the 95 % interval excludes 0, else `inconclusive`."""
        if self.low > 0:
            return "helped"
        return "hurt" if self.high < 0 else "inconclusive"

    def in_words(self) -> str:
        """One sentence, in points of retention."""
        ends = f"[{_points(self.low)}, {_points(self.high)}]"
        seeds = f"{self.num_seeds} and {self.num_control_seeds} seeds"
        if self.verdict == "inconclusive":
            return (
                f"Whether distillation helped is inconclusive: {_points(self.difference)} points "
                f"{ends} of retention against labels only ({seeds})."
            )
        size = _points(self.difference) if self.difference > 0 else _points(-self.difference)
        ends = ends if self.difference > 0 else f"[{_points(-self.high)}, {_points(-self.low)}]"
        return (
            f"Distillation {self.verdict} by {size} points {ends} of retention against labels "
            f"only ({seeds})."
        )


def distillation_effect(
    runs: pd.DataFrame,
    scores: pd.DataFrame,
    answers: Mapping[str, pd.DataFrame],
    run_id: str,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> DistillationEffect | None:
    """Compare a student with its control arm; None if there is nothing to compare.

    Args:
        runs: As from `frames.runs`.
        scores: As from `frames.scores`, of these runs and their teachers.
        answers: Run id to the frame of `disk.load_answers`.
        run_id: A student that was trained with the teacher's distributions.
        draws: Bootstrap draws.
        seed: Same seed, same interval.
    """
    own, controls = students_and_controls(runs, run_id)
    if own.empty or controls.empty:
        return None
    pairs = retention.pairs_by_run(pd.concat([own, controls]), scores, answers)
    return effect_of_pairs(own, controls, pairs, draws=draws, seed=seed)


def effect_of_pairs(
    own: pd.DataFrame,
    controls: pd.DataFrame,
    pairs: Mapping[str, list[TaskPair]],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> DistillationEffect | None:
    """`distillation_effect` of runs that are already paired with their teachers.

    Args:
        own: The runs of the student's recipe.
        controls: The runs of its control arm.
        pairs: Run id to its tasks beside its teacher's.
        draws: Bootstrap draws.
        seed: Same seed, same interval.
    """
    # A task that counts for only some of the runs would be in one mean and not in the other.
    counted = [tasks for tasks in map(retention.counted_tasks, pairs.values()) if tasks]
    if not counted:
        return None
    shared = set.intersection(*counted)
    pairs = {
        run_id: [pair for pair in of_run if pair.task in shared] for run_id, of_run in pairs.items()
    }
    both = pd.concat([own, controls])
    columns, drawn = retention.of_pairs(both, pairs, set(pairs), draws=draws, seed=seed)
    retention_by_run = columns["retention"].set_axis(both["run_id"])
    ids = [run_id for run_id in own["run_id"] if run_id in drawn]
    control_ids = [run_id for run_id in controls["run_id"] if run_id in drawn]
    if not ids or not control_ids:
        return None
    rng = np.random.default_rng([seed, draws])
    own_DR, controls_DR = (
        np.stack([drawn[run_id] for run_id in group], axis=1) for group in (ids, control_ids)
    )
    difference_D = _over_seeds(own_DR, rng) - _over_seeds(controls_DR, rng)
    low, high = bootstrap.percentile_interval(difference_D)
    difference = retention_by_run.loc[ids].mean() - retention_by_run.loc[control_ids].mean()
    return DistillationEffect(float(difference), low, high, len(ids), len(control_ids))


def students_and_controls(runs: pd.DataFrame, run_id: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The finished runs of a student's recipe and of its control arm, each perhaps empty."""
    finished = runs[runs["status"] == "finished"]
    student = finished[finished["run_id"] == run_id]
    if student.empty or student["method"].iloc[0] not in ("cached", "live"):
        return finished.iloc[:0], finished.iloc[:0]
    recipe, arm = student[["recipe", "arm"]].iloc[0]
    controls = (finished["recipe"] == arm) & (finished["method"] == "labels")
    return finished[finished["recipe"] == recipe], finished[controls]


def runs_compared(runs: pd.DataFrame, run_id: str) -> list[str]:
    """The runs whose answers `distillation_effect` reads: the recipe, its control arm, teachers."""
    both = pd.concat(students_and_controls(runs, run_id))
    return sorted({*both["run_id"], *both["teacher_run_id"].dropna()})


def _over_seeds(drawn_DR: bootstrap.Values, rng: np.random.Generator) -> bootstrap.Values:
    """Each draw's mean over resampled runs; shape [D]."""
    num_draws, num_runs = drawn_DR.shape
    picks_DR = rng.integers(0, num_runs, (num_draws, num_runs))
    mean_D: bootstrap.Values = np.take_along_axis(drawn_DR, picks_DR, axis=1).mean(axis=1)
    return mean_D


def _points(share: float) -> str:
    return numbers.significant(100 * share)
