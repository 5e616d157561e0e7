"""The Economics page: traffic, fleets, payback, break-even, the estimate elsewhere."""

import pytest

from explorer.catalogue import prices
from explorer.catalogue.prices import Price
from explorer.store import disk
from tests import records
from tests.app.reading import text_of


@pytest.fixture
def priced(root, study):
    """The study, on a device with a price."""
    prices.write_override(
        root / prices.OVERRIDES, records.DEVICE_NAME, Price(usd_per_hour=0.05, provider="Cloud")
    )
    return study


def test_an_empty_store_leads_to_the_run_page_and_still_estimates(root, open_page):
    """One sentence, one button, and devices that are not at hand."""
    page = open_page("economics")
    said = text_of(page)

    assert "No timed runs yet" in said
    assert [button.label for button in page.button] == ["Go to the Run page"]
    assert "Other devices, estimated" in said
    assert len(page.dataframe[0].value) == 12


def test_the_finding_stands_first_and_the_teacher_on_top(priced, open_page):
    """What the traffic costs a month, what the student keeps, when it has paid."""
    said = text_of(open_page("economics", keep="1"))

    assert "60 requests a minute cost $" in said
    assert "the cheapest that keeps at least 1 %" in said
    assert "has paid for itself after" in said
    assert said.index("teacher</td>") < said.index("24 layers</td>") < said.index("6 layers</td>")


def test_a_busy_run_has_a_row_and_no_cost(root, priced, open_page):
    """The sentence names another student, and the page says what is needed."""
    records.make_busy(root, priced[-1])

    said = text_of(open_page("economics")).replace("\\", "")

    assert "6 layers (machine was busy)</td>" in said
    assert "1 run timed on a busy machine is left out." in said
    assert "Unknown without a timing on an idle machine." in said
    assert "1 run timed on a busy machine is without fleet or payback" in said


def test_every_assumption_is_said(priced, open_page):
    """The price with its source, the month, the energy that nobody measured, the curve's end."""
    said = text_of(open_page("economics")).replace("\\", "")

    assert "$0.0500 per hour, Cloud" in said
    assert "a month has 730 hours" in said
    assert "Electricity is not included" in said
    assert "Only concurrency 1 was measured" in said


def test_without_a_price_the_listed_ones_are_offered_and_named(study, open_page):
    """The price set that has a price is taken, and says that it is the book's."""
    page = open_page("economics")

    assert page.session_state["prices"] == "Cheapest listed"
    none = text_of(open_page("economics", prices="Your prices")).replace("\\", "")
    assert f"unknown without the price of {records.DEVICE_NAME}" in none


def test_choices_are_in_the_address(priced, open_page):
    """Traffic, lengths, utilisation, limits and the API come back from a link."""
    page = open_page(
        "economics",
        traffic="600.0",
        utilisation="25",
        max_tpot="1.0",
        api="openai/gpt-4o-mini",
        **{"in": "256", "out": "32"},
    )
    said = text_of(page).replace("\\", "")

    assert page.session_state["traffic"] == 600.0
    assert page.session_state["in"] == 256
    assert "within the limits: at 1 the medians are TTFT" in said
    assert "openai/gpt-4o-mini" in said


def test_an_api_gives_a_break_even_and_its_date(priced, open_page):
    """A column more, and where the price is from."""
    said = text_of(open_page("economics", api="openai/gpt-4o-mini")).replace("\\", "")

    assert "API break-even" in said
    assert "$0.150 per million input tokens and $0.600 per million output tokens" in said
    assert "seen 2025-07-04" in said
    assert "The API serves a different model" in said


def test_nothing_chosen_says_so(priced, open_page):
    """No run, no figures."""
    page = open_page("economics")
    page.multiselect(key="candidates").set_value([]).run()

    assert "Choose at least one run above" in page.info[0].value


def test_an_api_that_is_not_listed_is_looked_up_by_its_name(priced, open_page):
    """Found in genai-prices with its version; what it does not know is one red line."""
    said = text_of(open_page("economics", api="openai/gpt-4-turbo")).replace("\\", "")
    assert "genai-prices 0." in said

    wrong = text_of(open_page("economics", api="google/gemini-1.5-flash-8b")).replace("\\", "")
    assert "its nearest match is 'gemini-1.5-flash'" in wrong


def test_page_and_shell_recommend_the_same(root, priced, open_page, capsys):
    """With an older study beside it, both look at the newest one and say the same sentence."""
    from explorer.cli import economics as command

    records.write_study(root, name="older", layers=(12,), seed=3)
    for run_id in priced:
        record = disk.load(root, run_id)
        disk.save(root, record.model_copy(update={"finished_at": "2027-01-01T00:00:00+00:00"}))

    said = text_of(open_page("economics"))
    command.economics(results=root)
    shell = capsys.readouterr().out

    finding = next(line for line in shell.splitlines() if line.startswith("60 requests"))
    assert f'<h1 class="finding">{finding}</h1>' in said
    assert "The newest study: 6 of 7 timed runs. --all takes all of them." in shell
