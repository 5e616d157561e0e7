"""Medians with intervals, and tails only where the sample holds them.

The interval of a median is one between two of the ordered samples: it supposes nothing about
how times are distributed, and needs six of them. A percentile needs at least one sample
beyond it, so a 95th asks for 20 and a 99th for 100.

Source: Conover, Practical Nonparametric Statistics, 3rd edition, section 3.2.
"""

import math
from collections.abc import Sequence

import numpy as np

LEVEL = 0.95
"""Coverage of every interval, at least."""


def median_interval(samples: Sequence[float]) -> tuple[float, float] | None:
    """Two of the samples between which the true median lies, 19 times in 20.

    Returns:
        The narrowest symmetric pair of order statistics that covers 95 % or more; None below
        six samples, where not even the smallest and the largest do.
    """
    ordered, count = sorted(samples), len(samples)
    rank, beyond = -1, 0.0
    while True:
        # The chance that `rank + 1` samples or fewer lie below the median.
        beyond += math.comb(count, rank + 1) / 2**count
        if 2 * beyond > 1 - LEVEL:
            break
        rank += 1
    return None if rank < 0 else (ordered[rank], ordered[count - 1 - rank])


def percentile(samples: Sequence[float], share: float) -> float | None:
    """A percentile, as in 0.95; None where the sample holds nothing beyond it."""
    # 20 x (1 - 0.95) is 1.0000000000000009 in floating point, and 100 x (1 - 0.99) likewise.
    if round(len(samples) * (1 - share), 9) < 1:
        return None
    return float(np.percentile(samples, 100 * share))
