"""`explorer clean`: what no run needs goes, and nothing else."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from explorer.cli import app
from explorer.errors import JobError
from explorer.files import durable_files
from explorer.jobs import clean
from explorer.specs import DepthStudent, DistillSpec, RunSpec
from explorer.store import disk, leftovers, trash
from tests import records

KEYS = [f"{number:016x}" for number in range(9)]


def open_student(root, name, key=None):
    """A student's run that has not finished; with a key its student is trained already."""
    spec = RunSpec(name=name, student=DepthStudent(num_layers=2), distill=DistillSpec())
    disk.open_run(root, spec)
    if key:
        leave_student(root, key)
        disk.write_weights(root, spec.run_id, root / disk.STUDENTS / key / "model")
    return spec.run_id


def finish(root, run_id):
    """Give an open run the finished record of another."""
    spec = disk.read_spec(root, run_id)
    disk.save(root, records.make_record(spec=spec))


def leave_student(root, key):
    folder = root / disk.STUDENTS / key
    durable_files.write_text(folder / "model" / "config.json", "{}")
    durable_files.write_text(folder / "student.json", "null")
    return folder


def leave_targets(root, key, teacher):
    folder = root / ".work" / "targets" / key
    durable_files.write_text(folder / "meta.json", json.dumps({"about": {"teacher": teacher}}))
    return folder


def say(root, run_id, state, **more):
    here = {"host": socket.gethostname(), "pid": os.getpid(), "updated_at": time.time()}
    disk.write_status(root, run_id, {"run_id": run_id, "state": state, **here, **more})


def files(root):
    """Every file of a store but locks and clocks."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not {"locks", "clocks"} & set(path.parts) and path.suffix != ".lock"
    }


@pytest.fixture
def littered(store_root):
    """A finished study beside one leftover of each kind."""
    study = records.write_study(store_root)
    used = trash.student_of(store_root / study[1])
    assert used is None or used not in KEYS
    targets = disk.load(store_root, study[1]).distillation.targets
    left = {
        "students": leave_student(store_root, KEYS[0]),
        "checkpoints": store_root / disk.STUDENTS_BEFORE / KEYS[1],
        "targets": leave_targets(store_root, KEYS[2], "some/teacher"),
        "records": store_root / study[0] / "record.1.json",
        "partial": store_root / study[0] / ".answers.parquet.partial",
        "orphans": store_root / ".work" / "stages" / "gone-00000000",
    }
    durable_files.write_text(left["checkpoints"] / "checkpoint" / "state.json", "{}")
    durable_files.write_text(left["records"], "{}")
    left["partial"].write_text("half")
    durable_files.write_text(left["orphans"] / "latency.json", "{}")
    deleted = open_student(store_root, "deleted", KEYS[3])
    left["trash"] = trash.delete(store_root, deleted).folder
    if targets:
        leave_targets(store_root, targets.key, "the/teacher")
    return store_root, left


def test_each_kind_is_listed_with_its_bytes_and_goes_only_with_yes(littered):
    """A look changes nothing; --yes removes what was listed and leaves every run as it was."""
    root, left = littered
    before = files(root)

    listed = CliRunner().invoke(app, ["clean", "--results", str(root)])

    assert listed.exit_code == 0, listed.output
    assert files(root) == before
    assert "Nothing was removed" in listed.output
    for kind in left:
        assert leftovers.KINDS[kind] in listed.output
    assert leftovers.KINDS["caches"] not in listed.output

    done = CliRunner().invoke(app, ["clean", "--yes", "--results", str(root)])

    assert "Removed" in done.output
    assert not [path for path in left.values() if path.exists()]
    assert not (root / disk.STUDENTS / KEYS[3]).exists()
    gone = tuple(path.relative_to(root).as_posix() for path in left.values())
    gone = (*gone, f"{disk.STUDENTS}/{KEYS[3]}")
    assert files(root) == {name: text for name, text in before.items() if not name.startswith(gone)}
    assert "Nothing to remove." in CliRunner().invoke(app, ["clean", "--results", str(root)]).output


def test_students_and_targets_of_runs_stay(store_root):
    """A student that a run names, and targets that a record names, are not leftovers."""
    run_id = open_student(store_root, "mine", KEYS[0])
    study = records.write_study(store_root)
    key = disk.load(store_root, study[1]).distillation.targets.key
    finish(store_root, run_id)

    findings = clean.look(store_root)

    assert not [one for one in findings.leftovers if one.path.name in (KEYS[0], key)]


def test_what_an_unfinished_run_can_continue_stays_and_the_reason_is_said(littered):
    """A cancelled run finds its checkpoint, its student and its teacher's targets again."""
    root, left = littered
    run_id = open_student(root, "stopped")
    own = leave_targets(root, KEYS[5], disk.read_spec(root, run_id).teacher)

    findings = clean.clean(root)

    assert left["checkpoints"].exists()
    assert left["students"].exists()
    assert own.exists()
    assert not left["targets"].exists()
    assert any(run_id in reason for reason in findings.reasons)


@pytest.mark.parametrize("state", ["running", "queued elsewhere", "begun by hand"])
def test_nothing_that_a_run_under_way_may_use_is_touched(littered, state):
    """What runs share stays as long as one runs, wherever it does; the rest can go."""
    root, left = littered
    run_id = open_student(root, "busy")
    half = root / run_id / ".record.json.partial"
    half.write_text("half")
    holder = None
    if state == "running":
        say(root, run_id, "running")
    elif state == "queued elsewhere":
        say(root, run_id, "queued", host="elsewhere")
    else:
        lock = disk.lock_file(root, run_id)
        lock.parent.mkdir(parents=True, exist_ok=True)
        code = (
            "import sys; from filelock import FileLock; lock = FileLock(sys.argv[1]);"
            "lock.acquire(); print(1, flush=True); sys.stdin.read()"
        )
        holder = subprocess.Popen(
            [sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        holder.stdout.readline()
    try:
        findings = clean.clean(root, caches=True)
    finally:
        if holder:
            holder.communicate(b"")

    assert half.exists()
    for kind in leftovers.SHARED[:3]:
        assert left[kind].exists()
    assert not left["records"].exists()
    assert not left["trash"].exists()
    assert (root / disk.STUDENTS / KEYS[3]).exists()
    assert f"{run_id} is under way" in findings.reasons[0]


def test_caches_go_only_where_they_are_asked_for(store_root):
    """Texts, tokens and targets of finished runs are kept for the next run, unless --all says."""
    study = records.write_study(store_root)
    key = disk.load(store_root, study[1]).distillation.targets.key
    kept = [
        leave_targets(store_root, key, "t"),
        store_root / ".work" / "texts" / f"{KEYS[7]}.jsonl",
    ]
    durable_files.write_text(kept[1], "{}")

    clean.clean(store_root)
    assert all(path.exists() for path in kept)

    clean.clean(store_root, caches=True)
    assert not any(path.exists() for path in kept)


def test_targets_that_a_process_has_open_stay(store_root):
    """`explorer targets` and a run lock a folder of targets; a clean passes it over."""
    from filelock import FileLock

    folder = leave_targets(store_root, KEYS[0], "t")
    found = clean.look(store_root).leftovers

    with FileLock(f"{folder}.lock"):
        code = (
            "import sys; from pathlib import Path; from explorer.jobs import clean;"
            "clean.clean(Path(sys.argv[1]))"
        )
        subprocess.run([sys.executable, "-c", code, str(store_root)], check=True)
    assert found
    assert folder.exists()


def test_a_damaged_note_of_a_run_keeps_all_students(store_root):
    """Where it cannot be read which student a run uses, none is removed."""
    run_id = open_student(store_root, "mine", KEYS[0])
    finish(store_root, run_id)
    (store_root / run_id / disk.WEIGHTS).write_bytes(b"\x00\x00")

    clean.clean(store_root, caches=True)

    assert (store_root / disk.STUDENTS / KEYS[0] / "student.json").exists()


def test_foreign_files_and_links_are_left_alone(store_root, tmp_path):
    """What we did not write is not ours to remove, and nothing outside the store is."""
    outside = tmp_path / "outside"
    leave_student(outside, KEYS[0])
    (store_root / disk.STUDENTS).mkdir()
    (store_root / disk.STUDENTS / KEYS[0]).symlink_to(outside / disk.STUDENTS / KEYS[0])
    durable_files.write_text(store_root / "notes" / "thesis.tex", "precious")
    durable_files.write_text(store_root / disk.STUDENTS / "my-copy" / "model" / "config.json", "{}")
    before = files(outside)

    clean.clean(store_root, caches=True)

    assert files(outside) == before
    assert (store_root / "notes" / "thesis.tex").exists()
    assert (store_root / disk.STUDENTS / "my-copy" / "model" / "config.json").exists()


def test_a_link_to_somebodys_folder_gives_nothing_of_it_away(store_root, tmp_path):
    """A store from elsewhere may link its working folders to any place; only our names are ours."""
    home = tmp_path / "home"
    for name in ("projects/thesis.tex", "mail.partial", "mail/inbox.json", "photos/a/1.jpg"):
        durable_files.write_text(home / name, "precious")
    (store_root / ".work").mkdir()
    for name in ("stages", *leftovers.CACHES, "students"):
        (store_root / ".work" / name).symlink_to(home)
    (store_root / disk.STUDENTS).symlink_to(home)
    (store_root / trash.TRASH).symlink_to(home)
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}

    listed = clean.look(store_root, caches=True).leftovers
    clean.clean(store_root, caches=True)

    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before, listed


def test_only_what_a_person_saw_is_removed(littered):
    """What became a leftover after the list was shown waits for the next list."""
    root, left = littered
    shown = clean.look(root).leftovers
    later = leave_student(root, KEYS[6])

    clean.clean(root, shown=shown)

    assert later.exists()
    assert not left["students"].exists()


def test_a_run_that_begins_waits_for_a_clean(store_root, monkeypatch):
    """Two cleans never work at once; a run takes the same lock before its first stage."""
    monkeypatch.setattr(clean, "WAIT_S", 0.1)
    code = (
        "import sys; from pathlib import Path; from explorer.jobs import clean\n"
        "with clean._alone(Path(sys.argv[1])): print(1, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(store_root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(JobError, match="under way"):
            clean.clean(store_root)
        other.communicate(b"")


def test_disk_use_is_told_by_study(store_root):
    """Each study has its runs and students; shared files and the trash have rows of their own."""
    study = records.write_study(store_root)
    names = {leftovers.study_of(run_id) for run_id in study}
    open_student(store_root, "other-4l", KEYS[0])
    (store_root / disk.STUDENTS / KEYS[0] / "model" / "model.safetensors").write_bytes(
        b"1" * 50_000
    )
    leave_targets(store_root, KEYS[1], "t")
    trash.delete(store_root, study[-1])

    sizes = leftovers.study_sizes(store_root)

    assert names <= set(sizes)
    assert len(names) == 1
    assert sizes["other"] > 50_000
    assert sizes["Trash"] > 0
    assert sizes["Shared by runs: targets, texts, checkpoints"] > 0


@pytest.mark.parametrize(
    ("run_id", "study"),
    [
        ("starter-10l-e43e8b7a", "starter"),
        ("starter-10l-q4_k_m-61e13eea", "starter"),
        ("starter-15l-labels-113b56c9", "starter"),
        ("teacher-starter-2b9c5fdc", "starter"),
        ("teacher-starter-q8_0-25521d46", "starter"),
        ("mine-00000000", "mine"),
    ],
)
def test_a_study_is_the_name_before_the_size(run_id, study):
    """The teacher's run and all formats and arms count for the study."""
    assert leftovers.study_of(run_id) == study
