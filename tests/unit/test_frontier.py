import numpy as np
import pandas as pd
import pytest

from explorer.analysis import frontier


def runs(points):
    return pd.DataFrame(points, columns=["run_id", "kept", "ms"])


def names(points):
    return frontier.pareto(runs(points), maximise="kept", minimise="ms")["run_id"].tolist()


def test_the_frontier_has_the_runs_that_none_beats_cheapest_first():
    """A run that is slower and keeps less is not on it."""
    assert names([("a", 1.0, 30), ("b", 0.8, 20), ("c", 0.7, 25), ("d", 0.3, 10)]) == [
        "d",
        "b",
        "a",
    ]


def test_of_equal_runs_one_stays():
    """A repeated run does not appear twice."""
    assert names([("a", 0.8, 20), ("b", 0.8, 20)]) == ["a"]


def test_a_missing_value_is_no_zero():
    """A run without a time is not the fastest one."""
    assert names([("a", 0.8, 20), ("b", 0.9, np.nan), ("c", np.nan, 1)]) == ["a"]


def test_membership_is_the_share_of_draws_on_the_frontier():
    """A run that only luck puts there says so."""
    frame = runs([("t", 1.0, 30), ("a", 0.8, 20), ("b", 0.7, 25), ("x", np.nan, 5)])
    draws = pd.DataFrame({"a": [0.8, 0.8, 0.8, 0.8], "b": [0.7, 0.9, 0.8, 0.6]})

    share = frontier.membership(frame, draws, maximise="kept", minimise="ms")

    assert share.tolist()[:3] == pytest.approx([1.0, 1.0, 0.25])
    assert np.isnan(share.iloc[3])


def test_of_two_equally_fast_runs_the_better_one_of_a_draw_counts():
    """Equal costs compete with each other."""
    frame = runs([("a", 0.8, 20), ("b", 0.7, 20)])
    draws = pd.DataFrame({"a": [0.8, 0.8, 0.8, 0.8], "b": [0.7, 0.9, 0.7, 0.6]})

    share = frontier.membership(frame, draws, maximise="kept", minimise="ms")

    assert share.tolist() == pytest.approx([0.75, 0.25])
