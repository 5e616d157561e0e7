"""How a long stage reports its progress, and hears that it should stop.

One `Progress` per run. A stage calls it with (stage, done, total). It rewrites status.json at most
twice a second, and raises if the run was requested to stop.
"""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from explorer.errors import NoRoom, RunCancelled
from explorer.store import disk, heartbeat

log = logging.getLogger("explorer")

WRITE_EVERY_S = 0.5

Listener = Callable[[dict[str, Any]], None]


class Progress:
    """Live status of one run, on disk and for a listener.

    status.json holds: run_id, state, stage, done, total, unit, seconds, seconds_left, host, pid,
    process (`heartbeat.process_identity`), updated_at (seconds since 1970), the device, and what a
    stage adds (loss, tokens_per_s, busy). A disk that refuses it for a while does not end the run.
    """

    def __init__(self, root: Path, run_id: str, listener: Listener | None = None) -> None:
        """Write the status of a run; `listener` also gets every update."""
        self.root, self.run_id = root, run_id
        self._listener = listener
        self._stage, self._stage_began, self._stage_first_done = "", 0.0, 0.0
        self._last_write = 0.0
        self.stop_reason: str | None = None
        """Set by a signal handler; the next update then raises."""
        self.is_stopping = False
        """Whether the stage has heard that it should stop."""
        self.writes = True
        """Whether the status is this process's to write; not while another one does the run."""
        waited = disk.read_status(root, run_id) or {}
        self.note = waited.get("note") if waited.get("state") == "queued" else None
        """What the queue says about this run, such as that its first machine was lost."""
        self.device: str | None = None
        """Which of the machine's accelerators the run computes on."""
        self._was_written = False
        self._problem: NoRoom | None = None
        """Why the last status could not be written."""

    def __call__(
        self, stage: str, done: float = 0, total: float = 0, unit: str = "", **numbers: Any
    ) -> None:
        """Report `done` of `total`.

        Raises:
            RunCancelled: The run was requested to stop.
            NoRoom: Its very first status could not be written.
        """
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._stage_began, self._stage_first_done = stage, now, done
            self._last_write = 0.0
        self.raise_if_stopped()
        elapsed = now - self._stage_began
        moved = done - self._stage_first_done
        left = elapsed * (total - done) / moved if moved > 0 and elapsed > 1 else None
        status = {
            "run_id": self.run_id,
            "state": "running",
            "stage": stage,
            "done": done,
            "total": total,
            "unit": unit,
            "seconds": round(elapsed, 1),
            "seconds_left": None if left is None else round(left, 1),
            **numbers,
        }
        if self._listener:
            self._listener(status)
        if now - self._last_write >= WRITE_EVERY_S:
            self._last_write = now
            self.write_status(**status)
            if self._problem and not self._was_written:
                # The store is read-only or full, and hours of work would have no place.
                raise self._problem

    def raise_if_stopped(self) -> None:
        """Raise if the run should stop.

        Raises:
            RunCancelled: It was requested, or the process got SIGTERM.
        """
        if reason := self.why_stop():
            self.is_stopping = True
            raise RunCancelled(reason)

    def why_stop(self) -> str | None:
        """Why the run should stop, in a sentence; None if it should not."""
        if self.stop_reason:
            return self.stop_reason
        # A disk that does not answer just now has no request.
        with contextlib.suppress(OSError):
            if disk.cancel_requested(self.root, self.run_id):
                return "Somebody cancelled the run. Resume it to continue."
        return None

    def write_status(self, **status: Any) -> None:
        """Write a status at once; if the disk refuses it, only the log says so."""
        pid = os.getpid()
        origin = {
            "host": socket.gethostname(),
            "pid": pid,
            "process": heartbeat.process_identity(pid),
            "updated_at": time.time(),
            **({"note": self.note} if self.note else {}),
            **({"device": self.device} if self.device else {}),
        }
        if not self.writes:
            return
        problem = None
        try:
            disk.write_status(self.root, self.run_id, {"run_id": self.run_id, **status, **origin})
            self._was_written = True
        except NoRoom as error:
            problem = error
        if problem and not self._problem:
            log.warning("%s The run goes on; pages show its progress once this works.", problem)
        elif self._problem and not problem:
            log.warning("%s can be written again.", disk.STATUS)
        self._problem = problem

    def beat(self) -> None:
        """Let other hosts know that the process lives, between two updates."""
        if self.writes:
            heartbeat.beat(disk.run_folder(self.root, self.run_id) / disk.STATUS)
