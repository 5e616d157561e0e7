"""The store: whole files, honest lists, nothing lost."""

import json

import pytest
from typer.testing import CliRunner

from explorer import jobs, paths
from explorer.cli import app
from explorer.errors import BadInput, DamagedStore, NoRoom
from explorer.files import durable_files
from explorer.jobs import states
from explorer.records import RunRecord, Timing
from explorer.specs import DepthStudent, RunSpec
from explorer.store import disk, frames
from tests import records

SAME_ID_SEEDS = (73537, 114660)
"""Found by trying seeds from 0 on."""


def test_a_record_comes_back_as_it_was(store_root):
    """What is saved is what is loaded."""
    run_ids = records.write_study(store_root)

    record = disk.load(store_root, run_ids[1])
    disk.save(store_root, record)

    assert disk.load(store_root, run_ids[1]) == record


def test_foreign_and_damaged_folders_are_reported_and_kept(store_root):
    """Each problem is one sentence; the good runs are still listed; nothing is deleted."""
    run_ids = records.write_study(store_root)
    (store_root / "holiday-pictures").mkdir()
    damaged = store_root / run_ids[0] / disk.RECORD
    damaged.write_text('{"schema_version": 1, "run')
    moved = store_root / "copied-run"
    moved.mkdir()
    (moved / disk.RECORD).write_text((store_root / run_ids[1] / disk.RECORD).read_text())

    found, problems = disk.load_records(store_root)

    assert len(found) == len(run_ids) - 1
    assert len(problems) == 3
    assert any("holiday-pictures is not a run" in p for p in problems)
    assert any("is not JSON" in p for p in problems)
    assert any("copied by hand" in p for p in problems)
    assert (store_root / "holiday-pictures").exists()
    assert damaged.exists()


def test_a_record_of_the_future_is_not_guessed_at(store_root):
    """An unknown schema version asks for an update."""
    run_id = records.write_study(store_root)[0]
    path = store_root / run_id / disk.RECORD
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"schema_version": 99}))

    with pytest.raises(DamagedStore, match="Update the explorer"):
        disk.load(store_root, run_id)


def test_a_run_is_run_again_by_the_spec_of_its_record(store_root):
    """Every run of the committed study, and one without a record yet, keeps its spec."""
    for run_id in disk.run_ids(records.STUDY):
        assert disk.read_spec(records.STUDY, run_id) == disk.load(records.STUDY, run_id).spec
    spec = RunSpec(name="queued")
    disk.open_run(store_root, spec)
    assert disk.read_spec(store_root, spec.run_id) == spec


def test_a_spec_whose_id_is_taken_by_chance_is_refused(store_root):
    """Eight hex digits: these two differ in a seed and share an id, so one would hide the other."""
    spec = RunSpec(name="teacher")
    one, other = (spec.with_(latency=spec.latency.with_(seed=seed)) for seed in SAME_ID_SEEDS)
    assert one.run_id == other.run_id
    disk.open_run(store_root, one)

    with pytest.raises(BadInput, match=f"another run with the id {one.run_id}.*another name"):
        disk.open_run(store_root, other)

    disk.open_run(store_root, one)
    assert disk.read_spec(store_root, one.run_id) == one


@pytest.mark.parametrize("content", [b"", bytes(90), b"name: [", b"\xff\xfe", b"name: x\n"])
def test_a_damaged_spec_is_made_good(store_root, content):
    """The record's spec counts; without a record one sentence; the next start writes it again."""
    record = records.make_record()
    records.write_run(store_root, record)
    path = store_root / record.run_id / disk.SPEC
    is_foreign = content == b"name: x\n"
    path.write_bytes(content)

    if not is_foreign:
        assert disk.read_spec(store_root, record.run_id) == record.spec
        (path.parent / disk.RECORD).unlink()
    with pytest.raises((BadInput, DamagedStore), match=r"spec\.yaml"):
        disk.read_spec(store_root, record.run_id)
    disk.open_run(store_root, record.spec)

    assert disk.read_spec(store_root, record.run_id) == record.spec
    assert path.with_name("spec.yaml.damaged").read_bytes() == content


@pytest.mark.parametrize("changed", [disk.SPEC, disk.RECORD, "folder"])
def test_a_run_whose_names_disagree_is_not_run_again(store_root, changed):
    """By page, id or path: one sentence names both runs, and no job is queued."""
    record = records.make_record()
    records.write_run(store_root, record)
    run_id, folder = record.run_id, store_root / record.run_id
    other = record.spec.with_(teacher="somebody/else")
    if changed == disk.SPEC:
        (folder / disk.SPEC).write_text(other.to_yaml(), encoding="utf-8")
    elif changed == disk.RECORD:
        forged = record.model_copy(update={"spec": other})
        (folder / disk.RECORD).write_text(forged.to_json(), encoding="utf-8")
    else:
        run_id = "another-0123abcd"
        folder.rename(store_root / run_id)

    with pytest.raises(BadInput, match=rf"{run_id}.*holds the spec of .*Nothing was started"):
        jobs.resume(store_root, run_id)
    for named in (run_id, str(store_root / run_id / disk.SPEC)):
        refused = CliRunner().invoke(app, ["run", named, "--again"])
        assert isinstance(refused.exception, BadInput)
        assert "holds the spec of" in str(refused.exception)
    assert disk.read_status(store_root, run_id) is None


@pytest.mark.parametrize("run_id", ["../secrets", "a/b", "", ".hidden", "UPPER", "x" * 200])
def test_a_run_id_cannot_reach_outside_the_store(store_root, run_id):
    """Anything but a plain name is refused."""
    with pytest.raises(BadInput, match="A run's id"):
        disk.run_folder(store_root, run_id)


def test_a_run_is_named_by_any_beginning_that_no_other_run_shares(store_root):
    """The first letters of an id are enough, with a record or with a spec only."""
    recorded = records.make_record().run_id
    records.write_run(store_root, records.make_record())
    queued = RunSpec(name="queued")
    disk.open_run(store_root, queued)
    (store_root / "queued-by-nobody").mkdir()

    assert disk.resolve_run_id(store_root, recorded) == recorded
    assert disk.resolve_run_id(store_root, recorded[:4]) == recorded
    assert disk.resolve_run_id(store_root, "q") == queued.run_id


def test_a_whole_id_means_its_run_also_where_another_id_begins_with_it(store_root):
    """An exact id is never ambiguous."""
    whole, longer = records.make_record("mine"), records.make_record("mine-too")
    for record in (whole, longer):
        disk.save(store_root, record)

    assert disk.resolve_run_id(store_root, "mine") == "mine"


def test_an_ambiguous_beginning_lists_what_it_may_mean(store_root):
    """Up to eight candidates are named, and how many more there are."""
    run_ids = sorted(records.write_study(store_root, "many", layers=tuple(range(15, 25))))

    with pytest.raises(BadInput) as error:
        disk.resolve_run_id(store_root, "many")

    assert f"'many' begins the ids of 10 runs: {', '.join(run_ids[:8])}" in str(error.value)
    assert "and 2 more. Type more of the id." in str(error.value)


def test_an_unknown_id_names_ids_like_it(store_root):
    """A slip of the finger, or a middle part of an id, gets the runs that may be meant."""
    *_, student = records.write_study(store_root, "starter", layers=(15,))

    for text in (student.replace("15l", "51l"), student[-8:]):
        with pytest.raises(
            BadInput, match=f"There is no run .*Close to it: {student}.*explorer ls"
        ):
            disk.resolve_run_id(store_root, text)
    with pytest.raises(BadInput, match="A run's id has small letters"):
        disk.resolve_run_id(store_root, "../starter")


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    """A file in the folder's place, as a missing permission, says why nothing was written."""
    (tmp_path / "blocked").write_text("a file")

    with pytest.raises(NoRoom, match="Could not write"):
        disk.open_run(tmp_path / "blocked", RunSpec(name="x"))


def test_a_full_disk_leaves_no_half_written_file(store_root, monkeypatch):
    """The old file stays and the partial one is removed."""
    path = store_root / "file.json"
    durable_files.write_text(path, "old")

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk.os, "fsync", no_space)
    with pytest.raises(NoRoom, match="No space left"):
        durable_files.write_text(path, "new")

    assert path.read_text() == "old"
    assert [p.name for p in store_root.iterdir()] == ["file.json"]


def test_the_frame_has_a_row_a_run_and_blanks_for_what_is_unknown(store_root):
    """A failed run is a row too, with its error and without numbers."""
    records.write_study(store_root)
    found, _ = disk.load_records(store_root)

    frame = frames.runs(found)

    assert list(frame.columns) == frames.COLUMNS
    assert len(frame) == len(found)
    assert frame.set_index("role").loc["teacher", "kl_after"] != 0
    students = frame[frame["role"] == "student"]
    assert students["tpot_ratio"].between(0, 1.2).all()


def test_an_empty_store_is_an_empty_frame_with_its_columns(tmp_path):
    """No folder is no run, not an error."""
    found, problems = disk.load_records(tmp_path / "nothing")

    assert found == problems == []
    assert frames.runs(found).empty
    assert frames.scores(found).empty
    assert list(frames.runs(found).columns) == frames.COLUMNS


def test_weights_are_found_only_inside_the_store(store_root, tmp_path, tiny_llama):
    """A pointer that leads outside is not followed."""
    spec = RunSpec(name="x", student=DepthStudent(num_layers=2))
    disk.open_run(store_root, spec)
    inside = records.leave_student(store_root, spec.run_id, tiny_llama())
    assert disk.weights_folder(store_root, spec.run_id) == inside.resolve()

    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "config.json").write_text("{}")
    durable_files.write_text(store_root / spec.run_id / disk.WEIGHTS, "../elsewhere")
    assert disk.weights_folder(store_root, spec.run_id) is None


def test_a_finished_record_counts_until_a_finished_one_replaces_it(store_root):
    """Attempts that fail are kept beside it, a number each; so is the record that is replaced."""
    run_id = records.write_study(store_root)[1]
    finished = disk.load(store_root, run_id)
    failed = finished.model_copy(update={"status": "failed", "capability": None})

    for _ in range(2):
        disk.request_remeasure(store_root, run_id)
        assert disk.save(store_root, failed).name != disk.RECORD
        assert disk.load(store_root, run_id) == finished
        assert not disk.remeasure_requested(store_root, run_id)
    newer = finished.model_copy(update={"finished_at": "2026-11-30T00:00:00+00:00"})
    disk.save(store_root, newer)

    assert disk.load(store_root, run_id) == newer
    kept = [store_root / run_id / f"record.{number}.json" for number in (1, 2, 3)]
    assert [RunRecord.from_json(path.read_text()) for path in kept] == [failed, failed, finished]
    assert len(list((store_root / run_id).glob("record*.json"))) == 4


def test_a_damaged_record_is_kept_when_another_takes_its_place(store_root):
    """Nobody can read it now; somebody may repair it."""
    run_id = records.write_study(store_root)[1]
    record = disk.load(store_root, run_id)
    durable_files.write_text(store_root / run_id / disk.RECORD, '{"schema_version": 1, "run')

    disk.save(store_root, record)

    assert disk.load(store_root, run_id) == record
    assert (store_root / run_id / "record.1.json").read_text() == '{"schema_version": 1, "run'


def test_answers_of_a_new_measurement_count_with_its_record(store_root):
    """Until then a reader gets the answers that the record in force was computed from."""
    run_id = records.write_study(store_root)[1]
    record, before = disk.load(store_root, run_id), disk.load_answers(store_root, run_id)
    disk.request_remeasure(store_root, run_id)
    other = before.assign(value=1 - before["value"])

    disk.write_answers(store_root, run_id, other)
    assert disk.load_answers(store_root, run_id).equals(before)
    disk.save(store_root, record.model_copy(update={"finished_at": "2026-11-30T00:00:00+00:00"}))

    assert disk.load_answers(store_root, run_id).equals(other)
    assert not (store_root / run_id / disk.NEW_RESULTS).exists()


def test_a_run_to_be_measured_again_is_one_the_queue_takes(store_root):
    """It stays finished for all readers; only the request says that there is something to do."""
    run_id = records.write_study(store_root)[1]

    disk.request_remeasure(store_root, run_id)

    assert states.state_of(store_root, run_id) == "finished"
    assert disk.remeasure_requested(store_root, run_id)
    assert run_id in [record.run_id for record in disk.load_records(store_root)[0]]


def test_flags_are_flags_also_where_no_score_is():
    """A page may choose the headlines of an empty store."""
    empty = frames.scores([])

    assert empty[empty["headline"]].empty
    assert empty["headline"].dtype == bool


def test_turns_of_a_timing_without_any_are_an_empty_frame():
    """The columns are there all the same."""
    nothing = Timing(batch_size=1, prompt_tokens=8, turns=[])

    assert list(frames.turns(nothing)) == ["ttft_ms", "tpot_ms", "latency_ms", "num_output_tokens"]
    assert frames.turns(nothing).empty


def test_files_are_found_through_links_each_once(tmp_path):
    """A folder may be a link to another disk; a link back is no endless way."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "results_1.json").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(tmp_path / "out")

    assert list(paths.files_below(tmp_path / "out")) == [tmp_path / "out/model/results_1.json"]
