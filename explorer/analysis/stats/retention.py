"""How much of the teacher's capability a student keeps, and how certain that is.

Per task, over the documents that both answered:

    retention = (student - chance) / (teacher - chance)

The suite's retention is the mean over tasks. Its interval is a paired bootstrap: documents are
resampled within each task, and a document brings the student's and the teacher's answer along, so
difficulty that both share cancels. docs/statistics.md has worked examples.
"""

import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from explorer.analysis.stats import bootstrap, differences, few_answers, intervals, pairing
from explorer.analysis.stats.bootstrap import Values
from explorer.analysis.stats.pairing import TaskPair
from explorer.records.rows import row_dicts
from explorer.store.columns import COUNT, RETENTION, TEXT

# Shape letters: D draws, N documents of a task, R rows of values.

DENOMINATOR_FLOOR = 0.25
"""A draw's (teacher - chance) is never taken below this share of the measured one."""
RUNS_AT_ONCE = 256
COLUMNS = list(RETENTION)
TYPES = {
    name: int if column.kind == COUNT else float
    for name, column in RETENTION.items()
    if column.kind != TEXT
}
INTERVALS = {
    "retention": ("retention_low", "retention_high"),
    "raw_ratio": ("raw_low", "raw_high"),
}
"""Each share of the teacher, and the columns with the ends of its 95 % interval."""
TASK_COLUMNS = [
    *differences.COLUMNS,
    "chance",
    "retention",
    "low",
    "high",
    "fieller_low",
    "fieller_high",
    "stderr",
    "raw_ratio",
    "used",
]


def add_retention(
    runs: pd.DataFrame,
    scores: pd.DataFrame,
    answers: Mapping[str, pd.DataFrame],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Add retention and the raw ratio, with 95 % intervals, to a frame of runs.

    Args:
        runs: As from `frames.runs`.
        scores: As from `frames.scores`; teachers that are not in `runs` may be in it.
        answers: Run id to the frame of `disk.load_answers`.
        draws: Bootstrap draws.
        seed: Same seed, same interval.

    Returns:
        The runs with `retention`, `retention_low`, `retention_high`, `raw_ratio`, `raw_low`,
        `raw_high` (1.0 is the teacher), `num_tasks` and `num_documents` behind the mean, and
        `excluded_tasks`: which tasks were left out and why. What cannot be computed is missing.
    """
    pairs = pairs_by_run(runs, scores, answers)
    scored = set(scores["run_id"]) if len(scores) else set()
    columns, _ = of_pairs(runs, pairs, scored, draws=draws, seed=seed)
    return pd.concat([runs.drop(columns=COLUMNS, errors="ignore"), columns], axis=1)


def of_pairs(
    runs: pd.DataFrame,
    pairs: Mapping[str, list[TaskPair]],
    scored: Collection[str],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[pd.DataFrame, dict[str, Values]]:
    """`add_retention` for runs that are already paired: its columns and the draws behind them.

    Args:
        runs: With `run_id`, `role` and `teacher_run_id`.
        pairs: Pairs with the teacher by run id; a teacher is paired with itself.
        scored: Ids of all runs, including teachers, that have any score.
        draws: Bootstrap draws.
        seed: Same seed, same interval.

    Returns:
        `COLUMNS` on the index of `runs`, and the draws of each run that has a retention, shape
        [D].
    """
    rows: dict[str, dict[str, Any]] = {}
    drawn: dict[str, Values] = {}
    teacher_of = dict(zip(runs["run_id"], runs["teacher_run_id"], strict=True))
    for batch in _batches(pairs, RUNS_AT_ONCE):
        for run_id, both in _draw(batch, draws, seed).items():
            rows[run_id] = _suite(run_id, teacher_of[run_id], batch[run_id], both)
            if both[0] is not None:
                drawn[run_id] = both[0]
    frame = pd.DataFrame(
        [
            _row_of(row, rows.get(row["run_id"]), scored)
            for row in row_dicts(runs[["run_id", "role", "teacher_run_id"]])
        ],
        columns=COLUMNS,
        index=runs.index,
    )
    return frame.astype(TYPES), drawn


def _row_of(
    run: Mapping[str, Any], row: dict[str, Any] | None, scored: Collection[str]
) -> dict[str, Any]:
    """A run's columns: a teacher has no interval, a run without a pair has the reason."""
    if row is None:
        return {"num_tasks": 0, "num_documents": 0, "excluded_tasks": _why_unpaired(run, scored)}
    if run["role"] == "teacher" and row["num_tasks"]:
        return row | dict.fromkeys((end for ends in INTERVALS.values() for end in ends), np.nan)
    return row


def counted_tasks(pairs: Iterable[TaskPair]) -> set[str]:
    """The tasks that count in a run's retention."""
    return {pair.task for pair in pairs if not pair.reason}


def over_different_tasks(runs: pd.DataFrame) -> str:
    """A warning if retentions of one teacher's students are means over different tasks.

    Args:
        runs: With the columns of `add_retention`.

    Returns:
        One sentence that names the runs; empty if all use the same tasks.
    """
    known = runs[(runs["role"] == "student") & runs["retention"].notna()]
    # The tasks that were left out, without the reasons.
    left_out = known["excluded_tasks"].map(
        lambda text: tuple(
            sorted(
                task
                for part in text.split("; ")
                if part
                for task in part.partition(":")[0].split(", ")
            )
        )
    )
    odd: list[str] = []
    for _, of_teacher in known.groupby("teacher_run_id"):
        kinds = left_out[of_teacher.index]
        if kinds.nunique() > 1:
            odd += of_teacher.loc[kinds != kinds.mode()[0], "run_id"].tolist()
    if not odd:
        return ""
    return (
        f"The retention of {', '.join(odd)} is a mean over different tasks from that of the "
        "teacher's other students. Compare them task by task."
    )


def draws_by_run(
    runs: pd.DataFrame,
    scores: pd.DataFrame,
    answers: Mapping[str, pd.DataFrame],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """The bootstrap draws of each run's retention: one column per run, one row per draw.

    All runs that answered the same documents share their draws, so two students can be
    compared draw by draw; `frontier.membership` does. A teacher's column is 1.0 throughout.
    """
    pairs = pairs_by_run(runs, scores, answers)
    return pd.DataFrame(of_pairs(runs, pairs, set(pairs), draws=draws, seed=seed)[1])


def draw_rows(draws: pd.DataFrame) -> pd.DataFrame:
    """`draws_by_run` as one row per run and draw: `run_id`, `draw`, `retention`."""
    numbered = draws.rename_axis(index="draw").reset_index()
    return numbered.melt("draw", var_name="run_id", value_name="retention")[
        ["run_id", "draw", "retention"]
    ]


def per_task(
    student_scores: pd.DataFrame,
    teacher_scores: pd.DataFrame,
    student_answers: pd.DataFrame,
    teacher_answers: pd.DataFrame,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per task: both scores, retention and difference with 95 % intervals, a verdict.

    Args:
        student_scores: The student's rows of `frames.scores`.
        teacher_scores: The teacher's.
        student_answers: The student's `disk.load_answers`.
        teacher_answers: The teacher's.
        draws: Bootstrap draws.
        seed: Same seed, same interval.

    Returns:
        The columns of `differences.task_differences`, and `chance`, `retention`, `low`, `high`
        (bootstrapped), `fieller_low`, `fieller_high` and `stderr` (by formula),
        `raw_ratio`, `used` (whether the task counts in the suite).
    """
    return per_task_of_pairs(
        pairing.pair_tasks(student_scores, teacher_scores, student_answers, teacher_answers),
        draws=draws,
        seed=seed,
    )


def per_task_of_pairs(pairs: list[TaskPair], *, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """`per_task` of two models that are paired already."""
    shown = differences.task_differences(pairs, draws=draws, seed=seed)
    shares = pd.DataFrame([_task_row(pair, draws, seed) for pair in pairs], index=shown.index)
    return pd.concat([shown, shares], axis=1).reindex(columns=TASK_COLUMNS)


def _task_row(pair: TaskPair, draws: int, seed: int) -> dict[str, Any]:
    """The columns of a task's row about retention."""
    row: dict[str, Any] = {"chance": pair.chance, "used": not pair.reason}
    if len(pair.teacher_N):
        row["raw_ratio"] = pair.raw_ratio
    if not pair.reason:
        retention_D, _ = _draw({"": [pair]}, draws, seed)[""]
        assert retention_D is not None, "a task without a reason is drawn"
        row["retention"], row["stderr"] = pair.retention, intervals.retention_stderr(pair)
        row["low"], row["high"] = few_answers.around(
            bootstrap.percentile_interval(retention_D), pair.retention
        )
        row["fieller_low"], row["fieller_high"] = intervals.fieller(pair)
    return row


def pairs_by_run(
    runs: pd.DataFrame, scores: pd.DataFrame, answers: Mapping[str, pd.DataFrame]
) -> dict[str, list[TaskPair]]:
    """Pairs of every run whose teacher's scores are known; a teacher pairs with itself."""
    by_run = dict(tuple(scores.groupby("run_id", sort=False))) if len(scores) else {}
    nothing = pd.DataFrame(columns=["task", "metric", "doc_id", "doc_hash", "value"])
    sides: dict[str, pairing.ScoredModel] = {}
    pairs = {}
    for row in row_dicts(runs[["run_id", "role", "teacher_run_id"]]):
        run_id = row["run_id"]
        teacher_id = run_id if row["role"] == "teacher" else row["teacher_run_id"]
        if run_id in by_run and teacher_id in by_run:
            for side in {run_id, teacher_id} - sides.keys():
                sides[side] = pairing.scored_model(by_run[side], answers.get(side, nothing))
            pairs[run_id] = pairing.pair_models(sides[run_id], sides[teacher_id])
            if run_id != teacher_id:
                del sides[run_id]  # only a teacher is needed again
    return pairs


def _why_unpaired(run: Mapping[str, Any], scored: Collection[str]) -> str:
    """Why a run has no pair at all."""
    if run["run_id"] not in scored:
        return "all tasks: this run has no scores"
    if run["teacher_run_id"] is None:
        return "all tasks: this run names no teacher's run"
    return f"all tasks: the teacher's run {run['teacher_run_id']} has no scores here"


def _draw(
    batch: dict[str, list[TaskPair]], draws: int, seed: int
) -> dict[str, tuple[Values | None, Values | None]]:
    """Draws of the suite's retention and raw ratio for several runs, each shape [D].

    Runs that share a task's documents share their resampling: documents are in the same
    order, so the same draw holds the same documents for all of them.
    """
    groups: dict[tuple[str, int, bytes], list[tuple[str, TaskPair]]] = {}
    for run_id, pairs in batch.items():
        for pair in pairs:
            if not pair.reason:
                shape = b"" if pair.clusters_N is None else pair.clusters_N.tobytes()
                groups.setdefault((pair.task, len(pair.teacher_N), shape), []).append(
                    (run_id, pair)
                )
    retained: dict[str, list[Values]] = {run_id: [] for run_id in batch}
    raw: dict[str, list[Values]] = {run_id: [] for run_id in batch}
    for (task, _, _), members in groups.items():
        rows = [row for _, pair in members for row in _rows(pair)]
        means_DR = bootstrap.bootstrap_means(
            np.stack(rows), task, draws, seed, members[0][1].clusters_N
        )
        place = 0
        for run_id, pair in members:
            of_pair_DR = means_DR[:, place : place + len(_rows(pair))]
            place += len(_rows(pair))
            if few_answers.is_few(pair):
                of_pair_DR = few_answers.with_halves(of_pair_DR, pair, seed, run_id)
            student_D, teacher_D = of_pair_DR[:, 0], of_pair_DR[:, 1]
            chance_D = pair.chance if pair.chance_N is None else of_pair_DR[:, 2]
            retained[run_id].append(_ratio(student_D, teacher_D, pair, chance_D))
            raw[run_id].append(_ratio(student_D, teacher_D, pair, None))
    return {run_id: (_mean_of(retained[run_id]), _mean_of(raw[run_id])) for run_id in batch}


def _rows(pair: TaskPair) -> list[Values]:
    """What is resampled of a pair: both models' answers and, if it varies, the chance level."""
    drawn = [pair.student_N, pair.teacher_N]
    return drawn if pair.chance_N is None else [*drawn, pair.chance_N]


def _ratio(
    student_D: Values, teacher_D: Values, pair: TaskPair, chance_D: float | Values | None
) -> Values:
    """(student - chance) / (teacher - chance) draw by draw, with the denominator's floor.

    A draw in which the teacher falls to chance would give an infinite ratio or one of the wrong
    sign. The floor keeps it finite and on the right side. Without a chance level it is the raw
    ratio.
    """
    measured = pair.teacher_N.mean()
    if chance_D is None:
        return _divided(student_D, teacher_D, measured)
    return _divided(student_D - chance_D, teacher_D - chance_D, measured - pair.chance)


def _divided(above_D: Values, teacher_D: Values, measured: float) -> Values:
    divided: Values = above_D / np.maximum(teacher_D, DENOMINATOR_FLOOR * measured)
    return divided


def _mean_of(parts: list[Values]) -> Values | None:
    return np.mean(parts, axis=0) if parts else None


def _left_out(run_id: str, teacher_run_id: str | None, pairs: list[TaskPair]) -> list[str]:
    """Each task that does not count, and why; a run whose answers are missing is named once."""
    parts = []
    without_answers = set()
    for name, owner in zip(pairing.NAMES, (run_id, teacher_run_id), strict=True):
        reason = pairing.answers_missing(name)
        tasks = [pair.task for pair in pairs if pair.reason == reason]
        without_answers.update(tasks)
        if tasks:
            which = "all tasks" if len(tasks) == len(pairs) > 1 else ", ".join(tasks)
            parts.append(
                f"{which}: the answers of run {owner} are missing or can't be read, so measure "
                f"it again with explorer run {owner} --again"
            )
    others = [pair for pair in pairs if pair.reason and pair.task not in without_answers]
    return parts + [f"{pair.task}: {pair.reason}" for pair in others]


def _suite(
    run_id: str,
    teacher_run_id: str | None,
    pairs: list[TaskPair],
    drawn: tuple[Values | None, Values | None],
) -> dict[str, Any]:
    """One run's columns."""
    used = [pair for pair in pairs if not pair.reason]
    row: dict[str, Any] = {
        "num_tasks": len(used),
        "num_documents": sum(len(pair.teacher_N) for pair in used),
        "excluded_tasks": "; ".join(_left_out(run_id, teacher_run_id, pairs)),
    }
    retention_D, raw_D = drawn
    if retention_D is None or raw_D is None:
        row["excluded_tasks"] = (
            row["excluded_tasks"] or "all tasks: the teacher has no headline score"
        )
        return row
    row["retention"] = float(np.mean([pair.retention for pair in used]))
    row["raw_ratio"] = float(np.mean([pair.raw_ratio for pair in used]))
    for share, drawn_D in (("retention", retention_D), ("raw_ratio", raw_D)):
        interval = few_answers.around(bootstrap.percentile_interval(drawn_D), row[share])
        row |= dict(zip(INTERVALS[share], interval, strict=True))
    return row


def _batches(items: Mapping[str, list[TaskPair]], size: int) -> Iterable[dict[str, list[TaskPair]]]:
    rest = iter(items.items())
    while batch := dict(itertools.islice(rest, size)):
        yield batch
