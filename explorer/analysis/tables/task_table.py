"""The list of tasks as a table of text."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from explorer.analysis import numbers


def task_table(tasks: pd.DataFrame) -> pd.DataFrame:
    """One row per task or group, as text; an en dash where a value is missing."""

    def texts(column: str, write: Callable[[Any], str]) -> list[str]:
        return [
            numbers.MISSING if pd.isna(value) or value == "" else write(value)
            for value in tasks[column]
        ]

    kinds = [
        kind if kind == "task" else f"{kind} of {num:,}"
        for kind, num in zip(tasks["kind"], tasks["num_tasks"], strict=True)
    ]
    return pd.DataFrame(
        {
            "Task": tasks["task"].to_list(),
            "Kind": kinds,
            "Type": texts("output_type", str),
            "Shots": texts("num_fewshot", str),
            "Chance": texts("chance", numbers.percent),
            "Metric": texts("metric", str),
            "Data": texts("data", str),
            "Here": texts("here", lambda value: "yes" if value else "no"),
            "Groups": texts("groups", str),
            "Description": texts("description", str),
        }
    )
