"""Tests of two models on the same documents: against scipy, statsmodels and simulation."""

import numpy as np
import pytest

from explorer.analysis.stats import differences, paired_tests
from explorer.analysis.stats.pairing import TaskPair

REPEATS = 1000
TOLERANCE = 3 * np.sqrt(0.05 * 0.95 / REPEATS)
"""Three standard errors of a share of 0.05 over so many simulations."""


def test_mcnemar_is_the_binomial_test_on_disagreements():
    """Ten documents only the teacher got right against none: p = 2 / 2**10."""
    student_N = np.array([0.0] * 10 + [1.0] * 30)

    assert paired_tests.mcnemar(student_N, np.ones(40)) == pytest.approx(2 / 2**10)
    assert paired_tests.mcnemar(student_N, student_N) == 1.0


@pytest.mark.parametrize(("better", "worse"), [(0, 1), (3, 3), (2, 9), (30, 12), (0, 40)])
def test_mcnemar_is_scipys_exact_binomial_test(better, worse):
    """The p-value is the two-sided one of scipy's own test."""
    from scipy import stats

    student = np.array([1.0] * better + [0.0] * worse + [1.0] * 5)
    teacher = np.array([0.0] * better + [1.0] * worse + [1.0] * 5)

    expected = stats.binomtest(better, better + worse, 0.5).pvalue

    assert paired_tests.mcnemar(student, teacher) == pytest.approx(expected, rel=1e-9)


def test_the_smallest_detectable_difference_agrees_with_simulation():
    """With as many documents as told, a difference of that size is found about 8 times in 10."""
    count, disagreement = 1000, 0.2
    difference = paired_tests.smallest_detectable_difference(count, disagreement)
    assert difference == pytest.approx(0.0396, abs=5e-4)
    rng = np.random.default_rng(1)
    better, worse = (disagreement - difference) / 2, (disagreement + difference) / 2
    found = 0
    for wins, losses, _ in rng.multinomial(count, [better, worse, 1 - disagreement], size=500):
        disagree = np.array([1.0] * wins + [0.0] * losses)
        found += paired_tests.mcnemar(disagree, 1 - disagree) < 0.05
    assert found / 500 == pytest.approx(0.8, abs=0.07)


def test_more_documents_show_smaller_differences():
    """The preview's number falls with the number of documents and never passes one."""
    shown = [paired_tests.smallest_detectable_difference(n) for n in (0, 2, 50, 500, 5000)]

    assert shown[:2] == [1.0, 1.0]
    assert shown == sorted(shown, reverse=True)


def test_an_impossible_question_about_power_is_refused():
    """Arguments out of range are named, not computed with."""
    with pytest.raises(ValueError, match="disagreement in"):
        paired_tests.smallest_detectable_difference(100, disagreement=0)
    with pytest.raises(ValueError, match="power in"):
        paired_tests.smallest_detectable_difference(100, power=1.0)


def test_mcnemar_is_statsmodels():
    """The same p-value as statsmodels gives for the table of agreements."""
    from statsmodels.stats.contingency_tables import mcnemar

    rng = np.random.default_rng(3)
    own, other = rng.integers(0, 2, (2, 60)).astype(float)
    table = [[np.sum((own == a) & (other == b)) for b in (1, 0)] for a in (1, 0)]

    assert paired_tests.mcnemar(own, other) == pytest.approx(mcnemar(table, exact=True).pvalue)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_holm_is_statsmodels(count):
    """Adjusted p-values agree with statsmodels', ties and order included."""
    from statsmodels.stats.multitest import multipletests

    p_values = np.random.default_rng(count).uniform(0, 0.2, count).round(2)

    expected = multipletests(p_values, method="holm")[1]

    np.testing.assert_allclose(paired_tests.holm(p_values), expected)


def test_holm_leaves_out_what_is_missing():
    """A task without a p-value neither gets one nor makes the others dearer."""
    adjusted = paired_tests.holm(np.array([0.01, np.nan, 0.04]))

    np.testing.assert_allclose(adjusted, [0.02, np.nan, 0.04])


def test_the_paired_t_test_is_scipys():
    """Graded answers get scipy's test of two related samples."""
    from scipy import stats

    own, other = np.random.default_rng(8).uniform(size=(2, 30))

    p_value, name = paired_tests.paired_test(own, other)

    assert name == "t, paired"
    assert p_value == pytest.approx(stats.ttest_rel(own, other).pvalue)


def test_the_clustered_test_is_statsmodels():
    """Documents that share a passage get the cluster-robust t test of statsmodels."""
    import statsmodels.api as sm

    rng = np.random.default_rng(9)
    clusters = rng.integers(0, 12, 80)
    own, other = (rng.uniform(size=(2, 80)) < 0.6).astype(float)
    fitted = sm.OLS(own - other, np.ones(80)).fit(
        cov_type="cluster", cov_kwds={"groups": clusters, "df_correction": True}, use_t=True
    )
    p_value, name = paired_tests.paired_test(own, other, clusters)

    assert name == "t, clustered"
    assert p_value == pytest.approx(float(fitted.pvalues[0]))


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [([0.5], [0.2], 1.0), ([0.5, 0.3], [0.5, 0.3], 1.0), ([0.5, 0.75], [0.25, 0.5], 0.5)],
)
def test_edges_of_the_t_test(own, other, expected):
    """One document tells nothing, equal answers are equal, two of one sign happen by chance."""
    assert paired_tests.paired_test(np.array(own), np.array(other))[0] == expected


def test_a_gap_without_any_spread_needs_documents_to_be_seen():
    """Five equal gaps are a coin that fell one way five times, p = 0.0625; eight are a finding."""
    for count, expected in ((5, 0.0625), (8, 2 / 256)):
        own, other = np.full(count, 0.75), np.full(count, 0.5)
        assert paired_tests.paired_test(own, other)[0] == expected


def equal_models(rng, count, num_clusters=None, share=0.7):
    """Right-or-wrong answers of two equally good models; a passage makes its questions alike."""
    if num_clusters is None:
        clusters, ability = None, np.full((2, count), share)
    else:
        clusters = np.repeat(np.arange(num_clusters), count // num_clusters)
        # On each passage one model or the other is at home; over passages they are equal.
        luck = rng.uniform(-0.3, 0.3, (2, num_clusters))
        ability = share + luck[:, clusters]
    own, other = (rng.uniform(size=(2, count)) < ability).astype(float)
    return own, other, clusters


def rejected(p_values):
    return float(np.mean(np.asarray(p_values) < 0.05))


def test_mcnemar_errs_at_most_5_times_in_100():
    """Two equal models are called different no more often than promised."""
    rng = np.random.default_rng(20261124)
    p_values = [paired_tests.mcnemar(*equal_models(rng, 300)[:2]) for _ in range(REPEATS)]

    assert 0.02 < rejected(p_values) <= 0.05 + TOLERANCE


def test_the_t_test_errs_5_times_in_100():
    """On graded answers the error rate is the nominal one."""
    rng = np.random.default_rng(1)
    p_values = [paired_tests.paired_test(*rng.beta(2, 1, (2, 60)))[0] for _ in range(REPEATS)]

    assert abs(rejected(p_values) - 0.05) < TOLERANCE


def test_shared_passages_need_the_clustered_test():
    """With 40 passages of 10 questions the clustered test is nominal; McNemar is far off."""
    rng = np.random.default_rng(2)
    cases = [equal_models(rng, 400, num_clusters=40) for _ in range(REPEATS)]

    clustered = rejected([paired_tests.paired_test(*case)[0] for case in cases])
    naive = rejected([paired_tests.mcnemar(own, other) for own, other, _ in cases])

    assert abs(clustered - 0.05) < TOLERANCE
    assert naive > 0.10


def test_holm_keeps_the_error_of_all_tasks_together():
    """Of eight equal tasks, one is called different at most 5 times in 100; unadjusted, often."""
    rng = np.random.default_rng(4)
    families = rng.uniform(size=(REPEATS, 8))

    adjusted = np.mean([(paired_tests.holm(family) < 0.05).any() for family in families])
    plain = np.mean((families < 0.05).any(axis=1))

    assert adjusted <= 0.05 + TOLERANCE
    assert plain > 0.25


def test_the_suite_errs_5_times_in_100():
    """Over tasks of different size, one of them clustered, the suite's test is nominal."""
    rng = np.random.default_rng(6)
    p_values = []
    for _ in range(REPEATS):
        pairs = []
        for task, count, num_clusters in (("a", 120, None), ("b", 300, None), ("c", 240, 60)):
            own, other, clusters = equal_models(rng, count, num_clusters)
            pairs.append(TaskPair(task, "acc", 0.0, own, other, clusters_N=clusters))
        p_values.append(differences.suite_difference(pairs, draws=1)["p_value"])

    assert abs(rejected(p_values) - 0.05) < TOLERANCE


@pytest.mark.parametrize(
    ("difference", "p_value", "expected"),
    [
        (0.1, 0.01, "better"),
        (-0.1, 0.01, "worse"),
        (0.1, 0.05, "inconclusive"),
        (0.1, np.nan, "inconclusive"),
    ],
)
def test_a_verdict_needs_a_clear_p_value(difference, p_value, expected):
    """What is not clear is inconclusive, which is an answer of its own."""
    assert paired_tests.verdict(difference, p_value) == expected
