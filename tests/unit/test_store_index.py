"""The index of a store: what changed is read, what did not is not; it can always be made again."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from explorer.analysis.stats import control_pairs, differences, retention
from explorer.analysis.stats.pairing import TaskAnswers
from explorer.errors import NoRoom
from explorer.files import durable_files
from explorer.index import (
    StoreIndex,
    database,
    index_of,
    packed_answers,
    records_index,
    store_index,
)
from explorer.store import disk, frames, trash
from tests import records


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Every question looks at the folders again."""
    monkeypatch.setattr(store_index, "LOOK_EVERY_S", 0.0)


@pytest.fixture
def study(store_root):
    """A teacher and five students, finished; their run ids, the teacher's first."""
    return records.write_study(store_root)


def damage(path, at=0):
    """Overwrite a part of a file, and drop what SQLite keeps beside it."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\x55" * 4096)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def close(index):
    """End an index's connection, so that all it wrote is in its file."""
    index.database.connection.close()


def counted(index, table):
    return index.query(f"SELECT count(*) FROM {table}")[0][0]


def test_a_new_run_appears(store_root, study):
    """A run that finishes while the dashboard is open is there at the next look."""
    index = StoreIndex(store_root)
    assert len(index.snapshot().runs) == 6

    records.write_run(store_root, records.make_record(num_layers=12))

    assert len(index.snapshot().runs) == 7


def test_a_result_is_remembered_while_the_store_stays_as_it_is(store_root, study):
    """Until a run is added, or eight other results were asked for since."""
    index = StoreIndex(store_root)
    asked = []

    def ask(key):
        return index.snapshot().remembered(key, lambda: asked.append(key) or f"{key}!")

    assert [ask("pick"), ask("finding"), ask("pick")] == ["pick!", "finding!", "pick!"]
    assert asked == ["pick", "finding"]

    records.write_run(store_root, records.make_record(num_layers=12))
    ask("pick")
    assert asked == ["pick", "finding", "pick"]

    for number in range(store_index.NUM_REMEMBERED):
        ask(number)
    ask("pick")
    assert asked.count("pick") == 3


def test_a_removed_run_disappears(store_root, study):
    """A folder that somebody deletes is gone from the frames, and from every table."""
    index = StoreIndex(store_root)
    index.with_retention(index.snapshot().runs)
    assert study[1] in set(index.snapshot().runs["run_id"])

    shutil.rmtree(store_root / study[1])

    assert study[1] not in set(index.snapshot().runs["run_id"])
    for table in records_index.OF_A_RUN:
        assert counted(index, table) > 0
        assert index.query(f"SELECT * FROM {table} WHERE run_id = ?", [study[1]]) == []


def test_a_run_whose_record_is_gone_is_no_result_any_more(store_root, study):
    """Without its record a run has no row, and its folder is no foreign one."""
    index = StoreIndex(store_root)
    index.update()
    (store_root / study[1] / disk.RECORD).unlink()

    snapshot = index.snapshot()

    assert study[1] not in set(snapshot.runs["run_id"])
    assert study[1] not in set(snapshot.scores["run_id"])
    assert snapshot.problems == []


def test_only_changed_records_are_read_again(store_root, study, monkeypatch):
    """A second look opens no record that is as it was, nor does the next process."""
    StoreIndex(store_root).snapshot()
    read = []
    load = disk.load
    monkeypatch.setattr(disk, "load", lambda *args: read.append(args[1]) or load(*args))

    again = StoreIndex(store_root)
    again.snapshot()
    assert read == []

    time.sleep(0.01)
    changed = load(store_root, study[2]).model_copy(update={"finished_at": "2026-11-23T00:00:00Z"})
    disk.save(store_root, changed)
    again.snapshot()
    assert read == [study[2]]


def test_a_record_replaced_in_the_same_moment_is_another_one(store_root, study):
    """Date and size may be equal: a file that was put in the place of another is read."""
    index = StoreIndex(store_root)
    index.update()
    path = store_root / study[2] / disk.RECORD
    before = path.stat()
    record = disk.load(store_root, study[2])
    name = record.environment.device_name.replace("7R13", "7R14")
    environment = record.environment.model_copy(update={"device_name": name})
    other = record.model_copy(update={"environment": environment})
    durable_files.write_text(path, durable_files.with_checksum(other.to_json()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size

    assert "7R14" in index.snapshot().runs.set_index("run_id").loc[study[2], "device_name"]


def test_the_frames_are_the_stores_own(store_root, study):
    """Rows equal what `frames` makes of the records, after a restart too."""
    records.write_every_state(store_root)
    found, _ = disk.load_records(store_root)
    StoreIndex(store_root).snapshot()

    snapshot = StoreIndex(store_root).snapshot()

    def plain(frame):
        return frame.astype(object).where(frame.notna(), None)

    pd.testing.assert_frame_equal(plain(snapshot.runs), plain(frames.runs(found)))
    pd.testing.assert_frame_equal(plain(snapshot.scores), plain(frames.scores(found)))
    assert snapshot.tasks == sorted(records.TASKS)
    assert pd.api.types.is_float_dtype(snapshot.runs["joules_per_token"])


def test_retention_is_that_of_the_analysis(store_root, study):
    """Kept intervals equal those that `add_retention` computes anew, to the last digit."""
    StoreIndex(store_root).with_retention(StoreIndex(store_root).runs())
    index = StoreIndex(store_root)
    kept = index.with_retention(index.snapshot().runs)

    runs, scores = index.snapshot().runs, index.snapshot().scores
    answers = {run_id: disk.load_answers(store_root, run_id) for run_id in study}
    fresh = retention.add_retention(runs, scores, answers)

    pd.testing.assert_frame_equal(kept, fresh, check_exact=True)


def test_retention_on_one_task_is_that_of_the_analysis(store_root, study):
    """The same holds where one task alone counts."""
    index = StoreIndex(store_root)
    runs, scores = index.snapshot().runs, index.snapshot().scores
    answers = {run_id: disk.load_answers(store_root, run_id) for run_id in study}
    fresh = retention.add_retention(
        runs,
        scores[scores["task"] == "starter_facts"],
        {run_id: frame[frame["task"] == "starter_facts"] for run_id, frame in answers.items()},
    )

    pd.testing.assert_frame_equal(
        index.with_retention(runs, "starter_facts"), fresh, check_exact=True
    )


def test_retention_is_computed_once(store_root, study, monkeypatch):
    """Neither a second question nor the next process computes it; another teacher's record does."""
    index = StoreIndex(store_root)
    index.with_retention(index.snapshot().runs)
    computed = []
    compute = StoreIndex._compute_batch

    def counting(self, runs, task):
        computed.append(len(runs))
        return compute(self, runs, task)

    monkeypatch.setattr(StoreIndex, "_compute_batch", counting)
    index.with_retention(index.snapshot().runs)
    again = StoreIndex(store_root)
    again.with_retention(again.snapshot().runs)
    again.frontier_share(again.with_retention(again.snapshot().runs), "tpot_ms")
    assert computed == []

    teacher = disk.load(store_root, study[0])
    disk.save(store_root, teacher.model_copy(update={"finished_at": "2026-11-23T00:00:00Z"}))
    again.with_retention(again.snapshot().runs)
    assert computed == [6]


def test_a_student_alone_still_knows_its_teacher(store_root, study):
    """Filtering the teacher out of a frame changes no student's retention."""
    index = StoreIndex(store_root)
    runs = index.snapshot().runs
    student = runs[runs["run_id"] == study[3]]

    assert index.with_retention(student)["retention"].notna().all()


def test_differences_are_those_of_the_analysis(store_root, study):
    """Two runs compared through the index differ by what their files say."""
    index = StoreIndex(store_root)
    index.update()
    scores = index.scores()

    def files_of(run_id):
        return scores[scores["run_id"] == run_id], disk.load_answers(store_root, run_id)

    ((rows, suite),) = index.differences([(study[1], study[3])], lambda run, reference: ())

    own, other = files_of(study[1]), files_of(study[3])
    fresh_rows, fresh_suite = differences.compare_runs(own[0], other[0], own[1], other[1])
    pd.testing.assert_frame_equal(rows, fresh_rows, check_exact=True)
    assert suite == fresh_suite
    teacher = files_of(study[0])
    pd.testing.assert_frame_equal(
        index.tasks_of(study[1], study[0]),
        retention.per_task(own[0], teacher[0], own[1], teacher[1]),
        check_exact=True,
    )


def test_what_distillation_added_is_that_of_the_analysis(store_root):
    """The effect of each student with a control arm, and of no other run."""
    for number, spec in enumerate(records.study(layers=(15, 10), control=True)):
        records.write_run(store_root, records.make_record(spec=spec, number=number))
    index = StoreIndex(store_root)
    index.update()
    runs, scores = index.runs(), index.scores()
    answers = {run_id: disk.load_answers(store_root, run_id) for run_id in runs["run_id"]}

    effects = index.effects(runs["run_id"])

    assert len(effects) == 2
    for run_id in runs["run_id"]:
        fresh = control_pairs.distillation_effect(runs, scores, answers, run_id)
        assert effects.get(run_id) == fresh


def test_a_file_that_is_no_database_is_thrown_away(store_root, study):
    """An index that cannot be read costs time, not results."""
    index = StoreIndex(store_root)
    index.snapshot()
    close(index)
    index.path.write_text("{", encoding="utf-8")

    again = StoreIndex(store_root)

    assert len(again.snapshot().runs) == 6
    assert again.query("PRAGMA integrity_check") == [("ok",)]


def test_a_file_damaged_while_it_is_open_is_made_again(store_root, study):
    """A page of the file that turns to rubbish shows at the next question, and only once."""
    index = StoreIndex(store_root)
    runs = index.with_retention(index.snapshot().runs)
    close(index)
    again = StoreIndex(store_root)
    for at in range(0, index.path.stat().st_size, 4096):
        damage(index.path, at)
    again.forget()

    kept = again.with_retention(again.snapshot().runs)

    pd.testing.assert_frame_equal(kept, runs)
    assert again.query("PRAGMA integrity_check") == [("ok",)]


def test_without_a_folder_for_it_the_index_is_in_memory(store_root, study, tmp_path):
    """A cache that cannot be written makes nothing fail."""
    (tmp_path / "file").write_text("", encoding="utf-8")

    index = StoreIndex(store_root, tmp_path / "file" / "index")

    assert len(index.with_retention(index.snapshot().runs)) == 6
    assert not index.path.exists()


def test_the_store_itself_is_only_read(store_root, study):
    """The index writes nothing into the store, which may be read-only or on a network."""
    before = {path: path.stat().st_mtime_ns for path in store_root.rglob("*")}

    index = StoreIndex(store_root)
    index.with_retention(index.snapshot().runs)

    assert {path: path.stat().st_mtime_ns for path in store_root.rglob("*")} == before


def test_other_code_has_a_file_of_its_own(store_root, study, monkeypatch):
    """Rows that an older version made are never taken for those of this one."""
    before = StoreIndex(store_root)
    before.update()
    monkeypatch.setattr(database, "code_digest", lambda: "another0")

    after = StoreIndex(store_root)

    assert after.path != before.path
    assert counted(after, "runs") == 0
    assert len(after.snapshot().runs) == 6


def test_indexes_that_nobody_opens_are_deleted(store_root, study, tmp_path):
    """The index of a store that is long gone does not stay for ever."""
    folder = tmp_path / "indexes"
    old, recent = folder / "old.sqlite", folder / "recent.sqlite"
    folder.mkdir()
    for path in (old, recent):
        sqlite3.connect(path).close()
        path.touch()
    long_ago = time.time() - 91 * 86_400
    os.utime(old, (long_ago, long_ago))

    StoreIndex(store_root, folder)

    assert not old.exists()
    assert recent.exists()


def test_two_stores_have_two_indexes(store_root, tmp_path):
    """The path of a store decides its file, through links too; one index a process and store."""
    link = tmp_path / "link"
    link.symlink_to(store_root)

    assert database.database_path(store_root) == database.database_path(link)
    assert database.database_path(store_root) != database.database_path(tmp_path)
    assert index_of(store_root) is index_of(link)


WRITER = """
import sys
from pathlib import Path
from explorer.index import StoreIndex
index = StoreIndex(Path(sys.argv[1]))
for _ in range(6):
    index.refresh()
    runs = index.with_retention(index.snapshot().runs)
print(len(runs), runs["retention"].sum())
"""


def test_several_processes_fill_one_index(store_root, study):
    """Processes that read a growing store at once neither fail nor differ in what they say."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(store_root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for seed in (1, 2):
        records.write_study(store_root, seed=seed)
    ended = [process.communicate(timeout=200) for process in processes]
    assert [stderr for _, stderr in ended] == ["", "", ""]

    index = StoreIndex(store_root)
    index.update()
    again = subprocess.run(
        [sys.executable, "-c", WRITER, str(store_root)], capture_output=True, text=True, check=True
    )

    runs = index.with_retention(index.runs())
    assert again.stdout.split() == [str(len(runs)), str(runs["retention"].sum())]
    assert len(runs) == len(disk.load_records(store_root)[0])
    assert index.query("PRAGMA integrity_check") == [("ok",)]


def test_a_locked_index_is_waited_for_and_then_named(store_root, study, monkeypatch):
    """A process that holds the file's lock for too long makes a clear error; nothing is lost."""
    index = StoreIndex(store_root)
    index.update()
    other = sqlite3.connect(index.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    index.query("PRAGMA busy_timeout = 50")
    records.write_run(store_root, records.make_record(num_layers=12))

    with pytest.raises(NoRoom, match="Another process"):
        index.update()

    other.execute("ROLLBACK")
    assert len(index.snapshot().runs) == 7


def test_what_a_run_says_is_read_when_its_status_changes(store_root, study):
    """A status is in the index at the next look; the runs' rows stay as they are."""
    index = StoreIndex(store_root)
    before = index.snapshot()
    disk.write_status(store_root, study[1], {"state": "running", "updated_at": 1.0})

    assert index.snapshot() is before
    assert [row["run_id"] for row in index.active_states()] == [study[1]]
    assert len(index.ended_states()) == 5
    assert len(index.ended_states(limit=2)) == 2
    assert index.num_states() == 6


def test_ended_runs_come_latest_first(store_root, study):
    """One page of runs is the latest of them, without those that are left out."""
    index = StoreIndex(store_root)
    index.update()
    rows = index.ended_states()
    times = [row["updated_at"] for row in rows]

    assert times == sorted(times, reverse=True)
    page = index.ended_states(limit=3, without=[rows[1]["run_id"]])
    assert [row["run_id"] for row in page] == [rows[place]["run_id"] for place in (0, 2, 3)]


def test_hidden_runs_and_damaged_records_are_told(store_root, study):
    """What hides a run, and what cannot be read, is known without a record that changed."""
    index = StoreIndex(store_root)
    index.snapshot()
    trash.hide(store_root, [study[1]])
    (store_root / "foreign").mkdir()
    (store_root / study[2] / disk.RECORD).write_text("{", encoding="utf-8")

    snapshot = index.snapshot()

    assert snapshot.hidden == {study[1]}
    assert len(snapshot.problems) == 2
    assert "foreign is not a run" in snapshot.problems[0]
    assert study[2] not in set(snapshot.runs["run_id"])
    (store_root / trash.HIDDEN).write_text("{", encoding="utf-8")
    assert trash.HIDDEN in index.snapshot().problems[-1]
    assert index.hidden() == frozenset()


def test_students_whose_weights_are_here_are_named(store_root, study, tmp_path):
    """The index knows which runs left weights; whether they still lie there, the disk says."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}", encoding="utf-8")
    folder = records.leave_student(store_root, study[1], model)
    records.write_run(store_root, disk.load(store_root, study[1]))
    index = StoreIndex(store_root)
    index.update()

    assert index.weights(study) == {study[1]: folder.resolve()}

    shutil.rmtree(folder)
    assert index.weights(study) == {}


def test_the_frontier_of_many_runs_is_not_drawn_again(store_root, study, monkeypatch):
    """Above the limit no bootstrap is run for the look of a line."""
    monkeypatch.setattr(store_index, "MANY_RUNS", 2)
    index = StoreIndex(store_root)
    runs = index.with_retention(index.snapshot().runs)

    assert index.frontier_share(runs, "tpot_ms").isna().all()


@pytest.mark.parametrize("task", [None, "starter_facts"])
def test_the_frontier_says_how_sure_it_is(store_root, study, task):
    """Shares lie in [0, 1], and the fastest run is on the frontier in every draw."""
    index = StoreIndex(store_root)
    runs = index.with_retention(index.snapshot().runs, task)

    share = index.frontier_share(runs, "tpot_ms", task)

    assert share.between(0, 1).all()
    assert share[runs["tpot_ms"].idxmin()] == 1


@pytest.mark.parametrize("values", [[0, 1, 1, 0, 1, 0, 0, 1, 1], [0.25, 1, np.nan, 1e-9], []])
def test_packed_answers_come_back_as_they_were(values):
    """Right-or-wrong answers take a bit each, others all their digits; documents stay theirs."""
    values_N = np.array(values, dtype=float)
    count = len(values_N)
    answers = TaskAnswers(
        np.arange(count),
        np.array([f"hash-{number}" for number in range(count)], dtype=object),
        values_N,
        None,
        np.array([f"text-{number // 2}" for number in range(count)], dtype=str),
    )
    documents = packed_answers.pack_documents(answers)
    packed = packed_answers.pack_values(values_N)

    back = packed_answers.unpack_answers(packed_answers.unpack_documents(documents), packed)

    assert np.array_equal(back.values_N, values_N, equal_nan=True)
    assert back.same_documents(answers)
    assert back.chance_N is None
    assert back.clusters_N.tolist() == answers.clusters_N.tolist()
    assert packed_answers.documents_key(back) == packed_answers.documents_key(answers)
    if count == 9:
        assert len(packed) == 3


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("finished_at", "yesterday", "finished_at: "),
        ("finished_at", "2026-11-28T11:54:07", "finished_at: .*time zone"),
        ("started_at", "9999-12-31T23:59:59+00:00", "started_at: .*year from 1970"),
        ("stage_seconds", {"distil": -1.0}, "stage_seconds.distil: "),
        ("teacher_run_id", "x" * 3000, "teacher_run_id: "),
        ("teacher_licence", "\ud83d", "half a character"),
        ("stage_seconds", {"distil": 1e300}, "stage_seconds.distil: "),
    ],
)
def test_a_value_that_no_run_can_have_is_one_problem(store_root, study, field, value, why):
    """The folder is listed with its reason, and the other runs are shown."""
    path = store_root / study[2] / disk.RECORD
    data = json.loads(path.read_text(encoding="utf-8")) | {field: value}
    path.write_text(json.dumps(data), encoding="utf-8")

    snapshot = StoreIndex(store_root).snapshot()

    (problem,) = snapshot.problems
    assert re.search(f"{study[2]}.*{why}", problem)
    assert len(snapshot.runs) == len(study) - 1


def test_a_changed_record_is_a_problem(store_root, study):
    """A digit that the disk or an editor changed is not shown as a result."""
    path = store_root / study[2] / disk.RECORD
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"num_documents": ', '"num_documents": 1', 1), encoding="utf-8")

    snapshot = StoreIndex(store_root).snapshot()

    assert "differs from the checksum" in snapshot.problems[0]
    assert study[2] not in set(snapshot.runs["run_id"])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: pd.DataFrame({"a": [1]}).to_parquet(path),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_answers_that_cannot_be_read_are_a_problem_until_they_can(store_root, study, spoil):
    """The run's record still counts, and the reason why it cannot be compared is listed."""
    path = store_root / study[2] / disk.ANSWERS
    whole = path.read_bytes()
    spoil(path)
    index = StoreIndex(store_root)
    index.update()

    models = index.models(study)

    assert not models[study[2]].answers
    assert models[study[1]].answers
    (problem,) = index.snapshot().problems
    assert f"{study[2]} is damaged because answers.parquet" in problem
    if path.is_dir():
        path.rmdir()
    path.write_bytes(whole)
    assert index.models(study)[study[2]].answers
    assert index.snapshot().problems == []


def test_a_run_that_just_begins_is_no_foreign_folder(store_root, study):
    """While its spec is written, or when a kill came just then, nobody calls it foreign."""
    spec = store_root / "new-12345678" / disk.SPEC
    spec.parent.mkdir()
    durable_files.partial_name(spec).touch()

    assert StoreIndex(store_root).snapshot().problems == []


def test_hidden_runs_that_are_not_there_are_a_problem(store_root, study):
    """A changed id hides nothing, and would show a run again without a word."""
    trash.hide(store_root, study[:2])
    path = store_root / trash.HIDDEN
    path.write_text(path.read_text(encoding="utf-8").replace(study[0], "x" + study[0]))

    (problem,) = StoreIndex(store_root).snapshot().problems

    assert f"hides runs that are not in the store: x{study[0]}." in problem


@pytest.mark.parametrize("name", ["loop", "record"])
def test_a_link_to_itself_is_one_problem(store_root, study, name):
    """In the place of a folder or of a record, it is listed, and the runs are shown."""
    if name == "loop":
        path = store_root / "aloop"
    else:
        path = store_root / study[2] / disk.RECORD
        path.unlink()
    path.symlink_to(path)

    snapshot = StoreIndex(store_root).snapshot()

    (problem,) = snapshot.problems
    assert f"{path} cannot be opened" in problem
    assert study[1] in set(snapshot.runs["run_id"])
