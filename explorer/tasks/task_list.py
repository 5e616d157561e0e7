"""The index as a table: a row a name that can be asked for, and a filter."""

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
    """Columns `COLUMNS`, what is here first, then by name.

    A group or tag says only what all its tasks share; here is True, False, or None where a
    task's file does not tell.
    """
    rows = []
    for name in sorted(index.rows):
        row = index.rows[name]
        if row.kind == "part":
            continue
        single = row.kind == "task"
        leaves = [row] if single else index.leaves(name)
        ways = {leaf.output_type for leaf in leaves}
        sets = sorted({leaf.dataset_path for leaf in leaves if leaf.dataset_path})
        files = [Path(file).name for file in row.files or ()]
        data = " ".join(files or [one for one in (row.dataset_path, row.dataset_name) if one])
        rows.append(
            (
                name,
                row.kind,
                ", ".join(index.groups.get(name, [])),
                len(leaves),
                ways.pop() if len(ways) == 1 else None,
                row.num_fewshot,
                row.chance,
                row.metric,
                data if single else ", ".join(sets[:3]) + (" …" if len(sets) > 3 else ""),
                held.has(row) if single else held.has_all(leaves),
                row.description,
                row.refused or "",
            )
        )
    found = pd.DataFrame(rows, columns=COLUMNS)
    found = found.astype({"num_fewshot": "Int64", "here": "boolean", "chance": "Float64"})
    # What can be asked at once comes first.
    return found.sort_values("here", ascending=False, kind="stable", ignore_index=True)


def filter_tasks(
    found: pd.DataFrame,
    *,
    words: str = "",
    names: Collection[str] | None = None,
    output_type: str | None = None,
    kind: str | None = None,
    here_only: bool = False,
) -> pd.DataFrame:
    """Rows that meet every wish, in the order of `matching`; None and empty wish nothing.

    Args:
        found: Of `table`.
        words: As of `matching`.
        names: Tasks to keep.
        output_type: As lm-eval names it.
        kind: task, group or tag.
        here_only: Only with data on this machine.
    """
    if names is not None:
        found = found[found["task"].isin(names)]
    if output_type:
        found = found[found["output_type"] == output_type]
    if kind:
        found = found[found["kind"] == kind]
    if here_only:
        found = found[found["here"].fillna(False)]
    return search_tasks(found, words)


def search_tasks(found: pd.DataFrame, words: str) -> pd.DataFrame:
    """Rows in which every word stands, in the name, a group, the data or the description.

    Names that begin with the words come first.
    """
    wanted = words.casefold().split()
    if not wanted:
        return found
    texts = zip(*(found[name] for name in ("task", "groups", "data", "description")), strict=True)
    kept = found[[all(w in one for w in wanted) for one in (" ".join(t).casefold() for t in texts)]]
    rank = [
        (not name.casefold().startswith(wanted[0]), wanted[0] not in name.casefold(), len(name))
        for name in kept["task"]
    ]
    order = sorted(range(len(kept)), key=rank.__getitem__)
    return kept.iloc[order]
