"""Rows of a frame as plain dictionaries, in which what is missing is None.

pandas keeps a missing text or number as NaN, and NaN is true: `row["stage"] or "start"` is
NaN, not "start". So no module takes its rows from pandas itself.
"""

from typing import Any

import pandas as pd


def row_dicts(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A dictionary a row, in Python's own types; None, NaN, NaT and NA are all None."""
    columns = [_values(frame.iloc[:, place]) for place in range(frame.shape[1])]
    names = [str(name) for name in frame.columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def missing(value: Any) -> bool:
    """Whether there is nothing: None, NaN, NaT or NA. A list is something, also an empty one."""
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def _values(column: "pd.Series[Any]") -> list[Any]:
    absent = column.isna().to_numpy()
    values = column.tolist()
    if not absent.any():
        return values
    return [None if nothing else value for nothing, value in zip(absent, values, strict=True)]
