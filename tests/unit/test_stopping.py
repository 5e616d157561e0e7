"""A run stops within seconds, whatever it is doing."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from explorer import pipeline as engine
from explorer.distill import token_file
from explorer.errors import RunCancelled
from explorer.evaluate import capability
from explorer.latency import peak_memory, timing
from explorer.pipeline import context, stages, stopping, student_stage
from explorer.search import local, successive_halving
from explorer.specs import RunSpec, TuneSpec
from explorer.store import disk

HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def spec(tiny_run):
    timed = {"prompt_tokens": 8, "output_tokens": 4, "warmup": 0, "repeats": 2}
    return RunSpec.parse({**tiny_run, "device": "cpu", "threads": 1, "latency": timed})


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(stopping, "GRACE_S", 0.3)
    monkeypatch.setattr(stopping, "LOOK_EVERY_S", 0.1)
    # The process that measures peak memory takes seconds to start, and says nothing here.
    monkeypatch.setattr(peak_memory, "peak_memory_bytes", lambda *request, **options: None)


@contextlib.contextmanager
def held(path):
    """Another process holds a lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline()
        yield
        holder.communicate(b"")


def ask_when(stuck, ask):
    """Ask for a stop as soon as the run is stuck."""

    def wait():
        assert stuck.wait(60)
        ask()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def hang(stuck, *arguments, **options):
    """A stage that waits in the kernel and never asks whether it should stop."""
    stuck.set()
    time.sleep(60)
    pytest.fail("nothing ended the wait")


STAGES = {
    "loading a model": (context, "load"),
    "tokenising": (token_file, "ensure_tokens"),
    "training": (student_stage, "train"),
    "evaluating": (capability, "evaluate"),
    "timing": (timing, "time_in_turns"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_cancel_acts_in_a_stage_that_does_not_ask(stage, spec, store_root, monkeypatch):
    """The run ends as cancelled, with its record and its log."""
    stuck = threading.Event()
    monkeypatch.setattr(*STAGES[stage], functools.partial(hang, stuck))
    asking = ask_when(stuck, lambda: disk.request_cancel(store_root, spec.run_id))

    with pytest.raises(RunCancelled):
        engine.run(spec, store_root)

    asking.join()
    record = disk.load(store_root, spec.run_id)
    assert record.status == "cancelled"
    assert disk.read_status(store_root, spec.run_id)["state"] == "cancelled"
    assert "Cancelled in" in (store_root / spec.run_id / disk.LOG).read_text()


def test_a_foreground_search_lives_and_stops_as_its_runs_do(spec, store_root, monkeypatch):
    """Its status is touched while a run is silent, and a cancel of the search alone acts."""
    monkeypatch.setattr(stopping.heartbeat, "BEAT_EVERY_S", 0.1)
    search = TuneSpec(run=spec, variants=({"distill": {"learning_rate": 1e-3}},), rounds=1)
    searches = successive_halving.searches_folder(store_root)
    status = searches / search.tune_id / disk.STATUS
    stuck, touched = threading.Event(), threading.Event()
    monkeypatch.setattr(student_stage, "train", functools.partial(hang, stuck))

    def look_and_cancel():
        os.utime(status, (1e9, 1e9))
        deadline = time.monotonic() + 10
        while status.stat().st_mtime == 1e9 and time.monotonic() < deadline:
            time.sleep(0.05)
        if status.stat().st_mtime != 1e9:
            touched.set()
        disk.request_cancel(searches, search.tune_id)

    asking = ask_when(stuck, look_and_cancel)

    with pytest.raises(RunCancelled):
        successive_halving.run_search(
            search, store_root, local.train_here(lambda title: lambda said: None)
        )

    asking.join()
    assert touched.is_set()
    assert disk.read_status(searches, search.tune_id)["state"] == "cancelled"


def kill_from_outside(number):
    """As a shell or Ray does: the system then chooses the thread."""
    subprocess.run(["kill", f"-{number}", str(os.getpid())], check=True)


def kill_another_thread(number):
    """As the system may choose: the main thread waits on."""
    signal.pthread_kill(threading.get_ident(), number)


@pytest.mark.parametrize("kill", [kill_from_outside, kill_another_thread])
@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGTERM, RunCancelled), (signal.SIGINT, KeyboardInterrupt)],
    ids=["SIGTERM", "SIGINT"],
)
def test_a_signal_acts_in_a_stage_that_does_not_ask(
    number, error, kill, spec, store_root, monkeypatch
):
    """SIGTERM and Ctrl-C interrupt the run: no verdict, so that running again continues."""
    stuck = threading.Event()
    # A shell lets what it starts in the background ignore Ctrl-C; so would this process.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch:
        patch.setattr(context, "load", functools.partial(hang, stuck))
        stopped, in_time = threading.Event(), []

        def kill_and_wait():
            kill(number)
            in_time.append(stopped.wait(30))

        asking = ask_when(stuck, kill_and_wait)

        with pytest.raises(error):
            engine.run(spec, store_root)

    stopped.set()
    asking.join()
    assert in_time == [True], "it stopped only when its wait in the kernel ended"
    signal.signal(signal.SIGINT, before)
    assert not (store_root / spec.run_id / disk.RECORD).exists()
    assert disk.read_status(store_root, spec.run_id)["state"] == "interrupted"
    assert engine.run(spec.with_(latency=None), store_root).status == "finished"


def test_a_cancel_acts_while_another_run_computes_the_targets(spec, store_root, monkeypatch):
    """A run that waits for a lock of another run is cancelled like every other."""
    opened = threading.Event()
    fill = student_stage.targets_stage.TeacherCache.fill

    with contextlib.ExitStack() as stack:

        def fill_while_held(cache, *arguments):
            stack.enter_context(held(cache.folder.parent / f"{cache.key}.lock"))
            opened.set()
            return fill(cache, *arguments)

        monkeypatch.setattr(student_stage.targets_stage.TeacherCache, "fill", fill_while_held)
        asking = ask_when(opened, lambda: disk.request_cancel(store_root, spec.run_id))

        with pytest.raises(RunCancelled):
            engine.run(spec, store_root)
        asking.join()

    assert disk.load(store_root, spec.run_id).error.stage == "targets"


def test_a_run_that_waits_for_its_teachers_run_leaves_that_status_alone(
    spec, store_root, monkeypatch
):
    """The process that does a run writes its status; one that waits for it is cancelled alone."""
    teacher = spec.teacher_run()
    disk.write_status(store_root, teacher.run_id, {"state": "running", "stage": "latency"})
    waits = []

    def on_progress(status):
        if "waiting" in status["stage"]:
            waits.append(status["stage"])
            disk.request_cancel(store_root, spec.run_id)

    lock = store_root / ".work" / "locks" / f"{teacher.run_id}.lock"
    with held(lock), pytest.raises(RunCancelled):
        engine.run(spec, store_root, on_progress)

    assert waits
    assert disk.read_status(store_root, teacher.run_id)["stage"] == "latency"
    assert disk.load(store_root, spec.run_id).status == "cancelled"
    assert not (store_root / teacher.run_id / disk.RECORD).exists()


def test_a_checkpoint_is_saved_in_peace(store_root):
    """Once a run has heard that it should stop, nothing interrupts what it does about it."""
    run_id = "a-00000000"
    progress = stages.Progress(store_root, run_id)
    disk.request_cancel(store_root, run_id)
    saved = []

    def train():
        try:
            progress("distil", 1, 9, "steps")
        finally:
            time.sleep(1.0)
            saved.append(True)

    with stopping.stoppable(progress), pytest.raises(RunCancelled):
        train()

    assert saved


def test_a_run_touches_its_status_while_a_stage_is_silent(store_root, monkeypatch):
    """Other hosts see that it lives, however long a stage reports nothing."""
    monkeypatch.setattr(stopping.heartbeat, "BEAT_EVERY_S", 0.1)
    progress = stages.Progress(store_root, "a-00000000")
    progress("latency")
    path = store_root / "a-00000000" / disk.STATUS
    os.utime(path, (1e9, 1e9))

    with stopping.stoppable(progress):
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 1e9 and time.monotonic() < deadline:
            time.sleep(0.05)

    assert path.stat().st_mtime > time.time() - 60
