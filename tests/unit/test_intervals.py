"""Intervals by formula: against statsmodels, against the bootstrap, and by simulation."""

import numpy as np
import pytest

from explorer.analysis.stats import bootstrap, intervals, retention
from explorer.analysis.stats.pairing import TaskPair

REPEATS = 1000
TOLERANCE = 3 * np.sqrt(0.05 * 0.95 / REPEATS)


def simulated(rng, count=250, chance=0.25, teacher=0.7, student=0.55, num_clusters=None):
    """One task on which hard documents are hard for both, perhaps by passages."""
    clusters = None
    hard = rng.normal(size=count)
    if num_clusters:
        clusters = np.repeat(np.arange(num_clusters), count // num_clusters)
        hard = rng.normal(size=num_clusters)[clusters]
    die = (hard + rng.normal(size=(2, count))) / np.sqrt(2)
    from scipy import special

    right = (special.ndtr(die) < np.array([[student], [teacher]])).astype(float)
    return TaskPair("a", "acc", chance, right[0], right[1], clusters_N=clusters)


@pytest.mark.parametrize(("right", "count"), [(0, 10), (3, 10), (10, 10), (712, 1000), (0, 0)])
def test_wilson_is_statsmodels(right, count):
    """The interval of a score is statsmodels' Wilson interval; of nothing, missing."""
    from statsmodels.stats.proportion import proportion_confint

    expected = proportion_confint(right, count, method="wilson") if count else (np.nan, np.nan)

    np.testing.assert_allclose(intervals.wilson(right, count), expected, atol=1e-12)


def test_wilson_covers_95_in_100():
    """Averaged over abilities, a score's interval holds the truth as often as it says."""
    rng = np.random.default_rng(12)
    truths = rng.uniform(0.02, 0.98, REPEATS)
    ends = [intervals.wilson(rng.binomial(120, truth), 120) for truth in truths]
    covered = np.mean(
        [low <= truth <= high for truth, (low, high) in zip(truths, ends, strict=True)]
    )

    assert abs(covered - 0.95) < TOLERANCE


@pytest.mark.parametrize("num_clusters", [None, 50])
def test_fieller_covers_95_in_100(num_clusters):
    """The analytic interval of retention holds the truth in 95 %, with and without passages."""
    rng = np.random.default_rng(13)
    truth, covered = (0.55 - 0.25) / (0.7 - 0.25), 0
    for _ in range(REPEATS):
        low, high = intervals.fieller(simulated(rng, num_clusters=num_clusters))
        covered += low <= truth <= high

    assert abs(covered / REPEATS - 0.95) < TOLERANCE


def test_passages_that_are_ignored_make_intervals_too_narrow():
    """Five questions on one text are less than five documents."""
    rng = np.random.default_rng(14)
    truth, covered = (0.55 - 0.25) / (0.7 - 0.25), 0
    for _ in range(REPEATS):
        one = simulated(rng, num_clusters=50)
        low, high = intervals.fieller(
            TaskPair(one.task, one.metric, one.chance, one.student_N, one.teacher_N)
        )
        covered += low <= truth <= high

    assert covered / REPEATS < 0.93


@pytest.mark.parametrize("num_clusters", [None, 100])
def test_formula_and_bootstrap_agree(num_clusters):
    """Two ways to the same interval: ends within a tenth of its width, widths alike."""
    one = simulated(np.random.default_rng(15), count=1000, num_clusters=num_clusters)
    kept_D, _ = retention._draw({"s": [one]}, 4000, 0)["s"]
    drawn, by_formula = bootstrap.percentile_interval(kept_D), intervals.fieller(one)
    width = drawn[1] - drawn[0]

    np.testing.assert_allclose(drawn, by_formula, atol=0.1 * width)
    assert np.std(kept_D) == pytest.approx(intervals.retention_stderr(one), rel=0.07)


def test_a_chance_level_for_each_document_counts_as_it_should():
    """Questions with three and with five choices: the interval follows each one's own floor."""
    rng = np.random.default_rng(16)
    chance_N = np.where(np.arange(400) < 200, 1 / 3, 1 / 5)
    plain = simulated(rng, count=400)
    one = TaskPair(
        "a", "acc", float(chance_N.mean()), plain.student_N, plain.teacher_N, chance_N=chance_N
    )
    kept_D, _ = retention._draw({"s": [one]}, 4000, 0)["s"]

    assert one.retention == pytest.approx(
        (one.student_N - chance_N).sum() / (one.teacher_N - chance_N).sum()
    )
    assert np.std(kept_D) == pytest.approx(intervals.retention_stderr(one), rel=0.07)


def test_fieller_has_no_end_where_the_teacher_may_be_at_chance():
    """No bounded interval has 95 % there, so none is given."""
    right = np.array([1.0] * 28 + [0.0] * 72)
    low, high = intervals.fieller(TaskPair("a", "acc", 0.25, right, right[::-1].copy()))

    assert np.isnan([low, high]).all()


def test_the_suite_mean_tells_documents_from_tasks():
    """Three tasks at 0.9, 0.6 and 0.3 with errors of 0.03, 0.04 and 0.12."""
    found = intervals.suite_mean([0.9, 0.6, 0.3], [0.03, 0.04, 0.12])

    within = (0.0009 + 0.0016 + 0.0144) / 3
    assert found.mean == pytest.approx(0.6)
    assert found.within_stderr == pytest.approx(np.sqrt(0.0169) / 3)
    assert found.between_sd == pytest.approx(np.sqrt(0.09 - within))
    assert found.stderr == pytest.approx(np.sqrt(0.09 / 3))


def test_the_between_task_variance_is_statsmodels_where_tasks_are_alike():
    """With equal errors our estimator is statsmodels' random-effects one."""
    from statsmodels.stats.meta_analysis import combine_effects

    values, variance = np.array([0.8, 0.55, 0.71, 0.4]), 0.003
    expected = combine_effects(values, np.full(4, variance), method_re="chi2").tau2

    found = intervals.suite_mean(values, np.full(4, np.sqrt(variance)))

    assert found.between_sd**2 == pytest.approx(expected)


def test_the_error_over_tasks_covers_other_tasks():
    """Tasks drawn from a family: mean and error hold the family's mean about 95 in 100."""
    from scipy import stats

    rng = np.random.default_rng(17)
    covered, quantile = 0, stats.t.ppf(0.975, 7)
    for _ in range(REPEATS):
        true = rng.normal(0.6, 0.15, 8)
        found = intervals.suite_mean(true + rng.normal(0, 0.04, 8), np.full(8, 0.04))
        covered += abs(found.mean - 0.6) <= quantile * found.stderr

    assert abs(covered / REPEATS - 0.95) < TOLERANCE


@pytest.mark.parametrize(("values", "count"), [([], 0), ([0.5], 1)])
def test_few_tasks_leave_missing_what_they_cannot_tell(values, count):
    """One task says nothing about others, none says nothing at all."""
    found = intervals.suite_mean(values, [0.1] * count)

    assert np.isnan([found.between_sd, found.stderr]).all()
    assert np.isnan(found.mean) == (count == 0)


def test_clustered_errors_are_millers():
    """Equation 4 of arXiv:2411.00640, but for the factor G / (G - 1)."""
    values = np.array([1.0, 1, 0, 0, 1, 0])
    clusters = np.array(["x", "x", "x", "y", "y", "z"])
    residuals, count = values - values.mean(), len(values)
    cross = sum(
        residuals[i] * residuals[j]
        for i in range(count)
        for j in range(count)
        if clusters[i] == clusters[j]
    )

    found = bootstrap.covariance(values[None, :], clusters)[0, 0]

    assert found == pytest.approx(cross / count**2 * 3 / 2)


def test_clustered_draws_have_the_clustered_spread():
    """Drawing passages and summing within them give the same standard error."""
    rng = np.random.default_rng(18)
    clusters = np.repeat(np.arange(120), rng.integers(1, 6, 120))
    values = (rng.uniform(size=120)[clusters] < rng.uniform(0, 1, len(clusters))).astype(float)

    drawn = bootstrap.bootstrap_means(values[None, :], "a", 4000, 0, clusters)[:, 0].std()

    expected = np.sqrt(bootstrap.covariance(values[None, :], clusters)[0, 0])
    assert drawn == pytest.approx(expected, rel=0.06)
