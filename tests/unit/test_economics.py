"""Costs where something is missing, uncertain or impossible."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer.analysis import breakeven, fleet, payback, serving
from explorer.analysis.fleet import Limits
from explorer.analysis.quantity import Quantity, median, of, unknown
from explorer.analysis.serving import Measured, Workload
from explorer.errors import BadInput
from tests import records

CHAT = Workload(512, 128)
POINT = Measured(Quantity(200.0), Quantity(20.0), 1, 512, 128)
RATE = Quantity(1.8)
CURVE = fleet.curve([POINT], CHAT)
POSITIVE = st.floats(0.01, 1e6)


@given(
    value=POSITIVE,
    below=st.floats(0, 0.9),
    above=st.floats(0, 5),
    other=POSITIVE,
)
def test_an_interval_holds_its_value_after_every_step(value, below, above, other):
    """Low, value and high stay in order through products, quotients and sums."""
    one = Quantity(value, value * (1 - below), value * (1 + above))

    for result in (one * other, one / other, other / one, one + other, one * one, one / one):
        assert result.low <= result.value * (1 + 1e-9)
        assert result.value <= result.high * (1 + 1e-9)


def test_what_is_missing_is_named_once_and_carried_along():
    """Two unknowns give both reasons, and no number."""
    both = unknown("a price") * unknown("a speed") / unknown("a price")

    assert both.value is None
    assert both.missing == ("a price", "a speed")
    assert both.in_words() == "–"


def test_nothing_is_divided_by_zero():
    """A throughput of zero gives no cost instead of an infinite one."""
    assert (RATE / 0.0).missing == ("a divisor that is not zero",)
    assert not (RATE / Quantity(5.0, 0.0, 9.0)).known


def test_few_timings_have_a_median_and_no_interval():
    """Below six values no two of them hold the median with 95 %."""
    assert median([1.0, 2.0, 3.0, 4.0, 5.0]) == Quantity(3.0)
    assert median([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == Quantity(3.5, 1.0, 6.0)
    assert not median([]).known
    assert of(math.nan, "a price").missing == ("a price",)


def test_an_unknown_price_leaves_the_cost_blank_and_the_devices_known():
    """How many devices does not depend on their price."""
    plan = fleet.plan(
        CURVE, traffic_per_s=1, utilisation=0.5, usd_per_hour=unknown("the price of box")
    )

    assert plan.replicas.value == 6
    assert plan.usd_per_month.missing == ("the price of box",)
    assert serving.costs(POINT, CHAT, unknown("the price of box"), 1).usd_per_request.missing == (
        "the price of box",
    )


@pytest.mark.parametrize("utilisation", [0, -0.1, 2, math.nan])
def test_a_utilisation_that_cannot_be_is_refused(utilisation):
    """0 or 2 are no shares of the time."""
    with pytest.raises(BadInput, match="utilisation must be above 0 and at most 1"):
        serving.costs(POINT, CHAT, RATE, utilisation)
    with pytest.raises(BadInput, match="utilisation"):
        fleet.plan(CURVE, traffic_per_s=1, utilisation=utilisation, usd_per_hour=RATE)
    with pytest.raises(BadInput, match="utilisation"):
        breakeven.break_even(Quantity(1.0), RATE, Quantity(1.0), utilisation)


@pytest.mark.parametrize("dollars", [-1.0, math.inf, math.nan])
def test_an_amount_that_cannot_be_is_refused(dollars):
    """Negative or not a number: US dollars, 0 or more."""
    price = Quantity(dollars)

    with pytest.raises(BadInput, match="convert other currencies first"):
        serving.costs(POINT, CHAT, price, 1)
    with pytest.raises(BadInput, match="US dollars"):
        breakeven.api_usd_per_request(CHAT, price, RATE)
    with pytest.raises(BadInput, match="US dollars"):
        payback.bill({}, price)
    with pytest.raises(BadInput, match="electricity"):
        serving.energy_usd_per_mtok(RATE, price)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Workload(0, 128), "at least 1 input token"),
        (lambda: Limits(ttft_ms=0), "limit on TTFT must be above 0"),
        (lambda: payback.bill({}, RATE, shared_by=0), "shared by 1 student or more"),
        (
            lambda: fleet.plan(CURVE, traffic_per_s=0, utilisation=1, usd_per_hour=RATE),
            "traffic must be above 0",
        ),
    ],
)
def test_other_requests_that_cannot_be_are_refused(make, said):
    """In words, before anything is computed."""
    with pytest.raises(BadInput, match=said):
        make()


def test_limits_that_nothing_meets_say_what_was_measured():
    """No fleet, and the medians at the smallest concurrency."""
    plan = fleet.plan(
        CURVE, traffic_per_s=1, utilisation=1, usd_per_hour=RATE, limits=Limits(tpot_ms=5)
    )

    assert plan.concurrency is None
    assert "at 1 the medians are TTFT 200 ms and TPOT 20.0 ms" in plan.replicas.missing[0]
    assert not plan.usd_per_hour.known


def test_one_measured_concurrency_is_never_extrapolated_in_silence():
    """The plan says that it knows of no more."""
    plan = fleet.plan(CURVE, traffic_per_s=100, utilisation=1, usd_per_hour=RATE)

    assert plan.notes[0].startswith("only concurrency 1 was measured")


def test_a_curve_that_turned_down_ends_before_its_end():
    """Past saturation more requests at once finish fewer: the peak is used, without a note."""
    slow = Measured(Quantity(4000.0), Quantity(900.0), 16, 512, 128)
    best = Measured(Quantity(400.0), Quantity(25.0), 8, 512, 128)

    plan = fleet.plan(
        fleet.curve([slow, POINT, best], CHAT), traffic_per_s=1, utilisation=1, usd_per_hour=RATE
    )

    assert plan.concurrency == 8
    assert plan.notes == ()


def test_a_month_at_each_traffic_is_a_staircase():
    """A second device is needed as soon as the first one is full."""
    frame = fleet.monthly(CURVE, [0.1, 0.3, 0.5], utilisation=1.0, usd_per_hour=RATE)

    assert frame["replicas"].tolist() == [1, 1, 2]
    assert frame["usd_per_month"].tolist() == [1.8 * 730, 1.8 * 730, 3.6 * 730]


def test_a_payback_needs_a_saving():
    """Equal fleets pay nothing back, an unknown bill is named, a doubtful saving has no end."""
    none = payback.payback_hours(RATE, Quantity(1.8), Quantity(1.8))
    blank = payback.payback_hours(unknown("the seconds of the training"), Quantity(5.4), RATE)
    doubtful = payback.payback_hours(RATE, Quantity(3.6), Quantity(1.8, 1.8, 3.6))

    assert none.missing[0].startswith("a saving")
    assert blank.missing == ("the seconds of the training",)
    assert doubtful == Quantity(1.0)


def test_the_bill_comes_from_what_a_run_measured():
    """Teacher's pass, training and evaluation as the record has them; a part unknown is named."""
    record = records.make_record(num_layers=15)
    seconds = payback.seconds_of(record)

    assert seconds["teacher pass"] == 290.0
    assert seconds["training"] == record.distillation.seconds
    assert payback.bill(seconds, RATE).total.value == pytest.approx(
        1.8 * sum(seconds.values()) / 3600
    )
    failed = payback.seconds_of(records.make_record(num_layers=15, status="failed"))
    assert payback.bill(failed, RATE).total.missing == ("the seconds of the teacher pass",)


def test_money_over_time_begins_with_the_bill_and_crosses_at_the_payback():
    """After the payback the student has cost less."""
    bill, teacher, student = Quantity(1460.0), Quantity(3.0), Quantity(1.0)

    frame = payback.over_time(bill, teacher, student, months=3)

    assert frame["student_usd"].tolist()[0] == 1460.0
    months = payback.payback_hours(bill, teacher, student).value / 730
    assert months == pytest.approx(1.0)
    assert frame["teacher_usd"].tolist()[1] == pytest.approx(frame["student_usd"].tolist()[1])
    assert payback.over_time(unknown("x"), teacher, student)["student_usd"].isna().all()


def test_a_free_api_is_never_beaten_and_an_unknown_one_is_named():
    """In words, without a division by zero."""
    rate = Quantity(1.0)

    free = breakeven.break_even(Quantity(0.0), RATE, rate)
    blank = breakeven.break_even(unknown("the API's price"), RATE, rate)

    assert free.verdict == "The API is free: a device never pays."
    assert blank.verdict == "Not known without the API's price."


def test_the_planned_utilisation_may_be_too_low_for_the_device_to_pay():
    """It pays from 50 % on, and only 30 % are planned with."""
    found = breakeven.break_even(Quantity(0.001), RATE, Quantity(1.0), utilisation=0.3)

    assert found.utilisation.value == pytest.approx(0.5)
    assert "the API is cheaper as planned" in found.verdict
