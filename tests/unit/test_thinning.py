"""A crowded chart: what is always drawn, and how many points."""

import numpy as np
import pandas as pd
import pytest

from explorer.charts.thinning import MOST_POINTS, thin, thinned_text


def cloud(count, seed=0):
    """So many points, some of them without a height."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": np.exp(rng.normal(3, 1, count)), "y": rng.normal(60, 15, count)})
    frame.loc[frame.index % 50 == 7, "y"] = np.nan
    return frame


def test_few_points_are_all_drawn():
    """Only points without a value are missing."""
    few = cloud(200)

    pd.testing.assert_frame_equal(thin(few, "x", "y"), few.dropna())


@pytest.mark.parametrize("count", [400, 10_000])
def test_many_points_become_a_readable_number(count):
    """The same points each time, in the order of the frame."""
    many = cloud(count)
    drawn = thin(many, "x", "y")

    assert len(drawn) == MOST_POINTS
    assert drawn.index.is_monotonic_increasing
    assert drawn["y"].notna().all()
    pd.testing.assert_frame_equal(drawn, thin(many, "x", "y"))


def test_the_points_named_first_are_always_drawn():
    """Wherever they lie."""
    many = cloud(5_000).dropna()
    first = many.index[::70]

    assert set(first) <= set(thin(many, "x", "y", first=first).index)


def test_the_outline_of_the_cloud_stays():
    """The extremes on both axes are drawn, and each strip has its highest point."""
    many = cloud(5_000).dropna()
    drawn = thin(many, "x", "y")

    for axis in ("x", "y"):
        assert drawn[axis].min() == many[axis].min()
        assert drawn[axis].max() == many[axis].max()
    strip = many[many["x"].between(20, 21)]
    assert strip["y"].max() - drawn.loc[drawn["x"].between(18, 23), "y"].max() <= 0


def test_more_important_points_than_there_is_room_for_are_thinned_too():
    """No chart has more points than it may have."""
    many = cloud(5_000).dropna()

    assert len(thin(many, "x", "y", first=many.index, most=100)) == 100


@pytest.mark.parametrize("height", [0.0, 5.0])
def test_points_in_one_place_are_no_trouble(height):
    """All values equal, zero among them."""
    same = pd.DataFrame({"x": [height] * 1000, "y": [1.0] * 1000})

    assert len(thin(same, "x", "y", most=50)) == 50


def test_a_chart_says_how_many_of_how_many_it_draws():
    """Nothing where all are drawn."""
    assert thinned_text(300, 300) == ""
    assert thinned_text(300, 10_000).startswith("300 of 10,000 runs drawn")
