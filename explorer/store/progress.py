"""How a long stage reports its progress, and hears that it should stop.

One `Progress` per run. A stage calls it with (stage, done, total). It rewrites status.json at most
twice a second, and raises if the run was requested to stop.
"""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from explorer.errors import RunCancelled
from explorer.store import disk

WRITE_EVERY_S = 0.5

Listener = Callable[[dict[str, Any]], None]


class Progress:
    """Live status of one run, on disk and for a listener.

    status.json holds: run_id, state, stage, done, total, unit, seconds, seconds_left, pid,
    host, updated_at (seconds since 1970), and what a stage adds (loss, tokens_per_s, busy).
    """

    def __init__(self, root: Path, run_id: str, listener: Listener | None = None) -> None:
        """Write the status of a run; `listener` also gets every update."""
        self.root, self.run_id = root, run_id
        self._listener = listener
        self._stage, self._stage_began, self._stage_first_done = "", 0.0, 0.0
        self._last_write = 0.0
        self.stop_reason: str | None = None
        """Set by a signal handler; the next update then raises."""

    def __call__(
        self, stage: str, done: float = 0, total: float = 0, unit: str = "", **numbers: Any
    ) -> None:
        """Report `done` of `total`.

        Raises:
            RunCancelled: The run was requested to stop.
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

    def raise_if_stopped(self) -> None:
        """Raise if the run should stop.

        Raises:
            RunCancelled: It was requested, or the process got SIGTERM.
        """
        if self.stop_reason:
            raise RunCancelled(self.stop_reason)
        if disk.cancel_requested(self.root, self.run_id):
            raise RunCancelled("Somebody cancelled the run. Resume it to continue.")

    def write_status(self, **status: Any) -> None:
        """Write a status at once."""
        origin = {"pid": os.getpid(), "host": socket.gethostname(), "updated_at": time.time()}
        disk.write_status(self.root, self.run_id, {"run_id": self.run_id, **status, **origin})
