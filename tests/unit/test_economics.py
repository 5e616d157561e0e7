"""Costs where something is missing, uncertain or impossible."""

import dataclasses
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer import cli
from explorer.analysis.cost import breakeven, cost_headline, economics, fleet, payback, serving_cost
from explorer.analysis.cost.economics import Assumptions
from explorer.analysis.cost.fleet import LatencyLimits
from explorer.analysis.cost.quantity import Quantity, from_value, median_quantity, unknown
from explorer.analysis.cost.serving_cost import MeasuredTiming, Workload
from explorer.errors import BadInput
from explorer.records import LoadPoint
from explorer.store import frames
from tests import records

CHAT = Workload(512, 128)
POINT = MeasuredTiming(Quantity(200.0), Quantity(20.0), 1, 512)
RATE = Quantity(1.8)
CURVE = fleet.concurrency_curve([POINT], CHAT)
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
    assert median_quantity([1.0, 2.0, 3.0, 4.0, 5.0]) == Quantity(3.0)
    assert median_quantity([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == Quantity(3.5, 1.0, 6.0)
    assert not median_quantity([]).known
    assert from_value(math.nan, "a price").missing == ("a price",)


def test_an_unknown_price_leaves_the_cost_blank_and_the_devices_known():
    """How many devices does not depend on their price."""
    plan = fleet.plan_fleet(
        CURVE, traffic_per_s=1, utilisation=0.5, usd_per_hour=unknown("the price of box")
    )

    assert plan.replicas.value == 6
    assert plan.usd_per_month.missing == ("the price of box",)
    assert serving_cost.request_costs(
        POINT, CHAT, unknown("the price of box"), 1
    ).usd_per_request.missing == ("the price of box",)


@pytest.mark.parametrize("utilisation", [0, -0.1, 2, math.nan])
def test_a_utilisation_that_cannot_be_is_refused(utilisation):
    """0 or 2 are no shares of the time."""
    with pytest.raises(BadInput, match="utilisation must be above 0 and at most 1"):
        serving_cost.request_costs(POINT, CHAT, RATE, utilisation)
    with pytest.raises(BadInput, match="utilisation"):
        fleet.plan_fleet(CURVE, traffic_per_s=1, utilisation=utilisation, usd_per_hour=RATE)
    with pytest.raises(BadInput, match="utilisation"):
        breakeven.break_even(Quantity(1.0), RATE, Quantity(1.0), utilisation)


@pytest.mark.parametrize("dollars", [-1.0, math.inf, math.nan])
def test_an_amount_that_cannot_be_is_refused(dollars):
    """Negative or not a number: US dollars, 0 or more."""
    price = Quantity(dollars)

    with pytest.raises(BadInput, match="convert other currencies first"):
        serving_cost.request_costs(POINT, CHAT, price, 1)
    with pytest.raises(BadInput, match="US dollars"):
        breakeven.api_usd_per_request(CHAT, price, RATE)
    with pytest.raises(BadInput, match="US dollars"):
        payback.distillation_bill({}, price)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Workload(0, 128), "at least 1 input token"),
        (lambda: LatencyLimits(ttft_ms=0), "limit on TTFT must be above 0"),
        (lambda: payback.distillation_bill({}, RATE, shared_by=0), "shared by at least 1 student"),
        (
            lambda: fleet.plan_fleet(CURVE, traffic_per_s=0, utilisation=1, usd_per_hour=RATE),
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
    plan = fleet.plan_fleet(
        CURVE, traffic_per_s=1, utilisation=1, usd_per_hour=RATE, limits=LatencyLimits(tpot_ms=5)
    )

    assert plan.concurrency is None
    assert "at 1 the medians are TTFT 200 ms and TPOT 20.0 ms" in plan.replicas.missing[0]
    assert not plan.usd_per_hour.known


def test_one_measured_concurrency_is_never_extrapolated_in_silence():
    """The plan says that it knows of no more."""
    plan = fleet.plan_fleet(CURVE, traffic_per_s=100, utilisation=1, usd_per_hour=RATE)

    assert plan.notes[0].startswith("only concurrency 1 was measured")


def test_a_curve_that_turned_down_ends_before_its_end():
    """Past saturation more requests at once finish fewer: the peak is used, without a note."""
    slow = MeasuredTiming(Quantity(4000.0), Quantity(900.0), 16, 512)
    best = MeasuredTiming(Quantity(400.0), Quantity(25.0), 8, 512)

    plan = fleet.plan_fleet(
        fleet.concurrency_curve([slow, POINT, best], CHAT),
        traffic_per_s=1,
        utilisation=1,
        usd_per_hour=RATE,
    )

    assert plan.concurrency == 8
    assert plan.notes == ()


def test_a_month_at_each_traffic_is_a_staircase():
    """A second device is needed as soon as the first one is full."""
    frame = fleet.monthly_costs(CURVE, [0.1, 0.3, 0.5], utilisation=1.0, usd_per_hour=RATE)

    assert frame["replicas"].tolist() == [1, 1, 2]
    assert frame["usd_per_month"].tolist() == [1.8 * 730, 1.8 * 730, 3.6 * 730]


def test_a_payback_needs_a_saving():
    """Equal fleets pay nothing back, an unknown bill is named, a doubtful saving has no end."""
    none = payback.payback_hours(RATE, Quantity(1.8), Quantity(1.8))
    blank = payback.payback_hours(unknown("the seconds of the training"), Quantity(5.4), RATE)
    doubtful = payback.payback_hours(RATE, Quantity(3.6), Quantity(1.8, 1.8, 3.6))

    assert none.missing[0].startswith("savings")
    assert blank.missing == ("the seconds of the training",)
    assert doubtful == Quantity(1.0)


def test_the_bill_comes_from_what_a_run_measured():
    """Teacher's pass, training and evaluation as the record has them; a part unknown is named."""
    record = records.make_record(num_layers=15)
    seconds = payback.part_seconds(record)

    assert seconds["teacher pass"] == 290.0
    assert seconds["training"] == record.distillation.seconds
    assert payback.distillation_bill(seconds, RATE).total.value == pytest.approx(
        1.8 * sum(seconds.values()) / 3600
    )
    failed = payback.part_seconds(records.make_record(num_layers=15, status="failed"))
    assert payback.distillation_bill(failed, RATE).total.missing == (
        "the seconds of the teacher pass",
    )


def test_money_over_time_begins_with_the_bill_and_crosses_at_the_payback():
    """After the payback the student has cost less."""
    bill, teacher, student = Quantity(1460.0), Quantity(3.0), Quantity(1.0)
    paid = payback.payback_hours(bill, teacher, student).value

    spent = payback.spent_after(bill, student, [0.0, paid])

    assert paid == pytest.approx(730)
    assert spent == pytest.approx([1460.0, teacher.value * paid])
    assert math.isnan(payback.spent_after(unknown("x"), teacher, [1.0])[0])


def test_a_free_api_is_never_beaten_and_an_unknown_one_is_named():
    """In words, without a division by zero."""
    rate = Quantity(1.0)

    free = breakeven.break_even(Quantity(0.0), RATE, rate)
    blank = breakeven.break_even(unknown("the API's price"), RATE, rate)

    assert free.verdict == "The API is free, so a device never pays off."
    assert blank.verdict == "Not known without the API's price."


def test_the_planned_utilisation_may_be_too_low_for_the_device_to_pay():
    """It pays from 50 % on, and only 30 % are planned with."""
    found = breakeven.break_even(Quantity(0.001), RATE, Quantity(1.0), utilisation=0.3)

    assert found.utilisation.value == pytest.approx(0.5)
    assert "the API is cheaper under this plan" in found.verdict


def study(**changes):
    """A teacher and two students, on a device of $0.05 an hour, 60 requests a minute."""
    made = [records.make_record(spec=spec) for spec in records.study(layers=(15, 6))]
    asked = {
        "workload": Workload(128, 64),
        "traffic_per_s": 1.0,
        "utilisation": 0.5,
        "usd_per_hour": {records.DEVICE_NAME: 0.05},
    }
    return made, {r.run_id: frames.label(r) for r in made}, Assumptions(**asked | changes)


def test_each_run_becomes_a_candidate_with_its_fleet_and_its_cost():
    """Fewer layers need fewer devices; the teacher's own time decides its number."""
    made, labels, assumed = study()

    rows = economics.candidates(made, labels, assumed)

    assert rows["label"].tolist() == ["teacher", "15 layers", "6 layers"]
    assert rows["usd_per_month"].is_monotonic_decreasing
    teacher = rows.iloc[0]
    seconds = median_quantity([t.latency_ms / 1e3 for t in made[0].latency.own.turns]).value
    assert teacher["replicas"] == pytest.approx(math.ceil(seconds / 0.5), abs=1)
    assert teacher["fleet_usd_per_hour"] == pytest.approx(0.05 * teacher["replicas"])
    assert teacher["usd_per_request_low"] < teacher["usd_per_request"]
    assert "only concurrency 1 was measured" in teacher["notes"]


def test_other_lengths_change_the_request_and_not_the_cost_per_token():
    """The cost per token is for the timed lengths; a request and its split for the workload's."""
    made, labels, timed = study()
    _, _, longer = study(workload=Workload(512, 256))

    as_timed, other = (economics.candidates(made, labels, each) for each in (timed, longer))

    assert as_timed["usd_per_mtok"].tolist() == other["usd_per_mtok"].tolist()
    assert (other["usd_per_request"] > as_timed["usd_per_request"]).all()
    assert set(zip(other["prompt_tokens"], other["output_tokens"], strict=True)) == {(128, 64)}
    assert set(other["request_input_tokens"]) == {512}
    assert set(other["request_output_tokens"]) == {256}
    request = other["usd_per_mtok_prefill"] * 512 + other["usd_per_mtok_decode"] * 256
    assert request.tolist() == pytest.approx([1e6 * usd for usd in other["usd_per_request"]])
    assert other["usd_per_mtok_blended"].tolist() == pytest.approx((request / 768).tolist())


def test_a_students_bill_shares_the_teachers_pass_with_its_siblings():
    """Two students of one pass pay half of its 290 s each."""
    made, labels, assumed = study()

    both = economics.candidates(made, labels, assumed).set_index("label")
    alone = economics.candidates(made[:2], labels, assumed).set_index("label")

    saved = alone.loc["15 layers", "bill_usd"] - both.loc["15 layers", "bill_usd"]
    assert saved == pytest.approx(0.05 * 145 / 3600)
    assert math.isnan(both.loc["teacher", "bill_usd"])


def test_a_payback_without_the_teachers_run_is_blank_and_says_so():
    """Nothing to save against."""
    made, labels, assumed = study()

    one = economics.candidates(made[1:], labels, assumed).iloc[0]

    assert math.isnan(one["payback_hours"])
    assert one["payback_note"] == "the teacher's own run"


def test_without_a_price_the_fleet_is_counted_and_the_cost_is_blank():
    """The sentence names what is missing."""
    made, labels, assumed = study(usd_per_hour={})

    rows = economics.candidates(made, labels, assumed)

    assert rows["replicas"].notna().all()
    assert rows["usd_per_month"].isna().all()
    assert f"unknown without the price of {records.DEVICE_NAME}" in cost_headline.cost_headline(
        rows, assumed
    )


def test_an_api_has_a_month_and_a_break_even_for_each_candidate():
    """The dearer the API, the sooner a device pays."""
    made, labels, cheap = study(api_usd_per_mtok_input=0.1, api_usd_per_mtok_output=0.1)
    _, _, dear = study(api_usd_per_mtok_input=10.0, api_usd_per_mtok_output=10.0)

    low, high = (economics.candidates(made, labels, one) for one in (cheap, dear))

    assert low["api_usd_per_month"].iloc[0] == pytest.approx(192 * 0.1 / 1e6 * 3600 * 730)
    assert (high["break_even_utilisation"] < low["break_even_utilisation"]).all()
    assert "API" in set(economics.cost_by_traffic(made, labels, dear)["name"])
    assert "API" not in set(economics.cost_by_traffic(made, labels, study()[2])["name"])


def test_the_sentence_speaks_of_the_cheapest_that_keeps_enough_and_of_the_teacher():
    """What the traffic costs, what the student keeps, when it has paid for itself."""
    made, labels, assumed = study()
    rows = economics.candidates(made, labels, assumed).assign(retention=[1.0, 0.6, 0.25])

    said = cost_headline.cost_headline(rows, assumed, min_retention=0.2)

    assert said.startswith("60 requests a minute cost $")
    assert "with 6 layers, the cheapest that keeps at least 20 %, and $" in said
    assert "the former keeps 25 % and has paid for itself after" in said
    assert cost_headline.cost_headline(rows.iloc[:1], assumed).endswith("a month with teacher.")
    assert "with teacher, the cheapest that keeps at least 95 %" in cost_headline.cost_headline(
        rows, assumed
    )
    assert "No finished run" in cost_headline.cost_headline(rows.iloc[:0], assumed)


def test_a_model_is_recommended_only_if_it_surely_keeps_enough():
    """As the pick has it: the share of draws counts; where none keeps enough, the least loss."""
    made, labels, assumed = study()
    rows = economics.candidates(made, labels, assumed)
    rows = rows.assign(retention=[1.0, 0.6, 0.25], method=[None, "cached", "cached"])
    students = rows[rows["role"] == "student"]

    def best(frame, sure):
        row = cost_headline.recommended(frame.assign(sure=sure), 0.5, 0.9)
        return None if row is None else row["retention"]

    assert best(rows, [1.0, 0.95, 0.0]) == 0.6
    assert best(rows, [1.0, 0.85, 0.0]) == 1.0
    assert best(students, [0.85, 0.0]) == 0.6
    assert best(students.assign(method=["labels", "cached"]), [0.95, 0.0]) == 0.25
    assert best(rows[:0], []) is None


def test_money_is_drawn_as_far_as_the_paybacks_can_be_seen():
    """Longer than the slowest payback, a year where nothing is saved."""
    made, labels, assumed = study()
    rows = economics.candidates(made, labels, assumed)

    spent = economics.spending_over_time(rows)
    nothing_saved = economics.spending_over_time(rows.assign(payback_hours=math.nan))

    assert spent["hours"].max() == pytest.approx(1.6 * rows["payback_hours"].max())
    assert nothing_saved["hours"].max() == 12 * 730
    starts = spent[spent["hours"] == 0].set_index("name")["usd"]
    assert starts["teacher"] == 0
    assert starts["15 layers"] == pytest.approx(
        rows.set_index("label").loc["15 layers", "bill_usd"]
    )


def test_price_sets_stand_side_by_side():
    """Twice the rent is twice the month; a set without the device is blank."""
    made, labels, assumed = study()
    sets = {"one": {records.DEVICE_NAME: 0.05}, "two": {records.DEVICE_NAME: 0.1}, "none": {}}

    frame = economics.cost_by_price_set(made, labels, assumed, sets)

    assert frame["two"].tolist() == pytest.approx([2 * usd for usd in frame["one"]])
    assert frame["none"].isna().all()


def test_a_failed_run_has_no_figures():
    """No timing, no cost, and no crash."""
    failed = records.make_record(num_layers=12, status="failed")
    _, _, assumed = study()

    one = economics.candidates([failed], {failed.run_id: "12 layers"}, assumed).iloc[0]

    assert math.isnan(one["usd_per_month"])
    assert one["missing"] == "a measured throughput"


def test_the_command_says_what_the_page_says(monkeypatch, capfd, store_root):
    """Candidates, the sentence, what it rests on; and what is wrong in one line."""
    records.write_study(store_root, layers=(15, 6))

    def ran(*words):
        monkeypatch.setattr(sys, "argv", ["explorer", "economics", *words])
        monkeypatch.setenv("COLUMNS", "220")
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return ended.value.code, " ".join(out.split()), err

    code, out, _ = ran("--prices", "cheapest", "--api", "openai/gpt-4o-mini")
    assert code == 0
    assert "60 requests a minute cost $" in out
    assert "Note: only concurrency 1 was measured" in out
    assert "It serves another model" in out
    assert "Prices: cheapest listed." in out
    assert "Prices: cheapest listed." in ran()[1]  # nobody set a price: as the page begins
    code, out, _ = ran("--prices", "yours")
    assert f"Not known without the price of {records.DEVICE_NAME}." in out
    assert ran("--input-tokens", "64") == ran("--prompt-tokens", "64")  # its older name
    assert ran("--utilisation", "2")[0] == 2
    assert "yours, cheapest, dearest, got 'euro'" in ran("--prices", "euro")[2]


def test_a_sweep_of_load_decides_the_fleet():
    """The best measured level within the limits; arrivals at random and failed levels are none."""
    made, _, assumed = study()
    own = made[0].latency.own

    def level(kind, at, slower, num_failed=0):
        turns = [
            turn.model_copy(update={"latency_ms": slower * turn.latency_ms}) for turn in own.turns
        ]
        return LoadPoint(kind=kind, level=at, turns=turns, seconds=1.0, num_failed=num_failed)

    levels = [
        level("clients", 4, 2.0),
        level("clients", 8, 3.0),
        level("clients", 16, 3.0, num_failed=len(own.turns)),
        level("poisson", 64, 1.0),
    ]
    timing = own.model_copy(update={"curve": levels})
    record = made[0].model_copy(
        update={"latency": made[0].latency.model_copy(update={"own": timing})}
    )

    found = economics.run_curve(record, assumed.workload)
    plan = economics.candidates([record], {record.run_id: "teacher"}, assumed)

    assert found["concurrency"].tolist() == [1, 4, 8]
    assert plan["concurrency"].tolist() == [8]
    tight = dataclasses.replace(assumed, limits=LatencyLimits(tpot_ms=2.5 * own.turns[0].tpot_ms))
    assert economics.candidates([record], {record.run_id: "t"}, tight)["concurrency"].tolist() == [
        4
    ]


def test_a_quantised_teacher_is_billed_for_its_measurement_alone():
    """Nothing was taught: its bill is the hours in which it was tested and timed."""
    made, _, assumed = study()
    spec = made[0].spec.with_(name="teacher-q8_0", gguf="q8_0")
    quantised = made[0].model_copy(
        update={
            "run_id": spec.run_id,
            "spec": spec,
            "teacher_run_id": made[0].run_id,
            "stage_seconds": {},
        }
    )
    labels = {made[0].run_id: "teacher", quantised.run_id: "teacher q8_0"}

    rows = economics.candidates([made[0], quantised], labels, assumed).set_index("label")

    seconds = quantised.capability.seconds + quantised.latency.seconds
    price = assumed.usd_per_hour[records.DEVICE_NAME]
    assert rows.loc["teacher q8_0", "bill_usd"] == pytest.approx(seconds / 3600 * price)
    assert rows["role"].tolist() == ["teacher", "student"]
