"""The queue on a real Ray head of our own. Most runs are stand-ins, the rest is real."""

import os
import socket
import stat
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest
import requests
from typer.testing import CliRunner

from explorer import jobs
from explorer.cli import app
from explorer.jobs import queue, ray_head, states, submit_lock
from explorer.search import queued, successive_halving
from explorer.specs import DepthStudent, LatencySpec, RunSpec, TuneSpec
from explorer.store import disk
from tests.ray.stand_in import STAND_IN

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def private_engine(tmp_path_factory):
    """One head for the whole module, ended with everything it started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPLORER_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("RAY_ADDRESS", raising=False)
        # A proxy that the environment names must not come between us and loopback.
        patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        yield
        remembered = ray_head._saved_head()
        processes = ray_head._processes_of(remembered) if remembered else []
        jobs.stop_engine()
        left = [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        assert not left


@pytest.fixture
def last(monkeypatch):
    """Decide how many tenths of a second the next submitted runs take."""

    def set_steps(num_steps):
        monkeypatch.setattr(
            queue,
            "run_command",
            lambda run_id: [sys.executable, "-c", STAND_IN, run_id, str(num_steps)],
        )

    set_steps(3)
    return set_steps


def until(root, run_id, state, timeout_s=120):
    """Look until a run is in a state, as the page does."""
    deadline = time.monotonic() + timeout_s
    while states.state_of(root, run_id) != state:
        assert time.monotonic() < deadline, jobs.status_table(root).to_dict("records")
        time.sleep(0.2)


def row_of(root, run_id):
    return jobs.status_table(root).set_index("run_id").loc[run_id]


def test_first_job_starts_a_private_head(tmp_path, last):
    """The first job starts a head that only loopback reaches and only our token opens."""
    assert not jobs.engine_status()["running"]

    (run_id,) = jobs.submit([RunSpec(name="first")], tmp_path)

    assert jobs.wait_until_done(tmp_path, [run_id], 120) == {run_id: "finished"}
    engine = jobs.engine_status()
    assert engine["running"]
    assert engine["local"]
    assert engine["num_cpus"] >= 1
    direct = {"http": "", "https": ""}
    url = engine["address"] + "/api/jobs/"
    assert requests.get(url, timeout=10, proxies=direct).status_code == 401
    wrong = {"Authorization": "Bearer " + "0" * 64}
    assert requests.get(url, timeout=10, proxies=direct, headers=wrong).status_code == 403

    token_file = submit_lock.host_folder() / "token"
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(os.stat(ray_head._saved_head().session_folder).st_mode) == 0o700
    token = token_file.read_text()
    processes = ray_head._processes_of(ray_head._saved_head())
    assert len(processes) > 3
    listening = set()
    for process in processes:
        # The finished job's own processes may end at any moment.
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            assert token not in " ".join(process.cmdline())
            found = process.net_connections(kind="tcp")
            listening |= {c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN}
    assert listening
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert token not in (submit_lock.host_folder() / "head.log").read_text()


def test_a_job_reads_the_configuration_of_whoever_submits_it(
    tmp_path, store_root, monkeypatch, allow_code, last
):
    """What a person has allowed holds for their jobs, whoever started the head."""
    assert jobs.submit([RunSpec(name="starts-the-head")], store_root)
    mine = allow_code(tmp_path / "mine").rename(tmp_path / "mine.yaml")
    monkeypatch.setenv("EXPLORER_CONFIG", str(mine))
    says = "import pathlib; from explorer.consent import user_config; "
    says += "pathlib.Path({!r}).write_text("
    says = says.format(str(tmp_path / "said.txt")) + "str(user_config.allowed_task_code()[0]))"
    monkeypatch.setattr(
        queue, "run_command", lambda run_id: [sys.executable, "-c", says + STAND_IN, run_id, "1"]
    )

    (run_id,) = jobs.submit([RunSpec(name="configured")], store_root)

    assert jobs.wait_until_done(store_root, [run_id], 120) == {run_id: "finished"}
    assert (tmp_path / "said.txt").read_text() == str(tmp_path / "mine")


def test_the_head_keeps_nothing_of_the_page_that_started_it(tmp_path):
    """The dashboard opens again on its port while the head that it started still runs."""
    jobs.stop_engine()
    page = """
import os, socket, sys
from explorer.jobs import ray_head, submit_lock
server = socket.socket()
server.bind(("127.0.0.1", 0))
server.listen()
server.set_inheritable(True)
with submit_lock.submitting():
    ray_head.connect(start=True)
print(server.getsockname()[1], os.readlink(f"/proc/self/fd/{server.fileno()}"))
server.close()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", page],
        check=True,
        timeout=280,
        text=True,
        capture_output=True,
        cwd=tmp_path,
    )
    port, link = done.stdout.split()

    assert jobs.engine_status()["running"]
    assert done.stderr == ""
    own = psutil.Process(ray_head._saved_head().pid)
    for process in [own, *own.children()]:
        folder = f"/proc/{process.pid}/fd"
        assert link not in [os.readlink(f"{folder}/{number}") for number in os.listdir(folder)]
        assert process.cwd() != str(tmp_path)
    with socket.socket() as again:
        again.bind(("127.0.0.1", int(port)))


def test_a_port_that_the_head_holds_is_said():
    """`explorer app` on a port of the queue's head names the head and how to stop it."""
    port = int(jobs.engine_status()["address"].rpartition(":")[2])

    result = CliRunner().invoke(app, ["app", "--port", str(port)])

    assert f"Port {port} is held by the queue's Ray head" in str(result.exception)
    assert "explorer jobs --stop" in str(result.exception)


def test_runs_wait_for_each_other_and_teachers_go_first(tmp_path, last):
    """Without a GPU one run goes at a time, a teacher before its students."""
    last(10)
    student = RunSpec(name="student", student=DepthStudent(num_layers=2))
    teacher = student.teacher_run()
    later = RunSpec(name="later", student=DepthStudent(num_layers=1))

    ids = jobs.submit([student, teacher, later], tmp_path)

    assert ids == [student.run_id, teacher.run_id, later.run_id]
    until(tmp_path, teacher.run_id, "running")
    queued = jobs.status_table(tmp_path).query("state == 'queued'")
    assert list(queued["run_id"]) == [student.run_id, later.run_id]
    assert set(jobs.wait_until_done(tmp_path, ids, 120).values()) == {"finished"}
    in_order = [disk.read_status(tmp_path, s.run_id) for s in (teacher, student, later)]
    for before, after in zip(in_order, in_order[1:], strict=False):
        assert before["ended"] <= after["began"]


def test_submitting_again_makes_no_second_job(tmp_path, last):
    """A double click, or a run that is finished already, adds nothing to the queue."""
    last(30)
    spec = RunSpec(name="once")
    jobs.submit([spec], tmp_path)

    jobs.submit([spec], tmp_path)
    jobs.resume(tmp_path, spec.run_id)

    jobs.wait_until_done(tmp_path, [spec.run_id], 120)
    jobs.submit([spec], tmp_path)
    mine = [
        job
        for job in ray_head.connect().list_jobs()
        if job.metadata.get("results") == str(tmp_path)
    ]
    assert len(mine) == 1
    assert row_of(tmp_path, spec.run_id)["state"] == "finished"


def test_cancelled_in_the_queue_stays_cancelled(tmp_path, last):
    """A waiting run that was cancelled never begins; a running one stops by itself."""
    last(600)
    running, waiting = RunSpec(name="running"), RunSpec(name="waiting")
    jobs.submit([running, waiting], tmp_path)
    until(tmp_path, running.run_id, "running")

    jobs.cancel(tmp_path, waiting.run_id)
    assert row_of(tmp_path, waiting.run_id)["state"] == "cancelled"
    jobs.cancel(tmp_path, running.run_id)

    assert jobs.wait_until_done(tmp_path, [running.run_id], 30) == {running.run_id: "cancelled"}
    last(3)
    (after,) = jobs.submit([RunSpec(name="after")], tmp_path)
    assert jobs.wait_until_done(tmp_path, [after], 120) == {after: "finished"}
    assert row_of(tmp_path, waiting.run_id)["state"] == "cancelled"
    assert "began" not in disk.read_status(tmp_path, waiting.run_id)

    jobs.resume(tmp_path, waiting.run_id)
    assert jobs.wait_until_done(tmp_path, [waiting.run_id], 120) == {waiting.run_id: "finished"}


def test_run_that_ignores_a_cancel_is_stopped(tmp_path, last, monkeypatch):
    """Ray ends a run that does not stop by itself, and it counts as cancelled."""
    deaf = STAND_IN.replace(
        'progress("train"', 'progress.write_status(state="running", stage="x") #'
    )
    monkeypatch.setattr(
        queue, "run_command", lambda run_id: [sys.executable, "-c", deaf, run_id, "3000"]
    )
    monkeypatch.setattr(states, "CANCEL_GRACE_S", 1.0)
    (run_id,) = jobs.submit([RunSpec(name="deaf")], tmp_path)
    until(tmp_path, run_id, "running")
    until_it_says_so = time.monotonic() + 30
    while not (disk.read_status(tmp_path, run_id) or {}).get("pid"):
        assert time.monotonic() < until_it_says_so
        time.sleep(0.2)

    jobs.cancel(tmp_path, run_id)

    until(tmp_path, run_id, "cancelled", 30)
    pid = disk.read_status(tmp_path, run_id)["pid"]
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_crash_before_the_first_word_is_told(tmp_path, monkeypatch):
    """A run that cannot even start is interrupted, with Ray's log as its reason."""
    monkeypatch.setattr(queue, "run_command", lambda _: [sys.executable, "-c", "1 / 0"])
    (run_id,) = jobs.submit([RunSpec(name="crash")], tmp_path)

    assert jobs.wait_until_done(tmp_path, [run_id], 120) == {run_id: "interrupted"}
    assert "ZeroDivisionError" in row_of(tmp_path, run_id)["error"]
    assert "ZeroDivisionError" in jobs.log_tail(tmp_path, run_id, 5)


def test_dead_head_interrupts_and_resume_finishes(tmp_path, last):
    """After the machine died every unfinished run is interrupted, and resuming finishes it.

    The new head is started by a process that ends at once: closing the page loses nothing.
    """
    last(600)
    running, waiting = RunSpec(name="running"), RunSpec(name="waiting")
    jobs.submit([running, waiting], tmp_path)
    until(tmp_path, running.run_id, "running")
    old = ray_head._saved_head()
    for process in ray_head._processes_of(old):
        # Some end by themselves when their parent does.
        with suppress(psutil.NoSuchProcess):
            process.kill()

    until(tmp_path, running.run_id, "interrupted", 10)
    assert row_of(tmp_path, waiting.run_id)["state"] == "interrupted"
    assert "Resume" in row_of(tmp_path, waiting.run_id)["error"]
    assert not jobs.engine_status()["running"]

    page = f"""
import sys
from pathlib import Path
from explorer import jobs
from explorer.jobs import queue
queue.run_command = lambda run_id: [sys.executable, "-c", {STAND_IN!r}, run_id, "3"]
for run_id in sys.argv[2:]:
    jobs.resume(Path(sys.argv[1]), run_id)
"""
    ids = [running.run_id, waiting.run_id]
    subprocess.run([sys.executable, "-c", page, str(tmp_path), *ids], check=True, timeout=280)
    found = jobs.wait_until_done(tmp_path, ids, 120)
    assert set(found.values()) == {"finished"}, jobs.status_table(tmp_path).to_dict("records")
    assert ray_head._saved_head().pid != old.pid
    assert not os.path.exists(old.session_folder)


def test_real_run_goes_through_the_queue(tmp_path, tiny_llama):
    """What the page submits is what `explorer run` does: a record lies in the store."""
    latency = LatencySpec(prompt_tokens=4, output_tokens=2, repeats=2, warmup=0)
    spec = RunSpec(name="real", teacher=str(tiny_llama()), capability=None, latency=latency)

    jobs.submit([spec], tmp_path)

    assert jobs.wait_until_done(tmp_path, [spec.run_id], 240) == {spec.run_id: "finished"}
    assert disk.load(tmp_path, spec.run_id).latency.own.turns
    assert jobs.log_tail(tmp_path, spec.run_id)


def test_real_run_heeds_a_cancel_that_came_while_it_waited(tmp_path, tiny_llama, monkeypatch):
    """Should Ray start a job in spite of its cancellation, the run does nothing."""
    monkeypatch.setenv("EXPLORER_RESULTS", str(tmp_path))
    spec = RunSpec(name="late", teacher=str(tiny_llama()), capability=None, latency=None)
    disk.open_run(tmp_path, spec)
    disk.request_cancel(tmp_path, spec.run_id)

    subprocess.run(queue.run_command(spec.run_id), check=False, timeout=240)

    assert row_of(tmp_path, spec.run_id)["state"] == "cancelled"


def test_head_that_cannot_start_says_why(tmp_path, last, monkeypatch):
    """A head that dies while starting gives one sentence, and its runs are not lost."""
    monkeypatch.setenv("EXPLORER_CACHE", str(tmp_path / "cache"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(ray_head.child_process, "free_port", lambda: port)
        with pytest.raises(ray_head.JobError, match="did not start"):
            jobs.submit([RunSpec(name="unlucky")], tmp_path)

    run_id = RunSpec(name="unlucky").run_id
    assert row_of(tmp_path, run_id)["state"] == "interrupted"
    assert "did not start" in row_of(tmp_path, run_id)["error"]
    assert ray_head._saved_head() is None


def test_a_tournament_holds_its_runs_side_by_side(tmp_path, tiny_run):
    """The job that holds it submits the runs itself; the table is that of one process."""
    taught = tiny_run["distill"] | {"learning_rate": 3e-3}
    order = {
        "run": tiny_run | {"threads": 1, "distill": taught},
        "variants": [{"distill": {"learning_rate": 1e-7}}],
        "rounds": 1,
    }
    spec = TuneSpec.parse(order)
    runs = [one.run_id for one in successive_halving.round_status(spec, tmp_path).missing.values()]

    tune_id = queued.submit(spec, tmp_path)

    folder = successive_halving.searches_folder(tmp_path)
    assert jobs.wait_until_done(folder, [tune_id], 240) == {tune_id: "finished"}, jobs.log_tail(
        folder, tune_id
    )
    began = [disk.load(tmp_path, run_id).started_at for run_id in runs]
    ended = [disk.load(tmp_path, run_id).finished_at for run_id in runs]
    if os.cpu_count() > 1:
        assert max(began) <= min(ended)
    from explorer.search import local

    alone = successive_halving.run_search(
        spec, tmp_path / "alone", local.train_here(lambda title: lambda said: None)
    )
    assert successive_halving.round_status(spec, tmp_path).results == alone
