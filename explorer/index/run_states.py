"""What a run's status.json and record.json say of its state, as a row of the queue.

Their words alone: whether a run that calls itself running still lives, `jobs.states` finds out.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from explorer.store import disk

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

StateRow = dict[str, Any]


def read_state(root: Path, run_id: str) -> StateRow | None:
    """What a run said last, in its status or else in its record; None when it has neither.

    A run whose last attempt ended without a result has its earlier one, if there is one.
    """
    folder = root / run_id
    status, record = read_status_row(folder), None
    if status is None or status["state"] in ("failed", "cancelled"):
        record = read_record_row(folder)
    return combined(status, record)


def combined(status: StateRow | None, record: StateRow | None) -> StateRow | None:
    """One row of what a run's status and its record say.

    Args:
        status: Of `status.json`.
        record: Of `record.json`; looked at where the status is missing, failed or cancelled.
    """
    if status is None or (status["state"] == "failed" and not status["error"]):
        row = record or status
    else:
        row = status
    if row is None or row["state"] not in ("failed", "cancelled"):
        return row
    if record is None or record["state"] != "finished":
        return row
    if record["updated_at"] > row["updated_at"]:
        return record
    ended = "failed" if row["state"] == "failed" else "was cancelled"
    why = f": {row['error']}".rstrip(".") if row["error"] else ""
    return {**record, "error": f"Measuring it again {ended}{why}. The earlier result counts."}


def read_status_row(folder: Path) -> StateRow | None:
    """The row of a run's `status.json`; None where it is missing or damaged."""
    return _read(folder / disk.STATUS, status_row)


def read_record_row(folder: Path) -> StateRow | None:
    """The row of a run's `record.json`; None where it is missing or damaged."""
    return _read(folder / disk.RECORD, record_row)


def _read(path: Path, row: Any) -> StateRow | None:
    try:
        parsed: StateRow = row(json.loads(path.read_text(encoding="utf-8")), path.parent.name)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return parsed


def status_row(status: StateRow, run_id: str) -> StateRow:
    """The row of a parsed `status.json`.

    Raises:
        ValueError: It names no state.
    """
    row: StateRow = dict.fromkeys(COLUMNS) | {n: status[n] for n in COLUMNS if n in status}
    row |= {"run_id": run_id, "name": run_id.rpartition("-")[0], "cancel_requested": False}
    row |= {name: status.get(name) for name in ("pid", "host")}
    row |= {name: float(status.get(name) or 0) for name in ("updated_at", "queued_at")}
    if row["state"] not in STATES:
        raise ValueError(f"The status of {run_id} names no state.")
    return row


def record_row(record: StateRow, run_id: str) -> StateRow:
    """The row of a parsed `record.json`."""
    error = record.get("error") or {}
    status = {
        "state": record["status"],
        "updated_at": datetime.fromisoformat(record["finished_at"]).timestamp(),
        "error": error.get("message"),
    }
    return status_row(status, run_id)
