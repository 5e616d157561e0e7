"""Prices of APIs: dated, of the model that was asked for, and the user's own first."""

import datetime

import pytest

from explorer.catalogue import api_prices
from explorer.catalogue.api_prices import ApiPrice
from explorer.errors import BadInput


def test_the_catalogues_prices_are_those_of_the_package():
    """Every row of api_prices.csv is what genai-prices asks for that very model."""
    for one in api_prices.catalogue_prices():
        found = api_prices.look_up_price(one.name)
        assert (found.input_usd_per_mtok, found.output_usd_per_mtok) == (
            one.input_usd_per_mtok,
            one.output_usd_per_mtok,
        ), one.name


def test_a_price_has_the_packages_version_and_the_age_of_its_data():
    """The package names no day, so its newest price in force does."""
    one = api_prices.look_up_price("openai/gpt-4o-mini", datetime.date(2026, 11, 24))

    assert one.note.startswith("genai-prices 0.")
    assert "2026-01-01" < one.date_seen <= "2026-11-24"
    assert api_prices.data_date(datetime.date(2000, 1, 1)) == ""


@pytest.mark.parametrize("hour", [2, 20])
def test_a_price_that_depends_on_the_hour_is_the_days_dearest(monkeypatch, hour):
    """DeepSeek asked a quarter outside 00:30 to 16:30 UTC; the answer is the same at any hour."""
    from genai_prices import data_snapshot, types

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 11, 24, hour, tzinfo=datetime.UTC)

    for module in (data_snapshot, types):
        monkeypatch.setattr(module, "datetime", Clock)
    one = api_prices.look_up_price("deepseek/deepseek-reasoner", datetime.date(2026, 11, 24))

    assert (one.input_usd_per_mtok, one.output_usd_per_mtok) == (0.55, 2.19)
    assert one.note.endswith("the most expensive hours of the day")
    assert "expensive" not in api_prices.look_up_price("openai/gpt-4o-mini").note


def test_a_loose_match_is_refused():
    """The package takes gemini-1.5-flash-8b for gemini-1.5-flash, which costs twice as much."""
    with pytest.raises(BadInput, match=r"nearest match is 'gemini-1\.5-flash'"):
        api_prices.look_up_price("google/gemini-1.5-flash-8b")


@pytest.mark.parametrize("name", ["gpt-5", "openai/no-such", "nobody/gpt-5", ""])
def test_an_unknown_model_is_refused_with_what_to_do(name):
    """Seller and model have to be known."""
    with pytest.raises(BadInput, match="as in openai/gpt-5|Give your own price"):
        api_prices.look_up_price(name)


def test_the_users_own_price_comes_first_and_replaces_the_stores_and_the_catalogues(tmp_path):
    """A price that was written is read back, and there is one of each offer."""
    path = tmp_path / api_prices.OVERRIDES
    path.write_text(
        "openai/gpt-5: {input_usd_per_mtok: 2, output_usd_per_mtok: 9}", encoding="utf-8"
    )

    of_store = api_prices.known_prices(tmp_path)[0]
    api_prices.own_prices_file().write_text(
        "openai/gpt-5: {input_usd_per_mtok: 1, output_usd_per_mtok: $5}", encoding="utf-8"
    )
    found = api_prices.known_prices(tmp_path)
    api_prices.own_prices_file().unlink()

    assert of_store.in_words() == "openai/gpt-5, the store's price"
    assert of_store.output_usd_per_mtok == 9
    assert found[0].name == "openai/gpt-5"
    assert found[0].output_usd_per_mtok == 5
    assert found[0].in_words() == "openai/gpt-5, your own price"
    assert len(found) == len(api_prices.catalogue_prices()) == len({one.name for one in found})
    assert api_prices.known_prices(tmp_path / "elsewhere") == api_prices.catalogue_prices()


@pytest.mark.parametrize("value", ["€5", -1, "five", float("nan"), None, True])
def test_an_amount_in_another_currency_or_below_zero_is_refused(value):
    """In words: US dollars, 0 or more."""
    data = {"provider": "a", "model": "b", "input_usd_per_mtok": value, "output_usd_per_mtok": 1}

    with pytest.raises(BadInput, match="US dollars per million tokens, 0 or more"):
        ApiPrice.parse(data)


def test_a_free_model_has_a_price_of_zero():
    """0 is a price; a dollar sign is read too."""
    one = ApiPrice.parse(
        {"provider": "a", "model": "b", "input_usd_per_mtok": 0, "output_usd_per_mtok": "$0.60"}
    )

    assert (one.input_usd_per_mtok, one.output_usd_per_mtok) == (0.0, 0.6)


@pytest.mark.parametrize(
    "text", ["- a list", "openai/gpt-5: 3", "gpt-5: {input_usd_per_mtok: 1}", "a: [", "a/b: {x: 1}"]
)
def test_a_file_that_holds_no_prices_is_named(tmp_path, text):
    """The file and what it should hold."""
    path = tmp_path / api_prices.OVERRIDES
    path.write_text(text, encoding="utf-8")

    with pytest.raises(BadInput, match=r"api_prices\.yaml"):
        api_prices.read_overrides(path)


@pytest.mark.parametrize("zero", ["0", '"0"', '"0.00"', "$0", "0.0 USD", ".0"])
def test_a_price_of_zero_and_a_day_are_read_however_they_are_written(tmp_path, zero):
    """As text or number, the day without quotes."""
    path = tmp_path / api_prices.OVERRIDES
    path.write_text(
        f"a/b: {{input_usd_per_mtok: {zero}, output_usd_per_mtok: 1, date_seen: 2026-11-24}}\n",
        encoding="utf-8",
    )

    (one,) = api_prices.read_overrides(path)

    assert (one.input_usd_per_mtok, one.date_seen) == (0.0, "2026-11-24")


def test_a_day_that_does_not_exist_is_named_with_its_line(tmp_path):
    """As in the other price file."""
    path = tmp_path / api_prices.OVERRIDES
    path.write_text(
        "a/b:\n  input_usd_per_mtok: 1\n  output_usd_per_mtok: 1\n  date_seen: 2026-13-40\n",
        encoding="utf-8",
    )

    with pytest.raises(BadInput, match=r"line 4, .*date_seen must be a day that exists"):
        api_prices.read_overrides(path)


def test_a_price_that_is_no_number_is_named_with_its_line(tmp_path):
    """Also one of another currency, and an offer that is there twice."""
    path = tmp_path / api_prices.OVERRIDES
    for price in ("1,50", "'1_0'", "inf", "no", "[1]", "٣"):
        path.write_text(
            f"a/b:\n  input_usd_per_mtok: 1\n  output_usd_per_mtok: {price}\n", encoding="utf-8"
        )
        with pytest.raises(BadInput, match="line 3, column 24: output_usd_per_mtok must be US"):
            api_prices.read_overrides(path)
    path.write_text("a/b: {}\na/b: {}\n", encoding="utf-8")
    with pytest.raises(BadInput, match="line 2, column 1: expected each key once"):
        api_prices.read_overrides(path)
