import numpy as np
import pandas as pd
import pytest

from explorer.analysis import numbers
from explorer.analysis.cost import unit_cost
from explorer.analysis.cost.quantity import Quantity, unknown
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
    added = unit_cost.add_costs(runs(), PRICES, utilisation=0.5)

    assert added["usd_per_mtok"].tolist() == pytest.approx([20.0, 10.0])
    assert added["usd_per_hour"].tolist() == [1.8, 1.8]
    assert added["price_note"].iloc[0] == "Cloud, seen 2026-11-09"


def test_at_the_teachers_load_the_teacher_costs_its_rate():
    """A student twice as fast needs half of the device to serve what the teacher serves."""
    added = unit_cost.add_costs(runs(), PRICES, utilisation=0.5)

    assert added["usd_per_hour_at_load"].tolist() == pytest.approx([1.8, 0.9])


def test_the_load_comes_from_the_timing_in_turns_where_there_is_one():
    """The teacher timed beside the student met the same noise: 64 tokens in 0.64 s are 100/s."""
    added = unit_cost.add_costs(runs(teacher_latency_ms=[np.nan, 640.0]), PRICES, utilisation=0.5)

    assert added["usd_per_hour_at_load"].tolist() == pytest.approx([1.8, 1.8])


def test_a_cost_says_its_utilisation_and_is_at_half_of_the_time_by_default():
    """The number and the column beside it change together, and so does the heading."""
    default, busier = (
        unit_cost.add_costs(runs(), PRICES),
        unit_cost.add_costs(runs(), PRICES, utilisation=0.25),
    )

    assert default["utilisation"].tolist() == [0.5, 0.5]
    assert default["usd_per_mtok"].tolist() == pytest.approx([20.0, 10.0])
    assert unit_cost.heading_of(default) == "$/1M output tokens at 50 % busy"
    assert busier["utilisation"].tolist() == [0.25, 0.25]
    assert busier["usd_per_mtok"].tolist() == pytest.approx([40.0, 20.0])
    assert unit_cost.heading_of(busier) == "$/1M output tokens at 25 % busy"


def test_the_load_of_the_teacher_costs_the_same_at_any_utilisation():
    """Teacher and student are equally busy, so their ratio stays."""
    half, full = (
        unit_cost.add_costs(runs(), PRICES),
        unit_cost.add_costs(runs(), PRICES, utilisation=1),
    )

    assert half["usd_per_hour_at_load"].tolist() == full["usd_per_hour_at_load"].tolist()


def test_a_number_a_column_and_an_uncertain_quantity_cost_the_same():
    """One function prices a token, whatever its caller computes with."""
    alone = unit_cost.usd_per_mtok(1.8, 50.0)
    column = unit_cost.usd_per_mtok(pd.Series([1.8]), pd.Series([50.0]))
    quantity = unit_cost.usd_per_mtok(Quantity(1.8), Quantity(50.0, 40.0, 60.0))

    assert alone == column.iloc[0] == quantity.value == pytest.approx(20.0)
    assert quantity.in_words(numbers.dollars) == "$20.0 [$16.7, $25.0]"
    assert unit_cost.usd_per_mtok(unknown("a price"), Quantity(50.0)).missing == ("a price",)


def test_the_lengths_stand_beside_the_cost_and_differing_ones_are_said():
    """One pair of lengths where all runs share it; each pair with its runs where they do not."""
    shared = runs(prompt_tokens=[64, 64], output_tokens=[32, 32])
    differing = runs(prompt_tokens=[64, 1024], output_tokens=[32, 128])
    untimed = runs(prompt_tokens=[64, np.nan], output_tokens=[32, np.nan])

    assert unit_cost.lengths_text_of(shared) == "64-token prompts, 32-token answers"
    assert unit_cost.lengths_text_of(untimed) == unit_cost.lengths_text_of(shared)
    assert unit_cost.lengths_text_of(differing) == (
        "different lengths, so compare costs at equal lengths only: 64-token prompts, "
        "32-token answers (1 run); 1,024-token prompts, 128-token answers (1 run)"
    )
    assert unit_cost.lengths_text_of(untimed.iloc[1:]) == ""


def test_many_lengths_are_counted_not_listed():
    """Three pairs are named, most runs first; the others are a number."""
    lengths = [8, 8, 16, 32, 64, 128]
    frame = pd.DataFrame({"prompt_tokens": lengths, "output_tokens": 4})

    text = unit_cost.lengths_text_of(frame)

    assert "8-token prompts, 4-token answers (2 runs); 16-token" in text
    assert text.endswith("; 2 more pairs of lengths")
    assert unit_cost.common_lengths(frame) == (8, 4)


def test_an_unknown_price_is_a_blank_that_asks_for_one():
    """No figure is invented for a device without a price."""
    added = unit_cost.add_costs(runs(device_name=["box", "other"]), PRICES, utilisation=1)

    assert added.loc[1, ["usd_per_hour", "usd_per_mtok", "usd_per_hour_at_load"]].isna().all()
    assert added["price_note"].iloc[1] == (
        "no price for other: set one to see costs, explorer price 'other' USD_PER_HOUR"
    )


def test_a_run_that_was_not_timed_has_no_cost_per_token():
    """A missing speed gives a missing cost, not an infinite one."""
    added = unit_cost.add_costs(runs(output_tokens_per_s=[50.0, None]), PRICES, utilisation=1)

    assert np.isnan(added["usd_per_mtok"].iloc[1])
    assert added["usd_per_hour"].iloc[1] == 1.8


@pytest.mark.parametrize("utilisation", [0, 2, -0.5, float("nan")])
def test_an_impossible_utilisation_is_refused_in_words(utilisation):
    """The sentence says what was expected, what came and what it means."""
    with pytest.raises(BadInput, match="above 0 and at most 1, got .* share of the time"):
        unit_cost.add_costs(runs(), PRICES, utilisation=utilisation)


def test_no_runs_have_no_cost():
    """An empty frame keeps its columns."""
    added = unit_cost.add_costs(runs().iloc[:0], PRICES, utilisation=1)

    assert added.empty
    assert set(unit_cost.COLUMNS) <= set(added.columns)
