"""Tests for a difference between two models that answered the same documents."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import special  # scipy.stats takes over a second of the page's first paint

from explorer.analysis.stats import bootstrap
from explorer.analysis.stats.bootstrap import ALPHA, Values

# Shape letters: N documents, T tasks.

Verdict = Literal["better", "worse", "inconclusive"]


def paired_test(
    own_N: Values, other_N: Values, clusters_N: npt.NDArray[Any] | None = None
) -> tuple[float, str]:
    """Two-sided p-value of no difference, and the name of the test that fits the answers.

    Right-or-wrong answers get the exact McNemar test, graded ones the paired t test. Where
    documents share passages both are overconfident, so the t test with clustered errors is
    used; its degrees of freedom are the number of passages minus one.

    Source: Miller 2024, arXiv:2411.00640, section 4.2 (paired differences, clustered).
    """
    if clusters_N is not None:
        num_clusters = len(np.unique(clusters_N))
        return _t(own_N - other_N, num_clusters, clusters_N), "t, clustered"
    if is_binary(own_N) and is_binary(other_N):
        return mcnemar(own_N, other_N), "McNemar, exact"
    return _t(own_N - other_N, len(own_N), None), "t, paired"


def mcnemar(own_N: Values, other_N: Values) -> float:
    """Two-sided exact McNemar p-value of right-or-wrong answers to the same documents.

    Under no difference, each document that only one of the two got right is a fair coin.

    Source: McNemar 1947, Psychometrika 12; exact form: binomial test on the discordant pairs.
    """
    better = int((own_N > other_N).sum())
    worse = int((own_N < other_N).sum())
    if better + worse == 0:
        return 1.0
    fewer = min(better, worse)
    return float(min(1.0, 2 * special.bdtr(fewer, better + worse, 0.5)))


def holm(p_values_T: Values) -> Values:
    """P-values adjusted for several tasks: 0.05 limits the error to 5 % for all tasks together.

    The smallest is multiplied by the number of tasks, the next by one less, and none falls
    below the one before it. Missing p-values stay missing and are not counted.

    Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    values_T = np.asarray(p_values_T, dtype=np.float64)
    adjusted_T = np.full(values_T.shape, np.nan)
    known = np.flatnonzero(~np.isnan(values_T))
    order = known[np.argsort(values_T[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted_T[order] = np.minimum(1.0, np.maximum.accumulate(factors * values_T[order]))
    return adjusted_T


def normal_p_value(difference: float, stderr: float) -> float:
    """Two-sided p-value of a difference with this standard error, under a normal law."""
    if difference == 0:
        return 1.0
    return float(2 * special.ndtr(-abs(difference) / stderr)) if stderr > 0 else 0.0


def verdict(difference: float, p_value: float) -> Verdict:
    """What a difference shows; `inconclusive` is a finding, not a missing value."""
    if not p_value < ALPHA:
        return "inconclusive"
    return "better" if difference > 0 else "worse"


def smallest_detectable_difference(
    num_documents: int, disagreement: float = 0.2, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Smallest score difference (share of documents) that a paired test will likely show.

    Solves n = (z_a sqrt(q) + z_b sqrt(q - d^2))^2 / d^2 for d, where q is the share of
    documents on which exactly one of the two models is right. Rough below 50 documents.

    Args:
        num_documents: Documents that both models answer.
        disagreement: q, in (0, 1].
        power: Probability of seeing a difference of this size, in (0.5, 1).
        alpha: Two-sided error rate, in (0, 1).

    Returns:
        In (0, 1]; 1.0 if there are too few documents to show anything.

    Raises:
        ValueError: An argument is out of its range.

    Source: Connor 1987, Biometrics 43, sample size for McNemar's test.
    """
    if num_documents < 0 or not 0 < disagreement <= 1:
        raise ValueError(
            f"expected num_documents >= 0 and disagreement in (0, 1], got {num_documents} "
            f"and {disagreement}"
        )
    if not 0.5 < power < 1 or not 0 < alpha < 1:
        raise ValueError(f"expected power in (0.5, 1) and alpha in (0, 1), got {power} and {alpha}")
    z_a, z_b = -special.ndtri(alpha / 2), special.ndtri(power)
    inner = num_documents - z_a**2 + z_b**2
    if num_documents == 0 or inner < 0:
        return 1.0
    root = z_a * np.sqrt(num_documents) + z_b * np.sqrt(inner)
    return float(min(1.0, np.sqrt(disagreement) * root / (num_documents + z_b**2)))


def is_binary(values_N: Values) -> bool:
    """Whether all answers are right (1) or wrong (0)."""
    return bool(np.isin(values_N, (0.0, 1.0)).all())


def _t(differences_N: Values, num_clusters: int, clusters_N: npt.NDArray[Any] | None) -> float:
    """Two-sided p-value of a mean of zero; 1 with fewer than two clusters.

    Never below that of all differences having one sign by chance: the t test takes the spread of a
    few equal differences for certain.
    """
    mean = float(differences_N.mean())
    if num_clusters < 2 or mean == 0:
        return 1.0
    stderr = np.sqrt(bootstrap.covariance(differences_N[None, :], clusters_N)[0, 0])
    one_sign = 2.0 * 0.5**num_clusters
    if stderr == 0:
        return one_sign
    return max(one_sign, float(2 * special.stdtr(num_clusters - 1, -abs(mean) / stderr)))
