"""Differences of runs from a reference: gathered once, printed as tables or as JSON."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from explorer.analysis import numbers
from explorer.analysis.stats import pairing
from explorer.analysis.tables import difference_table as said
from explorer.cli.common import console
from explorer.cli.tables import hidden_runs, open_index, print_table, refuse_unknown, say_left_out
from explorer.errors import BadInput
from explorer.records.rows import row_dicts

DIFFERENCE = "Difference [95 %], points"
JSON_NAMES = {
    "student": "score",
    "teacher": "reference_score",
    "num_only_student": "num_only_run",
    "num_only_teacher": "num_only_reference",
}
"""Columns of `differences.tasks`, where neither run has to be a teacher."""


def gather(
    root: Path, run_ids: Sequence[str], against: str | None, allow: Collection[str]
) -> list[dict[str, Any]]:
    """Each run against its reference: `run`, `reference`, `tasks` (rows), `suite`.

    The reference is `against`; else, of several named runs, the one that is the teacher of
    another, or the first; else each student's own teacher.

    Raises:
        BadInput: A run that is not there, or a condition that nobody knows.
    """
    strange = set(allow) - set(pairing.ALLOWED)
    if strange:
        raise BadInput(
            f"--allow knows {', '.join(pairing.ALLOWED)}, not {', '.join(sorted(strange))}."
        )
    index = open_index(root)
    refuse_unknown([*run_ids, *([against] if against else [])], index)
    runs = index.runs()
    teachers = {
        row["run_id"]: row["teacher_run_id"]
        for row in row_dicts(runs[["run_id", "teacher_run_id"]])
    }
    named = list(run_ids)
    if not named:
        hidden = hidden_runs(root)
        named = [run_id for run_id in teachers if run_id not in hidden]
    couples = _couples(teachers, named, against, chosen=bool(run_ids))

    def allowed(run: str, reference: str) -> set[str]:
        return {*allow, *(pairing.OF_A_STUDENT if teachers[run] == reference else ())}

    return [
        {"run": run, "reference": reference, "tasks": row_dicts(tasks), "suite": suite}
        for (run, reference), (tasks, suite) in zip(
            couples, index.differences(couples, allowed), strict=True
        )
    ]


def _couples(
    teachers: Mapping[str, str | None], run_ids: list[str], against: str | None, *, chosen: bool
) -> list[tuple[str, str]]:
    """Which run is held against which; of runs that nobody chose, each against its teacher.

    Args:
        teachers: Run id to that of its teacher, of all runs.
        run_ids: The runs to compare.
        against: The reference of all of them; None finds one.
        chosen: Whether somebody named these runs.
    """
    if against is None and chosen and len(run_ids) > 1:
        named_teachers = {teachers[run_id] for run_id in run_ids}
        against = next((run_id for run_id in run_ids if run_id in named_teachers), run_ids[0])
    if against is not None:
        return [(run_id, against) for run_id in run_ids if run_id != against]
    return [
        (run_id, teacher)
        for run_id in run_ids
        if (teacher := teachers[run_id]) is not None and teacher in teachers
    ]


def print_json(gathered: list[dict[str, Any]]) -> None:
    """One JSON array; what is missing is null."""
    print(json.dumps(_plain(gathered), indent=1, allow_nan=False))


def _plain(value: Any) -> Any:
    """Names that fit any two runs, whole counts, null for what is missing."""
    if isinstance(value, dict):
        named = {JSON_NAMES.get(key, str(key)): _plain(one) for key, one in value.items()}
        counts = [key for key, one in named.items() if key.startswith("num_") and one is not None]
        return named | {key: int(named[key]) for key in counts}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_tables(gathered: list[dict[str, Any]], *, wide: bool = False) -> None:
    """A table a run: a row a task, the suite last, and what was refused or noted."""
    if not gathered:
        console.print("Nothing to compare: name two runs, or a student whose teacher is here.")
    left_out: list[str] = []
    for one in gathered:
        console.print(f"\n{one['run']} against {one['reference']}", markup=False)
        suite = one["suite"]
        words = [*map(_task_in_words, one["tasks"]), _suite_in_words(suite)]
        left_out += print_table(
            pd.DataFrame(words),
            identifying=["Task"],
            wide=wide,
            note=False,
            importance=[DIFFERENCE, "Verdict", "p (Holm)", "Documents", "Run", "Reference"],
        )
        for line in said.difference_notes(one["tasks"], suite):
            console.print(line, markup=False, soft_wrap=True)
    say_left_out(left_out)


def _task_in_words(row: dict[str, Any]) -> dict[str, str]:
    shows = said.detectable_cell(row)
    return {
        "Task": row["task"],
        "Documents": said.documents_cell(row),
        "Reference": numbers.significant(row["teacher"]),
        "Run": numbers.significant(row["student"]),
        DIFFERENCE: said.difference_cell(row),
        "Only run / reference right": said.discordant_cell(row),
        "p": said.p_value_cell(row["p_value"]),
        "p (Holm)": said.p_value_cell(row["p_holm"]),
        "Verdict": said.verdict_cell(row) + (f" ({shows})" if shows else ""),
    }


def _suite_in_words(suite: dict[str, Any]) -> dict[str, str]:
    return {
        "Task": "suite",
        "Documents": f"{suite['num_documents']:,}",
        "Reference": numbers.significant(suite["teacher"]),
        "Run": numbers.significant(suite["student"]),
        DIFFERENCE: said.difference_cell(suite),
        "Only run / reference right": "",
        "p": said.p_value_cell(suite["p_value"]),
        "p (Holm)": "",
        "Verdict": said.verdict_cell(suite),
    }
