"""Put runs into the queue, take them out, put them back.

A run on a GPU asks Ray for one GPU and that GPU's share of the CPUs; one without asks for
all CPUs of a node. So no two runs share a device and spoil each other's latency, and a
laptop does one run after the other, in the order in which they were submitted. A run that
times nothing and names its threads asks for so many CPUs only, and shares the machine with
others of that kind.
"""

import functools
import os
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer import paths
from explorer.errors import BadInput, ExplorerError, JobError
from explorer.jobs import ray_head, states
from explorer.models import sizes
from explorer.specs import RunSpec
from explorer.store import disk, trash

if TYPE_CHECKING:
    from explorer.jobs.ray_client import Client

OnProgress = Callable[[str, int, int], None]
"""Told what is being done, how many jobs are handed over, and of how many."""
WRITING = "Writing down the orders"
WAITING = "Waiting for another submission to end"
STOP_WAIT_S = 60
"""Between SIGTERM and SIGKILL; Ray's own 3 seconds are too short for a checkpoint."""

PASSED_ON = (
    "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "HF_HOME",
    "OMP_NUM_THREADS",
    "EXPLORER_INSIST",
)
"""Variables that a job gets from whoever submits it, whatever the head was started with.

No secret is among them: Ray shows a job's variables to everyone who holds the token.
"""


@dataclass(frozen=True)
class Job:
    """A command for Ray, and where what becomes of it is said."""

    id: str
    command: list[str]
    root: Path
    """The store that the command works on."""
    said_in: Path
    """Holds the folder of this id with its status: the store, for a run."""
    spec: RunSpec | None = None
    """The run that decides what is reserved; None reserves nothing and may submit runs."""


def no_progress(step: str, done: int, total: int) -> None:
    """An `OnProgress` that tells nobody."""


def submit(specs: list[RunSpec], root: Path, on_progress: OnProgress = no_progress) -> list[str]:
    """Queue runs, teachers first, and return their ids in the order given.

    A run that is queued, running or finished is left as it is; one that `store.request_again`
    asked for is not taken as finished. The first call starts the local Ray head, which can take
    half a minute; `on_progress` is told so.

    Raises:
        BadInput: A spec asks for a device that the queue cannot give, or for a student that is
            not smaller than its teacher.
        JobError: Ray does not start or does not answer; the runs become interrupted.
    """
    _queue_runs(specs, root, ("queued", "running", "finished"), on_progress)
    return [spec.run_id for spec in specs]


def submit_command(
    job_id: str,
    command: list[str],
    root: Path,
    said_in: Path,
    on_progress: OnProgress = no_progress,
) -> None:
    """Queue a command that reserves nothing: it submits runs and waits for them.

    Args:
        job_id: Its name; one that is queued or running is left as it is.
        command: Writes its status as a run does, into the folder of its name in `said_in`.
        root: The store that it works on.
        said_in: The folder of such folders.
        on_progress: Told how far it is.

    Raises:
        JobError: Ray does not start or does not answer; the command becomes interrupted.
    """
    _queue([Job(job_id, command, root, said_in)], ("queued", "running"), on_progress)


def resume(root: Path, run_id: str, on_progress: OnProgress = no_progress) -> str:
    """Queue a run's own spec again; its finished stages are not done twice.

    A finished run is measured anew; its record stays in force until that is done.

    Raises:
        BadInput: There is no such run, or its student is not smaller than its teacher.
        JobError: Ray does not start or does not answer.
    """
    spec = disk.read_spec(root, run_id)
    sizes.check_students([spec], root)
    if states.state_of(root, run_id) == "finished":
        disk.request_again(root, run_id)
    _queue_runs([spec], root, ("queued", "running"), on_progress)
    return run_id


def cancel(root: Path, run_id: str) -> None:
    """Ask a run to stop, and return at once.

    A queued run leaves the queue now. A running one saves its checkpoint and stops by
    itself; `listing` has Ray stop one that has not done so after `states.CANCEL_GRACE_S`.

    Raises:
        BadInput: There is no such run.
    """
    disk.read_spec(root, run_id)
    request_stop(root, run_id)


def request_stop(said_in: Path, job_id: str) -> None:
    """Ask whatever says in this folder what it does to stop, as `cancel` does with a run."""
    # First of all: a job that Ray starts in spite of our stopping it looks for this.
    disk.request_cancel(said_in, job_id)
    state = states.state_of(said_in, job_id)
    if state not in ("queued", "running", "cancelled"):
        disk.withdraw_cancel(said_in, job_id)
    if state != "queued":
        return
    states.stop_jobs(said_in, [job_id])
    disk.withdraw_again(said_in, job_id)
    _say(said_in, job_id, "cancelled", error="Somebody cancelled it before it began.")


def delete(root: Path, run_ids: list[str]) -> list[trash.DeletedRun]:
    """Move runs into the store's trash, from which `trash.restore` takes them back.

    Raises:
        BadInput: There is no such run, or one is queued or running; then none is deleted.
    """
    for run_id in run_ids:
        trash.check(root, run_id)
        state = states.state_of(root, run_id)
        if state in states.ACTIVE:
            raise BadInput(
                f"{run_id} is {state}. Cancel it first (explorer cancel {run_id}), then delete it."
            )
    return [trash.delete(root, run_id) for run_id in dict.fromkeys(run_ids)]


def run_command(run_id: str) -> list[str]:
    """The command that does a run; the store and the cache come in its environment.

    `--queued` keeps a request to stop that came while the run waited: a run started by hand
    takes such a request back.
    """
    return [sys.executable, "-m", "explorer", "run", "--queued", run_id]


def _queue_runs(
    specs: list[RunSpec], root: Path, keep: tuple[str, ...], on_progress: OnProgress
) -> None:
    for spec in specs:
        _refuse_numbered_gpu(spec)
    sizes.check_students(specs, root)
    teachers_first = sorted(specs, key=lambda spec: not spec.is_teacher)
    found = [Job(one.run_id, run_command(one.run_id), root, root, one) for one in teachers_first]
    _queue(found, keep, on_progress)


def _queue(found: list[Job], keep: tuple[str, ...], on_progress: OnProgress) -> None:
    """Write everything down, then hand it to Ray, so that a crash between loses no job."""
    with ray_head.submitting(functools.partial(on_progress, WAITING, 0, len(found))):
        on_progress(WRITING, 0, len(found))
        waiting = [job for job in found if not _stays(job, keep)]
        for job in waiting:
            if job.spec:
                disk.open_run(job.root, job.spec)
            disk.withdraw_cancel(job.said_in, job.id)
            _say(job.said_in, job.id, "queued")
        try:
            total = len(waiting)
            on_start = functools.partial(on_progress, ray_head.STARTING, 0, total)
            client = ray_head.connect(start=True, on_start=on_start) if waiting else None
            while waiting and client:
                _hand_over(client, waiting[0])
                waiting.pop(0)
                done = total - len(waiting)
                on_progress(f"Handed over {done} of {total}", done, total)
        except ExplorerError as error:
            # Still "queued": Ray may have taken the job although its answer was lost.
            for job in waiting:
                _say(job.said_in, job.id, "queued", error=str(error))
            raise


def _stays(job: Job, keep: tuple[str, ...]) -> bool:
    """Whether a job is left as it is, by its state."""
    state = states.state_of(job.said_in, job.id, submitting=False)
    again = state == "finished" and disk.again_requested(job.said_in, job.id)
    return state in keep and not again


def _hand_over(client: "Client", job: Job) -> None:
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ} | {
        "EXPLORER_RESULTS": str(job.root.resolve()),
        "EXPLORER_CACHE": str(paths.cache_dir().resolve()),
        "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
    }
    if "EXPLORER_CONFIG" in os.environ or not ray_head.cluster_address():
        # Another machine has a configuration of its own, unless one is named.
        environment["EXPLORER_CONFIG"] = str(paths.config_file().resolve())
    command = f"cd {shlex.quote(_here())} && exec {shlex.join(job.command)}"
    if "OMP_NUM_THREADS" not in environment:
        # Ray sets it to the CPUs asked for; a run in the foreground would time otherwise.
        command = f"unset OMP_NUM_THREADS; {command}"
    num_cpus, num_gpus = 0, 0
    if job.spec:
        num_cpus, num_gpus = _needs(job.spec, ray_head.nodes_of(client))
    else:
        # Ray names its own address to a job, which would hide ours and its token.
        cluster = ray_head.cluster_address()
        where = f"export RAY_ADDRESS={shlex.quote(cluster)}" if cluster else "unset RAY_ADDRESS"
        command = f"{where}; {command}"
    with ray_head.ray_errors_in_words():
        client.submit_when_ready(
            entrypoint=command,
            submission_id=f"{job.id}-{secrets.token_hex(4)}",
            metadata={"run_id": job.id, "results": str(job.said_in.resolve())},
            runtime_env={"env_vars": environment},
            entrypoint_num_cpus=num_cpus,
            entrypoint_num_gpus=num_gpus,
        )


def _here() -> str:
    """The folder that a job works in.

    Raises:
        JobError: It was deleted under us.
    """
    try:
        return os.getcwd()
    except OSError as error:
        raise JobError(
            "The folder that this program was started in no longer exists, so paths in an order "
            "mean nothing. Start it again from a folder that exists."
        ) from error


def _needs(spec: RunSpec, nodes: list[dict[str, float]]) -> tuple[int, int]:
    """CPUs and GPUs that the job reserves, so that it has its device for itself.

    Raises:
        BadInput: The spec asks for a GPU and there is none.
    """
    with_gpu = [node for node in nodes if node.get("GPU")]
    if spec.device.startswith("cuda") and not with_gpu:
        raise BadInput(
            f"{spec.run_id} asks for device {spec.device}, but no machine of the queue has "
            "a GPU. Write device: auto or device: cpu."
        )
    if with_gpu and spec.device != "cpu":
        share = min(node.get("CPU", 0) // node["GPU"] for node in with_gpu)
        return int(share), 1
    num_cpus = int(max(node.get("CPU", 0) for node in nodes))
    if spec.threads and spec.latency is None:
        return min(spec.threads, num_cpus), 0
    return num_cpus, 0


def _refuse_numbered_gpu(spec: RunSpec) -> None:
    number = spec.device.partition(":")[2]
    if number not in ("", "0"):
        raise BadInput(
            f"{spec.run_id} asks for device {spec.device}, but the queue gives each run a GPU of "
            "its choice, which the run sees as cuda:0. Write device: cuda, or use `explorer run`."
        )


def _say(root: Path, run_id: str, state: str, **more: Any) -> None:
    now = time.time()
    status = {"run_id": run_id, "state": state, "updated_at": now, "host": socket.gethostname()}
    if state == "queued":
        status["queued_at"] = now
    disk.write_status(root, run_id, {**status, **more})
