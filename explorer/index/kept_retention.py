"""Retention and its bootstrap draws of many runs, computed once and kept.

A row holds for one record of the student, one record of the teacher and one choice of tasks. It is
computed again only when one of the two records changes.
"""

import itertools
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from explorer.analysis.stats import pairing
from explorer.analysis.stats.pairing import ScoredModel, TaskPair
from explorer.records.rows import missing, row_dicts

RUNS_AT_ONCE = 256


def stamps_of(runs: pd.DataFrame, versions: Mapping[str, str]) -> list[str]:
    """For each run a text that changes when its record or its teacher's does.

    Args:
        runs: With `run_id` and `teacher_run_id`.
        versions: Run id to the stamp of its record.
    """
    teachers = ["" if missing(teacher) else teacher for teacher in runs["teacher_run_id"]]
    return [
        f"{versions.get(run_id, '')}|{teacher}|{versions.get(teacher, '')}"
        for run_id, teacher in zip(runs["run_id"], teachers, strict=True)
    ]


def pairs_of(runs: pd.DataFrame, models: Mapping[str, ScoredModel]) -> dict[str, list[TaskPair]]:
    """Each run beside its teacher, a teacher beside itself; runs without either are left out."""
    pairs = {}
    for row in row_dicts(runs[["run_id", "role", "teacher_run_id"]]):
        run_id = row["run_id"]
        teacher = run_id if row["role"] == "teacher" else row["teacher_run_id"]
        if run_id in models and teacher in models:
            pairs[run_id] = pairing.pair_models(models[run_id], models[teacher])
    return pairs


def batches(runs: pd.DataFrame) -> Iterable[pd.DataFrame]:
    """The runs, `RUNS_AT_ONCE` at a time, students of one teacher together."""
    ordered = runs.sort_values("teacher_run_id", kind="stable", na_position="first")
    for start in itertools.count(0, RUNS_AT_ONCE):
        batch = ordered.iloc[start : start + RUNS_AT_ONCE]
        if batch.empty:
            return
        yield batch


def pack_draws(draws_D: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> bytes:
    """The draws as float32: 8 KB a run. Two draws closer than 1e-7 become equal."""
    return draws_D.astype("<f4").tobytes()


def unpack_draws(packed: bytes) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """What `pack_draws` packed."""
    return np.frombuffer(packed, dtype="<f4").astype(np.float64)
