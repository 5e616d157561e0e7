"""The task index as a table: one row per task, group or tag, with filters and search."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from explorer.tasks.dataset_cache import CachedDatasets
from explorer.tasks.index import TaskIndex

COLUMNS = [
    "task",
    "kind",
    "groups",
    "num_tasks",
    "output_type",
    "num_fewshot",
    "chance",
    "metric",
    "data",
    "here",
    "description",
    "refused",
]


def task_table(index: TaskIndex, held: CachedDatasets) -> pd.DataFrame:
    """A frame with the columns `COLUMNS`; names whose data is here come first, then by name.

    A group or tag shows only values that all its tasks share. `here` is True, False, or None if
    a task's file does not say where its data is.
    """
    rows = []
    for name in sorted(index.rows):
        row = index.rows[name]
        if row.kind == "part":
            continue
        single = row.kind == "task"
        leaves = [row] if single else index.leaves(name)
        output_types = {leaf.output_type for leaf in leaves}
        datasets = sorted({leaf.dataset_path for leaf in leaves if leaf.dataset_path})
        files = [Path(file).name for file in row.files or ()]
        data = " ".join(files or filter(None, (row.dataset_path, row.dataset_name)))
        rows.append(
            (
                name,
                row.kind,
                ", ".join(index.groups.get(name, [])),
                len(leaves),
                output_types.pop() if len(output_types) == 1 else None,
                row.num_fewshot,
                row.chance,
                row.metric,
                data if single else ", ".join(datasets[:3]) + (" …" if len(datasets) > 3 else ""),
                held.has(row) if single else held.has_all(leaves),
                row.description,
                row.refused or "",
            )
        )
    table = pd.DataFrame(rows, columns=COLUMNS)
    table = table.astype({"num_fewshot": "Int64", "here": "boolean", "chance": "Float64"})
    # Tasks that can run right away come first.
    return table.sort_values("here", ascending=False, kind="stable", ignore_index=True)


def filter_tasks(
    table: pd.DataFrame,
    *,
    words: str = "",
    names: Collection[str] | None = None,
    output_type: str | None = None,
    kind: str | None = None,
    here_only: bool = False,
) -> pd.DataFrame:
    """Rows that pass every filter, in the order of `search_tasks`; None or empty filters nothing.

    Args:
        table: From `task_table`.
        words: Search words, as in `search_tasks`.
        names: Tasks to keep.
        output_type: An lm-eval output type.
        kind: task, group or tag.
        here_only: Keep only tasks with their data on this machine.
    """
    if names is not None:
        table = table[table["task"].isin(names)]
    if output_type:
        table = table[table["output_type"] == output_type]
    if kind:
        table = table[table["kind"] == kind]
    if here_only:
        table = table[table["here"].fillna(False)]
    return search_tasks(table, words)


def search_tasks(table: pd.DataFrame, words: str) -> pd.DataFrame:
    """Rows that contain every word in their name, groups, data or description.

    Names that start with the first word come first, then names that contain it.
    """
    wanted = words.casefold().split()
    if not wanted:
        return table
    cells = zip(*(table[name] for name in ("task", "groups", "data", "description")), strict=True)
    texts = [" ".join(row).casefold() for row in cells]
    matches = table[[all(word in text for word in wanted) for text in texts]]
    rank = [
        (not name.casefold().startswith(wanted[0]), wanted[0] not in name.casefold(), len(name))
        for name in matches["task"]
    ]
    order = sorted(range(len(matches)), key=rank.__getitem__)
    return matches.iloc[order]
