"""Few answers, or answers that are all alike, are no certainty."""

import itertools

import numpy as np
import pandas as pd
import pytest

from explorer.analysis import frontier
from explorer.analysis.cost.quantity import Quantity, median_quantity
from explorer.analysis.stats import (
    bootstrap,
    differences,
    few_answers,
    intervals,
    paired_tests,
    retention,
)
from explorer.analysis.stats.pairing import TaskPair

RIGHT, WRONG = 1.0, 0.0


def pair(student, teacher, *, task="sums", clusters=None, chance=0.0):
    """Two models on one task."""
    return TaskPair(
        task,
        "acc",
        chance,
        np.array(student, float),
        np.array(teacher, float),
        clusters_N=None if clusters is None else np.array(clusters),
    )


def per_task(one):
    return retention.per_task_of_pairs([one]).iloc[0]


@pytest.mark.parametrize("count", [1, 2, 5, 40, 2000])
@pytest.mark.parametrize(
    ("student", "teacher"), [(RIGHT, RIGHT), (WRONG, RIGHT), (RIGHT, WRONG), (0.5, 1.0)]
)
@pytest.mark.parametrize("size", [1, 4])
def test_no_interval_is_without_width(count, student, teacher, size):
    """All right, all wrong or all alike, for one document to two thousand, alone or in passages."""
    clusters = None if size == 1 else [number // size for number in range(count * size)]
    one = pair([student] * count * size, [teacher] * count * size, clusters=clusters)
    row, suite = per_task(one), differences.suite_difference([one])

    for low, value, high in (
        (row["difference_low"], row["difference"], row["difference_high"]),
        (suite["difference_low"], suite["difference"], suite["difference_high"]),
        *([(row["low"], row["retention"], row["high"])] if row["retention"] >= 0 else []),
    ):
        assert low <= value <= high
        assert high - low > 0.5 / (count + 2)
    assert intervals.retention_stderr(one) != 0
    assert suite["stderr"] > 0


@pytest.mark.parametrize("count", [1, 3, 5, 6, 12])
def test_a_suite_of_one_task_has_its_tasks_verdict(count):
    """All of a few documents lost: the suite says what McNemar's test says of the task."""
    one = pair([WRONG] * count, [RIGHT] * count)
    row, suite = per_task(one), differences.suite_difference([one])

    assert suite["p_value"] == row["p_value"] == pytest.approx(min(1.0, 2 * 0.5**count))
    assert suite["verdict"] == row["verdict"] == ("worse" if count >= 6 else "inconclusive")
    assert (row["difference_high"] < 0) == (row["verdict"] == "worse")


def test_a_task_of_a_few_documents_does_not_decide_a_suite():
    """Five documents lost in one task and none of a thousand in the other show nothing."""
    few = pair([WRONG] * 5, [RIGHT] * 5)
    rng = np.random.default_rng(0)
    same = (rng.random(1000) < 0.7).astype(float)
    suite = differences.suite_difference([few, pair(same, same.copy(), task="other")])

    assert suite["difference"] == -0.5
    assert (suite["p_value"], suite["verdict"]) == (0.0625, "inconclusive")


def test_flipped_signs_are_mcnemars_test():
    """On two tasks of equal size the p-value is that of one task with all their documents."""
    rng = np.random.default_rng(1)
    student, teacher = (rng.random((2, 40)) < [[0.8], [0.9]]).astype(float)
    halves = [pair(student[:20], teacher[:20]), pair(student[20:], teacher[20:], task="b")]
    mean = float((student - teacher).mean())

    found = few_answers.suite_p_value(halves, mean, 0.01)

    assert found == pytest.approx(paired_tests.mcnemar(student, teacher))


def test_ordinary_tasks_are_resampled_as_before():
    """Thirty documents that vary: nothing is added, in draws, covariances and intervals."""
    rng = np.random.default_rng(2)
    student, teacher = (rng.random((2, 30)) < [[0.6], [0.8]]).astype(float)
    one = pair(student, teacher)
    rows = np.stack([student, teacher])

    assert not few_answers.is_few(one)
    means, spread = few_answers.means_and_covariance(rows, one)
    assert np.array_equal(means, rows.mean(axis=1))
    assert np.array_equal(spread, bootstrap.covariance(rows))
    drawn = bootstrap.bootstrap_means(rows, "sums", 2000, 0)
    low, high = bootstrap.percentile_interval(drawn[:, 0] - drawn[:, 1])
    assert tuple(per_task(one)[["difference_low", "difference_high"]]) == (low, high)


def test_a_model_beside_itself_is_itself():
    """A teacher's retention is 1 in every draw, whatever it answered."""
    answers = np.ones(5)
    own = TaskPair("sums", "acc", 0.0, answers, answers)
    runs = pd.DataFrame({"run_id": ["t"], "role": ["teacher"], "teacher_run_id": [None]})

    _, drawn = retention.of_pairs(runs, {"t": [own]}, {"t"})

    assert set(drawn["t"]) == {1.0}


def test_the_frontier_is_not_certain_of_a_few_documents():
    """Two students with five right answers each: the dearer one may well be the better one."""
    teacher = np.ones(5)
    pairs = {
        "t": [TaskPair("sums", "acc", 0.0, teacher, teacher)],
        **{name: [pair(np.ones(5), teacher)] for name in ("a", "b")},
    }
    runs = pd.DataFrame(
        {
            "run_id": ["t", "a", "b"],
            "role": ["teacher", "student", "student"],
            "teacher_run_id": [None, "t", "t"],
            "tpot_ms": [3.0, 1.0, 2.0],
            "machine_busy": False,
        }
    )
    columns, drawn = retention.of_pairs(runs, pairs, set(pairs))
    runs["retention"] = columns["retention"]

    shares = frontier.membership(
        runs, pd.DataFrame(drawn), maximise="retention", minimise="tpot_ms"
    )

    assert shares[1] == 1.0
    assert 0.2 < shares[2] < 0.8


@pytest.mark.parametrize("count", [5, 12])
def test_intervals_of_few_answers_hold_the_truth(count):
    """Nine times in ten at least, where the bootstrap alone fails one time in four."""
    rng, hits, plain, times = np.random.default_rng(3), 0, 0, 200
    for number in range(times):
        common, own = rng.random((2, count))
        same = rng.random(count) < 0.5
        one = pair(np.where(same, common, own) < 0.6, common < 0.8)
        drawn = bootstrap.bootstrap_means(
            np.stack([one.student_N, one.teacher_N]), "sums", 300, number
        )
        low, high = bootstrap.percentile_interval(drawn[:, 0] - drawn[:, 1])
        plain += low <= -0.2 <= high
        widened = few_answers.with_halves(drawn, one, number)
        low, high = few_answers.difference_interval(one, widened[:, 0] - widened[:, 1])
        hits += low <= -0.2 <= high
    assert hits / times >= 0.92 > plain / times


def test_the_exact_interval_holds_zero_where_mcnemars_test_does():
    """For all tables of up to twelve documents that differ."""
    for gained, lost in itertools.product(range(13), repeat=2):
        low, high = few_answers.clopper_pearson(gained, gained + lost)
        own = np.array([1.0] * gained + [0.0] * lost)
        assert (low <= 0.5 <= high) == (paired_tests.mcnemar(own, 1 - own) >= 0.05)


def test_a_price_of_few_timings_has_no_interval():
    """Four timings give a value; nothing that is computed from it claims an interval."""
    few, many = median_quantity([1.0, 2.0, 3.0, 4.0]), median_quantity([1.0 + i for i in range(9)])

    assert (few.low, few.uncertain) == (None, True)
    assert (few * many / 3).low is None
    assert (many * Quantity(2.0)).low == 2 * many.low
