"""Two models on the same task, matched by document; or why they cannot be compared.

Two documents are the same if their ids and the hashes of their texts agree. Rows that were measured
differently (another lm-eval, version of the task, number of shots, chat template or set of
documents) are refused, with a reason that names the field and both values.
"""

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special  # scipy.stats takes over a second of the page's first paint

from explorer.analysis.stats import bootstrap, paired_tests
from explorer.analysis.stats.bootstrap import ALPHA, LEVEL, Values
from explorer.records.rows import row_dicts

# Shape letters: N documents of a task.

CONDITIONS = {
    "task_version": "task versions",
    "num_fewshot": "numbers of shots",
    "lm_eval_version": "lm-eval versions",
    "chat_template": "chat templates",
    "dtype": "number formats",
}
"""Columns of the scores in which two rows must agree, and their names in sentences."""
SAMPLE = "sample"
ALLOWED = (*CONDITIONS, SAMPLE)
"""What a caller may allow to differ; `sample` pairs the documents that both answered."""
OF_A_STUDENT = ("dtype",)
"""A student may differ from its teacher in its number format, on purpose."""
NAMES = ("student", "teacher")


@dataclasses.dataclass(frozen=True)
class TaskPair:
    """Student and teacher on one task, document by document; or why they cannot be paired.

    The teacher may be any reference run.
    """

    task: str
    metric: str
    chance: float
    """Expected score of guessing, the mean over these documents; NaN if unknown."""
    student_N: Values
    """Empty if the two cannot be paired."""
    teacher_N: Values
    reason: str = ""
    """Why the task has no retention; empty if it counts."""
    chance_N: Values | None = None
    """Expected score of guessing on each document, if documents differ in it."""
    clusters_N: npt.NDArray[Any] | None = None
    """The passage of each document, if some share one."""
    note: str = ""
    """Differences that the caller allowed."""

    @property
    def num_clusters(self) -> int:
        """Number of independent pieces of evidence: passages, or documents."""
        return len(self.teacher_N if self.clusters_N is None else np.unique(self.clusters_N))

    @property
    def retention(self) -> float:
        """(student - chance) / (teacher - chance); NaN if the teacher is at chance."""
        if not len(self.teacher_N):
            return np.nan
        above = self.teacher_N.mean() - self.chance
        return float((self.student_N.mean() - self.chance) / above) if above > 0 else np.nan

    @property
    def raw_ratio(self) -> float:
        """Student's score over the teacher's; NaN if the teacher's is 0."""
        score = self.teacher_N.mean()
        return float(self.student_N.mean() / score) if score > 0 else np.nan


def pair_tasks(
    student_scores: pd.DataFrame,
    teacher_scores: pd.DataFrame,
    student_answers: pd.DataFrame,
    teacher_answers: pd.DataFrame,
    *,
    allow: Collection[str] = OF_A_STUDENT,
    names: tuple[str, str] = NAMES,
) -> list[TaskPair]:
    """Student and teacher on every headline task of the teacher, document by document.

    A task that cannot be compared, or does not count, comes with its reason.

    Args:
        student_scores: The student's rows of `frames.scores`.
        teacher_scores: The teacher's.
        student_answers: The student's `disk.load_answers`.
        teacher_answers: The teacher's.
        allow: Names out of `ALLOWED` in which the two may differ.
        names: Names of the two in the reasons.
    """
    student = scored_model(student_scores, student_answers)
    teacher = scored_model(teacher_scores, teacher_answers)
    return pair_models(student, teacher, allow, names)


@dataclasses.dataclass(frozen=True)
class TaskAnswers:
    """One model's values on one task, by document id."""

    ids_N: npt.NDArray[Any]
    hashes_N: npt.NDArray[Any]
    values_N: Values
    chance_N: Values | None
    clusters_N: npt.NDArray[Any] | None

    def documents(self) -> list[tuple[Any, Any]]:
        """Id and hash of every document."""
        return list(zip(self.ids_N.tolist(), self.hashes_N.tolist(), strict=True))

    def same_documents(self, other: "TaskAnswers") -> bool:
        """Whether both cover the same documents in the same order."""
        same_ids = np.array_equal(self.ids_N, other.ids_N)
        return same_ids and np.array_equal(self.hashes_N, other.hashes_N)

    def only(self, wanted: set[tuple[Any, Any]]) -> "TaskAnswers":
        """The answers to these documents."""
        chosen = np.array([document in wanted for document in self.documents()])
        chance = None if self.chance_N is None else self.chance_N[chosen]
        clusters = None if self.clusters_N is None else self.clusters_N[chosen]
        return TaskAnswers(
            self.ids_N[chosen], self.hashes_N[chosen], self.values_N[chosen], chance, clusters
        )


@dataclasses.dataclass(frozen=True)
class ScoredModel:
    """One model's headline scores, by task, and the answers behind them."""

    scores: dict[str, dict[str, Any]]
    answers: dict[tuple[str, str], TaskAnswers]


def scored_model(scores: pd.DataFrame, answers: pd.DataFrame) -> ScoredModel:
    """One model's rows of `frames.scores` and `disk.load_answers`, ready to be paired."""
    chosen = scores[scores["headline"]].sort_values(["task", "metric"])
    rows = row_dicts(chosen)
    by_task = {
        (str(task), str(metric)): task_answers(
            *(group[name].to_numpy() for name in ("doc_id", "doc_hash", "value")),
            *(group[name].to_numpy() if name in group else None for name in ("chance", "cluster")),
        )
        for (task, metric), group in answers.groupby(["task", "metric"], sort=False)
    }
    return ScoredModel({row["task"]: row for row in rows}, by_task)


def task_answers(
    ids_N: npt.NDArray[Any],
    hashes_N: npt.NDArray[Any],
    values_N: npt.NDArray[Any],
    chance_N: npt.NDArray[Any] | None = None,
    clusters_N: npt.NDArray[Any] | None = None,
) -> TaskAnswers:
    """One model's answers to one task, sorted by document id.

    Args:
        ids_N: Document ids.
        hashes_N: Hash of each document's text.
        values_N: The model's values.
        chance_N: Chance levels; left out of the result unless all are known and they differ.
        clusters_N: Passages; left out unless all are known and some documents share one.
    """
    order_N = np.argsort(ids_N, kind="stable")
    if chance_N is not None:
        chance_N = chance_N.astype(np.float64)[order_N]
        if np.isnan(chance_N).any() or (chance_N == chance_N[0]).all():
            chance_N = None
    if clusters_N is not None:
        known = not pd.isna(clusters_N).any()
        clusters_N = clusters_N[order_N].astype(str) if known else None
        if clusters_N is not None and len(np.unique(clusters_N)) == len(clusters_N):
            clusters_N = None
    return TaskAnswers(
        ids_N[order_N],
        hashes_N.astype(object)[order_N],
        values_N.astype(np.float64)[order_N],
        chance_N,
        clusters_N,
    )


def pair_models(
    students: ScoredModel,
    teachers: ScoredModel,
    allow: Collection[str] = OF_A_STUDENT,
    names: tuple[str, str] = NAMES,
) -> list[TaskPair]:
    """`pair_tasks` of two models made by `scored_model`, since a teacher has many students."""
    return [_pair_task(task, students, teachers, allow, names) for task in teachers.scores]


def _pair_task(
    task: str,
    students: ScoredModel,
    teachers: ScoredModel,
    allow: Collection[str],
    names: tuple[str, str],
) -> TaskPair:
    teacher_row, own = teachers.scores[task], students.scores.get(task)
    metric = teacher_row["metric"]
    chance = np.nan if pd.isna(teacher_row["chance"]) else float(teacher_row["chance"])
    nothing = TaskPair(task, metric, chance, np.empty(0), np.empty(0))
    reason = _incomparable(own, teacher_row, allow, names)
    if own is None or reason:
        return dataclasses.replace(nothing, reason=reason)
    student = students.answers.get((task, own["metric"]))
    teacher = teachers.answers.get((task, metric))
    reason = _unpaired(student, teacher, allow, names)
    if student is None or teacher is None or reason:
        return dataclasses.replace(nothing, reason=reason)
    reason = _not_the_mean(student.values_N, own) or _not_the_mean(teacher.values_N, teacher_row)
    if reason:
        return dataclasses.replace(nothing, reason=reason)
    notes = _differences(own, teacher_row, {*CONDITIONS} & {*allow}, names)
    notes += _unknown_filter(own, teacher_row, names)
    if not student.same_documents(teacher):
        shared = set(student.documents()) & set(teacher.documents())
        notes.append(f"only the {len(shared)} documents that both answered")
        student, teacher = student.only(shared), teacher.only(shared)
    chance_N = student.chance_N if teacher.chance_N is None else teacher.chance_N
    clusters_N = student.clusters_N if teacher.clusters_N is None else teacher.clusters_N
    if chance_N is not None:
        chance = float(chance_N.mean())
    if np.isnan(chance):
        reason = "the chance level is not known"
    reason = reason or _at_chance(teacher.values_N, chance, clusters_N)
    return TaskPair(
        task,
        metric,
        chance,
        student.values_N,
        teacher.values_N,
        reason,
        chance_N,
        clusters_N,
        note="; ".join(notes),
    )


def _incomparable(
    own: dict[str, Any] | None,
    other: dict[str, Any],
    allow: Collection[str],
    names: tuple[str, str],
) -> str:
    """Why two scores of a task cannot be compared; empty if they can."""
    if own is None:
        return f"the {names[0]} has no score"
    for difference in (
        *_metric_differences(own, other, names),
        *_differences(own, other, {*CONDITIONS} - {*allow}, names),
    ):
        return difference
    if not other["higher_is_better"]:
        return "lower is better, and retention needs a score where higher is better"
    return ""


def _differences(
    own: dict[str, Any], other: dict[str, Any], keys: Collection[str], names: tuple[str, str]
) -> list[str]:
    """The conditions in which two scores differ, with both values."""
    return [
        f"{name} differ ({names[0]} {own[key]}, {names[1]} {other[key]})"
        for key, name in CONDITIONS.items()
        if key in keys and _differ(own.get(key), other.get(key), key)
    ]


def _metric_differences(
    own: dict[str, Any], other: dict[str, Any], names: tuple[str, str]
) -> list[str]:
    """Whether two scores are of one metric, taken from the answers by one filter."""
    (metric, ours), (other_metric, theirs) = _metric_and_filter(own), _metric_and_filter(other)
    if metric != other_metric:
        return [f"metrics differ ({names[0]} {own['metric']}, {names[1]} {other['metric']})"]
    if ours is not None and theirs is not None and ours != theirs:
        return [f"filters differ ({names[0]} {ours}, {names[1]} {theirs})"]
    return []


def _unknown_filter(
    own: dict[str, Any], other: dict[str, Any], names: tuple[str, str]
) -> list[str]:
    """A note if only one of two scores says by which filter the answers were taken.

    Records older than the field say nothing. Accuracies of choices have no filter.
    """
    both = [_metric_and_filter(row) for row in (own, other)]
    unknown = [name for name, (_, known) in zip(names, both, strict=True) if known is None]
    if len(unknown) != 1 or both[0][0].startswith("acc"):
        return []
    return [f"the {unknown[0]}'s record does not say through which filter it was scored"]


def _metric_and_filter(score: dict[str, Any]) -> tuple[str, str | None]:
    metric, _, filter_name = str(score["metric"]).partition(",")
    known = score.get("filter")
    return metric, (filter_name or None) if pd.isna(known) else str(known)


def _differ(ours: Any, other: Any, key: str) -> bool:
    """Whether two conditions differ; a missing one usually does not count."""
    if pd.isna(ours) or pd.isna(other):
        # Records always state shots and version, unless the task's file has none.
        return key in ("task_version", "num_fewshot") and not (pd.isna(ours) and pd.isna(other))
    return bool(ours != other)


def _unpaired(
    student: TaskAnswers | None,
    teacher: TaskAnswers | None,
    allow: Collection[str],
    names: tuple[str, str],
) -> str:
    """Why two sets of answers cannot be paired; empty if they can."""
    for name, answers in zip(names, (student, teacher), strict=True):
        if answers is None:
            return answers_missing(name)
        if (answers.ids_N[1:] == answers.ids_N[:-1]).any():
            return f"the {name} answered a document twice"
        if np.isnan(answers.values_N).any():
            return f"the {name}'s answers have gaps"
    if student is None or teacher is None or student.same_documents(teacher):
        return ""
    own, other = set(student.documents()), set(teacher.documents())
    if SAMPLE in allow and own & other:
        return ""
    return (
        f"documents differ ({names[0]} {len(own)}, {names[1]} {len(other)}, "
        f"{len(own & other)} the same in both)"
    )


def answers_missing(name: str) -> str:
    """The reason of a task to which this model of a pair has a score, but no answers."""
    return f"the {name}'s answers are missing"


def _not_the_mean(values_N: Values, score: dict[str, Any]) -> str:
    """Why a bootstrap over documents would not apply to this score; empty if it does."""
    if abs(values_N.mean() - score["score"]) > 1e-4:
        return (
            f"the score {score['score']:.4g} is not the mean {values_N.mean():.4g} of its answers"
        )
    return ""


def _at_chance(teacher_N: Values, chance: float, clusters_N: npt.NDArray[Any] | None = None) -> str:
    """Why the teacher is not clearly above chance (one-sided, 95 %); empty if it is.

    Right-or-wrong answers get the exact binomial test, others Student's t. Where documents
    differ in chance, the binomial test at their mean errs on the side of leaving out.
    """
    count, mean = len(teacher_N), float(teacher_N.mean())
    if clusters_N is None and paired_tests.is_binary(teacher_N):
        p_value = special.bdtrc(int(teacher_N.sum()) - 1, count, chance)
        clear = bool(p_value < ALPHA)
    else:
        num_clusters = count if clusters_N is None else len(np.unique(clusters_N))
        error = np.sqrt(bootstrap.covariance(teacher_N[None, :], clusters_N)[0, 0])
        above = mean - special.stdtrit(max(num_clusters - 1, 1), LEVEL) * error > chance
        # The chance that as many coin tosses all fall the same way must be small.
        clear = bool(above and 0.5**num_clusters < ALPHA)
    if clear:
        return ""
    return (
        f"the teacher ({mean:.3g} on {count} documents) is not clearly above chance ({chance:.3g})"
    )
