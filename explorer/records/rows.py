"""Rows of a data frame as plain dictionaries, with None for missing values.

pandas stores missing values as NaN, which is truthy: `row["stage"] or "start"` gives NaN, not
"start". So every module gets its rows from here, not from pandas.
"""

from typing import Any

import pandas as pd


def row_dicts(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One dictionary per row, with built-in Python types; None, NaN, NaT and NA become None."""
    names = [str(name) for name in frame.columns]
    absent: Any = None  # which the stubs of pandas do not allow
    rows = frame.to_numpy(dtype=object, na_value=absent).tolist()
    return [dict(zip(names, values, strict=True)) for values in rows]


def compact(frame: pd.DataFrame) -> pd.DataFrame:
    """The same rows in few blocks of memory, with text as Python's own strings.

    A frame of a page is filtered dozens of times, and each time costs per block: a column of text
    is one by itself.
    """
    texts = [name for name in frame if isinstance(frame[name].dtype, pd.StringDtype)]
    return frame.astype(dict.fromkeys(texts, object)).copy()


def missing(value: Any) -> bool:
    """Whether a value is None, NaN, NaT or NA. A list is never missing, even an empty one."""
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))
