"""How much of the teacher's capability a student keeps, and how sure that is.

Per task, over the documents that both answered:

    retention = (student - chance) / (teacher - chance)

The headline is the mean over tasks. Its interval is a paired bootstrap: documents are
drawn again within each task, and a document brings the student's and the teacher's
answer along, so what is hard for both cancels. Worked examples are in docs/measure.md.
"""

import dataclasses
import itertools
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special  # scipy.stats takes over a second of the page's first paint

# Shape letters: D draws, N documents of a task, R runs.

Values = npt.NDArray[np.float64]

LEVEL = 0.95
DENOMINATOR_FLOOR = 0.25
"""A draw's (teacher - chance) is never taken below this share of the measured one."""
BLOCK_CELLS = 4_000_000
"""Numbers of a resampling that are in memory at once."""
RUNS_AT_ONCE = 256
COLUMNS = [
    "retention", "retention_low", "retention_high", "raw_ratio", "raw_low", "raw_high",
    "num_tasks", "excluded_tasks",
]  # fmt: skip
TASK_COLUMNS = [
    "task", "metric", "chance", "num_documents", "student", "teacher", "retention", "low", "high",
    "raw_ratio", "difference", "difference_low", "difference_high", "p_value", "verdict", "used",
    "reason",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Pair:
    """Student and teacher on one task, document by document; or why they cannot be paired."""

    task: str
    metric: str
    chance: float
    student_N: Values
    teacher_N: Values
    reason: str = ""
    """Why the task stays out of the suite; empty when it counts."""

    @property
    def retention(self) -> float:
        """(student - chance) / (teacher - chance); NaN where the teacher is at chance."""
        above = self.teacher_N.mean() - self.chance
        return float((self.student_N.mean() - self.chance) / above) if above > 0 else np.nan

    @property
    def raw_ratio(self) -> float:
        """Student's score over the teacher's; NaN where the teacher has none."""
        score = self.teacher_N.mean()
        return float(self.student_N.mean() / score) if score > 0 else np.nan


def add(
    runs: pd.DataFrame,
    scores: pd.DataFrame,
    answers: Mapping[str, pd.DataFrame],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Add retention and the raw ratio, with 95 % intervals, to a frame of runs.

    Args:
        runs: As `store.frame` gives it.
        scores: As `store.scores` gives it; teachers that are not in `runs` may be in it.
        answers: Run id to the frame of `store.answers`.
        draws: Bootstrap draws.
        seed: Same seed, same interval.

    Returns:
        The runs with `retention`, `retention_low`, `retention_high`, `raw_ratio`, `raw_low`,
        `raw_high` (1.0 is the teacher), `num_tasks`, and `excluded_tasks`: in words, which
        tasks were left out and why. What cannot be computed is missing.
    """
    pairs = _pairs_by_run(runs, scores, answers)
    filled: dict[str, dict[str, Any]] = {}
    for batch in _batches(pairs, RUNS_AT_ONCE):
        drawn = _draw(batch, draws, seed)
        filled |= {
            run_id: _suite(pairs_of_run, drawn[run_id]) for run_id, pairs_of_run in batch.items()
        }
    roles = dict(zip(runs["run_id"], runs["role"], strict=True))
    for run_id, row in filled.items():
        if roles[run_id] == "teacher" and row["num_tasks"]:
            ends = ("retention_low", "retention_high", "raw_low", "raw_high")
            filled[run_id] = row | dict.fromkeys(ends, np.nan)
    for run_id in runs["run_id"]:
        if run_id not in filled:
            filled[run_id] = {"num_tasks": 0, "excluded_tasks": _why_unpaired(runs, run_id, scores)}
    columns = pd.DataFrame([filled[run_id] for run_id in runs["run_id"]], columns=COLUMNS)
    columns.index = runs.index
    numbers = [name for name in COLUMNS if name not in ("num_tasks", "excluded_tasks")]
    columns[numbers] = columns[numbers].astype(float)
    columns["num_tasks"] = columns["num_tasks"].astype(int)
    kept = runs.drop(columns=[name for name in COLUMNS if name in runs])
    return pd.concat([kept, columns], axis=1)


def draws_by_run(
    runs: pd.DataFrame,
    scores: pd.DataFrame,
    answers: Mapping[str, pd.DataFrame],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """The bootstrap draws of each run's retention: a column a run, a row a draw.

    All runs that answered the same documents share their draws, so two students can be
    compared draw by draw; `frontier.membership` does. A teacher's column is 1.0 throughout.
    """
    columns: dict[str, Values] = {}
    for batch in _batches(_pairs_by_run(runs, scores, answers), RUNS_AT_ONCE):
        for run_id, (kept_D, _) in _draw(batch, draws, seed).items():
            if kept_D is not None:
                columns[run_id] = kept_D
    return pd.DataFrame(columns)


def per_task(
    student_scores: pd.DataFrame,
    teacher_scores: pd.DataFrame,
    student_answers: pd.DataFrame,
    teacher_answers: pd.DataFrame,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """A row a task: both scores, retention and difference with 95 % intervals, a verdict.

    Args:
        student_scores: The student's rows of `store.scores`.
        teacher_scores: The teacher's.
        student_answers: The student's `store.answers`.
        teacher_answers: The teacher's.
        draws: Bootstrap draws.
        seed: Same seed, same interval.

    Returns:
        `task`, `metric`, `chance`, `num_documents`, `student`, `teacher`, `retention`, `low`,
        `high`, `raw_ratio`, `difference` (student - teacher), `difference_low`,
        `difference_high`, `p_value` (exact McNemar; missing where answers are not right or
        wrong), `verdict` (better, worse, inconclusive; missing where nothing can be paired),
        `used` (whether the task counts in the suite), `reason` (why not).
    """
    pairs = pair(student_scores, teacher_scores, student_answers, teacher_answers)
    return pd.DataFrame([_task_row(p, draws, seed) for p in pairs], columns=TASK_COLUMNS)


def pair(
    student_scores: pd.DataFrame,
    teacher_scores: pd.DataFrame,
    student_answers: pd.DataFrame,
    teacher_answers: pd.DataFrame,
) -> list[Pair]:
    """Student and teacher on every headline task of the teacher, document by document.

    A task that cannot be compared, or says nothing, comes with its reason.
    """
    return _pair(_side(student_scores, student_answers), _side(teacher_scores, teacher_answers))


@dataclasses.dataclass(frozen=True)
class _Answers:
    """One model's values on one task, by document id."""

    ids_N: npt.NDArray[Any]
    hashes_N: npt.NDArray[Any]
    values_N: Values


@dataclasses.dataclass(frozen=True)
class _Side:
    """One model's headline scores, by task, and the answers behind them."""

    scores: dict[str, dict[str, Any]]
    answers: dict[tuple[str, str], _Answers]


def _side(scores: pd.DataFrame, answers: pd.DataFrame) -> _Side:
    chosen = scores[scores["headline"]].sort_values(["task", "metric"])
    rows = [{str(k): v for k, v in row.items()} for row in chosen.to_dict("records")]
    found = {}
    for (task, metric), group in answers.groupby(["task", "metric"], sort=False):
        ids_N = group["doc_id"].to_numpy()
        order = np.argsort(ids_N, kind="stable")
        found[str(task), str(metric)] = _Answers(
            ids_N[order],
            group["doc_hash"].to_numpy(dtype=object)[order],
            np.asarray(group["value"], dtype=np.float64)[order],
        )
    return _Side({row["task"]: row for row in rows}, found)


def _pair(students: _Side, teachers: _Side) -> list[Pair]:
    pairs = []
    for task, theirs in teachers.scores.items():
        metric = theirs["metric"]
        chance = np.nan if pd.isna(theirs["chance"]) else float(theirs["chance"])
        none = np.empty(0)
        own = students.scores.get(task)
        reason = _incomparable(own, theirs)
        if own is None or reason:
            pairs.append(Pair(task, metric, chance, none, none, reason))
            continue
        student = students.answers.get((task, metric))
        teacher = teachers.answers.get((task, metric))
        reason = _unpaired(student, teacher)
        if student is None or teacher is None or reason:
            pairs.append(Pair(task, metric, chance, none, none, reason))
            continue
        student_N, teacher_N = student.values_N, teacher.values_N
        reason = _not_the_mean(student_N, own) or _not_the_mean(teacher_N, theirs)
        reason = reason or _at_chance(teacher_N, chance)
        pairs.append(Pair(task, metric, chance, student_N, teacher_N, reason))
    return pairs


def mcnemar(student_N: Values, teacher_N: Values) -> float:
    """Two-sided exact McNemar p-value of right-or-wrong answers to the same documents.

    Under no difference, each document that only one of the two got right is a fair coin.

    Source: McNemar 1947, Psychometrika 12; exact form: binomial test on the discordant pairs.
    """
    better = int((student_N > teacher_N).sum())
    worse = int((student_N < teacher_N).sum())
    if better + worse == 0:
        return 1.0
    fewer = min(better, worse)
    return float(min(1.0, 2 * special.bdtr(fewer, better + worse, 0.5)))


def smallest_detectable_difference(
    num_documents: int, disagreement: float = 0.2, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Smallest score difference (share of documents) that a paired test will likely show.

    Solves n = (z_a sqrt(q) + z_b sqrt(q - d^2))^2 / d^2 for d, where q is the share of
    documents on which exactly one of the two models is right. Rough below 50 documents.

    Args:
        num_documents: Documents that both models answer.
        disagreement: q, in (0, 1].
        power: Probability of seeing a difference of this size, in (0.5, 1).
        alpha: Two-sided error rate, in (0, 1).

    Returns:
        In (0, 1]; 1.0 where so few documents can show nothing.

    Raises:
        ValueError: An argument is out of its range.

    Source: Connor 1987, Biometrics 43, sample size for McNemar's test.
    """
    if num_documents < 0 or not 0 < disagreement <= 1:
        raise ValueError(
            f"expected num_documents >= 0 and disagreement in (0, 1], got {num_documents} "
            f"and {disagreement}"
        )
    if not 0.5 < power < 1 or not 0 < alpha < 1:
        raise ValueError(f"expected power in (0.5, 1) and alpha in (0, 1), got {power} and {alpha}")
    z_a, z_b = -special.ndtri(alpha / 2), special.ndtri(power)
    inner = num_documents - z_a**2 + z_b**2
    if num_documents == 0 or inner < 0:
        return 1.0
    root = z_a * np.sqrt(num_documents) + z_b * np.sqrt(inner)
    return float(min(1.0, np.sqrt(disagreement) * root / (num_documents + z_b**2)))


def _pairs_by_run(
    runs: pd.DataFrame, scores: pd.DataFrame, answers: Mapping[str, pd.DataFrame]
) -> dict[str, list[Pair]]:
    """Pairs of every run whose teacher's scores are known; a teacher pairs with itself."""
    by_run = dict(tuple(scores.groupby("run_id", sort=False))) if len(scores) else {}
    nothing = pd.DataFrame(columns=["task", "metric", "doc_id", "doc_hash", "value"])
    sides: dict[str, _Side] = {}
    found = {}
    columns = runs[["run_id", "role", "teacher_run_id"]].itertuples(index=False)
    for run_id, role, teacher_run_id in columns:
        teacher_id = run_id if role == "teacher" else teacher_run_id
        if run_id in by_run and teacher_id in by_run:
            for one in {run_id, teacher_id} - sides.keys():
                sides[one] = _side(by_run[one], answers.get(one, nothing))
            found[run_id] = _pair(sides[run_id], sides[teacher_id])
            if run_id != teacher_id:
                del sides[run_id]  # only a teacher is met again
    return found


def _why_unpaired(runs: pd.DataFrame, run_id: str, scores: pd.DataFrame) -> str:
    """One sentence on a run that has no pair at all."""
    if run_id not in set(scores["run_id"]):
        return "all tasks: this run has no scores"
    teacher = runs.loc[runs["run_id"] == run_id, "teacher_run_id"].iloc[0]
    return f"all tasks: the teacher's run {teacher} has no scores here"


def _incomparable(own: dict[str, Any] | None, theirs: dict[str, Any]) -> str:
    """Why two scores of a task cannot be compared, or nothing."""
    if own is None:
        return "the student has no score"
    for key, name in (
        ("metric", "metrics"),
        ("task_version", "task versions"),
        ("num_fewshot", "numbers of shots"),
    ):
        ours, other = own[key], theirs[key]
        if ours != other and not (pd.isna(ours) and pd.isna(other)):
            return f"{name} differ (student {ours}, teacher {other})"
    if not theirs["higher_is_better"]:
        return "lower is better, and retention is a share of something gained"
    if pd.isna(theirs["chance"]):
        return "the chance level is not known"
    return ""


def _unpaired(student: _Answers | None, teacher: _Answers | None) -> str:
    """Why two sets of answers are not the same documents, or nothing."""
    documents = []
    for name, side in (("student", student), ("teacher", teacher)):
        if side is None:
            return f"the {name}'s answers are missing"
        if (side.ids_N[1:] == side.ids_N[:-1]).any():
            return f"the {name} answered a document twice"
        if np.isnan(side.values_N).any():
            return f"the {name}'s answers have holes"
        documents.append(set(zip(side.ids_N.tolist(), side.hashes_N.tolist(), strict=True)))
    own, theirs = documents
    if own == theirs:
        return ""
    return (
        f"documents differ (student {len(own)}, teacher {len(theirs)}, "
        f"{len(own & theirs)} the same in both)"
    )


def _not_the_mean(values_N: Values, score: dict[str, Any]) -> str:
    """Why a bootstrap over documents would not speak of this score, or nothing."""
    if abs(values_N.mean() - score["score"]) > 1e-4:
        return (
            f"the score {score['score']:.4g} is not the mean {values_N.mean():.4g} of its answers"
        )
    return ""


def _at_chance(teacher_N: Values, chance: float) -> str:
    """Why the teacher is not clearly above chance (one-sided, 95 %), or nothing.

    Right-or-wrong answers get the exact binomial test, others Student's t.
    """
    count, mean = len(teacher_N), float(teacher_N.mean())
    if _binary(teacher_N):
        p_value = special.bdtrc(int(teacher_N.sum()) - 1, count, chance)
        clear = bool(p_value < 1 - LEVEL)
    else:
        error = teacher_N.std(ddof=1) / np.sqrt(count) if count > 1 else np.inf
        clear = bool(mean - special.stdtrit(max(count - 1, 1), LEVEL) * error > chance)
    if clear:
        return ""
    return (
        f"the teacher ({mean:.3g} on {count} documents) is not clearly above chance ({chance:.3g})"
    )


def _binary(values_N: Values) -> bool:
    return bool(np.isin(values_N, (0.0, 1.0)).all())


def _draw(
    batch: dict[str, list[Pair]], draws: int, seed: int
) -> dict[str, tuple[Values | None, Values | None]]:
    """Draws of the suite's retention and raw ratio for several runs, each shape [D].

    Runs that share a task's number of documents share its resampling: documents are in the
    same order, so the same draw holds the same documents for all of them.
    """
    groups: dict[tuple[str, int], list[tuple[str, Pair]]] = {}
    for run_id, pairs in batch.items():
        for one in pairs:
            if not one.reason:
                groups.setdefault((one.task, len(one.teacher_N)), []).append((run_id, one))
    kept: dict[str, list[Values]] = {run_id: [] for run_id in batch}
    raw: dict[str, list[Values]] = {run_id: [] for run_id in batch}
    for (task, count), members in groups.items():
        values_RN = np.stack([v for _, p in members for v in (p.student_N, p.teacher_N)])
        means_DR = _resampled_means(values_RN, task, count, draws, seed)
        for place, (run_id, one) in enumerate(members):
            student_D, teacher_D = means_DR[:, 2 * place], means_DR[:, 2 * place + 1]
            kept[run_id].append(_ratio(student_D, teacher_D, one, one.chance))
            raw[run_id].append(_ratio(student_D, teacher_D, one, 0.0))
    return {run_id: (_mean_of(kept[run_id]), _mean_of(raw[run_id])) for run_id in batch}


def _resampled_means(values_RN: Values, task: str, count: int, draws: int, seed: int) -> Values:
    """Mean of each row over documents drawn with replacement; shape [D, R]."""
    generator = np.random.default_rng([seed, zlib.crc32(task.encode()), count])
    block = max(1, BLOCK_CELLS // count)
    parts = []
    for start in range(0, draws, block):
        size = min(block, draws - start)
        picks = generator.integers(0, count, (size, count), dtype=np.int32)
        offsets = np.arange(size, dtype=np.int64)[:, None] * count
        times = np.bincount((picks + offsets).ravel(), minlength=size * count)
        parts.append(times.reshape(size, count).astype(np.float64) @ values_RN.T / count)
    return np.concatenate(parts)


def _ratio(student_D: Values, teacher_D: Values, one: Pair, chance: float) -> Values:
    """(student - chance) / (teacher - chance) draw by draw, with the denominator's floor.

    A draw in which the teacher falls to chance would give an infinite ratio, or one of the
    wrong sign. It then counts with the floor: far out, on the student's side, finite.
    """
    floor = DENOMINATOR_FLOOR * (one.teacher_N.mean() - chance)
    ratio_D: Values = (student_D - chance) / np.maximum(teacher_D - chance, floor)
    return ratio_D


def _mean_of(parts: list[Values]) -> Values | None:
    return np.mean(parts, axis=0) if parts else None


def _suite(pairs: list[Pair], drawn: tuple[Values | None, Values | None]) -> dict[str, Any]:
    """One run's columns."""
    used = [one for one in pairs if not one.reason]
    row: dict[str, Any] = {
        "num_tasks": len(used),
        "excluded_tasks": "; ".join(f"{one.task}: {one.reason}" for one in pairs if one.reason),
    }
    kept_D, raw_D = drawn
    if kept_D is None or raw_D is None:
        row["excluded_tasks"] = (
            row["excluded_tasks"] or "all tasks: the teacher has no headline score"
        )
        return row
    row["retention"] = float(np.mean([one.retention for one in used]))
    row["raw_ratio"] = float(np.mean([one.raw_ratio for one in used]))
    row["retention_low"], row["retention_high"] = _interval(kept_D)
    row["raw_low"], row["raw_high"] = _interval(raw_D)
    return row


def _interval(values_D: Values) -> tuple[float, float]:
    """The middle 95 % of the draws."""
    low, high = np.quantile(values_D, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _task_row(one: Pair, draws: int, seed: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "task": one.task, "metric": one.metric, "chance": one.chance,
        "num_documents": len(one.teacher_N), "used": not one.reason, "reason": one.reason,
    }  # fmt: skip
    if not len(one.teacher_N):
        return row
    values_RN = np.stack([one.student_N, one.teacher_N])
    means_DR = _resampled_means(values_RN, one.task, len(one.teacher_N), draws, seed)
    row |= {
        "student": float(one.student_N.mean()),
        "teacher": float(one.teacher_N.mean()),
        "raw_ratio": one.raw_ratio,
        "difference": float((one.student_N - one.teacher_N).mean()),
    }
    row["difference_low"], row["difference_high"] = _interval(means_DR[:, 0] - means_DR[:, 1])
    if not one.reason:
        row["retention"] = one.retention
        kept_D = _ratio(means_DR[:, 0], means_DR[:, 1], one, one.chance)
        row["low"], row["high"] = _interval(kept_D)
    if _binary(one.student_N) and _binary(one.teacher_N):
        row["p_value"] = mcnemar(one.student_N, one.teacher_N)
        clear = row["p_value"] < 1 - LEVEL
    else:
        clear = row["difference_low"] > 0 or row["difference_high"] < 0
    row["verdict"] = "inconclusive"
    if clear:
        row["verdict"] = "better" if row["difference"] > 0 else "worse"
    return row


def _batches(items: dict[str, list[Pair]], size: int) -> Iterable[dict[str, list[Pair]]]:
    rest = iter(items.items())
    while batch := dict(itertools.islice(rest, size)):
        yield batch
