"""Submit, cancel, resume and delete runs.

A run reserves one GPU, or `num_devices` of one node, and their share of the CPUs. A run on the CPU
reserves all CPUs of a node. So no two runs share a device and disturb each other's latency, and a
laptop runs one after another, in the order of submission. A run that is not timed and sets
`threads` reserves only those CPUs and runs beside others of its kind.
"""

import functools
import os
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer import paths
from explorer.errors import BadInput, ExplorerError, JobError
from explorer.index.run_states import ACTIVE
from explorer.jobs import cluster_queue, ray_head, states, submit_lock
from explorer.jobs.cluster_queue import ClusterQueue, Entry
from explorer.models import size_limits
from explorer.specs import RunSpec
from explorer.store import disk, trash

if TYPE_CHECKING:
    from explorer.jobs.ray_client import Client

OnProgress = Callable[[str, int, int], None]
"""Called with the present step, the number of jobs submitted, and their total."""
SAVING = "Saving the specs"
WAITING = "Waiting for another submission to end"
STOP_WAIT_S = 60
"""Time between SIGTERM and SIGKILL; Ray's 3 seconds are too short for a checkpoint."""

PASSED_ON = (
    "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_ENDPOINT",
    "SSL_CERT_FILE",
    "OMP_NUM_THREADS",
    "EXPLORER_INSIST",
)
"""Environment variables a job gets from the process that submits it, not from the head.

None may hold a secret: Ray shows a job's variables to everyone with the token.
"""


@dataclass(frozen=True)
class Job:
    """A command for Ray, and where it writes its status."""

    id: str
    command: list[str]
    root: Path
    """The store the command works on."""
    status_root: Path
    """Its folder of this id holds the status; for a run it is the store."""
    spec: RunSpec | None = None
    """The run, which decides what is reserved; None reserves nothing and may submit runs."""


def no_progress(step: str, done: int, total: int) -> None:
    """An `OnProgress` that does nothing."""


def submit(specs: list[RunSpec], root: Path, on_progress: OnProgress = no_progress) -> list[str]:
    """Queue runs, teachers first; returns their ids in the order given.

    Runs that are queued, running or finished are left alone, except finished ones that
    `disk.request_remeasure` marked. The first call starts the local Ray head, which can take half a
    minute; `on_progress` says so.

    Raises:
        BadInput: The queue does not have the device a spec names, or a student is not smaller
            than its teacher.
        JobError: Ray does not start or does not answer. Runs that are new become interrupted; the
            others keep their state where Ray could not be reached at all.
    """
    _submit_runs(specs, root, ("queued", "running", "finished"), on_progress)
    return [spec.run_id for spec in specs]


def submit_command(
    job_id: str,
    command: list[str],
    root: Path,
    status_root: Path,
    on_progress: OnProgress = no_progress,
) -> None:
    """Queue a command that submits runs and waits for them; it reserves nothing.

    Args:
        job_id: Its name; a job of this name that is queued or running is left alone.
        command: The program and its arguments. Writes its status as a run does, into the folder
            `job_id` of `status_root`.
        root: The store it works on.
        status_root: The folder that holds the folders of such jobs.
        on_progress: Called with the steps of the submission.

    Raises:
        JobError: Ray does not start or does not answer; the command becomes interrupted.
    """
    _submit([Job(job_id, command, root, status_root)], ("queued", "running"), on_progress)


def resume(root: Path, run_id: str, on_progress: OnProgress = no_progress) -> str:
    """Queue a run again; its finished stages are not repeated.

    A finished run is measured again, and its record counts until the new one is written.

    Raises:
        BadInput: The store has no such run, or its student is not smaller than its teacher.
        JobError: Ray does not start or does not answer.
    """
    spec = disk.read_spec(root, run_id)
    size_limits.check_students([spec], root)
    if states.state_of(root, run_id) == "finished":
        disk.request_remeasure(root, run_id)
    _submit_runs([spec], root, ("queued", "running"), on_progress)
    return run_id


def cancel(root: Path, run_id: str) -> None:
    """Ask a run to stop, and return at once.

    A queued run leaves the queue at once. A running one saves a checkpoint and stops by itself;
    if it has not stopped after `states.CANCEL_GRACE_S`, `status_table` has Ray stop it.

    Raises:
        BadInput: The store has no such run.
    """
    trash.check_run_exists(root, run_id)
    request_stop(root, [run_id])


def cancel_all(root: Path) -> list[str]:
    """Ask all queued and running runs to stop, as `cancel` does; returns their ids."""
    listing = states.status_table(root, limit=0)
    run_ids: list[str] = listing.loc[listing["state"].isin(ACTIVE), "run_id"].tolist()
    request_stop(root, run_ids)
    return run_ids


def request_stop(status_root: Path, job_ids: Sequence[str]) -> None:
    """Ask jobs of any kind to stop, as `cancel` does with a run.

    All are asked before any stops, so that none starts in the place of one that has stopped.
    """
    # Before anything else: a job that Ray starts while we stop it looks for this request.
    for job_id in job_ids:
        disk.request_cancel(status_root, job_id)
    state_by_id = states.states_of(status_root, job_ids)
    # No queue that we can ask has these; an earlier result must not hide that they wait.
    state_by_id |= dict.fromkeys(states.waiting_elsewhere(status_root, job_ids), "queued")
    for job_id in job_ids:
        if state_by_id.get(job_id) not in ("queued", "running", "cancelled"):
            disk.withdraw_cancel(status_root, job_id)
    queued = [job_id for job_id in job_ids if state_by_id.get(job_id) == "queued"]
    states.stop_jobs(status_root, queued)
    for job_id in queued:
        disk.withdraw_remeasure(status_root, job_id)
        write_status(status_root, job_id, "cancelled", error="Cancelled before it started.")


def delete(root: Path, run_ids: list[str]) -> list[trash.DeletedRun]:
    """Move runs into the store's trash; `trash.restore` takes them back.

    Raises:
        BadInput: A run does not exist, is queued or is running; then none is deleted.
    """
    for run_id in run_ids:
        trash.check_run_exists(root, run_id)
        state = states.state_of(root, run_id)
        if state in ACTIVE:
            raise BadInput(
                f"{run_id} is {state}. Cancel it first (explorer cancel {run_id}), then delete it."
            )
    return [trash.delete(root, run_id) for run_id in dict.fromkeys(run_ids)]


def run_command(run_id: str) -> list[str]:
    """The command of a run's job; its environment names the store and the cache.

    `--queued` obeys a request to stop that came while the run waited. A run started by hand
    withdraws such a request.
    """
    return [sys.executable, "-m", "explorer", "run", "--queued", run_id]


def _submit_runs(
    specs: list[RunSpec], root: Path, keep: tuple[str, ...], on_progress: OnProgress
) -> None:
    for spec in specs:
        _refuse_numbered_gpu(spec)
    size_limits.check_students(specs, root)
    teachers_first = sorted(specs, key=lambda spec: not spec.is_teacher)
    jobs = [Job(spec.run_id, run_command(spec.run_id), root, root, spec) for spec in teachers_first]
    _submit(jobs, keep, on_progress)


def _submit(jobs: list[Job], keep: tuple[str, ...], on_progress: OnProgress) -> None:
    """Save every job's state, then submit them to Ray, so that a crash in between loses none.

    Jobs whose state is in `keep` are left alone.
    """
    with submit_lock.submitting(functools.partial(on_progress, WAITING, 0, len(jobs))):
        on_progress(SAVING, 0, len(jobs))
        waiting = [job for job in jobs if not _is_kept(job, keep)]
        before = {job.id: disk.read_status(job.status_root, job.id) for job in waiting}
        client = None
        for job in waiting:
            if job.spec:
                disk.open_run(job.root, job.spec)
            disk.withdraw_cancel(job.status_root, job.id)
            write_status(job.status_root, job.id, "queued")
        try:
            total = len(waiting)
            on_start = functools.partial(on_progress, ray_head.STARTING, 0, total)
            client = ray_head.connect(start=True, on_start=on_start) if waiting else None
            while waiting and client:
                _submit_to_ray(client, waiting[0])
                waiting.pop(0)
                done = total - len(waiting)
                on_progress(f"Submitted {done} of {total}", done, total)
            cluster = ray_head.cluster_address()
            if client and cluster:
                for root in {job.root for job in jobs if job.spec}:
                    _ensure_dispatcher(client, root, cluster)
        except ExplorerError as error:
            for job in waiting:
                root, earlier = job.status_root, before[job.id]
                if client is None and (earlier or disk.is_finished(root, job.id)):
                    disk.restore_status(root, job.id, earlier)  # nothing was submitted
                    disk.withdraw_remeasure(root, job.id)
                else:  # Ray may have accepted the job and only its answer was lost.
                    write_status(job.status_root, job.id, "queued", error=str(error))
            raise


def _is_kept(job: Job, keep: tuple[str, ...]) -> bool:
    """Whether a job's state says to leave it alone."""
    state = states.state_of(job.status_root, job.id, submitting=False)
    again = state == "finished" and disk.remeasure_requested(job.status_root, job.id)
    return state in keep and not again


def _submit_to_ray(client: "Client", job: Job) -> None:
    """Submit a job, or let a run of a cluster wait for the dispatcher to do so."""
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ} | {
        "EXPLORER_RESULTS": str(job.root.resolve()),
        "EXPLORER_CACHE": str(paths.cache_dir().resolve()),
        "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
    }
    cluster = ray_head.cluster_address()
    if "EXPLORER_CONFIG" in os.environ or not cluster:
        # A machine of a cluster has its own configuration, unless one is named.
        environment["EXPLORER_CONFIG"] = str(paths.config_file().resolve())
    command = f"cd {shlex.quote(_working_folder())} && exec {shlex.join(job.command)}"
    if "OMP_NUM_THREADS" not in environment:
        # Ray sets it to the reserved CPUs, and latency would differ from a foreground run.
        command = f"unset OMP_NUM_THREADS; {command}"
    num_cpus, num_gpus = 0, 0
    if job.spec:
        num_cpus, num_gpus = _resources(job.spec, ray_head.nodes_of(client))
    else:
        # Ray sets a job's RAY_ADDRESS to itself, which would hide our address and its token.
        where = f"export RAY_ADDRESS={shlex.quote(cluster)}" if cluster else "unset RAY_ADDRESS"
        command = f"{where}; {command}"
    if cluster and job.spec:
        line = ClusterQueue(job.root, cluster)
        with line.locked():
            line.add(Entry(job.id, 0, command, environment, num_cpus, num_gpus))
        return
    submission_id = f"{job.id}-{secrets.token_hex(4)}"
    if job.id == cluster_queue.DISPATCHER and cluster:
        ClusterQueue(job.root, cluster).dispatcher = submission_id
    with ray_head.ray_errors_in_words():
        client.submit_when_ready(
            entrypoint=command,
            submission_id=submission_id,
            metadata=metadata(job.id, job.status_root),
            runtime_env={"env_vars": environment},
            entrypoint_num_cpus=num_cpus,
            entrypoint_num_gpus=num_gpus,
        )


def _ensure_dispatcher(client: "Client", root: Path, cluster: str) -> None:
    """See that a job of the cluster looks after the runs that wait for room."""
    line = ClusterQueue(root, cluster)
    with line.locked():
        with ray_head.ray_errors_in_words():
            living = client.active_jobs()
        if line.entries() and line.dispatcher not in living:
            command = [sys.executable, "-m", "explorer", "jobs", "--dispatch"]
            _submit_to_ray(client, Job(cluster_queue.DISPATCHER, command, root, root))


def metadata(job_id: str, status_root: Path) -> dict[str, str]:
    """What tells a job of ours in Ray's list."""
    return {"run_id": job_id, "results": str(status_root.resolve())}


def _working_folder() -> str:
    """The working folder of a job: ours.

    Raises:
        JobError: It was deleted while we ran.
    """
    try:
        return os.getcwd()
    except OSError as error:
        raise JobError(
            "The folder this program was started in no longer exists, so relative paths in a spec "
            "cannot be resolved. Start the program again from an existing folder."
        ) from error


def _resources(spec: RunSpec, nodes: list[dict[str, float]]) -> tuple[int, int]:
    """CPUs and GPUs a job reserves, so that it has its device to itself.

    Raises:
        BadInput: The spec names a GPU and no node has one.
    """
    with_gpu = [node for node in nodes if node.get("GPU")]
    if spec.device not in ("auto", "cpu") and not with_gpu:
        raise BadInput(
            f"{spec.run_id} requires device {spec.device}, but no machine of the queue has a GPU. "
            "Write device: auto or device: cpu."
        )
    if with_gpu and spec.device != "cpu":
        most = int(max(node["GPU"] for node in with_gpu))
        if spec.num_devices > most:
            raise BadInput(
                f"{spec.run_id} asks for num_devices {spec.num_devices}, but the machine of the "
                f"queue with the most GPUs has {most}. Write num_devices: {most}."
            )
        share = min(node.get("CPU", 0) // node["GPU"] for node in with_gpu)
        return int(share) * spec.num_devices, spec.num_devices
    num_cpus = int(max(node.get("CPU", 0) for node in nodes))
    if spec.threads and spec.latency is None:
        return min(spec.threads, num_cpus), 0
    return num_cpus, 0


def _refuse_numbered_gpu(spec: RunSpec) -> None:
    kind, _, number = spec.device.partition(":")
    if number not in ("", "0"):
        raise BadInput(
            f"{spec.run_id} requires device {spec.device}, but the queue chooses the GPU of each "
            f"run, which sees it as {kind}:0. Write device: {kind}, or use `explorer run`."
        )


def write_status(status_root: Path, run_id: str, state: str, **more: Any) -> None:
    """Write the status of a job that no process of its own writes now."""
    now = time.time()
    status = {"run_id": run_id, "state": state, "updated_at": now, "host": socket.gethostname()}
    if state == "queued":
        number = submit_lock.latest_submission()
        status |= {"queued_at": now, "submission": number, "queue": ray_head.queue_id()}
    disk.write_status(status_root, run_id, {**status, **more})
