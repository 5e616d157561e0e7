"""The state of every run: from its own files, and from Ray where files cannot know.

A run writes its state to status.json, but a killed run cannot write that it died. So a running
state counts only while the process lives (on this host) or the file is recent (on others), and a
queued state only while Ray has the job, or where it waits in a queue that is not ours and whose Ray
we can't ask. Otherwise the run is `interrupted`. That is never stored:
it is derived at each look, so nothing needs repair when a cluster comes back.
"""

import math
import os
import socket
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import psutil

from explorer.errors import JobError
from explorer.index import index_of
from explorer.index.run_states import (
    ACTIVE,
    COLUMNS,
    StatusRow,
    read_record_row,
    read_state,
    with_earlier_result,
)
from explorer.jobs import cluster_queue, ray_head, submit_lock
from explorer.store import disk, heartbeat

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

HEARTBEAT_S = 120.0
"""Ray is asked about a run on another host whose status file is older than this."""
CANCEL_GRACE_S = 30.0
"""Time a running run has to stop by itself before Ray stops it."""
KILLED = (
    "The run's process has ended: it was killed, or the machine was restarted. "
    "Resume continues where it stopped."
)
ELSEWHERE = (
    "It waits in another queue, submitted on {host}. If that queue is gone, cancel the run and "
    "resume it."
)
LOST = "The queue has lost the run, probably when its Ray head ended. Resume queues it again."


def status_table(
    root: Path, *, limit: int | None = None, without: Collection[str] = ()
) -> pd.DataFrame:
    """One row per run with a status or a record: running, queued in order, the rest latest first.

    States: running, queued, finished, failed, cancelled, interrupted. `updated_at` is in
    seconds since 1970; unknown values are missing. Has Ray stop runs that ignored a request to
    stop for `CANCEL_GRACE_S`.

    Cheap enough to call every second: the index holds the rows of runs that have ended, and Ray
    is asked only where files cannot know.

    Args:
        root: The store.
        limit: How many rows at most; None returns all. Active runs are never cut off.
        without: Run ids to leave out unless the run is active.
    """
    index = index_of(root)
    index.update()
    rows = _corrected_rows(root, {row["run_id"]: row for row in index.active_states()})
    rows = [row for row in rows if row["state"] in ACTIVE or row["run_id"] not in without]
    rows += index.ended_states(limit, without=without)
    rows.sort(key=_sort_key)
    if limit is not None:
        rows = rows[: max(limit, sum(row["state"] in ACTIVE for row in rows))]
    return pd.DataFrame(rows, columns=COLUMNS)


def state_of(root: Path, run_id: str, *, submitting: bool | None = None) -> str | None:
    """The state of one run; None if it has neither a status nor a record.

    Args:
        root: The store.
        run_id: The run.
        submitting: Whether a queued run's job may not have reached Ray yet. None finds out;
            the holder of the submission lock passes False, since earlier jobs have arrived.
    """
    row = status_row(root, run_id, submitting=submitting)
    return str(row["state"]) if row else None


def status_row(root: Path, run_id: str, *, submitting: bool | None = None) -> StatusRow | None:
    """The row of one run in `status_table`; None if it has neither a status nor a record."""
    rows = _rows(root, [run_id], submitting)
    return rows[0] if rows else None


def states_of(root: Path, run_ids: Sequence[str]) -> dict[str, str]:
    """The state of each run that has a status or a record, by its id."""
    return {row["run_id"]: row["state"] for row in _rows(root, run_ids)}


def waiting_elsewhere(root: Path, run_ids: Sequence[str]) -> list[str]:
    """Those of the runs whose files say that they wait in a queue that is not ours."""
    rows = {run_id: read_state(root, run_id) for run_id in run_ids}
    return [run_id for run_id, row in rows.items() if row and _waits_elsewhere(row)]


def wait_until_done(
    root: Path,
    run_ids: list[str],
    timeout_s: float,
    on_look: Callable[[dict[str, str]], None] = lambda states: None,
) -> dict[str, str]:
    """Block until none of the runs is queued or running; returns their states by run id.

    Args:
        root: The store.
        run_ids: The runs.
        timeout_s: The longest wait; `math.inf` waits for ever.
        on_look: Called twice a second with their states; an exception from it ends the wait.

    Raises:
        JobError: Some have not ended in time; they continue.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        states = states_of(root, run_ids)
        active = [run_id for run_id in run_ids if states.get(run_id) in ACTIVE]
        if not active:
            return states
        on_look(states)
        if time.monotonic() > deadline:
            raise JobError(
                f"Not finished after {timeout_s:.0f} s, still running: {', '.join(active)}."
            )
        time.sleep(0.5)


def stop_jobs(root: Path, run_ids: Sequence[str]) -> None:
    """Have Ray stop the jobs of these runs, if it has any and answers."""
    jobs, _ = _ray_jobs(root) if run_ids else ({}, None)
    with suppress(JobError):
        client = ray_head.connect() if jobs else None
        for run_id in run_ids:
            job = jobs.get(run_id)
            if client and job and not job.status.is_terminal():
                with ray_head.ray_errors_in_words():
                    client.stop_job(str(job.submission_id))


def log_tail(root: Path, run_id: str, num_lines: int = 200) -> str:
    """The last lines of a run's log, or of its job's log in Ray if the run never started."""
    path = disk.run_folder(root, run_id) / disk.LOG
    # A link could show any file of this machine to whoever opens the page.
    if path.is_file() and not path.is_symlink():
        return "\n".join(_last_lines(path, num_lines))
    with suppress(JobError):
        client = ray_head.connect()
        if client:
            with ray_head.ray_errors_in_words():
                job = client.jobs_of(root.resolve()).get(run_id)
                text = client.get_job_logs(str(job.submission_id)) if job else ""
            return "\n".join(text.splitlines()[-num_lines:])
    return ""


def _rows(root: Path, run_ids: Sequence[str], submitting: bool | None = None) -> list[StatusRow]:
    """The rows of these runs, each with its real state; runs without a file have no row."""
    rows = {run_id: row for run_id in run_ids if (row := read_state(root, run_id))}
    return _corrected_rows(root, rows, submitting)


def _corrected_rows(
    root: Path, rows: dict[str, StatusRow], submitting: bool | None = None
) -> list[StatusRow]:
    """Rows as the files have them, the active ones with their real state."""
    active = {run_id: row for run_id, row in rows.items() if row["state"] in ACTIVE}
    queued = {run_id: row for run_id, row in active.items() if row["state"] == "queued"}
    # Before Ray is asked: a run of an earlier submission has its job in Ray's list, or is lost.
    number = submit_lock.submission_under_way() if queued and submitting is None else None
    being_submitted = {
        run_id
        for run_id, row in queued.items()
        if number is not None and _is_in_our_queue(row) and _submission(row) >= number
    }
    lost = {
        run_id
        for run_id, row in queued.items()
        if run_id not in being_submitted
        and _is_in_our_queue(row)
        and ray_head.began_after(_submission(row))
    }
    # A head that is starting takes seconds to answer, so it is asked only about what it can know.
    entries = _entries(root) if active else set()
    for_ray = [
        run_id
        for run_id, row in active.items()
        if run_id not in being_submitted | lost
        and (_needs_ray(root, run_id, row) or (run_id in entries and not _is_alive(row)))
    ]
    jobs, ray_error = _ray_jobs(root) if for_ray else ({}, None)
    dispatcher = jobs.get(cluster_queue.DISPATCHER)
    if not ray_error and (dispatcher is None or dispatcher.status.is_terminal()):
        entries = set()  # Nobody looks after them.
    for run_id, row in active.items():
        job = jobs.get(run_id)
        is_open = run_id in queued and run_id not in lost and not _waits_elsewhere(row)
        unknown = is_open and job is None and ray_error
        begins = row["state"] == "queued" and job and job.status.value == "RUNNING"
        if run_id in being_submitted or unknown:
            rows[run_id] = {**row, "error": ray_error}
        elif run_id in entries and not begins:
            # It waits for room, or the dispatcher finds out what became of it.
            stops = disk.cancel_requested(root, run_id)
            rows[run_id] = {**row, "cancel_requested": stops}
        else:
            rows[run_id] = with_earlier_result(_corrected(root, run_id, row, job), root / run_id)
    to_stop = [run_id for run_id, row in rows.items() if _ignores_cancel(root, run_id, row)]
    if to_stop:
        stop_jobs(root, to_stop)
    return list(rows.values())


def _is_ours(row: StatusRow) -> bool:
    """Whether this host wrote the row."""
    return bool(row["host"] == socket.gethostname())


def _is_in_our_queue(row: StatusRow) -> bool:
    """Whether our queue on this host wrote a queued row; an older version did not say which."""
    return _is_ours(row) and not _waits_elsewhere(row)


def _waits_elsewhere(row: StatusRow) -> bool:
    """Whether a queued run is in a queue that is not ours, so that we have no job of it."""
    return row["state"] == "queued" and row.get("queue") not in (None, ray_head.queue_id())


def _submission(row: StatusRow) -> int:
    """The number of the submission that queued a run on this host; 0 by an older version."""
    return int(row.get("submission") or 0)


def _needs_ray(root: Path, run_id: str, row: StatusRow) -> bool:
    """Whether only Ray knows the state: of a queued run, or of a silent one on another host."""
    if row["state"] == "queued":
        return True
    return not _is_ours(row) and not _is_recent(root, run_id, row)


def _entries(root: Path) -> set[str]:
    """The runs that wait for room on a cluster or run there; none without a cluster."""
    cluster = ray_head.cluster_address()
    return cluster_queue.ClusterQueue(root, cluster).run_ids() if cluster else set()


def _ray_jobs(root: Path) -> "tuple[dict[str, JobDetails], str | None]":
    """Ray's latest job of each run, and the error if Ray does not answer.

    A head that has ended has no jobs; one that is only busy may have some.
    """
    try:
        client = ray_head.connect()
        if client is None:
            return {}, None
        with ray_head.ray_errors_in_words():
            return client.jobs_of(root.resolve()), None
    except JobError as error:
        return {}, str(error)


def _corrected(root: Path, run_id: str, row: StatusRow, job: "JobDetails | None") -> StatusRow:
    """The row of a queued or running run, corrected by its process and by Ray's job."""
    cancel_requested = disk.cancel_requested(root, run_id)
    row = {**row, "cancel_requested": cancel_requested}
    job_state = job.status.value if job else None
    if row["state"] == "queued":
        elsewhere = not _is_ours(row) and _is_recent(root, run_id, row)
        if job_state == "PENDING" or (job is None and elsewhere):
            return row
        if job_state == "RUNNING":
            return {**row, "state": "running", "stage": "start"}
    elif _is_ours(row):
        if _is_alive(row):
            return row
    elif _is_recent(root, run_id, row) or job_state == "RUNNING":
        return row
    # It may have ended normally since its file was read.
    latest = read_state(root, run_id)
    if latest and (latest["state"] not in ACTIVE or latest["state"] != row["state"]):
        return latest
    record = read_record_row(root / run_id)
    if record and (record["updated_at"] >= row["updated_at"] or _is_written_last(root / run_id)):
        return record
    if cancel_requested:
        return {**row, "state": "cancelled"}
    if _waits_elsewhere(row):
        return {**row, "note": ELSEWHERE.format(host=row["host"])}
    reason = KILLED if row["state"] == "running" else row["error"] or LOST
    if job and job_state == "FAILED" and job.message:
        reason = f"The job failed before the run could report why: {job.message.strip()[-300:]}"
    return {**row, "state": "interrupted", "error": reason}


def _is_recent(root: Path, run_id: str, row: StatusRow) -> bool:
    """Whether a host gave a sign of its run's life in the last `HEARTBEAT_S`."""
    return bool(row["host"]) and heartbeat.is_recent(root, root / run_id / disk.STATUS, HEARTBEAT_S)


def _is_written_last(folder: Path) -> bool:
    """Whether a run's record is younger than its status, by the clock of the disk."""
    with suppress(OSError):
        record, status = (folder / name for name in (disk.RECORD, disk.STATUS))
        return record.stat().st_mtime_ns >= status.stat().st_mtime_ns
    return False


def _is_alive(row: StatusRow) -> bool:
    """Whether the process that wrote this row on this host is still alive."""
    try:
        process = psutil.Process(int(row["pid"]))
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if row.get("process"):
            return bool(heartbeat.process_identity(process.pid) == row["process"])
        # An older version wrote it. Another process may have the number now; it then began later.
        return bool(process.create_time() <= float(row["updated_at"]) + 1)
    except (psutil.Error, TypeError, ValueError):
        return False


def _ignores_cancel(root: Path, run_id: str, row: StatusRow) -> bool:
    """Whether a run has not stopped for `CANCEL_GRACE_S` after a request."""
    if row["state"] != "running" or not row["cancel_requested"]:
        return False
    age_s = heartbeat.age_s(root, disk.run_folder(root, run_id) / disk.CANCEL)
    return CANCEL_GRACE_S < age_s < math.inf


def _sort_key(row: StatusRow) -> tuple[int, float, str]:
    """Running first, by their devices, then the queue in its order, then the latest first.

    Runs that go side by side keep their places, whichever wrote its status last.
    """
    if row["state"] == "running":
        return 0, 0.0, f"{row.get('device') or ''} {row['run_id']}"
    if row["state"] == "queued":
        queued_at = row["updated_at"] if row["queued_at"] is None else row["queued_at"]
        return 1, float(queued_at), ""
    return 2, -float(row["updated_at"]), ""


def _last_lines(path: Path, num_lines: int) -> list[str]:
    """The last lines of a file, read in blocks from its end."""
    block_bytes, tail = 65_536, b""
    with path.open("rb") as file:
        start = file.seek(0, os.SEEK_END)
        while start > 0 and tail.count(b"\n") <= num_lines:
            size = min(block_bytes, start)
            start -= size
            file.seek(start)
            tail = file.read(size) + tail
    return tail.decode("utf-8", errors="replace").splitlines()[-num_lines:]
