"""A whole run with a tiny random model: stages, resumption, and every way to fail."""

import functools
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from explorer import pipeline as engine
from explorer.distill import schedule
from explorer.errors import (
    BadCorpus,
    BadInput,
    DamagedStore,
    NoRoom,
    RunCancelled,
    RunFailed,
    UnknownModel,
    UnknownTask,
)
from explorer.jobs import states
from explorer.latency import interference, peak_memory, timing
from explorer.models.loading import load
from explorer.pipeline import run_guard, student_stage
from explorer.records import RunRecord
from explorer.specs import RunSpec
from explorer.store import disk
from tests import killing


@pytest.fixture
def spec(tiny_run):
    return RunSpec.parse({**tiny_run, "device": "cpu", "threads": 1})


def test_a_timing_taken_over_from_before_keeps_its_own_shares(spec, store_root, monkeypatch):
    """A run killed after its timing goes on with it: how busy the machine is now says nothing."""
    timed = {"prompt_tokens": 8, "output_tokens": 4, "warmup": 0, "repeats": 2}
    teacher = spec.teacher_run().with_(capability=None, latency=timed)
    monkeypatch.setattr(peak_memory, "peak_memory_bytes", lambda *request, **options: None)

    def run_while_others_take(share):
        readings = iter([(0.0, 0.0), (share, 1.0), (9 * share, 9.0)])
        monkeypatch.setattr(
            timing,
            "InterferenceWatch",
            functools.partial(interference.InterferenceWatch, counter=lambda: next(readings)),
        )
        return engine.run(teacher, store_root)

    first = run_while_others_take(0.5)
    record = store_root / teacher.run_id / disk.RECORD
    record.unlink()
    second = run_while_others_take(0.0)

    assert second.latency == first.latency
    assert second.latency.was_busy
    assert "latency" not in second.stage_seconds

    # As an older version left it.
    stage = store_root / ".work" / "stages" / teacher.run_id / "latency.json"
    kept = json.loads(stage.read_text())
    del kept["output"]["interference"]
    stage.write_text(json.dumps(kept))
    record.unlink()
    third = run_while_others_take(0.0)
    assert third.latency.was_busy
    assert third.latency.interference is None
    assert third.latency.own == first.latency.own


def test_a_run_leaves_a_record_with_every_part(spec, store_root):
    """Model, distillation, capability, latency; the teacher's run comes with it."""
    stages = []
    timed = {"prompt_tokens": 8, "output_tokens": 4, "warmup": 0, "repeats": 2}
    spec = spec.with_(latency=timed)

    record = engine.run(spec, store_root, lambda status: stages.append(status["stage"]))

    assert record.status == "finished"
    assert disk.load(store_root, spec.run_id) == record
    teacher = disk.load(store_root, record.teacher_run_id)
    assert teacher.spec.student is None
    assert teacher.model.num_layers == 4
    assert record.model.num_layers == 2
    assert len(record.model.kept_layers) == 2
    assert record.distillation.steps == schedule.num_steps(spec.distill)
    assert record.distillation.corpus.overlap_13grams == {"tiny_pairs": 0}
    assert 0 < record.distillation.targets.mean_mass <= 1
    assert record.capability.scores[0].num_documents == 12
    assert len(record.latency.own.turns) == len(record.latency.teacher.turns) == 2
    assert record.latency.own.peak_memory_bytes > 0
    answers = disk.load_answers(store_root, spec.run_id)
    assert len(answers) == 12
    assert (store_root / spec.run_id / "log.txt").stat().st_size > 0
    assert "distil" in stages
    assert disk.read_status(store_root, spec.run_id)["state"] == "finished"
    student = load(f"run:{spec.run_id}")
    assert student.model.config.num_hidden_layers == 2
    folder = Path((store_root / spec.run_id / disk.WEIGHTS).read_text().strip())
    folder = folder if folder.is_absolute() else store_root / folder
    assert "Licence of the teacher: unknown" in (folder / "README.md").read_text()


def test_a_finished_run_is_not_done_again(spec, store_root, monkeypatch):
    """The second call reads the record; a forgotten record costs no second distillation.

    Nor is the corpus tokenised, or searched for test documents, a second time.
    """
    first = engine.run(spec, store_root)
    assert engine.run(spec, store_root) == first

    (store_root / spec.run_id / disk.RECORD).unlink()
    monkeypatch.delattr("explorer.evaluate.contamination.count_overlaps")
    monkeypatch.delattr("explorer.distill.token_file._write")
    again = engine.run(spec, store_root)

    assert "distil" not in again.stage_seconds
    assert again.distillation == first.distillation
    assert again.capability.scores == first.capability.scores


def test_a_result_survives_attempts_that_fail(spec, store_root, monkeypatch):
    """Measured again in vain, twice: record, answers and samples are those of before."""
    first = engine.run(spec, store_root)
    folder = store_root / spec.run_id
    evidence = {path: path.read_bytes() for path in sorted(folder.glob("capability/*"))}
    answers = disk.load_answers(store_root, spec.run_id)
    with monkeypatch.context() as broken:

        def fail(*arguments, **options):
            raise NoRoom("The disk is full.")

        # With another version of lm-eval all is asked anew, so samples and results are written.
        broken.setattr("lm_eval.__version__", "another")
        broken.setattr("explorer.evaluate.task_scores.answer_rows", fail)
        for _ in range(2):
            disk.request_remeasure(store_root, spec.run_id)
            with pytest.raises(NoRoom):
                engine.run(spec, store_root)

    assert disk.load(store_root, spec.run_id) == first
    assert {path: path.read_bytes() for path in sorted(folder.glob("capability/*"))} == evidence
    assert disk.load_answers(store_root, spec.run_id).equals(answers)
    row = states.status_row(store_root, spec.run_id)
    assert row["state"] == "finished"
    assert "Measuring it again failed: The disk is full." in row["error"]

    disk.request_remeasure(store_root, spec.run_id)
    second = engine.run(spec, store_root)
    assert second.status == "finished"
    assert states.status_row(store_root, spec.run_id)["error"] is None
    kept = [RunRecord.from_json(path.read_text()) for path in folder.glob("record.*.json")]
    assert sorted(record.status for record in kept) == ["failed", "failed", "finished"]
    assert first in kept


def test_a_new_measurement_that_was_interrupted_goes_on(spec, store_root, monkeypatch):
    """The earlier result counts meanwhile, and running again is all that it takes."""
    first = engine.run(spec, store_root)
    disk.request_remeasure(store_root, spec.run_id)
    with monkeypatch.context() as broken:

        def interrupt(*arguments, **options):
            raise KeyboardInterrupt

        broken.setattr("explorer.pipeline.evaluation_stage.capability.evaluate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            engine.run(spec, store_root)

    assert disk.load(store_root, spec.run_id) == first
    assert states.state_of(store_root, spec.run_id) == "interrupted"
    second = engine.run(spec, store_root)
    assert second.started_at >= first.finished_at
    assert not disk.remeasure_requested(store_root, spec.run_id)
    assert engine.run(spec, store_root) == second


def test_a_cancelled_run_keeps_its_checkpoint_and_resumes(spec, store_root):
    """Cancelled while it learns, it has a record that says so; resumed, it finishes."""

    def cancel_in_training(status):
        if status["stage"] == "distil" and status["done"] == 5:
            disk.request_cancel(store_root, spec.run_id)

    with pytest.raises(RunCancelled):
        engine.run(spec, store_root, cancel_in_training)
    record = disk.load(store_root, spec.run_id)
    assert record.status == "cancelled"
    assert record.error.stage == "distil"

    disk.withdraw_cancel(store_root, spec.run_id)
    finished = engine.run(spec, store_root)

    assert finished.status == "finished"
    assert finished.distillation.num_resumes == 1
    assert _names(store_root / disk.STUDENTS) == {"model", "student.json"}
    assert not list((store_root / ".work" / "students").iterdir())


def test_a_run_cancelled_before_it_began_does_nothing(spec, store_root):
    """It looks for the request before anything else."""
    disk.open_run(store_root, spec)
    disk.request_cancel(store_root, spec.run_id)

    with pytest.raises(RunCancelled):
        engine.run(spec, store_root)

    assert disk.load(store_root, spec.run_id).status == "cancelled"
    assert not (store_root / ".work" / "students").exists()
    assert not (store_root / disk.STUDENTS).exists()


def test_a_record_that_cannot_be_saved_hides_no_failure(spec, store_root, monkeypatch):
    """A full disk ends a run: the error names what failed first, and the status says it, too."""

    def refuse(root, record):
        raise NoRoom("Could not write record.json: No space left on device.")

    monkeypatch.setattr(disk, "save", refuse)
    bad = spec.with_(teacher="/no/such/folder")

    with pytest.raises((UnknownModel, RunFailed), match="/no/such/folder"):
        engine.run(bad, store_root)

    status = disk.read_status(store_root, bad.run_id)
    assert status["state"] == "failed"
    assert "/no/such/folder" in status["error"]
    assert "No space left" in (store_root / bad.run_id / disk.LOG).read_text()


def test_a_stop_from_outside_leaves_no_record(spec, store_root, monkeypatch):
    """SIGTERM is an interruption: no verdict, so that running again continues."""
    import os
    import signal

    def end_in_training(status):
        if status["stage"] == "distil" and status["done"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(RunCancelled):
        engine.run(spec, store_root, end_in_training)

    assert not (store_root / spec.run_id / disk.RECORD).exists()
    assert disk.read_status(store_root, spec.run_id)["state"] == "interrupted"
    assert engine.run(spec, store_root).distillation.num_resumes == 1


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"teacher": "/no/such/folder"}, UnknownModel, "no folder '/no/such/folder'"),
        ({"teacher": "no-org/no-model"}, UnknownModel, "no-org/no-model"),
        ({"student": {"num_layers": 9}}, BadInput, "Choose fewer than 4"),
        ({"distill": {"corpus": "/no/corpus.txt"}}, BadCorpus, "no corpus file /no/corpus.txt"),
        ({"distill": {"corpus": "EMPTY"}}, BadCorpus, "has no text"),
        ({"capability": {"tasks": ["no_such_task"]}}, UnknownTask, "no_such_task"),
    ],
)
def test_a_wrong_request_fails_in_one_sentence_and_is_recorded(
    spec, store_root, tmp_path, changes, error, says
):
    """The error names what came; the record keeps it, and the teacher's if it was the cause."""
    (tmp_path / "empty.txt").write_text(" ")
    data = spec.model_dump(mode="json")
    for key, value in changes.items():
        data[key] = {**data[key], **value} if isinstance(value, dict) else value
    if data["distill"]["corpus"] == "EMPTY":
        data["distill"]["corpus"] = str(tmp_path / "empty.txt")
    bad = RunSpec.parse(data)

    with pytest.raises((error, RunFailed), match=says):
        engine.run(bad, store_root)

    record = disk.load(store_root, bad.run_id)
    assert record.status == "failed"
    assert says.strip("'") in record.error.message
    assert record.error.traceback is None
    assert disk.read_status(store_root, bad.run_id)["state"] == "failed"


def _made_from(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("raised", "kind", "says"),
    [
        (MemoryError(), NoRoom, "ran out of memory"),
        (OSError(12, "Cannot allocate memory"), NoRoom, "ran out of memory"),
        (_made_from(BadInput("No such task."), OSError(12, "")), NoRoom, "ran out of memory"),
        (_made_from(BadInput("No such task."), OSError(2, "")), BadInput, "No such task."),
        (SafetensorError("I/O error: Full (os error 28)"), NoRoom, "disk is full"),
        (OSError(28, "No space left on device"), NoRoom, "disk is full"),
        (PermissionError(13, "Permission denied", "/x"), NoRoom, "No permission to write /x"),
    ],
)
def test_a_machine_at_its_limit_is_told_in_words(spec, store_root, monkeypatch, raised, kind, says):
    """Memory, disk and permission are reasons, not tracebacks; the record is kept as failed."""

    def fail(*arguments, **options):
        raise raised

    monkeypatch.setattr(student_stage, "train", fail)
    engine.run(spec.teacher_run(), store_root)

    with pytest.raises(kind, match=says):
        engine.run(spec, store_root)

    assert says in disk.load(store_root, spec.run_id).error.message


def test_errors_that_lead_in_a_circle_are_followed_once():
    """Each may be the other's cause: a library raised again what it had caught."""
    first, second = NoRoom("The disk is full."), ValueError("a")
    first.__cause__, second.__cause__ = second, first

    assert run_guard.as_explorer_error(first) is first
    assert run_guard.as_explorer_error(second) is None


def test_a_bug_keeps_its_traceback(spec, store_root, monkeypatch):
    """What nobody foresaw is stored whole and raised as it is."""

    def fail(*arguments, **options):
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(student_stage, "train", fail)
    with pytest.raises(ZeroDivisionError):
        engine.run(spec, store_root)

    record = disk.load(store_root, spec.run_id)
    assert "ZeroDivisionError: surprise" in record.error.traceback


def test_a_checkpoint_of_another_spec_is_never_continued(spec, store_root):
    """A student is keyed by all that decides its weights."""
    other = spec.with_(distill=spec.distill.with_(learning_rate=1e-4).model_dump())
    engine.run(spec, store_root)
    engine.run(other, store_root)

    folders = {(store_root / s.run_id / disk.WEIGHTS).read_text() for s in (spec, other)}
    assert len(folders) == 2
    same = spec.with_(name="renamed")
    record = engine.run(same, store_root)
    assert "distil" not in record.stage_seconds
    assert json.loads(record.to_json())["distillation"] is not None


def _taught(spec, **changes):
    return spec.with_(
        distill={**spec.distill.model_dump(), **changes}, capability=None, latency=None
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "live", "loss": "jsd", "hidden_weight": 0.1},
        {"method": "live", "on_policy_fraction": 0.5, "prompt_tokens": 4},
        {"method": "labels"},
        {"method": "text", "corpus": "teacher", "max_tokens": 300},
    ],
    ids=["live", "on_policy", "labels", "text"],
)
def test_every_way_of_teaching_runs_end_to_end(spec, store_root, changes):
    """And is measured by the same held-out KL as cached targets."""
    spec = _taught(spec, **changes)

    taught = engine.run(spec, store_root).distillation

    assert taught.steps == schedule.num_steps(spec.distill)
    assert taught.kl_after > 0
    assert 0 <= taught.top1_after <= 1
    # Only the held-out blocks had to be asked of the teacher.
    assert taught.targets.num_positions == 4 * 16
    assert (taught.curve[-1].kd_loss is None) == (changes["method"] in ("labels", "text"))
    if changes.get("corpus") == "teacher":
        assert taught.corpus.num_documents > 1
        assert len(list((store_root / ".work" / "texts").glob("*.jsonl"))) == 1


@pytest.mark.parametrize("has_instructions", [True, False])
def test_shortcuts_run_end_to_end(spec, store_root, monkeypatch, caplog, has_instructions):
    """Tokens drawn and narrow products teach from the same targets; a slow processor is told."""
    monkeypatch.setattr(student_stage.environment, "computes_bfloat16", lambda: has_instructions)
    plain = _taught(spec, top_k=8)
    exact = engine.run(plain, store_root).distillation
    quick = _taught(spec, top_k=8, vocab_sample=20, precision="bfloat16")

    taught = engine.run(quick, store_root).distillation

    assert quick.run_id != plain.run_id
    assert taught.targets.key == exact.targets.key
    assert taught.kl_before == exact.kl_before
    assert taught.kl_after != exact.kl_after
    assert ("no bfloat16 instructions" in caplog.text) is not has_instructions


def test_reading_ahead_makes_no_other_student(spec, store_root, monkeypatch):
    """A run that differs in it alone takes the student that is there, and is the same recipe."""
    plain = _taught(spec)
    ahead = _taught(spec, prefetch=True)
    student = engine.run(plain, store_root).distillation
    monkeypatch.setattr(student_stage, "train", None)

    again = engine.run(ahead, store_root).distillation

    assert ahead.run_id != plain.run_id
    assert ahead.recipe() == plain.recipe()
    assert again == student


def test_layers_left_alone_are_counted_and_said(spec, store_root, caplog):
    """The record knows how many no step has changed, and the log says it before the training."""
    caplog.set_level("INFO", "explorer")
    student = {"num_layers": 3, "choice": "uniform"}
    left = _taught(spec, train_layers="auto").with_(student=student)

    taught = engine.run(left, store_root).distillation

    assert taught.num_untrained_layers == 1
    assert "Layers before the first cut, which stay as they are: 1." in caplog.text


def test_a_task_without_its_data_stops_the_run_before_any_work(tiny_run, store_root, tmp_path):
    """Offline, missing documents are named at once: no model is loaded, nothing is taught."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "far.yaml").write_text("task: far\ndataset_path: org/far\n", encoding="utf-8")
    capability = {"tasks": ["far"], "include_path": str(folder)}
    spec = RunSpec.parse({**tiny_run, "teacher": "nobody/nothing", "capability": capability})

    with pytest.raises(BadInput, match=r"far needs the dataset org/far.*explorer tasks fetch far"):
        engine.run(spec, store_root)


def _names(students):
    """What the folder of the only student in there holds."""
    (folder,) = students.iterdir()
    return {path.name for path in folder.iterdir()}


def test_the_folder_of_work_may_be_deleted_when_nothing_runs(spec, store_root):
    """The finished students stay: a run done again trains none, and `run:` names them still."""
    spec = _taught(spec)
    first = engine.run(spec, store_root)
    shutil.rmtree(store_root / ".work")

    assert load(f"run:{spec.run_id}").model.config.num_hidden_layers == 2
    disk.request_remeasure(store_root, spec.run_id)
    again = engine.run(spec, store_root)

    assert "distil" not in again.stage_seconds
    assert again.distillation == first.distillation


def test_a_student_of_an_earlier_version_is_used_and_moved(spec, store_root):
    """It lay in .work, named so by its run: it is found there, and moved when a run uses it."""
    spec = _taught(spec)
    first = engine.run(spec, store_root)
    (finished,) = (store_root / disk.STUDENTS).iterdir()
    before = store_root / disk.STUDENTS_BEFORE / finished.name
    finished.replace(before)
    disk.write_weights(store_root, spec.run_id, before / "model")
    assert load(f"run:{spec.run_id}").model.config.num_hidden_layers == 2

    same = spec.with_(name="renamed")
    record = engine.run(same, store_root)

    assert "distil" not in record.stage_seconds
    assert record.distillation == first.distillation
    assert not before.exists()
    for run_id in (spec.run_id, same.run_id):
        assert disk.weights_folder(store_root, run_id) == (finished / "model").resolve()


def _halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("student.json", lambda path: path.write_text("")),
        ("model/model.safetensors", _halve),
        ("model/model.safetensors", _flip),
        ("model/tokenizer.json", Path.unlink),
    ],
)
def test_a_damaged_student_is_made_again(name, damage, spec, store_root, caplog):
    """Weights that are not those that were written are never measured: they are trained again."""
    spec = _taught(spec)
    first = engine.run(spec, store_root)
    (folder,) = (store_root / disk.STUDENTS).iterdir()
    damage(folder / name)
    if name.startswith("model/"):
        with pytest.raises(DamagedStore, match="--again"):
            load(f"run:{spec.run_id}")
    disk.request_remeasure(store_root, spec.run_id)

    again = engine.run(spec, store_root)

    assert "distil" in again.stage_seconds
    assert "set aside" in caplog.text
    for ours, theirs in zip(again.distillation.curve, first.distillation.curve, strict=True):
        assert ours.model_copy(update={"seconds": theirs.seconds}) == theirs
    assert load(f"run:{spec.run_id}").model.config.num_hidden_layers == 2


def test_a_student_without_checksums_is_used(spec, store_root):
    """An older version wrote the training alone, or null, into student.json."""
    spec = _taught(spec)
    first = engine.run(spec, store_root)
    (facts,) = (store_root / disk.STUDENTS).glob("*/student.json")
    facts.write_text(json.dumps(first.distillation.model_dump()))
    disk.request_remeasure(store_root, spec.run_id)

    again = engine.run(spec, store_root)

    assert "distil" not in again.stage_seconds
    assert again.distillation == first.distillation


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path):
    """A full disk at the first line of a run's log is no bug with a traceback."""
    log = run_guard.logged(tmp_path / "missing" / "log.txt")

    with pytest.raises(NoRoom, match=r"Could not write .*log\.txt: "):
        log.__enter__()


def test_a_damaged_record_is_made_again(spec, store_root, caplog):
    """The record is set aside; its student and its answers are still there."""
    spec = spec.with_(latency=None)
    first = engine.run(spec, store_root)
    record = store_root / spec.run_id / disk.RECORD
    _flip(record)

    again = engine.run(spec, store_root)

    assert record.with_name("record.json.damaged").exists()
    assert again.capability.scores == first.capability.scores
    assert "distil" not in again.stage_seconds


def test_a_run_killed_while_it_keeps_its_student_goes_on(spec, store_root, tmp_path):
    """Killed at any change of the disk after the training, the same run ends with its student."""
    spec = _taught(spec, max_tokens=256, checkpoint_every_s=1e-9)
    whole = engine.run(spec, store_root)
    weights = load(f"run:{spec.run_id}").model.state_dict()
    kills = trained_again = 0

    def killed(kill):
        kill.armed = False

        def arm(status):
            kill.armed = status["stage"] == "distil" and status["done"] == status["total"]

        engine.run(spec, tmp_path / str(kill.moment), arm)

    # What is between two of these is only new files, which a run that goes on writes again.
    for kill in killing.moments(killed, ("replace", "unlink", "rmdir")):
        kills += 1
        root = tmp_path / str(kill.moment)
        record = engine.run(spec, root)
        assert record.status == "finished"
        trained_again += "distil" in record.stage_seconds
        for ours, theirs in zip(record.distillation.curve, whole.distillation.curve, strict=True):
            assert ours.model_copy(update={"seconds": theirs.seconds}) == theirs
        assert _names(root / disk.STUDENTS) == {"model", "student.json"}
        assert not list((root / ".work" / "students").iterdir())
        folder = disk.weights_folder(root, spec.run_id)
        assert folder is not None
        for name, tensor in load(str(folder)).model.state_dict().items():
            assert torch.equal(tensor, weights[name])
        shutil.rmtree(root)
    assert kills > trained_again > 1


def test_a_student_is_kept_where_the_work_lies_on_another_disk(spec, store_root):
    """Large targets and checkpoints may go to another disk; what is finished stays in the store."""
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == store_root.parent.stat().st_dev:
        pytest.skip("this machine has no second disk in /dev/shm")
    store_root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=elsewhere) as work:
        (store_root / ".work").symlink_to(work)
        record = engine.run(_taught(spec), store_root)
        assert not list((Path(work) / "students").iterdir())

    assert record.status == "finished"
    assert _names(store_root / disk.STUDENTS) == {"model", "student.json"}
    assert load(f"run:{record.run_id}").model.config.num_hidden_layers == 2


@pytest.mark.parametrize(("umask", "expected"), [(0o002, 0o664), (0o077, 0o600)])
def test_colleagues_read_what_the_umask_lets_them(spec, store_root, umask, expected):
    """Records, answers and weights follow the umask: a shared group can use a student."""
    before = os.umask(umask)
    try:
        engine.run(spec.with_(latency=None), store_root)
    finally:
        os.umask(before)

    files = [path for path in store_root.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert any(path.suffix == ".safetensors" for path in files)
    assert {f"{path}: {path.stat().st_mode & 0o777:o}" for path in files} == {
        f"{path}: {expected:o}" for path in files
    }
