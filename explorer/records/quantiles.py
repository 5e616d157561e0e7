"""Medians with confidence intervals, and percentiles where the sample is large enough.

A median's interval runs between two of the ordered samples. It assumes nothing about the
distribution and needs at least six samples. A percentile needs at least one sample beyond it:
20 samples for the 95th, 100 for the 99th.

Source: Conover, Practical Nonparametric Statistics, 3rd edition, section 3.2.
"""

import math
from collections.abc import Sequence

import numpy as np

LEVEL = 0.95
"""Minimum coverage of every interval."""


def median_interval(samples: Sequence[float]) -> tuple[float, float] | None:
    """A 95 % confidence interval of the median, in the unit of the samples.

    Returns:
        The narrowest symmetric pair of order statistics with a coverage of at least 95 %. None
        below six samples, where even the smallest and the largest don't reach it.
    """
    ordered, count = sorted(samples), len(samples)
    rank, beyond = -1, 0.0
    while True:
        # The probability that at most `rank + 1` samples lie below the median.
        beyond += math.comb(count, rank + 1) / 2**count
        if 2 * beyond > 1 - LEVEL:
            break
        rank += 1
    return None if rank < 0 else (ordered[rank], ordered[count - 1 - rank])


def percentile(samples: Sequence[float], share: float) -> float | None:
    """The percentile at `share`, such as 0.95; None if the sample is too small for it."""
    # 20 x (1 - 0.95) is 1.0000000000000009 in floating point, and 100 x (1 - 0.99) likewise.
    if round(len(samples) * (1 - share), 9) < 1:
        return None
    return float(np.percentile(samples, 100 * share))
