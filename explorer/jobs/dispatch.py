"""Submits waiting runs to a cluster when it has room, and queues the runs of a lost machine again.

One job of the cluster does this for a store: `python -m explorer jobs --dispatch`. It reserves
nothing, so Ray runs it on the head, and it ends when no run is left. It takes runs in their order.
What other people run on the cluster it can't see, so a job that Ray has not started after
`WITHDRAW_S` is taken back and waits here, below the 15 minutes after which Ray fails it.
"""

import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.errors import BadInput, ExplorerError
from explorer.index.run_states import read_status_row
from explorer.jobs import queue, ray_head
from explorer.jobs.cluster_queue import ClusterQueue, Entry
from explorer.store import disk

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

    from explorer.jobs.ray_client import Client

log = logging.getLogger("explorer")

LOOK_EVERY_S = 2.0
WITHDRAW_S = 600.0
"""Time that Ray has to start a job before it waits here again."""
RETRY_S = 30.0
"""Pause after a job was taken back."""
NODE_DEATH_S = 90.0
"""Time that Ray may take to notice that a lost job's machine is gone."""
UNREACHABLE_S = 900.0
MOST_LOSSES = 1
"""How often a run is queued again by itself."""
WATCHER_DIED = ("JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE")
NOT_STARTED = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"


class Dispatcher:
    """Looks after the entries of one store."""

    def __init__(self, line: ClusterQueue, client: "Client") -> None:
        """Start without any knowledge but the entries."""
        self.line, self.client = line, client
        self._pending_since: dict[str, float] = {}
        self._failed_since: dict[str, float] = {}
        self._retry_at: dict[tuple[int, int], float] = {}

    def step(self) -> None:
        """Look once: forget what has ended, queue again what was lost, submit what has room.

        Raises:
            JobError: Ray does not answer.
        """
        with ray_head.ray_errors_in_words():
            jobs = {str(job.submission_id): job for job in self.client.list_jobs()}
            nodes = self.client.all_nodes()
        busy: list[Entry] = []
        for entry in self.line.entries():
            job = jobs.get(entry.submission_id or "")
            if job is not None and not self._has_left(entry, job, nodes):
                busy.append(entry)
        for entry in self.line.entries():
            if entry.submission_id in jobs and entry.submission_id is not None:
                continue
            if disk.cancel_requested(self.line.root, entry.run_id):
                self.line.remove(entry)
            elif self._has_room(entry, busy, nodes):
                busy.append(self._submit(entry))

    def _has_left(
        self, entry: Entry, job: "JobDetails", nodes: Mapping[str, Mapping[str, Any]]
    ) -> bool:
        """Whether a submitted run no longer takes room; a lost one waits again."""
        now, key = time.monotonic(), str(entry.submission_id)
        status = job.status.value
        if status == "RUNNING":
            self._pending_since.pop(key, None)
            return False
        if status == "PENDING":
            if now - self._pending_since.setdefault(key, now) < WITHDRAW_S:
                return False
            self._withdraw(entry)
            return True
        if status == "FAILED" and job.error_type == NOT_STARTED:
            self._wait_again(entry)
            return True
        if status == "FAILED" and job.error_type in WATCHER_DIED and self._is_active(entry):
            node = nodes.get(job.driver_node_id or "", {})
            if node.get("state") != "ALIVE":
                self._lost(entry, str(node.get("node_ip") or node.get("node_name") or "unknown"))
                return True
            if now - self._failed_since.setdefault(key, now) < NODE_DEATH_S:
                return False
        self.line.remove(entry)
        return True

    def _is_active(self, entry: Entry) -> bool:
        """Whether the run's own last word is that it runs, and nobody wants it to stop."""
        row = read_status_row(self.line.root / entry.run_id)
        cancelled = disk.cancel_requested(self.line.root, entry.run_id)
        return row is not None and row["state"] in ("queued", "running") and not cancelled

    def _withdraw(self, entry: Entry) -> None:
        """Take a job back that Ray has no room for; if it began just now, it stops and waits."""
        with ray_head.ray_errors_in_words():
            self.client.stop_job(str(entry.submission_id))
        log.info("%s is taken back: the cluster had no room for it.", entry.run_id)
        self._wait_again(entry)

    def _wait_again(self, entry: Entry) -> None:
        self._retry_at[_shape(entry)] = time.monotonic() + RETRY_S
        self.line.write(replace(entry, submission_id=None))

    def _lost(self, entry: Entry, machine: str) -> None:
        """Queue the run of a lost machine again, the first time; then leave it to people."""
        lost_on = [*entry.lost_on, machine]
        if len(lost_on) > MOST_LOSSES:
            message = (
                f"{len(lost_on)} machines were lost while they did this run: "
                f"{' and '.join(lost_on)}. Look at them, then resume the run."
            )
            queue.write_status(self.line.root, entry.run_id, "interrupted", error=message)
            self.line.remove(entry)
        else:
            message = (
                f"The machine {machine} was lost during this run. It was queued again and "
                "continues from its checkpoint."
            )
            queue.write_status(self.line.root, entry.run_id, "queued", note=message)
            self.line.write(replace(entry, submission_id=None, lost_on=lost_on))
        log.warning("%s: %s", entry.run_id, message)

    def _has_room(
        self, entry: Entry, busy: list[Entry], nodes: Mapping[str, Mapping[str, Any]]
    ) -> bool:
        """Whether the cluster could start one more such run beside ours."""
        if time.monotonic() < self._retry_at.get(_shape(entry), 0.0):
            return False
        alive = [node["resources_total"] for node in nodes.values() if node["state"] == "ALIVE"]
        num_slots = sum(_slots(entry, node) for node in alive)
        if sum(_shape(other) == _shape(entry) for other in busy) >= num_slots:
            return False
        left = {
            kind: sum(node.get(kind, 0) for node in alive)
            - sum(_needs(other)[kind] for other in busy)
            for kind in ("CPU", "GPU")
        }
        return all(left[kind] >= needed for kind, needed in _needs(entry).items())

    def _submit(self, entry: Entry) -> Entry:
        submission_id = f"{entry.run_id}-{secrets.token_hex(4)}"
        submitted = replace(entry, submission_id=submission_id)
        # Before Ray has it: should we die now, the next dispatcher makes no second job.
        self.line.write(submitted)
        with ray_head.ray_errors_in_words():
            self.client.submit_when_ready(
                entrypoint=entry.entrypoint,
                submission_id=submission_id,
                metadata=queue.metadata(entry.run_id, self.line.root),
                runtime_env={"env_vars": entry.env_vars},
                entrypoint_num_cpus=entry.num_cpus,
                entrypoint_num_gpus=entry.num_gpus,
            )
        return submitted


def run(line: ClusterQueue, client: "Client") -> None:
    """Dispatch until no run is left, or the cluster has not answered for `UNREACHABLE_S`.

    Raises:
        JobError: The cluster does not answer any more.
    """
    dispatcher = Dispatcher(line, client)
    reached_at = time.monotonic()
    while True:
        try:
            dispatcher.step()
            reached_at = time.monotonic()
        except ExplorerError as error:
            log.warning("%s", error)
            if time.monotonic() - reached_at > UNREACHABLE_S:
                raise
        with line.locked():
            if not line.entries():
                line.dispatcher = None
                return
        time.sleep(LOOK_EVERY_S)


def run_here(root: Path) -> None:
    """Dispatch the runs of a store to the cluster that RAY_ADDRESS names.

    Raises:
        BadInput: It names none.
        JobError: The cluster does not answer.
    """
    cluster = ray_head.cluster_address()
    client = ray_head.connect() if cluster else None
    if cluster is None or client is None:
        raise BadInput("RAY_ADDRESS names no cluster, and this machine's own queue needs no help.")
    run(ClusterQueue(root, cluster), client)


def _shape(entry: Entry) -> tuple[int, int]:
    return entry.num_cpus, entry.num_gpus


def _needs(entry: Entry) -> dict[str, int]:
    return {"CPU": entry.num_cpus, "GPU": entry.num_gpus}


def _slots(entry: Entry, node: Mapping[str, float]) -> int:
    """How many such runs an empty node has room for."""
    fits = [node.get(kind, 0) // needed for kind, needed in _needs(entry).items() if needed]
    return int(min(fits)) if fits else 1
