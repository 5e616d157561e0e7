"""Every worked example of docs/cost.md, computed again: the text says what comes out."""

from pathlib import Path

import pytest

from explorer.analysis.cost import breakeven, fleet, payback, serving_cost, unit_cost
from explorer.analysis.cost.fleet import LatencyLimits
from explorer.analysis.cost.quantity import Quantity, median_quantity
from explorer.analysis.cost.serving_cost import MeasuredTiming, Workload
from explorer.analysis.numbers import dollars, milliseconds, percent, significant
from explorer.analysis.planning import roofline

TEXT = " ".join((Path(__file__).parents[2] / "docs" / "cost.md").read_text("utf-8").split())
CHAT = Workload(input_tokens=512, output_tokens=128)
AT_ONE = MeasuredTiming(Quantity(200.0), Quantity(20.0, 19.0, 21.0), 1, 512)
AT_EIGHT = MeasuredTiming(Quantity(400.0), Quantity(25.0), 8, 512)
RATE = Quantity(1.8)


def says(*texts):
    """The document holds each of these."""
    for text in texts:
        assert text in TEXT, f"docs/cost.md should say {text!r}"


def test_median_and_its_interval():
    """Ten timings: the second smallest and the second largest are the ends."""
    one = median_quantity([20.0, 19.8, 20.4, 19.0, 20.0, 21.2, 20.2, 19.9, 20.3, 22.0])

    assert one.in_words() == "20.1 [19.8, 21.2]"
    says("20.1 [19.8, 21.2]")


def test_intervals_are_carried_through():
    """The rate over an uncertain throughput has its ends turned round."""
    cost = RATE / Quantity(100.0, 90.0, 120.0)

    assert cost.in_words() == "0.0180 [0.0150, 0.0200]"
    says("0.0180 [0.0150, 0.0200]")


def test_a_request_and_a_million_tokens():
    """Reading and writing are paid by their time."""
    found = serving_cost.request_costs(AT_ONE, CHAT, RATE, 0.5)

    assert found.usd_per_request.in_words(dollars) == "$0.00274 [$0.00261, $0.00287]"
    assert found.usd_per_mtok_prefill.in_words(dollars) == "$0.391"
    assert found.usd_per_mtok_decode.in_words(dollars) == "$19.8 [$18.9, $20.8]"
    assert found.usd_per_mtok_blended.in_words(dollars) == "$4.28 [$4.08, $4.48]"
    tokens_per_s = serving_cost.requests_per_s(AT_ONE, CHAT) * CHAT.output_tokens
    assert dollars(unit_cost.usd_per_mtok(RATE, tokens_per_s).value) == "$21.4"
    says("`usd_per_mtok` of such a run is $21.4")
    says("$0.00274 [$0.00261, $0.00287]", "$0.391", "$19.8 [$18.9, $20.8]", "$4.28 [$4.08, $4.48]")


def test_another_workload_is_in_proportion():
    """Twice the prompt takes twice the time to its first token."""
    long = Workload(1024, 64)

    assert serving_cost.ttft_ms(AT_ONE, long).value == pytest.approx(400)
    latency = 1e3 / serving_cost.requests_per_s(AT_ONE, long).value
    assert milliseconds(latency) == "1,660 ms"
    says("1,660 ms")


def test_a_fleet_under_limits():
    """The limit on TPOT decides which measured concurrency is used."""
    curve = fleet.concurrency_curve([AT_ONE, AT_EIGHT], CHAT)
    asked = {"traffic_per_s": 3.0, "utilisation": 0.6, "usd_per_hour": RATE}

    free = fleet.plan_fleet(curve, **asked)
    strict = fleet.plan_fleet(curve, **asked, limits=LatencyLimits(ttft_ms=300, tpot_ms=22))

    assert significant(free.requests_per_s.value) == "2.24"
    assert free.replicas.value == 3
    assert dollars(free.usd_per_month.value) == "$3,940"
    assert significant(strict.requests_per_s.value) == "0.365"
    assert strict.replicas.in_words() == "14.0 [14.0, 15.0]"
    assert dollars(strict.usd_per_hour.value) == "$25.2"
    says("2.24", "3 devices", "$5.40 an hour", "$3,940 a month", "0.365", "14 devices", "$25.2")


def test_the_bill_and_its_payback():
    """Ten minutes of the teacher, forty of training, fifteen of tests, at $1.80 an hour."""
    seconds = {"teacher pass": 600.0, "training": 2400.0, "evaluation": 900.0, "timing": 300.0}

    one = payback.distillation_bill(seconds, RATE)
    shared = payback.distillation_bill(seconds, RATE, shared_by=5)
    hours = payback.payback_hours(one.total, Quantity(5.4), Quantity(1.8))

    assert dollars(one.total.value) == "$2.10"
    assert dollars(shared.total.value) == "$1.86"
    assert significant(hours.value) == "0.583"
    says("$2.10", "$1.86", "0.583 hours")


def test_break_even_with_an_api():
    """An API at $0.15 and $0.60 a million tokens against a device of $1.80 an hour."""
    api = breakeven.api_usd_per_request(CHAT, Quantity(0.15), Quantity(0.60))
    rate = serving_cost.requests_per_s(AT_EIGHT, CHAT)

    found = breakeven.break_even(api, RATE, rate)
    cheap = breakeven.break_even(api, Quantity(0.4), rate)

    assert dollars(api.value) == "$0.000154"
    assert significant(found.utilisation.value) == "1.45"
    assert found.verdict.startswith("The API is cheaper at any traffic")
    assert percent(cheap.utilisation.value) == "32.3 %"
    assert f"{cheap.requests_per_hour.value:,.0f}" == "2,604"
    says("$0.000154", "1.45", "2,604 requests an hour", "32.3 %")


def test_a_device_that_is_not_at_hand():
    """Memory of a 70B, time of a 7B on a card of 165 TFLOP/s and 1,008 GB/s."""
    assert significant(roofline.weight_bytes(70e9, 4) / 1e9) == "39.4"
    timed = roofline.estimated_speed(
        num_parameters=7e9,
        num_active_parameters=7e9,
        kv_bytes=57_344,
        bits=16,
        prompt_tokens=512,
        context_tokens=640,
        concurrency=1,
        tflops=165,
        bandwidth_gb_s=1008,
    )
    assert (milliseconds(timed.ttft_ms), milliseconds(timed.tpot_ms)) == ("43.4 ms", "13.9 ms")
    says("39.4 GB", "43.4 ms", "13.9 ms")
