"""Rows of a data frame as plain dictionaries, with None for missing values.

pandas stores missing values as NaN, which is truthy: `row["stage"] or "start"` gives NaN, not
"start". So every module gets its rows from here, not from pandas.
"""

from typing import Any

import pandas as pd


def row_dicts(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One dictionary per row, with built-in Python types; None, NaN, NaT and NA become None."""
    columns = [_values(frame.iloc[:, place]) for place in range(frame.shape[1])]
    names = [str(name) for name in frame.columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def missing(value: Any) -> bool:
    """Whether a value is None, NaN, NaT or NA. A list is never missing, even an empty one."""
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def _values(column: "pd.Series[Any]") -> list[Any]:
    absent = column.isna().to_numpy()
    values = column.tolist()
    if not absent.any():
        return values
    return [None if gone else value for gone, value in zip(absent, values, strict=True)]
