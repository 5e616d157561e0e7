"""Runs that wait for room on a cluster, and those whose machine was lost."""

import dataclasses
import enum
import os
import socket
import time
from types import SimpleNamespace

import pytest

from explorer import jobs
from explorer.files import durable_files
from explorer.jobs import cluster_queue, dispatch, queue, ray_head, states
from explorer.jobs.cluster_queue import ClusterQueue, Entry
from explorer.specs import RunSpec
from explorer.store import disk
from explorer.store.progress import Progress

CLUSTER = "http://127.0.0.1:9"


class Status(enum.Enum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"

    def is_terminal(self):
        """As Ray's."""
        return self not in (Status.PENDING, Status.RUNNING)


class Cluster:
    """Ray's job server as the client sees it; it starts a job when a test says so."""

    def __init__(self, **resources):
        self.known = {}
        self.machines = {"n1": {"state": "ALIVE", "node_ip": "10.0.0.1"}}
        self.machines["n1"]["resources_total"] = resources or {"CPU": 2.0}
        self.stopped = []

    def list_jobs(self):
        """As the client's."""
        return list(self.known.values())

    def jobs_of(self, root):
        """As the client's."""
        mine = [job for job in self.known.values() if job.metadata["results"] == str(root)]
        return {job.metadata["run_id"]: job for job in mine}

    def active_jobs(self):
        """As the client's."""
        return {name for name, job in self.known.items() if not job.status.is_terminal()}

    def all_nodes(self):
        """As the client's."""
        return self.machines

    def nodes(self):
        """As the client's."""
        return [m["resources_total"] for m in self.machines.values() if m["state"] == "ALIVE"]

    def submit_when_ready(self, *, submission_id, metadata, **options):
        """As the client's; the job is pending until a test lets it begin."""
        self.known[submission_id] = SimpleNamespace(
            submission_id=submission_id,
            status=Status.PENDING,
            metadata=metadata,
            error_type=None,
            driver_node_id=None,
            message="",
            options=options,
        )

    def stop_job(self, submission_id):
        """As the client's."""
        self.stopped.append(submission_id)
        self.known[submission_id].status = Status.STOPPED

    def of(self, run_id):
        """The jobs of a run, in the order of their submission."""
        return [job for job in self.known.values() if job.metadata["run_id"] == run_id]

    def begin(self, run_id):
        """Let a run's latest job run on the first machine."""
        job = self.of(run_id)[-1]
        job.status, job.driver_node_id = Status.RUNNING, "n1"
        return job

    def lose(self, node):
        """A machine dies with what runs there."""
        self.machines[node]["state"] = "DEAD"
        for job in self.known.values():
            if job.driver_node_id == node and job.status is Status.RUNNING:
                job.status, job.error_type = Status.FAILED, "JOB_SUPERVISOR_ACTOR_DIED"


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A cluster of one machine of two CPUs, which the queue uses."""
    monkeypatch.setenv("EXPLORER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RAY_ADDRESS", CLUSTER)
    cluster = Cluster()
    monkeypatch.setattr(ray_head, "connect", lambda **options: cluster)
    return cluster


@pytest.fixture
def line(cluster, store_root):
    return ClusterQueue(store_root, CLUSTER)


def say(root, run_id, state, **more):
    here = {"host": socket.gethostname(), "pid": os.getpid(), "updated_at": time.time()}
    disk.write_status(root, run_id, {"run_id": run_id, "state": state, **here, **more})


def test_runs_wait_here_until_the_cluster_has_room(cluster, line, store_root):
    """Ray gets a run only when nothing of ours is in its place, in the order of submission."""
    specs = [RunSpec(name=name) for name in ("first", "second", "third")]
    first, second, third = jobs.submit(specs, store_root)
    assert [entry.run_id for entry in line.entries()] == [first, second, third]
    assert len(cluster.of(cluster_queue.DISPATCHER)) == 1
    assert not cluster.of(first)
    dispatcher = dispatch.Dispatcher(line, cluster)

    dispatcher.step()
    dispatcher.step()
    assert cluster.of(first)
    assert not cluster.of(second)
    assert {states.state_of(store_root, run_id) for run_id in (first, second)} == {"queued"}

    cluster.begin(first)
    dispatcher.step()
    assert not cluster.of(second)
    cluster.of(first)[0].status = Status.SUCCEEDED
    dispatcher.step()

    assert cluster.of(second)
    assert not cluster.of(third)
    assert line.run_ids() == {second, third}


def test_a_job_that_ray_does_not_start_is_taken_back_and_waits(
    cluster, line, store_root, monkeypatch
):
    """Other people's jobs fill the cluster: the run never meets Ray's limit, and never fails."""
    (run_id,) = jobs.submit([RunSpec(name="patient")], store_root)
    dispatcher = dispatch.Dispatcher(line, cluster)
    dispatcher.step()
    monkeypatch.setattr(dispatch, "WITHDRAW_S", 0.0)
    dispatcher.step()
    dispatcher.step()
    assert cluster.stopped == [cluster.of(run_id)[0].submission_id]
    assert states.state_of(store_root, run_id) == "queued"
    assert len(cluster.of(run_id)) == 1

    monkeypatch.setattr(dispatch, "WITHDRAW_S", 600.0)
    dispatcher._retry_at.clear()
    dispatcher.step()

    assert len(cluster.of(run_id)) == 2


def test_a_cluster_with_a_shorter_limit_fails_no_run(cluster, line, store_root):
    """Ray gave up waiting before we took the job back: the run waits here again."""
    (run_id,) = jobs.submit([RunSpec(name="patient")], store_root)
    dispatcher = dispatch.Dispatcher(line, cluster)
    dispatcher.step()
    job = cluster.of(run_id)[0]
    job.status, job.error_type = Status.FAILED, dispatch.NOT_STARTED

    dispatcher.step()

    assert line.run_ids() == {run_id}
    assert states.state_of(store_root, run_id) == "queued"


def test_the_run_of_a_lost_machine_is_queued_again_once(cluster, line, store_root):
    """The message names the machine; a second loss is left to people, and says so."""
    (run_id,) = jobs.submit([RunSpec(name="lost")], store_root)
    dispatcher = dispatch.Dispatcher(line, cluster)
    dispatcher.step()
    cluster.begin(run_id)
    say(store_root, run_id, "running", host="n1", stage="distil")
    dispatcher.step()
    cluster.lose("n1")
    assert states.state_of(store_root, run_id) == "running"

    dispatcher.step()
    row = states.status_row(store_root, run_id)
    assert row["state"] == "queued"
    assert row["note"].startswith("The machine 10.0.0.1 was lost during this run.")

    cluster.machines["n2"] = {**cluster.machines["n1"], "state": "ALIVE", "node_ip": "10.0.0.2"}
    dispatcher.step()
    assert len(cluster.of(run_id)) == 2
    cluster.begin(run_id).driver_node_id = "n2"
    progress = Progress(store_root, run_id)
    progress("distil", 1, 9, "steps")
    assert "10.0.0.1 was lost" in disk.read_status(store_root, run_id)["note"]
    cluster.lose("n2")
    dispatcher.step()

    row = states.status_row(store_root, run_id)
    assert row["state"] == "interrupted"
    assert "10.0.0.1 and 10.0.0.2" in row["error"]
    assert not line.entries()


def test_a_watcher_that_dies_before_its_machine_is_given_up_is_waited_for(
    cluster, line, store_root, monkeypatch
):
    """Ray notices a lost machine late; a run whose machine lives on is not queued again."""
    (run_id,) = jobs.submit([RunSpec(name="lost")], store_root)
    dispatcher = dispatch.Dispatcher(line, cluster)
    dispatcher.step()
    job = cluster.begin(run_id)
    say(store_root, run_id, "running", pid=None)
    job.status, job.error_type = Status.FAILED, "JOB_SUPERVISOR_ACTOR_DIED"

    dispatcher.step()
    assert line.run_ids() == {run_id}
    assert states.state_of(store_root, run_id) == "running"
    monkeypatch.setattr(dispatch, "NODE_DEATH_S", 0.0)
    dispatcher.step()

    assert not line.entries()
    assert states.state_of(store_root, run_id) == "interrupted"
    assert len(cluster.of(run_id)) == 1


@pytest.mark.parametrize("state", ["failed", "finished", "cancelled"])
def test_a_run_that_has_ended_by_itself_is_not_repeated(cluster, line, store_root, state):
    """What a run says about itself counts, even if its machine is lost right after."""
    (run_id,) = jobs.submit([RunSpec(name="done")], store_root)
    dispatcher = dispatch.Dispatcher(line, cluster)
    dispatcher.step()
    cluster.begin(run_id)
    say(store_root, run_id, state)
    cluster.lose("n1")

    dispatcher.step()

    assert not line.entries()
    assert states.state_of(store_root, run_id) == state


def test_cancelled_while_it_waits_never_reaches_ray(cluster, line, store_root):
    """And a run that a person cancelled is not queued again when its machine is lost."""
    specs = [RunSpec(name="running"), RunSpec(name="waiting")]
    running, waiting = jobs.submit(specs, store_root)
    dispatcher = dispatch.Dispatcher(line, cluster)
    dispatcher.step()
    cluster.begin(running)
    say(store_root, running, "running", host="n1")

    jobs.cancel(store_root, waiting)
    assert states.state_of(store_root, waiting) == "cancelled"
    jobs.cancel(store_root, running)
    cluster.lose("n1")
    dispatcher.step()
    dispatcher.step()

    assert not line.entries()
    assert not cluster.of(waiting)
    assert len(cluster.of(running)) == 1


def test_without_a_dispatcher_waiting_runs_are_interrupted_and_resume_starts_one(
    cluster, line, store_root
):
    """A cluster that was restarted has forgotten the dispatcher; nothing waits for ever."""
    (run_id,) = jobs.submit([RunSpec(name="left")], store_root)
    cluster.known.clear()
    assert states.state_of(store_root, run_id) == "interrupted"

    jobs.resume(store_root, run_id)

    assert states.state_of(store_root, run_id) == "queued"
    assert len(line.entries()) == 1
    assert len(cluster.of(cluster_queue.DISPATCHER)) == 1


def test_a_dispatcher_that_dies_between_two_steps_makes_no_second_job(cluster, line, store_root):
    """The next one reads from the entries what Ray already has."""
    (run_id,) = jobs.submit([RunSpec(name="once")], store_root)
    dispatch.Dispatcher(line, cluster).step()

    dispatch.Dispatcher(line, cluster).step()

    assert len(cluster.of(run_id)) == 1


def test_it_ends_when_no_run_is_left_and_the_next_submission_starts_another(
    cluster, line, store_root, monkeypatch
):
    """No process stays on the cluster for an empty queue."""
    monkeypatch.setattr(dispatch, "LOOK_EVERY_S", 0.0)
    (run_id,) = jobs.submit([RunSpec(name="a")], store_root)
    say(store_root, run_id, "cancelled")
    disk.request_cancel(store_root, run_id)

    dispatch.run(line, cluster)

    assert line.dispatcher is None
    cluster.of(cluster_queue.DISPATCHER)[0].status = Status.SUCCEEDED
    jobs.submit([RunSpec(name="b")], store_root)
    assert len(cluster.of(cluster_queue.DISPATCHER)) == 2


@pytest.mark.parametrize(
    ("nodes", "needs", "num_started"),
    [
        ([{"CPU": 2.0}, {"CPU": 2.0}], (2, 0), 2),
        ([{"CPU": 8.0, "GPU": 4.0}], (2, 1), 4),
        ([{"CPU": 8.0}], (16, 0), 0),
    ],
)
def test_as_many_start_as_have_a_device_of_their_own(
    cluster, line, store_root, nodes, needs, num_started
):
    """One run a GPU, or one a machine without; a run that fits nowhere waits."""
    cluster.machines = {
        str(number): {"state": "ALIVE", "node_ip": "", "resources_total": node}
        for number, node in enumerate(nodes)
    }
    for number in range(6):
        line.add(Entry(f"run-{number:08d}", 0, "true", {}, *needs))

    dispatch.Dispatcher(line, cluster).step()

    assert len(cluster.known) == num_started


def test_a_damaged_entry_stops_no_other(line, cluster):
    """The rest of the queue goes on."""
    line.add(Entry("a-00000000", 0, "true", {}, 1, 0))
    durable_files.write_text(line.folder / "00000000-b-00000000.json", "{")
    durable_files.write_text(line.folder / "00000001-c-00000000.json", "[]")

    assert [entry.run_id for entry in line.entries()] == ["a-00000000"]


def test_entries_are_outside_the_store(cluster, line, store_root):
    """They are commands, and a store may come from somebody else."""
    jobs.submit([RunSpec(name="a")], store_root)

    assert store_root not in line.folder.parents
    entry = dataclasses.asdict(line.entries()[0])
    assert not {name for name in entry["env_vars"] if "TOKEN" in name or "KEY" in name}
    assert queue.metadata("a", store_root)["results"] == str(store_root.resolve())
