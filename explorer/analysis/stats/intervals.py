"""Intervals by formula: of a score, of a ratio above chance, of a mean over tasks.

They need no random numbers. The pages show bootstrap intervals; these check them.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import special  # scipy.stats takes over a second of the page's first paint

from explorer.analysis.stats import bootstrap, few_answers
from explorer.analysis.stats.bootstrap import LEVEL
from explorer.analysis.stats.pairing import TaskPair


def wilson(num_right: float, num_documents: int) -> tuple[float, float]:
    """95 % interval of a share of right answers; valid also at 0 and 1.

    Returns:
        Two numbers in [0, 1]; NaN without documents.

    Source: Wilson 1927, JASA 22.
    """
    if num_documents <= 0:
        return np.nan, np.nan
    z = float(special.ndtri((1 + LEVEL) / 2))
    share = num_right / num_documents
    wider = 1 + z**2 / num_documents
    middle = (share + z**2 / (2 * num_documents)) / wider
    half = z * np.sqrt(share * (1 - share) / num_documents + (z / (2 * num_documents)) ** 2) / wider
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def retention_stderr(pair: TaskPair) -> float:
    """Standard error of a task's retention by the delta method.

    With u = student - chance and v = teacher - chance, document by document, R = u / v has
    the variance (var u - 2 R cov(u, v) + R^2 var v) / v^2.

    Returns:
        NaN if the teacher is at chance; infinite with a single document or passage.
    """
    if np.isnan(pair.retention):
        return np.nan
    ratio = pair.retention
    (_, above), spread = few_answers.means_and_covariance(_above_chance(pair), pair)
    if np.isinf(spread).any() or above <= 0:
        return np.inf
    weights = np.array([1.0, -ratio])
    return float(np.sqrt(max(0.0, weights @ spread @ weights)) / above)


def fieller(pair: TaskPair) -> tuple[float, float]:
    """95 % interval of a task's retention by Fieller's theorem.

    It holds all ratios R for which the mean of u - R v does not differ significantly from zero.
    Unlike the delta method it accounts for the uncertain denominator, so it is skewed.

    Returns:
        NaN if the teacher's score is not clearly above chance: then no bounded interval covers
        95 %.

    Source: Fieller 1954, Journal of the Royal Statistical Society B 16.
    """
    means, spread = few_answers.means_and_covariance(_above_chance(pair), pair)
    if np.isinf(spread).any():
        return np.nan, np.nan
    # With the halves there are two documents more.
    freedom = pair.num_clusters + (1 if few_answers.is_few(pair) else -1)
    quantile = float(special.stdtrit(freedom, (1 + LEVEL) / 2)) ** 2
    a = means[1] ** 2 - quantile * spread[1, 1]
    b = means[0] * means[1] - quantile * spread[0, 1]
    c = means[0] ** 2 - quantile * spread[0, 0]
    if a <= 0:
        return np.nan, np.nan
    root = np.sqrt(max(0.0, b**2 - a * c))
    return few_answers.around((float((b - root) / a), float((b + root) / a)), pair.retention)


@dataclasses.dataclass(frozen=True)
class SuiteMean:
    """A mean over tasks, and the sources of its uncertainty."""

    mean: float
    within_stderr: float
    """For these tasks and another sample of documents."""
    between_sd: float
    """Spread of the tasks' true values, without the noise of documents; NaN for one task."""
    stderr: float
    """For other tasks of the same kind; NaN for one task."""


def suite_mean(values: Sequence[float], stderrs: Sequence[float]) -> SuiteMean:
    """Mean of the tasks' values, with equal weights, and its two variances.

    The variance of the observed values is the variance between tasks plus the mean variance
    within tasks, so the variance between is the difference, at least zero.

    Args:
        values: One number per task.
        stderrs: Standard error of each over the task's documents.

    Source: Hedges and Olkin 1985, variance-component estimator of a random-effects mean.
    """
    observed, within = np.asarray(values, float), np.asarray(stderrs, float) ** 2
    count = len(observed)
    if count == 0:
        return SuiteMean(np.nan, np.nan, np.nan, np.nan)
    within_stderr = float(np.sqrt(within.sum()) / count)
    if count == 1:
        return SuiteMean(float(observed[0]), within_stderr, np.nan, np.nan)
    between = max(0.0, float(observed.var(ddof=1) - within.mean()))
    return SuiteMean(
        float(observed.mean()),
        within_stderr,
        float(np.sqrt(between)),
        float(np.sqrt((between + within.mean()) / count)),
    )


def _above_chance(pair: TaskPair) -> bootstrap.Values:
    """Student and teacher minus chance, document by document; shape [2, N]."""
    chance = pair.chance if pair.chance_N is None else pair.chance_N
    return np.stack([pair.student_N - chance, pair.teacher_N - chance])
