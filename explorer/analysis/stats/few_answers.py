"""What few answers, or answers that are all alike, can show.

Five right answers out of five do not prove a share of 100 %. Yet every resample of them is five
right answers, so a bootstrap interval has no width and the standard error is 0. So a task with few
documents, or one on which a model or the difference of two does not vary, gets two more
documents: half of one for each way in which two models can answer (both right, both wrong, only
one of the two). These halves are Agresti and Min's; in the bootstrap their weights are drawn, so
that nothing is certain. On other tasks nothing changes.

Source: Agresti and Min 2005, Statistics in Medicine 24 (half a document in each cell of a paired
table); Agresti and Caffo 2000; Rubin 1981 (weights drawn from a gamma distribution).
"""

import zlib
from collections.abc import Sequence

import numpy as np
from scipy import special  # scipy.stats takes over a second of the page's first paint

from explorer.analysis.stats import bootstrap, paired_tests
from explorer.analysis.stats.bootstrap import LEVEL, Values
from explorer.analysis.stats.pairing import TaskPair

# Shape letters: D draws, R rows of values, N documents, M documents that differ.

FEW = 30
"""Below this many documents, or passages, a bootstrap's intervals are too narrow."""
FEW_DIFFERENT = 10.0
"""Below this many documents that differ, by weight, a normal test is too sure."""
HALF = 0.5
"""Documents in each of the four cells."""
CORNERS_2C = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]])
"""Student and teacher: both right, only the student, only the teacher, neither."""
FLIPS = 20_000
EXACT_UP_TO = 14
"""Documents that differ up to which all assignments of signs are counted."""


def is_few(pair: TaskPair) -> bool:
    """Whether a task has too few documents for a bootstrap, or answers that do not vary.

    A model beside itself is exactly itself, whatever it answered.
    """
    if pair.student_N is pair.teacher_N or not len(pair.teacher_N):
        return False
    alike = [
        np.ptp(pair.student_N),
        np.ptp(pair.teacher_N),
        np.ptp(pair.student_N - pair.teacher_N),
    ]
    return pair.num_clusters < FEW or 0 in alike


def with_halves(means_DR: Values, pair: TaskPair, seed: int, run: str = "") -> Values:
    """Bootstrapped means of a task, with the four halves added at random weights; same shape.

    Args:
        means_DR: Student, teacher and perhaps the chance level, draw by draw.
        pair: The two models.
        seed: Same seed, same weights.
        run: The student's run id: two students of one teacher get weights of their own, because
            the documents that nobody asked say nothing about their order.
    """
    count = len(pair.teacher_N)
    size = count / pair.num_clusters
    rng = np.random.default_rng([seed, zlib.crc32(f"{pair.task}\n{run}".encode()), count])
    weights_DC = size * rng.gamma(HALF, size=(len(means_DR), CORNERS_2C.shape[1]))
    halves_DR = weights_DC @ (_scale(pair) * CORNERS_2C.T)
    if means_DR.shape[1] > 2:
        chance_D = weights_DC.sum(axis=1) * pair.chance
        halves_DR = np.concatenate([halves_DR, chance_D[:, None]], axis=1)
    widened: Values = (count * means_DR + halves_DR) / (count + weights_DC.sum(axis=1))[:, None]
    return widened


def means_and_covariance(rows_RN: Values, pair: TaskPair) -> tuple[Values, Values]:
    """Means of student and teacher, and the covariance of these means; with the halves if few.

    Args:
        rows_RN: Student and teacher, perhaps above chance; shape [2, N].
        pair: The two models.

    Returns:
        Shapes [2] and [2, 2]. The covariance is infinite with a single passage of several
        documents, because one text does not show a spread.
    """
    covariance_RR = bootstrap.covariance(rows_RN, pair.clusters_N)
    means_R = rows_RN.mean(axis=1)
    if not is_few(pair) or (pair.clusters_N is not None and pair.num_clusters < 2):
        return means_R, covariance_RR
    if pair.clusters_N is not None:
        sums_RG, sizes_G = bootstrap.cluster_sums(rows_RN, pair.clusters_N)
        rows_RN = sums_RG / sizes_G
    shift_R = (pair.student_N.mean(), pair.teacher_N.mean()) - means_R  # the chance level
    corners_RC = _scale(pair) * CORNERS_2C - shift_R[:, None]
    num_units = rows_RN.shape[1]
    total = num_units + HALF * CORNERS_2C.shape[1]
    center_R = (rows_RN.sum(axis=1) + HALF * corners_RC.sum(axis=1)) / total
    units_RN, halves_RC = rows_RN - center_R[:, None], corners_RC - center_R[:, None]
    spread_RR: Values = (units_RN @ units_RN.T + HALF * halves_RC @ halves_RC.T) / total**2
    return center_R, spread_RR


def difference_interval(pair: TaskPair, drawn_D: Values) -> tuple[float, float]:
    """95 % interval of student - teacher; with few answers one that agrees with McNemar's test.

    Few right-or-wrong answers: the middle of the draws, widened to the exact conditional interval,
    which holds 0 exactly where McNemar's test finds no difference.

    Source: Clopper and Pearson 1934, on the documents that only one of the two got right.
    """
    low, high = around(bootstrap.percentile_interval(drawn_D), _difference(pair))
    if not is_few(pair) or pair.clusters_N is not None or not _is_binary(pair):
        return low, high
    gained = int((pair.student_N > pair.teacher_N).sum())
    lost = int((pair.student_N < pair.teacher_N).sum())
    share_low, share_high = clopper_pearson(gained, gained + lost)
    apart = (gained + lost) / len(pair.teacher_N)
    return min(low, apart * (2 * share_low - 1)), max(high, apart * (2 * share_high - 1))


def clopper_pearson(num_right: int, count: int) -> tuple[float, float]:
    """Exact 95 % interval of a share; [0, 1] without documents.

    Source: Clopper and Pearson 1934, Biometrika 26.
    """
    tail = (1 - LEVEL) / 2
    low = special.betaincinv(num_right, count - num_right + 1, tail) if num_right else 0.0
    high = (
        special.betaincinv(num_right + 1, count - num_right, 1 - tail) if num_right < count else 1.0
    )
    return float(low), float(high)


def around(interval: tuple[float, float], value: float) -> tuple[float, float]:
    """An interval, widened to hold the measured value: the halves pull towards the middle."""
    return min(interval[0], value), max(interval[1], value)


def suite_p_value(pairs: Sequence[TaskPair], mean: float, stderr: float, seed: int = 0) -> float:
    """Two-sided p-value of a mean difference of zero over the tasks, with equal weights.

    The normal test on the standard error. Where few documents differ it is too sure: then signs
    are flipped, because under no difference each document could as well have come out the other
    way. A suite of one task has its task's p-value.

    Args:
        pairs: Pairs that have documents.
        mean: The mean of the tasks' differences.
        stderr: Its standard error.
        seed: Same seed, same p-value.

    Source: Fisher 1935, The Design of Experiments, section 21; McNemar's exact test is the case of
    one task of right-or-wrong answers.
    """
    if len(pairs) == 1:
        (pair,) = pairs
        return paired_tests.paired_test(pair.student_N, pair.teacher_N, pair.clusters_N)[0]
    parts = []
    for pair in pairs:
        difference_N = pair.student_N - pair.teacher_N
        if pair.clusters_N is not None:
            difference_N = bootstrap.cluster_sums(difference_N[None, :], pair.clusters_N)[0][0]
        parts.append(difference_N[difference_N != 0] / len(pair.teacher_N))
    weights_M = np.abs(np.concatenate(parts))
    if not len(weights_M) or mean == 0:
        return 1.0
    if weights_M.sum() ** 2 / (weights_M**2).sum() >= FEW_DIFFERENT:
        return paired_tests.normal_p_value(mean, stderr)
    observed = abs(mean) * len(pairs) - 1e-12
    if len(weights_M) <= EXACT_UP_TO:
        numbers = np.arange(2 ** len(weights_M))[:, None] >> np.arange(len(weights_M))
        return float((np.abs((1 - 2 * (numbers & 1)) @ weights_M) >= observed).mean())
    rng = np.random.default_rng(seed)
    extreme = 0
    for _ in range(FLIPS // 1000):
        signs = rng.choice([-1.0, 1.0], size=(1000, len(weights_M)))
        extreme += int((np.abs(signs @ weights_M) >= observed).sum())
    return (extreme + 1) / (FLIPS + 1)


def _scale(pair: TaskPair) -> float:
    """The highest value that an answer may have: 1, or the highest that there is."""
    return float(max(1.0, np.abs(pair.student_N).max(), np.abs(pair.teacher_N).max()))


def _difference(pair: TaskPair) -> float:
    return float((pair.student_N - pair.teacher_N).mean())


def _is_binary(pair: TaskPair) -> bool:
    return paired_tests.is_binary(pair.student_N) and paired_tests.is_binary(pair.teacher_N)
