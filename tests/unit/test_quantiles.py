"""Medians and tails say only what the sample holds."""

import numpy as np
import pytest

from explorer.records import quantiles


@pytest.mark.parametrize(
    ("count", "ends"),
    [(5, None), (6, (0, 5)), (8, (0, 7)), (9, (1, 7)), (10, (1, 8)), (20, (5, 14))],
)
def test_a_medians_interval_is_the_table_of_order_statistics(count, ends):
    """The ranks that the binomial distribution gives, from six samples on."""
    assert quantiles.median_interval([float(i) for i in range(count)]) == ends


def test_the_interval_holds_the_median_as_often_as_it_says():
    """Skewed times, ten turns: the true median is inside at least 95 times in 100."""
    rng = np.random.default_rng(0)
    draws = rng.lognormal(3, 0.5, size=(2000, 10))

    inside = 0
    for sample in draws:
        low, high = quantiles.median_interval(list(sample))
        inside += low <= np.exp(3) <= high

    assert 0.955 < inside / 2000 < 0.99, "ranks 2 to 9 of 10 cover 97.9 %"


@pytest.mark.parametrize(
    ("count", "share", "known"),
    [(19, 0.95, False), (20, 0.95, True), (99, 0.99, False), (100, 0.99, True)],
)
def test_a_tail_needs_a_sample_beyond_it(count, share, known):
    """A 95th percentile of ten turns would be their largest, so there is none."""
    assert (quantiles.percentile([1.0] * count, share) is not None) == known
