import numpy as np
import pandas as pd
import pytest

from explorer.analysis import cost
from explorer.catalogue.prices import Price
from explorer.errors import BadInput


def runs(**changes):
    columns = {
        "run_id": ["t", "s"],
        "role": ["teacher", "student"],
        "teacher_run_id": [None, "t"],
        "device_name": ["box", "box"],
        "output_tokens_per_s": [50.0, 100.0],
        "batch_size": [1, 1],
        "output_tokens": [64, 64],
        "teacher_latency_ms": [np.nan, np.nan],
    }
    return pd.DataFrame(columns | changes)


PRICES = {"box": Price(usd_per_hour=1.8, date_seen="2026-11-09", provider="Cloud")}


def test_cost_per_million_tokens_is_the_rate_over_the_tokens_of_an_hour():
    """$1.80 an hour at 50 tokens/s, half of the time: 90,000 tokens an hour, $20 a million."""
    added = cost.add(runs(), PRICES, utilisation=0.5)

    assert added["usd_per_mtok"].tolist() == pytest.approx([20.0, 10.0])
    assert added["usd_per_hour"].tolist() == [1.8, 1.8]
    assert added["price_note"].iloc[0] == "Cloud, seen 2026-11-09"


def test_at_the_teachers_load_the_teacher_costs_its_rate():
    """A student twice as fast needs half of the device to serve what the teacher serves."""
    added = cost.add(runs(), PRICES, utilisation=0.5)

    assert added["usd_per_hour_at_load"].tolist() == pytest.approx([1.8, 0.9])


def test_the_load_comes_from_the_timing_in_turns_where_there_is_one():
    """The teacher timed beside the student met the same noise: 64 tokens in 0.64 s are 100/s."""
    added = cost.add(runs(teacher_latency_ms=[np.nan, 640.0]), PRICES, utilisation=0.5)

    assert added["usd_per_hour_at_load"].tolist() == pytest.approx([1.8, 1.8])


def test_a_stated_load_is_served_by_as_many_devices_as_it_needs():
    """200 tokens/s at half utilisation need 8 devices of 50 tokens/s."""
    added = cost.add(runs(), PRICES, utilisation=0.5, load_tokens_per_s=200)

    assert added["usd_per_hour_at_load"].tolist() == pytest.approx([14.4, 7.2])


def test_an_unknown_price_is_a_blank_that_asks_for_one():
    """No figure is invented for a device without a price."""
    added = cost.add(runs(device_name=["box", "other"]), PRICES, utilisation=1)

    assert added.loc[1, ["usd_per_hour", "usd_per_mtok", "usd_per_hour_at_load"]].isna().all()
    assert added["price_note"].iloc[1] == "no price for other: give one to see costs"


def test_a_run_that_was_not_timed_has_no_cost_per_token():
    """A missing speed gives a missing cost, not an infinite one."""
    added = cost.add(runs(output_tokens_per_s=[50.0, None]), PRICES, utilisation=1)

    assert np.isnan(added["usd_per_mtok"].iloc[1])
    assert added["usd_per_hour"].iloc[1] == 1.8


@pytest.mark.parametrize("utilisation", [0, 2, -0.5, float("nan")])
def test_an_impossible_utilisation_is_refused_in_words(utilisation):
    """The sentence says what was expected, what came and what it means."""
    with pytest.raises(BadInput, match="above 0 and at most 1, got .* share of the time"):
        cost.add(runs(), PRICES, utilisation=utilisation)


@pytest.mark.parametrize("load", [0, -1, float("inf"), float("nan")])
def test_an_impossible_load_is_refused_in_words(load):
    """A load is a positive number of tokens per second."""
    with pytest.raises(BadInput, match="output tokens per second above 0"):
        cost.add(runs(), PRICES, utilisation=1, load_tokens_per_s=load)


def test_no_runs_have_no_cost():
    """An empty frame keeps its columns."""
    added = cost.add(runs().iloc[:0], PRICES, utilisation=1)

    assert added.empty
    assert set(cost.COLUMNS) <= set(added.columns)
