"""Rows as dictionaries: what is missing is None, whatever pandas makes of it."""

import re

import pandas as pd
import pytest

from explorer.records.rows import compact, missing, row_dicts
from tests.conftest import ROOT


def test_what_is_missing_in_a_row_is_none():
    """A missing text, number, list, flag or moment is None, and so false."""
    there = {
        "text": "x",
        "number": 1.5,
        "list": [1],
        "flag": True,
        "at": pd.Timestamp("2026-01-01"),
    }
    frame = pd.DataFrame([there, dict.fromkeys(there)])
    frame = frame.assign(count=pd.array([3, None], dtype="Int64"), never=None)

    first, second = row_dicts(frame)

    assert first == {**there, "count": 3, "never": None}
    assert set(second.values()) == {None}


def test_a_frame_without_rows_has_no_row():
    """Columns alone are no row."""
    assert row_dicts(pd.DataFrame(columns=["run_id", "stage"])) == []


def test_numbers_in_rows_are_pythons_own():
    """They go into JSON as they are."""
    (row,) = row_dicts(pd.DataFrame({"count": [3], "share": [0.5], "flag": [True]}))

    assert [type(value) for value in row.values()] == [int, float, bool]


def test_a_compact_frame_has_the_same_rows():
    """Only how they lie in memory changes."""
    frame = pd.DataFrame({"text": ["x", None], "share": [0.5, None], "flag": [True, False]})
    frame["more"] = [1.5, 2.5]

    assert row_dicts(compact(frame)) == row_dicts(frame)
    assert list(compact(frame)) == list(frame)


@pytest.mark.parametrize("value", [None, float("nan"), pd.NA, pd.NaT])
def test_each_kind_of_nothing_is_missing(value):
    """Whichever of pandas' four ways says so."""
    assert missing(value)


@pytest.mark.parametrize("value", ["", 0, 0.0, False, [], [None]])
def test_an_empty_value_is_not_missing(value):
    """Nothing measured and zero measured are different things."""
    assert not missing(value)


def test_no_module_takes_rows_from_pandas_itself():
    """NaN is true in Python, so every row a person sees comes through `row_dicts`."""
    own_ways = re.compile(r"\.to_dict\((orient=)?[\"']records|\.iterrows\(|\.itertuples\(")
    modules = list((ROOT / "explorer").rglob("*.py"))

    assert len(modules) > 100
    assert [str(path) for path in modules if own_ways.search(path.read_text())] == []
