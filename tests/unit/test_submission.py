"""Handing something to the queue in the background: how far it is, what became of it."""

import threading

import pytest

from explorer import jobs
from explorer.errors import JobError
from explorer.jobs import ray_head, submission
from explorer.specs import RunSpec

SOON_S = 30.0


@pytest.fixture
def gate():
    """Holds an action until the test lets it go on; always let go, so that no thread is left."""
    event = threading.Event()
    yield event
    event.set()


def test_a_press_returns_at_once_and_tells_how_far_it_is(tmp_path, gate):
    """The step, what is done of it and the seconds so far, while the work goes on behind."""
    told = threading.Event()

    def action(on_progress):
        on_progress(ray_head.STARTING, 0, 3)
        told.set()
        assert gate.wait(SOON_S)
        on_progress("Submitted 3 of 3", 3, 3)

    mine = submission.begin(tmp_path, "start", "3 runs", action)

    assert told.wait(SOON_S)
    assert mine.is_running
    assert mine.in_words() == f"{ray_head.STARTING}, 0\u00a0s so far"
    assert submission.running(tmp_path) == [mine]
    gate.set()
    assert mine.wait(SOON_S)
    assert (mine.step, mine.done, mine.total, mine.error) == ("Submitted 3 of 3", 3, 3, None)
    assert submission.running(tmp_path) == submission.failed(tmp_path) == []


def test_a_second_press_starts_nothing(tmp_path, gate):
    """Of one button only one is under way, whoever presses it; another store is another."""
    calls = []

    def action(on_progress):
        calls.append(1)
        assert gate.wait(SOON_S)

    mine = submission.begin(tmp_path, "start", "3 runs", action)
    assert submission.begin(tmp_path, "start", "3 runs", action) is mine
    other = submission.begin(tmp_path / "other", "start", "3 runs", action)
    gate.set()

    assert mine.wait(SOON_S)
    assert other.wait(SOON_S)
    assert len(calls) == 2
    again = submission.begin(tmp_path, "start", "3 runs", action)
    assert again is not mine
    assert again.wait(SOON_S)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (JobError("Ray did not start."), "Ray did not start."),
        (ZeroDivisionError("division by zero"), "3 runs could not be submitted: ZeroDivisionError"),
    ],
)
def test_an_error_is_kept_until_it_is_closed(tmp_path, error, sentence):
    """One sentence, a bug too; a new press of the same button takes it away."""

    def action(on_progress):
        raise error

    for _ in range(2):
        mine = submission.begin(tmp_path, "start", "3 runs", action)
        assert mine.wait(SOON_S)
        assert mine.error.startswith(sentence)
        assert submission.failed(tmp_path) == [mine]
    submission.dismiss(tmp_path, "start")
    assert submission.failed(tmp_path) == []


def test_what_is_under_way_is_not_forgotten(tmp_path, gate):
    """Closing the line of an error never loses sight of a newer press."""
    mine = submission.begin(tmp_path, "start", "3 runs", lambda on_progress: gate.wait(SOON_S))
    submission.dismiss(tmp_path, "start")

    assert submission.find(tmp_path, "start") is mine
    gate.set()
    assert mine.wait(SOON_S)


def test_runs_are_seen_waiting_before_the_engine_runs(store_root, tmp_path, monkeypatch):
    """What is submitted stands in the queue from the moment at which the engine is started."""
    monkeypatch.setenv("EXPLORER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    spec, steps, rows = RunSpec(name="seen"), [], []

    def on_progress(step, done, total):
        steps.append(step)
        if step == ray_head.STARTING:
            rows.extend(jobs.status_table(store_root).to_dict("records"))
            raise JobError("stop here: no engine is wanted")

    with pytest.raises(JobError):
        jobs.submit([spec], store_root, on_progress)

    assert steps == ["Saving the specs", ray_head.STARTING]
    assert [(row["run_id"], row["state"]) for row in rows] == [(spec.run_id, "queued")]
