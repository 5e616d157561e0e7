"""What the pages say where something is missing or impossible: plain words, nothing lost."""

import shutil

import pytest

from explorer.catalogue import prices
from explorer.catalogue.prices import Price
from tests import records
from tests.app.reading import charts_of, text_of


def said_by(page):
    """All that a page says, without the backslashes of Markdown."""
    assert not page.exception
    return text_of(page).replace("\\", "")


def test_limits_that_contradict_each_other_say_which_to_loosen_and_by_how_much(study, open_page):
    """Every limit that no model meets is named with the best value; the near misses are open."""
    page = open_page("explore", keep="99", max_weights="1", objective="Smallest")

    said = said_by(page)
    assert "**No model fits**" in said
    assert "None of 6 models meets every limit." in said
    assert "Weights on disk: the lowest is" in said
    assert "the limit 1.00 MB" in said
    assert "It fits if you" in said
    assert "**Near misses**" in said
    misses = next(box for box in page.expander if box.label.startswith("Near misses"))
    assert misses.proto.expanded
    assert {point["customdata"][0][0] for point in _points(page)}, "the chart still shows all"


def test_without_a_price_the_pick_says_what_to_set(root, study, open_page):
    """The default objective compares costs, and nothing is taken as free."""
    said = said_by(open_page("explore"))

    assert "6 without the figure that the objective compares" in said
    assert "Set a price for the device" in said
    assert "Pick: " in said_by(open_page("explore", keep="50", objective="Smallest"))


def test_runs_of_two_devices_are_not_mixed(root, study, open_page):
    """The pick takes one device and counts the others; Economics says what its costs compare."""
    records.write_study(root, name="gpu", seed=3, device_name="NVIDIA H100 80GB HBM3")
    for device in (records.DEVICE_NAME, "NVIDIA H100 80GB HBM3"):
        prices.write_override(root / prices.OVERRIDES, device, Price(usd_per_hour=0.05))

    said = said_by(open_page("explore", keep="50"))

    assert "timed on 2 devices: compare latency within one" in said
    assert "**Pick: " in said
    labels = [button.label for button in open_page("explore", keep="50").button]
    assert any("measured on another device" in label for label in labels)
    both = list(records.study()[1:2]) + list(records.study("gpu", seed=3)[1:2])
    page = open_page("economics", candidates=[spec.run_id for spec in both])
    assert "Timed on 2 devices: the costs compare devices as well as models" in said_by(page)


@pytest.mark.parametrize("only", ["student", "teacher"])
def test_one_run_alone_says_what_it_needs(root, open_page, only):
    """A student without its teacher has no retention; a teacher has nothing to be compared with."""
    run_id = records.committed(24 if only == "student" else None)
    shutil.copytree(records.STUDY / run_id, root / run_id)

    explore = said_by(open_page("explore", objective="Smallest"))
    if only == "student":
        assert "retention is not known yet" in explore
        assert "measure the teacher" in explore
        assert "of another teacher" not in explore
        economics = said_by(open_page("economics"))
        assert "what it keeps of its teacher is not known" in economics
    else:
        assert "nothing to compare with the teacher" in explore
    for page in ("compare", "answers", "economics"):
        assert said_by(open_page(page)).count("<h1") == 1, page
    assert "Only one run has answers" in said_by(open_page("answers"))


def test_a_chart_without_retention_says_that_it_needs_the_teachers_scores(root, open_page):
    """Not that there is no finished run: there is one."""
    run_id = records.committed(24)
    shutil.copytree(records.STUDY / run_id, root / run_id)

    page = open_page("explore", unit="Absolute")

    figure = charts_of(page)[0]
    notes = [note["text"] for note in figure["layout"]["annotations"]]
    assert "Nothing to draw: retention needs the teacher's scores on the same tasks." in notes


def _points(page):
    figure = charts_of(page)[0]
    return [trace for trace in figure["data"] if trace.get("customdata")]
