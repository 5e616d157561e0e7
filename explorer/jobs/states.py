"""What became of every run: its own words first, Ray where they cannot know.

A run says in status.json what it does; a killed one cannot say that it died. A running
state is therefore believed only while its process lives (on this host) or its words are
fresh (elsewhere), and a queued one only while Ray has its job. Otherwise the run is
`interrupted`. We never write that down: it is found out again at each look, so a cluster
that comes back needs no repair.
"""

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import psutil

from explorer.errors import JobError
from explorer.jobs import ray_head
from explorer.store import disk

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

HEARTBEAT_S = 120.0
"""A run on another host that has said nothing for so long is asked for at Ray."""
CANCEL_GRACE_S = 30.0
"""What a running run gets to stop by itself before Ray stops it."""
ACTIVE = ("running", "queued")
STATES = (*ACTIVE, "finished", "failed", "cancelled", "interrupted")
COLUMNS = [
    "run_id",
    "name",
    "state",
    "stage",
    "done",
    "total",
    "unit",
    "seconds_left",
    "loss",
    "losses",
    "tokens_per_s",
    "busy",
    "updated_at",
    "error",
    "cancel_requested",
]
KILLED = (
    "The run's process is gone: it was killed, or the machine was restarted. "
    "Resume continues where it stopped."
)
LOST = "The queue has lost the run, most likely with its Ray head. Resume queues it again."

StatusRow = dict[str, Any]

_heard: dict[str, tuple[tuple[int, int], StatusRow]] = {}
"""Path of a file to its stamp and what it said, so that only changed files are read."""


def status_table(root: Path) -> pd.DataFrame:
    """A row a run that has a status or a record: running, queued in order, then latest first.

    States: running, queued, finished, failed, cancelled, interrupted. `updated_at` is in
    seconds since 1970; what is unknown is missing. A run that has been asked to stop and
    has not done so in `CANCEL_GRACE_S` is stopped through Ray.

    Cheap enough to call every second: unchanged files are not read again, and Ray is asked
    only where files cannot tell.
    """
    rows = _rows(root, disk.run_ids(root))
    rows.sort(key=_place)
    return pd.DataFrame(rows, columns=COLUMNS)


def state_of(root: Path, run_id: str, *, submitting: bool | None = None) -> str | None:
    """The state of one run; None when it has neither a status nor a record.

    Args:
        root: The store.
        run_id: The run.
        submitting: Whether a queued run's job may still be on its way to Ray. None finds out;
            who holds the lock of submission says False, since before it all have arrived.
    """
    row = status_row(root, run_id, submitting=submitting)
    return str(row["state"]) if row else None


def status_row(root: Path, run_id: str, *, submitting: bool | None = None) -> StatusRow | None:
    """The row of one run in `listing`; None when it has neither a status nor a record."""
    rows = _rows(root, [run_id], submitting)
    return rows[0] if rows else None


def wait_until_done(
    root: Path,
    run_ids: list[str],
    timeout_s: float,
    look: Callable[[dict[str, str]], None] = lambda states: None,
) -> dict[str, str]:
    """Block until none of the runs is queued or running; return their states.

    Args:
        root: The store.
        run_ids: The runs.
        timeout_s: How long at most; `math.inf` waits for ever.
        look: Called twice a second with their states; what it raises ends the waiting.

    Raises:
        JobError: They are not done in time. They go on.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        found = {row["run_id"]: row["state"] for row in _rows(root, run_ids)}
        left = [run_id for run_id in run_ids if found.get(run_id) in ACTIVE]
        if not left:
            return found
        look(found)
        if time.monotonic() > deadline:
            raise JobError(f"Not done after {timeout_s:.0f} s, but going on: {', '.join(left)}.")
        time.sleep(0.5)


def stop_jobs(root: Path, run_ids: list[str]) -> None:
    """Have Ray stop these runs' jobs, where it has any and answers."""
    jobs, _ = _jobs(root)
    with suppress(JobError):
        client = ray_head.connect()
        for run_id in run_ids:
            job = jobs.get(run_id)
            if client and job and not job.status.is_terminal():
                with ray_head.ray_errors_in_words():
                    client.stop_job(str(job.submission_id))


def log_tail(root: Path, run_id: str, num_lines: int = 200) -> str:
    """The last lines of a run's log; of Ray's log of its job when it never began its own."""
    path = disk.run_folder(root, run_id) / disk.LOG
    if path.is_file():
        return "\n".join(_last_lines(path, num_lines))
    with suppress(JobError):
        client = ray_head.connect()
        if client:
            with ray_head.ray_errors_in_words():
                job = client.jobs_of(root.resolve()).get(run_id)
                said = client.get_job_logs(str(job.submission_id)) if job else ""
            return "\n".join(said.splitlines()[-num_lines:])
    return ""


def _rows(root: Path, run_ids: list[str], submitting: bool | None = None) -> list[StatusRow]:
    said = {run_id: words for run_id in run_ids if (words := _words(root, run_id))}
    active = {run_id: words for run_id, words in said.items() if words["state"] in ACTIVE}
    queued = {run_id: words for run_id, words in active.items() if words["state"] == "queued"}
    # In this order: whatever is queued and not being submitted has its job in the list.
    since = ray_head.submitting_since() if queued and submitting is None else None
    on_their_way = {
        run_id
        for run_id, words in queued.items()
        if since is not None and words["updated_at"] >= since
    }
    lost = {
        run_id
        for run_id, words in queued.items()
        if run_id not in on_their_way and ray_head.began_after(words["updated_at"])
    }
    # A head that is starting takes seconds to answer: it is asked only what it can know.
    for_ray = [
        run_id
        for run_id, words in active.items()
        if _only_ray_knows(words) and run_id not in on_their_way | lost
    ]
    jobs, silence = _jobs(root) if for_ray else ({}, None)
    for run_id, words in active.items():
        job = jobs.get(run_id)
        unknown = run_id in queued and run_id not in lost and job is None and silence
        if run_id in on_their_way or unknown:
            said[run_id] = {**words, "error": silence}
        else:
            said[run_id] = _settled(root, run_id, words, job)
    said = {run_id: _with_result(root, run_id, words) for run_id, words in said.items()}
    stubborn = [run_id for run_id, words in said.items() if _stubborn(root, run_id, words)]
    if stubborn:
        stop_jobs(root, stubborn)
    return list(said.values())


def _words(root: Path, run_id: str) -> StatusRow | None:
    """What a run said last, in its status or else in its record, as a row."""
    folder = f"{root}/{run_id}/"
    words = _read(folder + disk.STATUS, _from_status)
    if words and (words["state"] != "failed" or words["error"]):
        return words
    return _read(folder + disk.RECORD, _from_record) or words


def _with_result(root: Path, run_id: str, words: StatusRow) -> StatusRow:
    """A run whose last attempt ended without a result has its earlier one, if there is one."""
    if words["state"] not in ("failed", "cancelled"):
        return words
    record = _read(f"{root}/{run_id}/{disk.RECORD}", _from_record)
    if record is None or record["state"] != "finished":
        return words
    if record["updated_at"] > words["updated_at"]:
        return record
    ended = "failed" if words["state"] == "failed" else "was cancelled"
    why = f": {words['error']}".rstrip(".") if words["error"] else ""
    return {**record, "error": f"Measuring it again {ended}{why}. The earlier result counts."}


def _read(path: str, row: Any) -> StatusRow | None:
    """A file's row, read again only when the file has changed; None when it holds none."""
    try:
        stat = os.stat(path)
        stamp = (stat.st_mtime_ns, stat.st_ino)
        heard = _heard.get(path)
        if heard and heard[0] == stamp:
            return heard[1]
        with open(path, encoding="utf-8") as file:
            words: StatusRow = row(json.load(file), path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    _heard[path] = (stamp, words)
    return words


def _from_status(status: StatusRow, path: str) -> StatusRow:
    row: StatusRow = {name: status.get(name) for name in COLUMNS}
    run_id = path.split("/")[-2]
    row |= {"run_id": run_id, "name": run_id.rpartition("-")[0], "cancel_requested": False}
    row |= {name: status.get(name) for name in ("pid", "host")}
    row |= {name: float(status.get(name) or 0) for name in ("updated_at", "queued_at")}
    if row["state"] not in STATES:
        raise ValueError(f"{path} names no state")
    return row


def _from_record(record: StatusRow, path: str) -> StatusRow:
    error = record.get("error") or {}
    status = {
        "state": record["status"],
        "updated_at": datetime.fromisoformat(record["finished_at"]).timestamp(),
        "error": error.get("message"),
    }
    return _from_status(status, path)


def _only_ray_knows(words: StatusRow) -> bool:
    if words["state"] == "queued":
        return True
    return bool(words["host"] != socket.gethostname()) and not _fresh(words)


def _jobs(root: Path) -> "tuple[dict[str, JobDetails], str | None]":
    """Ray's latest job of each run, and what keeps Ray from answering.

    A head that is gone has no jobs; one that is only busy may have them.
    """
    try:
        client = ray_head.connect()
        if client is None:
            return {}, None
        with ray_head.ray_errors_in_words():
            return client.jobs_of(root.resolve()), None
    except JobError as error:
        return {}, str(error)


def _settled(root: Path, run_id: str, words: StatusRow, job: "JobDetails | None") -> StatusRow:
    """The row of a run that calls itself queued or running, corrected where it cannot know."""
    asked_to_stop = disk.cancel_requested(root, run_id)
    words = {**words, "cancel_requested": asked_to_stop}
    job_state = job.status.value if job else None
    if words["state"] == "queued":
        elsewhere = words["host"] != socket.gethostname() and _fresh(words)
        if job_state == "PENDING" or (job is None and elsewhere):
            return words
        if job_state == "RUNNING":
            return {**words, "state": "running", "stage": "start"}
    elif words["host"] == socket.gethostname():
        if _lives(words):
            return words
    elif _fresh(words) or job_state == "RUNNING":
        return words
    # It may have ended in good order since we read its words.
    latest = _words(root, run_id)
    if latest and (latest["state"] not in ACTIVE or latest["state"] != words["state"]):
        return latest
    recorded = _read(f"{root}/{run_id}/{disk.RECORD}", _from_record)
    if recorded and recorded["updated_at"] >= words["updated_at"]:
        return recorded
    if asked_to_stop:
        return {**words, "state": "cancelled"}
    why = KILLED if words["state"] == "running" else words["error"] or LOST
    if job and job_state == "FAILED" and job.message:
        why = f"The job failed before the run could say why: {job.message.strip()[-300:]}"
    return {**words, "state": "interrupted", "error": why}


def _fresh(words: StatusRow) -> bool:
    return time.time() - float(words["updated_at"]) < HEARTBEAT_S


def _lives(words: StatusRow) -> bool:
    """Whether the process that wrote these words, on this host, still lives."""
    try:
        process = psutil.Process(int(words["pid"]))
        # Another process may have got the number since; it then began after the last words.
        began_before = process.create_time() <= float(words["updated_at"]) + 1
        return bool(began_before and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, TypeError, ValueError):
        return False


def _stubborn(root: Path, run_id: str, words: StatusRow) -> bool:
    if words["state"] != "running" or not words["cancel_requested"]:
        return False
    with suppress(OSError):
        asked_at = (disk.run_folder(root, run_id) / disk.CANCEL).stat().st_mtime
        return time.time() - asked_at > CANCEL_GRACE_S
    return False


def _place(row: StatusRow) -> tuple[int, float]:
    """Running first, then the queue in its order, then the rest, the latest first."""
    if row["state"] == "queued":
        return 1, float(row["queued_at"])
    return (0 if row["state"] == "running" else 2), -float(row["updated_at"])


def _last_lines(path: Path, num_lines: int) -> list[str]:
    """Read a file from its end, block by block, until there are enough lines."""
    block_bytes, tail = 65_536, b""
    with path.open("rb") as file:
        start = file.seek(0, os.SEEK_END)
        while start > 0 and tail.count(b"\n") <= num_lines:
            size = min(block_bytes, start)
            start -= size
            file.seek(start)
            tail = file.read(size) + tail
    return tail.decode("utf-8", errors="replace").splitlines()[-num_lines:]
