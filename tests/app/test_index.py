"""The incremental reader: what changed is read, what did not is not."""

import time

import pytest

from explorer.analysis.stats import retention
from explorer.pages.shared import store_cache
from explorer.pages.shared.store_cache import Index
from explorer.store import disk, frames
from tests import records


@pytest.fixture(autouse=True)
def at_once(root, monkeypatch):
    """Every question looks at the folders again."""
    monkeypatch.setattr(store_cache, "LOOK_EVERY_S", 0.0)


def test_a_new_run_appears(root, study):
    """A run that finishes while the dashboard is open is there at the next look."""
    reader = Index(root)
    assert len(reader.shelf().runs) == 6

    records.write_run(root, records.make_record(num_layers=12))

    assert len(reader.shelf().runs) == 7


def test_a_removed_run_disappears(root, study):
    """A folder that somebody deletes is gone from the frames."""
    reader = Index(root)
    assert study[1] in set(reader.shelf().runs["run_id"])

    (root / study[1] / disk.RECORD).unlink()

    assert study[1] not in set(reader.shelf().runs["run_id"])


def test_only_changed_records_are_read_again(root, study, monkeypatch):
    """A second look opens no record that is as it was, nor does the next process."""
    Index(root).shelf()
    read = []
    load = disk.load
    monkeypatch.setattr(disk, "load", lambda *args: read.append(args[1]) or load(*args))

    again = Index(root)
    again.shelf()
    assert read == []

    time.sleep(0.01)
    disk.save(root, load(root, study[2]).model_copy(update={"finished_at": "2026-11-23T00:00:00Z"}))
    again.shelf()
    assert read == [study[2]]


def test_the_frames_are_the_stores_own(root, study):
    """Kept rows equal what `store.frame` makes of the records, after a restart too."""
    found, _ = disk.records(root)
    Index(root).shelf()

    kept = Index(root).shelf().runs

    fresh = frames.runs(found)
    assert kept["run_id"].tolist() == fresh["run_id"].tolist()
    assert kept["tpot_ms"].tolist() == fresh["tpot_ms"].tolist()
    assert list(kept.columns) == list(fresh.columns)


def test_retention_is_that_of_the_analysis(root, study):
    """Kept intervals equal those that `retention.add` computes anew."""
    reader = Index(root)
    kept = reader.with_retention(reader.shelf().runs)

    runs, scores = reader.shelf().runs, reader.shelf().scores
    fresh = retention.add_retention(runs, scores, {one: disk.answers(root, one) for one in study})

    for column in ("retention", "retention_low", "retention_high", "raw_ratio"):
        assert kept[column].tolist() == pytest.approx(fresh[column].tolist(), nan_ok=True)


def test_a_student_alone_still_knows_its_teacher(root, study):
    """Filtering the teacher out of a frame changes no student's retention."""
    reader = Index(root)
    runs = reader.shelf().runs
    one = runs[runs["run_id"] == study[3]]

    assert reader.with_retention(one)["retention"].notna().all()


def test_a_bad_cache_file_is_thrown_away(root, study, tmp_path):
    """A cache that cannot be read costs time, not results."""
    Index(root).shelf()
    for file in (tmp_path / "cache" / "index").iterdir():
        file.write_text("{", encoding="utf-8")

    assert len(Index(root).shelf().runs) == 6


def test_the_frontier_of_many_runs_is_not_drawn_again(root, study, monkeypatch):
    """Above the limit no bootstrap is run for the look of a line."""
    monkeypatch.setattr(store_cache, "MANY_RUNS", 2)
    reader = Index(root)
    runs = reader.with_retention(reader.shelf().runs)

    assert reader.frontier_share(runs, "tpot_ms").isna().all()


def test_the_frontier_says_how_sure_it_is(root, study):
    """Shares lie in [0, 1], and the fastest run is on the frontier in every draw."""
    reader = Index(root)
    runs = reader.with_retention(reader.shelf().runs)

    share = reader.frontier_share(runs, "tpot_ms")

    assert share.between(0, 1).all()
    assert share[runs["tpot_ms"].idxmin()] == 1
