"""Hidden and deleted runs: out of sight, never lost."""

import json
import os
import socket
import time

import pytest

from explorer import cli, jobs
from explorer.errors import BadInput, DamagedStore
from explorer.files import durable_files
from explorer.specs import DepthStudent, RunSpec
from explorer.store import disk, trash
from tests import records


def say(root, run_id, state):
    """Write a status as a run on this host does."""
    here = {"host": socket.gethostname(), "pid": os.getpid(), "updated_at": time.time()}
    disk.write_status(root, run_id, {"run_id": run_id, "state": state, **here})


def with_student(root, name, key):
    """A run whose student's weights lie in the store."""
    spec = RunSpec(name=name, student=DepthStudent(num_layers=2))
    disk.open_run(root, spec)
    weights = root / ".students" / key / "model"
    weights.mkdir(parents=True, exist_ok=True)
    (weights / "config.json").write_text("{}")
    disk.write_weights(root, spec.run_id, weights)
    return spec.run_id, weights


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def test_a_hidden_run_is_remembered_in_one_file_until_it_is_shown_again(store_root):
    """Hidden twice is hidden; its own folder does not change."""
    first, second, *_ = records.write_study(store_root)
    before = contents(store_root / first)

    trash.hide(store_root, [first])
    trash.hide(store_root, [first, second])
    assert trash.hidden_run_ids(store_root) == {first, second}
    assert (store_root / trash.HIDDEN).is_file()
    trash.unhide(store_root, [first])

    assert trash.hidden_run_ids(store_root) == {second}
    assert contents(store_root / first) == before


@pytest.mark.parametrize("text", ["not json", '{"a": 1}', "[1]", "\xff"])
def test_a_damaged_list_of_hidden_runs_is_reported_and_left(store_root, text):
    """Hiding one more run would lose the others, so it is refused; so is deleting one."""
    run_id = records.write_study(store_root)[0]
    path = store_root / trash.HIDDEN
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(DamagedStore, match="Repair or remove it"):
        trash.hide(store_root, [run_id])
    with pytest.raises(DamagedStore, match="Repair or remove it"):
        jobs.delete(store_root, [run_id])

    assert run_id in disk.run_ids(store_root)
    assert path.read_bytes() == text.encode("latin-1")


def test_a_deleted_run_comes_back_as_it_was(store_root):
    """File by file, also for a process that has just started."""
    run_id = records.write_study(store_root)[1]
    before = contents(store_root / run_id)

    (entry,) = jobs.delete(store_root, [run_id])
    assert run_id not in disk.run_ids(store_root)
    assert [deleted.run_id for deleted in trash.deleted_runs(store_root)] == [run_id]
    assert contents(entry.folder) == before
    trash.restore(store_root, run_id)

    assert contents(store_root / run_id) == before
    assert trash.deleted_runs(store_root) == []


def test_of_runs_deleted_several_times_the_latest_comes_back(store_root):
    """And none of the earlier ones is lost."""
    run_id = records.write_study(store_root)[1]
    record = disk.load(store_root, run_id)
    jobs.delete(store_root, [run_id])
    newer = record.model_copy(update={"finished_at": "2026-11-30T00:00:00+00:00"})
    disk.open_run(store_root, newer.spec)
    disk.save(store_root, newer)
    jobs.delete(store_root, [run_id])

    trash.restore(store_root, run_id)

    assert disk.load(store_root, run_id) == newer
    with pytest.raises(BadInput, match="Delete that one first"):
        trash.restore(store_root, run_id)
    jobs.delete(store_root, [run_id])
    assert len(trash.deleted_runs(store_root)) == 2


@pytest.mark.parametrize("state", ["running", "queued"])
def test_a_run_under_way_is_not_deleted(store_root, state, monkeypatch, tmp_path):
    """The sentence says to cancel it first; none of the other runs named is deleted either."""
    monkeypatch.setenv("EXPLORER_CACHE", str(tmp_path / "cache"))
    finished, active, *_ = records.write_study(store_root)
    say(store_root, active, state)
    if state == "queued":
        monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")  # nobody can say what became of it

    with pytest.raises(BadInput, match=f"{active} is {state}. Cancel it first"):
        jobs.delete(store_root, [finished, active])

    assert finished in disk.run_ids(store_root)
    assert trash.deleted_runs(store_root) == []


def test_what_is_not_a_run_is_neither_hidden_nor_deleted(store_root):
    """A foreign folder stays where it is."""
    records.write_study(store_root)
    (store_root / "holiday-pictures").mkdir()

    for run_id in ("holiday-pictures", "no-such-run"):
        with pytest.raises(BadInput, match="There is no run"):
            trash.hide(store_root, [run_id])
        with pytest.raises(BadInput, match="There is no run"):
            jobs.delete(store_root, [run_id])
    with pytest.raises(BadInput, match="There is no run 'x' in the trash"):
        trash.restore(store_root, "x")

    assert (store_root / "holiday-pictures").is_dir()


def test_an_id_that_leads_out_of_the_store_moves_nothing(store_root):
    """Not even a folder that looks like a run."""
    records.write_study(store_root)
    outside = RunSpec(name="outside")
    disk.open_run(store_root.parent, outside)

    for act in (trash.hide, jobs.delete):
        with pytest.raises(BadInput, match="A run's id"):
            act(store_root, [f"../{outside.run_id}"])

    assert disk.run_folder(store_root.parent, outside.run_id).is_dir()


def test_a_run_made_anew_after_its_deletion_is_shown_and_timed_anew(store_root):
    """Nothing of the deleted run clings to the next one of the same spec."""
    run_id = records.write_study(store_root)[1]
    stage = store_root / ".work" / "stages" / run_id / "latency.json"
    durable_files.write_text(stage, "{}")
    trash.hide(store_root, [run_id])

    jobs.delete(store_root, [run_id])

    assert run_id not in trash.hidden_run_ids(store_root)
    assert not stage.exists()


def test_emptying_the_trash_deletes_weights_that_no_other_run_refers_to(store_root):
    """A student that two runs share lives as long as one of them does."""
    alone, own_weights = with_student(store_root, "alone", "aaaa")
    shared, shared_weights = with_student(store_root, "shared", "bbbb")
    other, _ = with_student(store_root, "other", "bbbb")
    _, untouched = with_student(store_root, "untouched", "cccc")
    jobs.delete(store_root, [alone, shared])
    assert own_weights.exists()

    assert trash.empty_trash(store_root) == 2

    assert trash.deleted_runs(store_root) == []
    assert not own_weights.exists()
    assert disk.weights_folder(store_root, other) == shared_weights.resolve()
    assert untouched.exists()


def test_emptying_the_trash_follows_no_path_out_of_the_store(store_root, tmp_path):
    """A foreign pointer to weights deletes nothing."""
    run_id, _ = with_student(store_root, "foreign", "aaaa")
    outside = tmp_path / "outside" / "model"
    outside.mkdir(parents=True)
    durable_files.write_text(store_root / run_id / disk.WEIGHTS, ".students/../../outside/model")
    jobs.delete(store_root, [run_id])

    trash.empty_trash(store_root)

    assert outside.exists()


@pytest.fixture
def explorer(monkeypatch, capsys, tmp_path):
    """`explorer ARGUMENTS` in this process; gives what it printed."""
    monkeypatch.setenv("EXPLORER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["explorer", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        assert not ended.value.code, printed.err
        return printed.out

    return call


def test_the_shell_leaves_hidden_runs_out_unless_they_are_named(explorer, store_root):
    """Of ls, compare and export; `ls --all` lists them, and naming one shows it."""
    teacher, first, second, *_ = records.write_study(store_root)
    explorer("hide", first, "--results", store_root)

    assert first not in (listed := explorer("ls", "--results", store_root))
    assert "1 hidden; `explorer ls --all` lists them" in listed
    assert "finished (hidden)" in explorer("ls", "--all", "--results", store_root)
    rows = json.loads(explorer("ls", "--json", "--all", "--results", store_root))
    assert {row["run_id"] for row in rows if row["hidden"]} == {first}
    for command in (["compare"], ["compare", "--json"], ["export"], ["economics", "-f", "csv"]):
        printed = explorer(*command, "--results", store_root)
        assert second in printed, command
        assert first not in printed, command
    assert first in explorer("export", first, "--results", store_root)
    explorer("hide", *disk.run_ids(store_root), "--results", store_root)
    assert "No runs yet" not in explorer("ls", "--results", store_root)
    explorer("unhide", first, "--results", store_root)
    assert first in explorer("ls", "--results", store_root)


def test_a_hidden_teachers_run_is_still_what_students_are_compared_with(explorer, store_root):
    """Retention does not change by hiding."""
    teacher, student, *_ = records.write_study(store_root)
    before = explorer("export", student, "--results", store_root)

    explorer("hide", teacher, "--results", store_root)

    assert explorer("export", student, "--results", store_root) == before


def test_the_shell_deletes_and_restores_by_the_beginning_of_an_id(explorer, store_root):
    """Each command says what to type to undo it."""
    run_id = records.write_study(store_root)[2]

    said = explorer("delete", run_id[:-2], "--results", store_root)
    assert f"explorer restore {run_id}" in said
    assert run_id in explorer("trash", "--results", store_root)
    explorer("restore", run_id[:-2], "--results", store_root)
    assert "The trash is empty" in explorer("trash", "--results", store_root)
    assert run_id in disk.run_ids(store_root)
    explorer("delete", run_id, "--results", store_root)
    assert "Deleted 1 run for good" in explorer("trash", "--empty", "--results", store_root)
