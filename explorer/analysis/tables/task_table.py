"""The list of tasks as people read it."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from explorer.analysis import numbers


def task_table(found: pd.DataFrame) -> pd.DataFrame:
    """The table as people read it, with a dash for what is not known."""

    def said(name: str, how: Callable[[Any], str]) -> list[str]:
        return [
            numbers.MISSING if pd.isna(value) or value == "" else how(value)
            for value in found[name]
        ]

    kinds = [
        kind if kind == "task" else f"{kind} of {num:,}"
        for kind, num in zip(found["kind"], found["num_tasks"], strict=True)
    ]
    return pd.DataFrame(
        {
            "Task": found["task"].to_list(),
            "Kind": kinds,
            "Type": said("output_type", str),
            "Shots": said("num_fewshot", str),
            "Chance": said("chance", numbers.percent),
            "Metric": said("metric", str),
            "Data": said("data", str),
            "Here": said("here", lambda value: "yes" if value else "no"),
            "Groups": said("groups", str),
            "Description": said("description", str),
        }
    )
