"""Devices that are not at hand: memory, price and speed, estimated."""

import pandas as pd
import pytest

from explorer.analysis.planning import device_fit, roofline
from explorer.analysis.planning.roofline import Efficiency
from explorer.catalogue import load
from explorer.errors import BadInput

SEVEN = pd.DataFrame(
    {
        "model": ["7B"],
        "params_b": [7.0],
        "active_params_b": [7.0],
        "kv_bytes_per_token": [57_344.0],
    }
)
CARD = pd.DataFrame(
    {
        "hardware": ["card"],
        "memory_gb": [24.0],
        "mem_bandwidth_gb_s": [1008.0],
        "dense_bf16_tflops": [165.0],
    }
)
OFFERS = pd.DataFrame(
    {
        "hardware": ["card", "card"],
        "min_units": [1, 1],
        "usd_per_unit_hour": [0.34, 0.74],
        "provider": ["Cheap", "Dear"],
        "tier": ["community", "secure"],
        "date_seen": ["2026-09-25", "2026-09-25"],
        "source_url": ["https://x.org", "https://y.org"],
    }
)


def test_memory_is_weights_and_cache():
    """7 B at 16 bits are 14 GB; 8 requests of 640 tokens at 57,344 bytes are 0.29 GB more."""
    one = device_fit.device_fit(SEVEN, CARD, OFFERS, bits=(16,), concurrency=8).iloc[0]

    assert one["weights_gb"] == pytest.approx(14.0)
    assert one["kv_gb"] == pytest.approx(8 * 640 * 57_344 / 1e9)
    assert one["num_devices"] == 1
    assert (one["usd_per_hour"], one["usd_per_hour_high"]) == (0.34, 0.74)


@pytest.mark.parametrize(("bits", "count"), [(16, 8), (8, 4), (4, 2)])
def test_a_70b_needs_several_consumer_cards(bits, count):
    """140, 74 and 39 GB on cards of 24 GB, of which nine tenths are used."""
    seventy = SEVEN.assign(model="70B", params_b=70.0, active_params_b=70.0)

    one = device_fit.device_fit(seventy, CARD, OFFERS, bits=(bits,)).iloc[0]

    assert one["num_devices"] == count
    assert one["usd_per_hour"] == pytest.approx(0.34 * count)


def test_what_no_number_of_devices_holds_is_blank_and_says_so():
    """671 B at 16 bits on cards of 24 GB: no count, no price, no speed."""
    large = SEVEN.assign(params_b=671.0)

    one = device_fit.device_fit(large, CARD, OFFERS, bits=(16,)).iloc[0]

    assert pd.isna(one["num_devices"])
    assert pd.isna(one["usd_per_hour"])
    assert pd.isna(one["tpot_ms"])
    assert "more than 16 devices" in one["missing"]


def test_an_unknown_cache_and_an_unknown_price_are_named():
    """Only weights are counted then, and there is no cost."""
    one = device_fit.device_fit(
        SEVEN.assign(kv_bytes_per_token=float("nan")), CARD, OFFERS.iloc[:0]
    ).iloc[0]

    assert "KV cache of this model is unknown" in one["missing"]
    assert "no price for card" in one["missing"]
    assert pd.isna(one["usd_per_mtok"])
    assert one["tpot_ms"] > 0


def test_bundles_are_rented_whole():
    """Eight is the least at one seller: it counts where eight are needed, or nobody sells fewer."""
    bundle = OFFERS.iloc[[0]].assign(min_units=8, usd_per_unit_hour=0.1, provider="Bundle")

    with_others = device_fit.device_fit(SEVEN, CARD, pd.concat([OFFERS, bundle]), bits=(16,)).iloc[
        0
    ]
    alone = device_fit.device_fit(SEVEN, CARD, bundle, bits=(16,)).iloc[0]

    assert with_others["usd_per_hour"] == 0.34
    assert alone["usd_per_hour"] == pytest.approx(0.8)


def test_the_worked_example_of_the_roofline():
    """docs/cost.md: 7 B at 16 bits on 165 TFLOP/s and 1,008 GB/s, 512 tokens in, 128 out."""
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

    assert timed.ttft_ms == pytest.approx(2 * 7e9 * 512 / 165e12 * 1e3)
    assert timed.ttft_ms == pytest.approx(43.4, abs=0.05)
    assert timed.tpot_ms == pytest.approx((14e9 + 640 * 57_344) / 1008e9 * 1e3)
    assert timed.tpot_ms == pytest.approx(13.9, abs=0.05)


def test_half_the_efficiency_takes_twice_the_time():
    """What is reached of the peak divides both times."""
    asked = {
        "num_parameters": 7e9,
        "num_active_parameters": 7e9,
        "kv_bytes": 0.0,
        "bits": 16,
        "prompt_tokens": 512,
        "context_tokens": 640,
        "concurrency": 1,
        "tflops": 165.0,
        "bandwidth_gb_s": 1008.0,
    }
    ceiling = roofline.estimated_speed(**asked)

    half = roofline.estimated_speed(**asked, efficiency=Efficiency(0.5, 0.5, "half"))

    assert half.ttft_ms == pytest.approx(2 * ceiling.ttft_ms)
    assert half.tpot_ms == pytest.approx(2 * ceiling.tpot_ms)


def test_a_mixture_of_experts_reads_its_active_part_alone_and_the_whole_in_a_crowd():
    """One request reads 37 B of 671 B; a hundred read no more than all."""

    def step_ms(concurrency):
        return roofline.estimated_speed(
            num_parameters=671e9,
            num_active_parameters=37e9,
            kv_bytes=0,
            bits=8,
            prompt_tokens=1,
            context_tokens=1,
            concurrency=concurrency,
            tflops=1e6,
            bandwidth_gb_s=1000,
        ).tpot_ms

    assert step_ms(1) == pytest.approx(37 * 8.5 / 8)
    assert step_ms(100) == pytest.approx(671 * 8.5 / 8)


RUN = {
    "run_id": "r",
    "device_name": "box",
    "ttft_ms": 100.0,
    "tpot_ms": 50.0,
    "num_parameters": 1e9,
    "weight_bytes": 4e9,
    "prompt_tokens": 100,
    "batch_size": 1,
}


def test_a_measured_run_says_what_is_reached():
    """2 GFLOP a token, 100 tokens in 0.1 s are 2 TFLOP/s; 4 GB in 50 ms are 80 GB/s."""
    reached = roofline.calibrated_efficiency(RUN, tflops=4, bandwidth_gb_s=100)

    assert (reached.prefill, reached.decode) == (pytest.approx(0.5), pytest.approx(0.8))
    assert reached.in_words() == (
        "reaching 50 % of the arithmetic and 80 % of the bandwidth, as r reached on box"
    )


def test_a_run_faster_than_the_stated_peak_shows_the_peak_is_wrong():
    """No program reaches more than the peak."""
    with pytest.raises(BadInput, match=r"1\.60 times the stated peak .* more than 50 GB/s"):
        roofline.calibrated_efficiency(RUN, tflops=4, bandwidth_gb_s=50)
    with pytest.raises(BadInput, match="has no tpot_ms"):
        roofline.calibrated_efficiency({**RUN, "tpot_ms": None}, tflops=4, bandwidth_gb_s=100)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"concurrency": 0}, "concurrency must be 1 or more"),
        ({"utilisation": 0}, "utilisation must be above 0"),
        ({"utilisation": 2}, "utilisation must be above 0 and at most 1, got 2"),
        ({"bits": (5,)}, "16, 8 or 4 bits"),
    ],
)
def test_what_cannot_be_is_refused(changes, said):
    """In words, before anything is computed."""
    with pytest.raises(BadInput, match=said):
        device_fit.device_fit(SEVEN, CARD, OFFERS, **changes)


def test_an_efficiency_that_cannot_be_is_refused():
    """A share of the peak is above 0 and at most 1."""
    with pytest.raises(BadInput, match="decode efficiency must be above 0 and at most 1"):
        Efficiency(0.5, 1.2)


def test_models_are_named_or_have_a_size():
    """A name of the catalogue in any case, a size, and a clear word for what is neither."""
    sized = device_fit.sized_models(load.load_table("models"), load.load_table("shapes"))

    found = device_fit.models_named(["deepseek-r1-distill-llama-70b", "7B"], sized)

    assert found["params_b"].tolist() == [70.0, 7.0]
    assert found["kv_bytes_per_token"].iloc[0] == 80 * 2048 * 2
    with pytest.raises(BadInput, match="'many' is neither a model"):
        device_fit.models_named(["many"], sized)
    with pytest.raises(BadInput, match="no device 'RTX 1'. Choose H200 SXM"):
        device_fit.devices_named(["RTX 1"], load.load_table("hardware_specs"))
