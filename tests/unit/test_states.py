import dataclasses
import json
import os
import socket
import subprocess
import sys
import time

import pandas as pd
import pytest

from explorer import jobs
from explorer.errors import BadInput, JobError
from explorer.files import durable_files
from explorer.jobs import queue, ray_head, states, submit_lock
from explorer.specs import RunSpec
from explorer.store import disk, heartbeat
from tests import records


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache that has never seen a Ray head."""
    monkeypatch.setenv("EXPLORER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)


def say(root, run_id, state, **more):
    """Write a status as a run on this host does."""
    here = {"host": socket.gethostname(), "pid": os.getpid(), "updated_at": time.time()}
    here["submission"] = submit_lock.latest_submission()
    disk.write_status(root, run_id, {"run_id": run_id, "state": state, **here, **more})


def record(root, run_id, status, finished_at="2026-01-02T03:04:05+00:00", message=None):
    """Write what the listing reads of a record."""
    error = {"kind": "X", "message": message, "stage": "distil"} if message else None
    data = {"status": status, "finished_at": finished_at, "error": error}
    durable_files.write_text(root / run_id / "record.json", json.dumps(data))


def row_of(root, run_id):
    return jobs.status_table(root).set_index("run_id").loc[run_id]


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_without_runs_there_is_an_empty_table(tmp_path):
    """A store that does not exist lists nothing, with the columns that a page needs."""
    rows = jobs.status_table(tmp_path / "none")

    assert rows.empty
    assert list(rows.columns) == states.COLUMNS


def test_looking_never_loads_ray(tmp_path, store_root):
    """The page looks at jobs and the engine without Ray's memory, until a job needs it."""
    say(store_root, "queued-00000000", "queued")
    code = (
        "import sys; from pathlib import Path; from explorer import jobs;"
        "jobs.status_table(Path(sys.argv[1])); assert not jobs.engine_status()['running'];"
        "assert not jobs.stop_engine();"
        "heavy = {'ray', 'torch', 'transformers', 'streamlit'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(store_root)], check=True, timeout=60)


def test_running_run_shows_its_progress(store_root):
    """A run whose process lives is running, with the numbers that it last reported."""
    say(
        store_root,
        "a-00000000",
        "running",
        stage="distil",
        done=3,
        total=9,
        unit="steps",
        loss=1.5,
        losses=[3.0, 1.5],
        seconds_left=6.0,
    )

    row = row_of(store_root, "a-00000000")

    assert row["state"] == "running"
    assert (row["name"], row["stage"], row["done"], row["total"]) == ("a", "distil", 3, 9)
    assert (row["loss"], row["seconds_left"]) == (1.5, 6.0)
    assert row["losses"] == [3.0, 1.5]
    assert row["tokens_per_s"] is None


def test_long_silence_of_a_living_process_is_no_interruption(store_root):
    """A stage that reports nothing for an hour goes on running."""
    say(store_root, "a-00000000", "running")
    status = disk.read_status(store_root, "a-00000000")
    began = states.psutil.Process().create_time()
    disk.write_status(store_root, "a-00000000", {**status, "updated_at": began + 0.1})

    assert row_of(store_root, "a-00000000")["state"] == "running"


def test_killed_run_is_interrupted(store_root):
    """A run whose process is gone is interrupted, and the table says what to do."""
    say(store_root, "a-00000000", "running", pid=dead_pid())

    row = row_of(store_root, "a-00000000")

    assert row["state"] == "interrupted"
    assert "Resume" in row["error"]


def test_reused_process_number_does_not_revive_a_run(store_root):
    """A process that began after the run's last word is not the run."""
    say(store_root, "a-00000000", "running", updated_at=1e9)

    assert row_of(store_root, "a-00000000")["state"] == "interrupted"


@pytest.mark.parametrize(("age_s", "state"), [(5, "running"), (300, "interrupted")])
def test_run_on_another_host_lives_by_its_heartbeat(store_root, age_s, state):
    """Elsewhere a process cannot be looked at: two minutes of silence are its death."""
    say(store_root, "a-00000000", "running", host="elsewhere")
    then = time.time() - age_s
    os.utime(store_root / "a-00000000" / disk.STATUS, (then, then))

    assert row_of(store_root, "a-00000000")["state"] == state


@pytest.mark.parametrize("off_s", [-7200, 7200])
def test_hosts_whose_clocks_differ_agree_on_a_living_run(store_root, off_s):
    """What another host's clock says decides nothing: the disk stamps its sign of life."""
    say(store_root, "a-00000000", "running", host="elsewhere", updated_at=time.time() + off_s)

    assert row_of(store_root, "a-00000000")["state"] == "running"


@pytest.mark.parametrize("off_s", [-1e8, 1e8])
def test_a_step_of_the_clock_kills_no_run(store_root, off_s):
    """A run that last reported before this host's clock was set lives as long as its process."""
    identity = heartbeat.process_identity(os.getpid())
    say(store_root, "a-00000000", "running", process=identity, updated_at=time.time() + off_s)
    other = "0-0 1"
    say(store_root, "b-00000000", "running", process=other)

    assert row_of(store_root, "a-00000000")["state"] == "running"
    assert row_of(store_root, "b-00000000")["state"] == "interrupted"


def test_a_record_outweighs_the_status_of_a_killed_process_whatever_the_clocks(store_root):
    """A run whose last status could not be written is finished: its record was written last."""
    say(store_root, "a-00000000", "running", pid=dead_pid(), updated_at=time.time() + 1e7)
    record(store_root, "a-00000000", "finished")

    assert row_of(store_root, "a-00000000")["state"] == "finished"


def test_a_clock_that_is_set_back_loses_no_queued_run(store_root):
    """Submissions are numbered, so a job of this head never counts as older than the head."""
    with submit_lock.submitting():
        head = ray_head.Head("http://127.0.0.1:1", 1, "/tmp/none", submission=1)
        durable_files.write_text(
            submit_lock.host_folder() / "head.json", json.dumps(dataclasses.asdict(head))
        )
        say(store_root, "a-00000000", "queued", updated_at=1.0)
        assert row_of(store_root, "a-00000000")["state"] == "queued"
        assert not ray_head.began_after(submit_lock.latest_submission())
        assert ray_head.began_after(0)


def test_queued_run_without_a_queue_is_interrupted(store_root):
    """When the Ray head is gone, what waited in it is interrupted."""
    say(store_root, "a-00000000", "queued")

    row = row_of(store_root, "a-00000000")

    assert row["state"] == "interrupted"
    assert "Resume" in row["error"]


@pytest.mark.parametrize("host", [socket.gethostname(), "another-machine"])
def test_a_run_that_waits_in_another_queue_is_no_lost_run(store_root, tmp_path, monkeypatch, host):
    """Another user or machine has it: queued, with a way out if that queue is gone."""
    monkeypatch.setattr(ray_head, "connect", lambda **options: None)
    with monkeypatch.context() as theirs:
        theirs.setenv("EXPLORER_CACHE", str(tmp_path / "their cache"))
        theirs.setattr(socket, "gethostname", lambda: host)
        disk.open_run(store_root, RunSpec(name="a"))
        run_id = RunSpec(name="a").run_id
        queue.write_status(store_root, run_id, "queued")
    os.utime(store_root / run_id / disk.STATUS, (1e9, 1e9))
    with submit_lock.submitting():
        pass  # ours has a number of its own

    row = row_of(store_root, run_id)

    assert row["state"] == "queued"
    assert f"another queue, submitted on {host}" in row["note"]
    assert jobs.submit([RunSpec(name="a")], store_root) == [run_id]
    assert row_of(store_root, run_id)["state"] == "queued", "left alone"
    jobs.cancel(store_root, run_id)
    assert row_of(store_root, run_id)["state"] == "cancelled"


def test_a_run_of_another_queue_begins_and_ends_as_its_files_say(store_root, tmp_path):
    """Its process and its record are seen from everywhere."""
    say(store_root, "a-00000000", "queued", queue="0123456789abcdef")
    record(store_root, "a-00000000", "finished", "2100-01-01T00:00:00+00:00")
    say(store_root, "b-00000000", "running", queue="0123456789abcdef")

    assert row_of(store_root, "a-00000000")["state"] == "finished"
    assert row_of(store_root, "b-00000000")["state"] == "running"


def test_run_is_queued_while_the_head_starts(store_root):
    """From the click on, before Ray knows the job, the run is queued."""
    say(store_root, "lost-00000000", "queued", updated_at=time.time() - 60)

    with submit_lock.submitting():
        say(store_root, "a-00000000", "queued")
        assert row_of(store_root, "a-00000000")["state"] == "queued"
        # What waited in a queue that is gone does not come back to life meanwhile.
        assert row_of(store_root, "lost-00000000")["state"] == "interrupted"


def test_silent_cluster_leaves_a_run_queued(store_root, monkeypatch):
    """A cluster that does not answer may still have the job: queued, with the reason."""
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    say(store_root, "a-00000000", "queued")

    row = row_of(store_root, "a-00000000")

    assert row["state"] == "queued"
    assert "RAY_ADDRESS" in row["error"]
    assert "RAY_ADDRESS" in jobs.engine_status()["error"]


def test_submission_to_a_silent_cluster_is_one_sentence(store_root, monkeypatch):
    """A cluster that cannot be reached refuses the submission; the run is not lost."""
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    spec = RunSpec(name="a")

    with pytest.raises(JobError, match="RAY_ADDRESS"):
        jobs.submit([spec], store_root)

    assert disk.read_spec(store_root, spec.run_id) == spec
    jobs.cancel(store_root, spec.run_id)
    assert row_of(store_root, spec.run_id)["state"] == "cancelled"


def test_cancelled_and_killed_is_cancelled(store_root):
    """A run that was killed after somebody cancelled it counts as cancelled."""
    say(store_root, "a-00000000", "running", pid=dead_pid())
    disk.request_cancel(store_root, "a-00000000")

    assert row_of(store_root, "a-00000000")["state"] == "cancelled"


def test_record_outweighs_an_older_status(store_root):
    """A run killed between its record and its last status is finished."""
    say(store_root, "a-00000000", "running", pid=dead_pid(), updated_at=1.7e9)
    record(store_root, "a-00000000", "finished")

    assert row_of(store_root, "a-00000000")["state"] == "finished"


def test_committed_results_need_no_status(store_root):
    """A run that has only its record is listed, with the reason when it failed."""
    record(store_root, "a-00000000", "failed", message="The disk is full.")
    say(store_root, "b-00000000", "failed")
    record(store_root, "b-00000000", "failed", message="No such task.")

    assert row_of(store_root, "a-00000000")["error"] == "The disk is full."
    assert row_of(store_root, "b-00000000")["error"] == "No such task."


def test_damaged_and_foreign_folders_are_passed_over(store_root):
    """One broken file hides no other run."""
    record(store_root, "good-00000000", "finished")
    for name, text in {"status.json": "{", "record.json": "[1]"}.items():
        durable_files.write_text(store_root / "bad-00000000" / name, text)
    durable_files.write_text(store_root / "odd-00000000" / "status.json", '{"state": "asleep"}')
    durable_files.write_text(store_root / "old-00000000" / "status.json", '{"state": "running"}')
    (store_root / "foreign").mkdir()

    rows = jobs.status_table(store_root).set_index("run_id")["state"]

    assert dict(rows) == {"good-00000000": "finished", "old-00000000": "interrupted"}


def test_change_is_seen_at_the_next_look(store_root):
    """What a run wrote a moment ago is in the next table."""
    for done in range(20):
        say(store_root, "a-00000000", "running", done=done)
        assert row_of(store_root, "a-00000000")["done"] == done


def test_order_is_running_then_queue_then_latest(store_root):
    """What happens now is on top, the queue keeps its order, the past lies below."""
    say(store_root, "old-00000000", "finished", updated_at=1e9)
    say(store_root, "new-00000000", "finished", updated_at=2e9)
    say(store_root, "now-00000000", "running")

    with submit_lock.submitting():
        say(store_root, "second-00000000", "queued", queued_at=20)
        say(store_root, "first-00000000", "queued", queued_at=10)
        say(store_root, "undated-00000000", "queued")
        order = [run_id.partition("-")[0] for run_id in jobs.status_table(store_root)["run_id"]]

    assert order == ["now", "first", "second", "undated", "new", "old"]


def test_runs_side_by_side_keep_their_places(store_root):
    """By their devices, whichever wrote its status last; a run without one by its name."""
    names = {"b": "GPU 0, NVIDIA L4", "a": "GPU 1, NVIDIA L4", "c": None}
    for last in names:
        for name, device in names.items():
            say(store_root, f"{name}-00000000", "running", device=device)
        say(store_root, f"{last}-00000000", "running", device=names[last], done=1)
        listed = jobs.status_table(store_root)

        assert [run_id[0] for run_id in listed["run_id"]] == ["c", "b", "a"]
        assert listed["device"].tolist()[1:] == [names["b"], names["a"]]


def test_a_run_that_has_ended_is_not_read_at_every_look(store_root, monkeypatch):
    """A page looks every second, also at a store of many runs."""
    text = json.dumps({"state": "finished", "updated_at": 1.0, "host": "x", "pid": 1})
    for number in range(1_000):
        folder = store_root / f"run-{number:08d}"
        folder.mkdir()
        (folder / "status.json").write_text(text)
    first = jobs.status_table(store_root)
    read = []
    monkeypatch.setattr("explorer.index.run_states.read_state", lambda *run: read.append(run))

    second = jobs.status_table(store_root)

    assert len(first) == 1_000
    pd.testing.assert_frame_equal(first, second)
    assert not read
    say(store_root, "run-00000007", "failed")
    jobs.status_table(store_root)
    assert [run_id for _, run_id in read] == ["run-00000007"], "but it is when it changes"


def test_wait_gives_up_but_the_run_goes_on(store_root):
    """Waiting ends at its limit, names what is not done and stops nothing."""
    say(store_root, "a-00000000", "running")
    say(store_root, "b-00000000", "finished")

    with pytest.raises(JobError, match="a-00000000"):
        jobs.wait_until_done(store_root, ["a-00000000", "b-00000000"], 0)

    assert jobs.wait_until_done(store_root, ["b-00000000"], 0) == {"b-00000000": "finished"}
    assert not disk.cancel_requested(store_root, "a-00000000")


def test_log_tail_is_the_end_of_the_log(store_root):
    """The last lines come back whole, whatever the log's size and encoding."""
    lines = [f"line {number} ✓" for number in range(30_000)]
    durable_files.write_text(store_root / "a-00000000" / "log.txt", "\n".join(lines) + "\n")
    (store_root / "b-00000000").mkdir()
    (store_root / "b-00000000" / "log.txt").write_bytes(b"\xff\xfeno\nend")

    assert jobs.log_tail(store_root, "a-00000000", 3).splitlines() == lines[-3:]
    assert jobs.log_tail(store_root, "a-00000000", 20_000).splitlines() == lines[-20_000:]
    assert jobs.log_tail(store_root, "b-00000000", 1) == "end"
    assert jobs.log_tail(store_root, "c-00000000", 1) == ""


def test_cancel_leaves_a_finished_run_alone(store_root):
    """A click that came too late changes nothing."""
    spec = RunSpec(name="a")
    disk.open_run(store_root, spec)
    say(store_root, spec.run_id, "finished")

    jobs.cancel(store_root, spec.run_id)

    assert row_of(store_root, spec.run_id)["state"] == "finished"
    assert not disk.cancel_requested(store_root, spec.run_id)


def test_cancel_all_asks_every_active_run_and_no_other(store_root):
    """The waiting ones leave the queue at once; what has ended is left alone."""
    states_before = {"a": "running", "b": "queued", "c": "finished", "d": "failed"}
    ids = {}
    for name, state in states_before.items():
        spec = RunSpec(name=name)
        disk.open_run(store_root, spec)
        # Another host's runs: nobody here asks Ray what became of them.
        say(store_root, spec.run_id, state, host="elsewhere")
        ids[name] = spec.run_id

    assert set(jobs.cancel_all(store_root)) == {ids["a"], ids["b"]}

    assert disk.cancel_requested(store_root, ids["a"])
    assert row_of(store_root, ids["a"])["state"] == "running"
    assert row_of(store_root, ids["b"])["state"] == "cancelled"
    assert [row_of(store_root, ids[name])["state"] for name in "cd"] == ["finished", "failed"]
    assert not disk.cancel_requested(store_root, ids["c"])
    assert not disk.cancel_requested(store_root, ids["d"])


@pytest.mark.parametrize("run_id", ["nobody-00000000", "../outside"])
def test_unknown_run_is_one_sentence(store_root, run_id):
    """Cancelling or resuming what does not exist is refused and leaves no folder."""
    for action in (jobs.cancel, jobs.resume):
        with pytest.raises(BadInput):
            action(store_root, run_id)
    assert list(store_root.iterdir()) == []


def test_numbered_gpu_is_refused_before_anything_is_written(store_root):
    """The queue chooses the GPU; a spec that names the second one is told so."""
    with pytest.raises(BadInput, match="cuda:1"):
        jobs.submit([RunSpec(name="a"), RunSpec(name="b", device="cuda:1")], store_root)

    assert list(store_root.iterdir()) == []


@pytest.mark.parametrize(
    ("device", "nodes", "reserved"),
    [
        ("auto", [{"CPU": 2.0}], (2, 0)),
        ("cpu", [{"CPU": 4.0}, {"CPU": 16.0, "GPU": 2.0}], (16, 0)),
        ("auto", [{"CPU": 4.0}, {"CPU": 16.0, "GPU": 2.0}], (8, 1)),
        ("cuda:0", [{"CPU": 16.0, "GPU": 1.0}], (16, 1)),
    ],
)
def test_no_two_runs_share_a_device(device, nodes, reserved):
    """A run reserves its GPU with the GPU's share of the CPUs, or else all CPUs of a node."""
    assert queue._resources(RunSpec(device=device), nodes) == reserved


def test_a_run_that_times_nothing_and_names_its_threads_shares_the_machine():
    """So a tournament's trainings go side by side; a timed run has the machine for itself."""
    nodes = [{"CPU": 4.0}]
    assert queue._resources(RunSpec(threads=1, latency=None), nodes) == (1, 0)
    assert queue._resources(RunSpec(threads=9, latency=None), nodes) == (4, 0)
    assert queue._resources(RunSpec(threads=1), nodes) == (4, 0)
    assert queue._resources(RunSpec(latency=None), nodes) == (4, 0)


def test_gpu_that_is_not_there_is_refused():
    """A run for CUDA does not wait for ever in a queue without a GPU."""
    with pytest.raises(BadInput, match="device: auto"):
        queue._resources(RunSpec(device="cuda"), [{"CPU": 2.0}])


def test_a_finished_run_stays_finished_where_the_queue_does_not_answer(store_root, monkeypatch):
    """Measuring it again could not be queued; its result is where it was."""
    run_id = records.write_study(store_root)[1]
    before = disk.load(store_root, run_id)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")

    with pytest.raises(JobError):
        jobs.resume(store_root, run_id)

    assert disk.load(store_root, run_id) == before
    assert row_of(store_root, run_id)["state"] == "finished"
    assert not disk.remeasure_requested(store_root, run_id)


def test_a_stopped_run_keeps_its_state_where_the_queue_does_not_answer(store_root, monkeypatch):
    """Nothing was submitted, so nothing waits."""
    spec = RunSpec(name="a")
    disk.open_run(store_root, spec)
    say(store_root, spec.run_id, "cancelled", error="Cancelled before it started.")
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")

    with pytest.raises(JobError):
        jobs.resume(store_root, spec.run_id)

    monkeypatch.delenv("RAY_ADDRESS")
    assert row_of(store_root, spec.run_id)["state"] == "cancelled"


def test_a_new_measurement_that_waits_elsewhere_is_cancelled(store_root, monkeypatch):
    """Also where the earlier result says that the run is finished."""
    run_id = records.write_study(store_root)[1]
    disk.request_remeasure(store_root, run_id)
    say(store_root, run_id, "queued", queue="http://127.0.0.1:1")
    monkeypatch.setattr(ray_head, "connect", lambda **options: None)

    jobs.cancel(store_root, run_id)

    row = row_of(store_root, run_id)
    assert row["state"] == "finished"
    assert "was cancelled" in row["error"]
    assert not disk.remeasure_requested(store_root, run_id)


def test_a_new_measurement_cancelled_in_the_queue_leaves_the_result(store_root):
    """It is finished as before, with a word on what became of the attempt."""
    run_id = records.write_study(store_root)[1]
    disk.request_remeasure(store_root, run_id)
    say(store_root, run_id, "queued", host="elsewhere")

    jobs.cancel(store_root, run_id)

    row = row_of(store_root, run_id)
    assert row["state"] == "finished"
    assert row["error"].startswith("Measuring it again was cancelled: Cancelled before it started")
    assert not disk.remeasure_requested(store_root, run_id)
