"""Studies: the runs that belong together, and the newest of them.

A study is the runs that share a teacher's run and the prefix of their names.
"""

from typing import get_args

import pandas as pd

from explorer.analysis import headline, interference
from explorer.specs.base import Bits
from explorer.specs.runs import GgufType

FORMATS = (*get_args(GgufType), *(f"int{bits}" for bits in get_args(Bits)))
"""What the name of a run in another number format ends with."""


def study_of(name: str) -> str:
    """The study of a run's name: without the size, format or control arm that a sweep adds."""
    plain = name.removesuffix("-labels")
    for number_format in FORMATS:
        plain = plain.removesuffix(f"-{number_format}")
    return plain.rpartition("-")[0] or plain


def newest_study(finished: pd.DataFrame) -> list[str]:
    """Run ids of the newest study: the teacher, then its students in all formats, largest first.

    Runs timed on a busy machine, and lone students, decide which study is newest only if there are
    no others.
    """
    students = finished[finished["role"] == "student"].sort_values("finished_at")
    if students.empty:
        return [str(finished.sort_values("finished_at").iloc[-1]["run_id"])]
    converted = headline.is_converted(students)
    students = students.assign(study=_names(students))
    own = students[~converted]
    candidates = students if own.empty else own
    quiet = interference.without_busy(candidates)
    candidates = candidates if quiet.empty else quiet
    several = candidates[candidates.duplicated(["teacher_run_id", "study"], keep=False)]
    newest = (candidates if several.empty else several).iloc[-1]
    of_study = converted | (students["study"] == newest["study"])
    members = students[of_study & (students["teacher_run_id"] == newest["teacher_run_id"])]
    if members.empty:  # an import without a teacher
        members = students[students["run_id"] == newest["run_id"]]
    teacher = finished.loc[finished["run_id"] == newest["teacher_run_id"], "run_id"]
    return [*teacher, *members.sort_values("num_parameters", ascending=False)["run_id"]]


def same_studies(finished: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """The chosen runs, and all others of their studies with their teachers in all formats."""
    students = finished[finished["role"] == "student"]
    keys = list(zip(students["teacher_run_id"], _names(students), strict=True))
    own = students["run_id"].isin(chosen["run_id"])
    wanted = {key for key, is_chosen in zip(keys, own, strict=True) if is_chosen}
    same = pd.Series([key in wanted for key in keys], index=students.index, dtype=bool)
    teachers = {*students.loc[own, "teacher_run_id"].dropna(), *chosen["run_id"]}
    converted = headline.is_converted(students) & students["teacher_run_id"].isin(teachers)
    members = students[same | converted]
    ids = {*chosen["run_id"], *members["run_id"], *members["teacher_run_id"].dropna()}
    return finished[finished["run_id"].isin(ids)]


def name_of(runs: pd.DataFrame) -> str:
    """The name of the study that these runs are of, for a file; `comparison` if of several."""
    students = runs[runs["role"] == "student"]
    names = {*_names(students if len(students) else runs)}
    return names.pop() if len(names) == 1 else "comparison"


def unique_labels(runs: pd.DataFrame) -> dict[str, str]:
    """Run id to its label; to the id where two of these runs share a label."""
    labels = runs["run_id"] if runs["label"].duplicated().any() else runs["label"]
    return dict(zip(runs["run_id"], labels, strict=True))


def names_of(runs: pd.DataFrame) -> list[str]:
    """A short name for each run; where two would share it, with the end of their ids."""
    own = runs["label"].astype(str)
    teachers = runs["teacher"].astype(str) + " (teacher)"
    return told_apart(own.where(runs["role"] != "teacher", teachers), runs["run_id"]).tolist()


def told_apart(names: "pd.Series[str]", run_ids: "pd.Series[str]") -> "pd.Series[str]":
    """The names; equal ones with the last part of the run's id, else with the whole id."""
    unique = names
    for ending in (run_ids.map(lambda run_id: run_id.rpartition("-")[2]), run_ids):
        unique = unique.where(~unique.duplicated(keep=False), names + " (" + ending + ")")
    return unique


def _names(runs: pd.DataFrame) -> list[str]:
    return [study_of(str(name)) for name in runs["name"]]
