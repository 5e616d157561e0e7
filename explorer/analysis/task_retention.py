"""What each model keeps on each task: the same retention as for the suite, task by task.

`index.by_task.retention_by_task` makes the frame that these functions take.
"""

import pandas as pd

from explorer.analysis import numbers
from explorer.records.rows import row_dicts

COLUMNS = ["run_id", "task", "retention", "retention_low", "retention_high", "reason"]
"""A row per model and task; `reason` says why a retention is missing."""


def uncounted_tasks(cells: pd.DataFrame) -> dict[str, str]:
    """Tasks on which no model has a retention, such as those where the teacher only guesses.

    Args:
        cells: With `COLUMNS`.

    Returns:
        Task to the reason.
    """
    known = cells.groupby("task", sort=False)["retention"].count()
    return {
        str(task): _common(cells.loc[cells["task"] == task, "reason"])
        for task in known.index[known == 0]
    }


def _common(reasons: "pd.Series[str]") -> str:
    stated = reasons[reasons.astype(bool)]
    return str(stated.mode().iloc[0]) if len(stated) else "not evaluated"


def sentences(cells: pd.DataFrame, students: set[str]) -> list[str]:
    """Which task suffers first and which holds, and which tasks do not count.

    Args:
        cells: With `COLUMNS`.
        students: Ids of the runs that are not their own teacher.
    """
    known = cells[cells["run_id"].isin(students)].dropna(subset=["retention"])
    medians = known.groupby("task")["retention"].median().sort_values(kind="stable")
    texts = []
    if medians.empty:
        texts.append("No student has a retention on any single task.")
    elif len(medians) > 1:
        worst, best = str(medians.index[0]), str(medians.index[-1])
        texts.append(
            f"{worst} suffers first: the median model keeps "
            f"{numbers.percent(medians.iloc[0], digits=2)}. {best} holds best: "
            f"{numbers.percent(medians.iloc[-1], digits=2)}."
        )
    texts += [f"{task} does not count: {why}." for task, why in uncounted_tasks(cells).items()]
    return texts


def table(cells: pd.DataFrame, names: "pd.Series[str]") -> pd.DataFrame:
    """A row per model and a column per task, as text.

    Args:
        cells: With `COLUMNS`.
        names: What to call each run, by run id, in the order of the rows.
    """
    by_run = {
        (row["run_id"], row["task"]): numbers.percent(
            row["retention"], row["retention_low"], row["retention_high"], digits=2
        )
        for row in row_dicts(cells)
    }
    tasks = list(dict.fromkeys(cells["task"]))
    return pd.DataFrame(
        [
            {"Model": name}
            | {task: by_run.get((run_id, task), numbers.MISSING) for task in tasks}
            | {"Run": run_id}
            for run_id, name in names.items()
        ],
        columns=["Model", *tasks, "Run"],
    )
