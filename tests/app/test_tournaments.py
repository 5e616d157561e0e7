"""Tournaments on the Run page: the form, the standings, the buttons."""

import os
import time

import pytest

from explorer import jobs
from explorer.errors import BadInput
from explorer.pages.run import search_form
from explorer.search import queued, successive_halving
from explorer.specs import TuneSpec
from explorer.store import disk, progress
from tests import records
from tests.app.reading import text_of


@pytest.fixture
def handed(monkeypatch):
    """The ids of tournaments that a page hands to the queue; no Ray is started."""
    seen = []
    monkeypatch.setattr(jobs, "submit_command", lambda tune_id, *told: seen.append(tune_id))
    return seen


@pytest.fixture
def spec():
    """Two learning rates beside the run as it is, in two rounds."""
    run = records.study("rates", layers=(20,))[1]
    changes = [{"distill": {"learning_rate": rate}} for rate in (1e-3, 3e-4)]
    return TuneSpec.parse({"name": "rates-tune", "run": run, "variants": changes, "rounds": 2})


def train(root, spec, kls):
    """Write the records of the present round's trainings, with these held-out KLs."""
    runs = successive_halving.round_status(spec, root).missing.values()
    for run, kl in zip(runs, kls, strict=False):
        record = records.make_record(spec=run)
        taught = record.distillation.model_copy(update={"kl_after": kl})
        parts = {"distillation": taught, "capability": None, "latency": None}
        records.write_run(root, record.model_copy(update=parts))


def say(root, spec, state):
    successive_halving.save_spec(spec, root)
    progress.Progress(successive_halving.searches_folder(root), spec.tune_id).write_status(
        state=state, error=""
    )


def test_the_form_starts_a_tournament_of_the_order(root, open_page, handed):
    """Settings and values become variants of the chosen student; the page says what it takes."""
    page = open_page("run")
    page.selectbox(key="tune_run").set_value("my-study-20l").run()
    page.multiselect(key="tune_settings").set_value(["learning_rate", "loss"]).run()
    page.text_input(key="tune_learning_rate").input("1e-3").run()
    page.multiselect(key="tune_loss").set_value(["jsd", "reverse_kl"]).run()
    page.number_input(key="tune_rounds").set_value(2).run()
    assert "4 trainings of 30,000 tokens, then 2 trainings of 60,000" in text_of(page)
    page.checkbox(key="tune_together").check().run()
    page.button(key="tune_start").click().run()

    assert not page.exception
    (tune_id,) = handed
    spec = successive_halving.read_spec(root, tune_id)
    assert spec.variants == (
        {"distill": {"learning_rate": 1e-3, "loss": "jsd"}},
        {"distill": {"learning_rate": 1e-3, "loss": "reverse_kl"}},
    )
    assert (spec.rounds, spec.run.student.num_layers) == (2, 20)


def test_a_value_that_cannot_be_is_refused_on_the_form(root, open_page, handed):
    """With the sentence of the spec, and no button to press."""
    page = open_page("run")
    page.text_input(key="tune_learning_rate").input("-1").run()

    assert "learning_rate" in page.error[0].value.replace("\\", "")
    assert not [one for one in page.button if one.key == "tune_start"]
    with pytest.raises(BadInput, match="comma-separated numbers, got 'fast'"):
        search_form.numbers_in("0.1, fast", "Learning rate")


def test_a_layer_choice_is_a_change_of_the_student():
    """Each value is a variant of its own, under the part of the spec that holds it."""
    found = search_form.variants_of(
        {"choice": ["uniform"], "kd_weight": [0.5, 1.0]}, together=False
    )
    assert found == [
        {"student": {"choice": "uniform"}},
        {"distill": {"kd_weight": 0.5}},
        {"distill": {"kd_weight": 1.0}},
    ]


def test_a_tournament_under_way_shows_its_standings_and_can_be_cancelled(
    root, spec, open_page, handed
):
    """The leader comes first, a training that is not done has no number."""
    say(root, spec, "running")
    train(root, spec, [0.9, 0.7])

    page = open_page("run")
    (table,) = [one.value for one in page.dataframe]
    assert list(table["Variant"]) == ["learning_rate 0.001", "as it is", "learning_rate 0.0003"]
    assert list(table["KL at 30,000 tokens"]) == ["0.700", "0.900", "–"]
    bars = [one.proto.text.replace("\\", "") for one in page.get("progress")]
    assert "Round 1 of 2 · 2 of 3 runs" in bars
    page.button(key=f"tune_cancel_{spec.tune_id}").click().run()

    assert disk.cancel_requested(successive_halving.searches_folder(root), spec.tune_id)


def test_a_finished_tournament_starts_the_best_run(root, spec, open_page, submitted):
    """The winner is the whole run, tested and timed."""
    say(root, spec, "finished")
    train(root, spec, [0.9, 0.7, 0.8])
    train(root, spec, [0.6, 0.5])

    page = open_page("run")
    assert "Best: learning_rate 0.0003" in text_of(page).replace("\\", "").replace("*", "")
    page.button(key=f"tune_best_{spec.tune_id}").click().run()

    assert [one.distill.learning_rate for one in submitted] == [3e-4]
    assert submitted[0].latency is not None


def test_an_interrupted_tournament_is_resumed(root, spec, open_page, handed):
    """As a run is; read-only shows it and offers nothing."""
    successive_halving.save_spec(spec, root)
    words = {"run_id": spec.tune_id, "state": "running", "pid": os.getpid(), "host": "gone"}
    words["updated_at"] = an_hour_ago = time.time() - 3600
    searches = successive_halving.searches_folder(root)
    disk.write_status(searches, spec.tune_id, words)
    # The disk's clock tells when another host last gave a sign of life.
    os.utime(disk.run_folder(searches, spec.tune_id) / disk.STATUS, (an_hour_ago, an_hour_ago))
    assert list(queued.status_table(root)["state"]) == ["interrupted"]

    page = open_page("run")
    page.button(key=f"tune_resume_{spec.tune_id}").click().run()

    assert handed == [spec.tune_id]


def test_read_only_shows_tournaments_and_no_button(root, spec, open_page, monkeypatch):
    """With EXPLORER_READ_ONLY=1 the page only watches."""
    monkeypatch.setenv("EXPLORER_READ_ONLY", "1")
    say(root, spec, "running")

    page = open_page("run")

    assert len(page.dataframe) == 1
    assert not page.button
