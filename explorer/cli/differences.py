"""Differences of runs from a reference, computed once, printed as tables or JSON."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from explorer.analysis import numbers
from explorer.analysis.stats import pairing
from explorer.analysis.tables import difference_table
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
"""JSON names of columns; here neither run has to be a teacher."""


def compute_differences(
    root: Path, run_ids: Sequence[str], against: str | None, allow: Collection[str]
) -> list[dict[str, Any]]:
    """Each run against its reference: `run`, `reference`, `tasks` (one row each), `suite`.

    The reference is `against`. Without it, of several named runs it is the one that is the teacher
    of another, else the first; of unnamed runs it is each student's own teacher.

    Raises:
        BadInput: An unknown run, or an unknown condition in `allow`.
    """
    unknown = set(allow) - set(pairing.ALLOWED)
    if unknown:
        raise BadInput(
            f"--allow must be one of {', '.join(pairing.ALLOWED)}, got "
            f"{', '.join(sorted(unknown))}."
        )
    index = open_index(root)
    refuse_unknown([*run_ids, *([against] if against else [])], index)
    rows = row_dicts(index.runs(columns=("run_id", "teacher_run_id")))
    teachers = {row["run_id"]: row["teacher_run_id"] for row in rows}
    named = list(run_ids)
    if not named:
        hidden = hidden_runs(root)
        named = [run_id for run_id in teachers if run_id not in hidden]
    pairs = _pairs(teachers, named, against, chosen=bool(run_ids))

    def allowed(run: str, reference: str) -> set[str]:
        return {*allow, *(pairing.OF_A_STUDENT if teachers[run] == reference else ())}

    return [
        {"run": run, "reference": reference, "tasks": row_dicts(tasks), "suite": suite}
        for (run, reference), (tasks, suite) in zip(
            pairs, index.differences(pairs, allowed), strict=True
        )
    ]


def _pairs(
    teachers: Mapping[str, str | None], run_ids: list[str], against: str | None, *, chosen: bool
) -> list[tuple[str, str]]:
    """Pairs of a run and its reference.

    Args:
        teachers: The id of each run's teacher, for all runs of the store.
        run_ids: The runs to compare.
        against: The reference of all of them; None chooses one.
        chosen: Whether the user named these runs; otherwise each is paired with its teacher.
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


def print_json(differences: list[dict[str, Any]]) -> None:
    """Print one JSON array; missing values are null."""
    print(json.dumps(_plain(differences), indent=1, allow_nan=False))


def _plain(value: Any) -> Any:
    """With names that fit any two runs, integer counts, and null for missing values."""
    if isinstance(value, dict):
        named = {JSON_NAMES.get(key, str(key)): _plain(item) for key, item in value.items()}
        counts = [k for k, item in named.items() if k.startswith("num_") and item is not None]
        return named | {key: int(named[key]) for key in counts}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_tables(differences: list[dict[str, Any]], *, wide: bool = False) -> None:
    """Print one table per run: one row per task, the suite last, then refusals and notes."""
    if not differences:
        console.print("Nothing to compare. Name two runs, or a student whose teacher is here.")
    left_out: list[str] = []
    for pair in differences:
        console.print(f"\n{pair['run']} against {pair['reference']}", markup=False)
        suite = pair["suite"]
        cells = [*map(_task_cells, pair["tasks"]), _suite_cells(suite)]
        left_out += print_table(
            pd.DataFrame(cells),
            identifying=["Task"],
            wide=wide,
            note=False,
            importance=[DIFFERENCE, "Verdict", "p (Holm)", "Documents", "Run", "Reference"],
        )
        for line in difference_table.difference_notes(pair["tasks"], suite):
            console.print(line, markup=False, soft_wrap=True)
    say_left_out(left_out)


def _task_cells(row: dict[str, Any]) -> dict[str, str]:
    return {
        "Task": row["task"],
        "Documents": difference_table.documents_cell(row),
        "Reference": numbers.significant(row["teacher"]),
        "Run": numbers.significant(row["student"]),
        DIFFERENCE: difference_table.difference_cell(row),
        "Only run / reference right": difference_table.discordant_cell(row),
        "p": difference_table.p_value_cell(row["p_value"]),
        "p (Holm)": difference_table.p_value_cell(row["p_holm"]),
        "Verdict": difference_table.verdict_cell(row),
        "Detectable": difference_table.detectable_cell(row),
    }


def _suite_cells(suite: dict[str, Any]) -> dict[str, str]:
    return {
        "Task": "suite",
        "Documents": f"{suite['num_documents']:,}",
        "Reference": numbers.significant(suite["teacher"]),
        "Run": numbers.significant(suite["student"]),
        DIFFERENCE: difference_table.difference_cell(suite),
        "Only run / reference right": "",
        "p": difference_table.p_value_cell(suite["p_value"]),
        "p (Holm)": "",
        "Verdict": difference_table.verdict_cell(suite),
        "Detectable": "",
    }
