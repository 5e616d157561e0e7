from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from explorer.analysis import frontier, numbers
from explorer.analysis.cost import unit_cost
from explorer.analysis.stats import paired_tests, pairing, retention
from explorer.catalogue.prices import Price
from tests import scripts

strategies = scripts.load(Path(__file__).with_name("strategies.py"))


@given(strategies.planes())
def test_the_frontier_has_no_dominated_run_and_leaves_none_out(frame):
    """A run is on the frontier exactly when no other run is at least as good on both axes."""
    best = frontier.pareto(frame, maximise="kept", minimise="ms")

    points = list(zip(best["kept"], best["ms"], strict=True))
    assert len(set(points)) == len(points)
    for kept, ms in frame[["kept", "ms"]].dropna().itertuples(index=False):
        covered = [(k, m) for k, m in points if k >= kept and m <= ms]
        assert covered
        if (kept, ms) in points:
            assert covered == [(kept, ms)]


@given(strategies.planes())
def test_without_uncertainty_membership_is_the_frontier(frame):
    """Runs whose values are certain are on it in all draws or in none; ties share a place."""
    nothing_drawn = pd.DataFrame(index=range(3))

    share = frontier.membership(frame, nothing_drawn, maximise="kept", minimise="ms")

    best = frontier.pareto(frame, maximise="kept", minimise="ms")
    assert (share[best.index] == 1).all()
    assert set(share.dropna()) <= {0.0, 1.0}
    assert share.isna().equals(frame[["kept", "ms"]].isna().any(axis=1))


@given(strategies.paired_answers())
def test_a_student_that_answers_as_its_teacher_keeps_everything(pair):
    """Equal answers give 100 % in every draw, whatever the task."""
    answers_N, _ = pair
    one = pairing.TaskPair("a", "acc", 0.0, answers_N, answers_N)
    if answers_N.mean() == 0:
        assert np.isnan(one.retention)
        return

    kept_D, raw_D = retention._draw({"s": [one]}, 50, 0)["s"]

    assert one.retention == one.raw_ratio == 1.0
    # Only a draw whose denominator met the floor may keep less.
    assert (kept_D <= 1 + 1e-9).all()
    assert np.median(kept_D) >= 1 - 1e-9 or answers_N.sum() < 4
    np.testing.assert_allclose(kept_D, raw_D)


@given(strategies.paired_answers(), st.sampled_from([0.0, 0.25, 0.5]))
def test_retention_is_between_the_ends_of_a_sane_interval(pair, chance):
    """Intervals are ordered and finite, however the answers fall."""
    student_N, teacher_N = pair
    one = pairing.TaskPair("a", "acc", chance, student_N, teacher_N)
    if teacher_N.mean() <= chance:
        assert np.isnan(one.retention)
        return

    row = retention._suite("s", "t", [one], retention._draw({"s": [one]}, 100, 0)["s"])

    assert np.isfinite([row["retention_low"], row["retention_high"]]).all()
    assert row["retention_low"] <= row["retention_high"]


@given(strategies.paired_answers())
def test_the_exact_test_does_not_care_who_is_the_student(pair):
    """Exchanging the two models leaves the p-value, which is a probability."""
    student_N, teacher_N = pair

    p_value = paired_tests.mcnemar(student_N, teacher_N)

    assert p_value == paired_tests.mcnemar(teacher_N, student_N)
    assert 0 < p_value <= 1


@given(
    rate=st.floats(0.001, 1000),
    speed=st.floats(0.1, 1e6),
    utilisation=st.floats(0.01, 1),
)
def test_an_hour_of_tokens_costs_the_rate(rate, speed, utilisation):
    """Tokens of an hour at their price give the hour's price back."""
    runs = pd.DataFrame(
        {
            "run_id": ["t"],
            "role": ["teacher"],
            "teacher_run_id": [None],
            "device_name": ["box"],
            "output_tokens_per_s": [speed],
            "batch_size": [1],
            "output_tokens": [64],
            "teacher_latency_ms": [np.nan],
        }
    )

    added = unit_cost.add_costs(
        runs, {"box": Price(usd_per_hour=rate)}, utilisation=utilisation
    ).iloc[0]

    per_hour = added["usd_per_mtok"] * speed * utilisation * 3600 / 1e6
    np.testing.assert_allclose([per_hour, added["usd_per_hour_at_load"]], rate)


@given(st.floats(-1e12, 1e12).filter(lambda v: v == 0 or abs(v) > 1e-6))
def test_a_written_number_is_the_number_to_three_digits(value):
    """Rounding never changes a number by more than half a percent."""
    written = float(numbers.significant(value).replace(",", ""))

    assert abs(written - value) <= 0.005 * abs(value) + 1e-15
