"""The documents cannot lie: each worked example of the statistics is recomputed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import special

from explorer.analysis import frontier
from explorer.analysis.stats import bootstrap, differences, intervals, paired_tests, retention
from explorer.analysis.stats.pairing import TaskPair

DOCS = Path(__file__).parents[2] / "docs"
TEXT = " ".join(
    word
    for name in ("statistics.md", "measure.md")
    for word in (DOCS / name).read_text(encoding="utf-8").split()
)


def answers(both, teacher_only, student_only, neither):
    """A task of four choices with so many documents of each kind."""
    student = [1] * both + [0] * teacher_only + [1] * student_only + [0] * neither
    teacher = [1] * both + [1] * teacher_only + [0] * student_only + [0] * neither
    return TaskPair("a", "acc", 0.25, np.array(student, float), np.array(teacher, float))


def half():
    one = TaskPair("a", "acc", 0.5, np.array([1.0] * 7 + [0] * 3), np.array([1.0] * 9 + [0]))
    return one.retention, one.raw_ratio


def four_choices():
    one = answers(90, 50, 10, 50)
    return one.retention, intervals.retention_stderr(one), *intervals.fieller(one)


def passages():
    values = np.array([[1.0, 1, 0, 0, 1, 0]])
    clusters = np.array(["x", "x", "x", "y", "y", "z"])
    plain, clustered = bootstrap.covariance(values), bootstrap.covariance(values, clusters)
    return np.sqrt(plain[0, 0]), np.sqrt(clustered[0, 0])


def suite():
    found = intervals.suite_mean([0.9, 0.6, 0.3], [0.03, 0.04, 0.12])
    return found.mean, found.within_stderr, found.between_sd, found.stderr


def discordant(better, worse):
    own = np.array([1.0] * better + [0.0] * worse)
    return paired_tests.mcnemar(own, 1 - own)


def two_tasks():
    found = intervals.suite_mean([-0.05, -0.03], [0.02, 0.01])
    p_value = paired_tests.normal_p_value(found.mean, found.within_stderr)
    return found.mean, found.within_stderr, -found.mean / found.within_stderr, p_value


def member():
    runs = pd.DataFrame({"run_id": ["20", "24"], "kept": [0.79, 0.81], "ms": [23.2, 26.8]})
    draws = pd.DataFrame({"20": 0.80, "24": np.where(np.arange(2000) < 1185, 0.81, 0.79)})
    return frontier.membership(runs, draws, maximise="kept", minimise="ms")[1]


def five_right():
    """Retention and its interval where both models have five of five right."""
    one = TaskPair("sums", "acc", 0.0, np.ones(5), np.ones(5))
    return retention.per_task_of_pairs([one]).iloc[0][["low", "high"]] * 100


def five_lost():
    """The difference's interval and p-value where the student has none of five right."""
    row = differences.suite_difference([TaskPair("sums", "acc", 0.0, np.zeros(5), np.ones(5))])
    return 100 * row["difference_low"], 100 * row["difference_high"], row["p_value"]


@pytest.mark.parametrize(
    ("sentence", "values"),
    [
        ("(0.90 - 0.50) = {:.2f}: half. The raw ratio, 0.70 / 0.90 = {:.2f}", half()),
        ("A teacher with 58 right has p = {:.3f}", [special.bdtrc(57, 100, 0.5)]),
        ("with 59 right p = {:.3f}", [special.bdtrc(58, 100, 0.5)]),
        (
            "= {:.3f} with a standard error of {:.3f}; Fieller's interval is [{:.3f}, {:.3f}]",
            four_choices(),
        ),
        ("Plain, the standard error is {:.3f}; clustered it is {:.3f}", passages()),
        (
            "mean {:.3f}, within {:.3f}, between {:.3f} (as a standard deviation), total {:.3f}",
            suite(),
        ),
        ("p = 2 · (1/2)^10 = {:.3f}", [discordant(0, 10)]),
        ("With 6 against 4, p = {:.3f}", [discordant(6, 4)]),
        (
            "p = 0.010, 0.040, 0.030 have p (Holm) = {:.3f}, {:.3f}, {:.3f}",
            paired_tests.holm(np.array([0.010, 0.040, 0.030])),
        ),
        ("the suite's is {:.3f}, its error {:.4f}, z = {:.2f}, p = {:.4f}", two_tasks()),
        ("n = 1,000 gives d = {:.3f}", [paired_tests.smallest_detectable_difference(1000)]),
        (
            "With 100 documents it is {:.1f} points",
            [100 * paired_tests.smallest_detectable_difference(100)],
        ),
        ("9 of 10 right: [{:.3f}, {:.3f}]", intervals.wilson(9, 10)),
        ("its share is {:.2f}", [member()]),
        ("retention is 100 % [{:.0f}, {:.0f}]", five_right()),
        ("-100 points [{:.0f}, {:.1f}] with p = {:.4f}", five_lost()),
    ],
)
def test_a_worked_example_is_what_the_code_computes(sentence, values):
    """The number in the text is the number of the function."""
    assert sentence.format(*values) in TEXT
