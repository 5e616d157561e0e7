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

StatusRow = dict[str, Any]


def read_state(root: Path, run_id: str) -> StatusRow | None:
    """A run's row as its status file has it, or else its record; None when it has neither."""
    folder = root / run_id
    row = read_status_row(folder)
    if row is None or (row["state"] == "failed" and not row["error"]):
        row = read_record_row(folder) or row
    return None if row is None else with_earlier_result(row, folder)


def with_earlier_result(row: StatusRow, folder: Path) -> StatusRow:
    """A finished run is finished still when measuring it again failed or was cancelled.

    Args:
        row: The last attempt.
        folder: The run's; its record is read where the attempt has no result.
    """
    if row["state"] not in ("failed", "cancelled"):
        return row
    record = read_record_row(folder)
    if record is None or record["state"] != "finished":
        return row
    if record["updated_at"] > row["updated_at"]:
        return record
    outcome = "failed" if row["state"] == "failed" else "was cancelled"
    reason = f": {row['error']}".rstrip(".") if row["error"] else ""
    return {
        **record,
        "error": f"Measuring it again {outcome}{reason}. The earlier result still counts.",
    }


def read_status_row(folder: Path) -> StatusRow | None:
    """The row of a run's `status.json`; None where it is missing or damaged."""
    return _read(folder / disk.STATUS, status_row)


def read_record_row(folder: Path) -> StatusRow | None:
    """The row of a run's `record.json`; None where it is missing or damaged."""
    return _read(folder / disk.RECORD, record_row)


def _read(path: Path, row: Any) -> StatusRow | None:
    try:
        parsed: StatusRow = row(json.loads(path.read_text(encoding="utf-8")), path.parent.name)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return parsed


def status_row(status: StatusRow, run_id: str) -> StatusRow:
    """The row of a parsed `status.json`.

    Raises:
        ValueError: It names no state.
    """
    row: StatusRow = {name: status.get(name) for name in COLUMNS}
    row |= {"run_id": run_id, "name": run_id.rpartition("-")[0], "cancel_requested": False}
    row |= {name: status.get(name) for name in ("pid", "host")}
    queued_at = status.get("queued_at")
    row["queued_at"] = None if queued_at is None else float(queued_at)
    # A status without a time counts as older than any other: its process is not taken for alive,
    # and a record replaces it.
    row["updated_at"] = float(status.get("updated_at") or 0)
    if row["state"] not in STATES:
        raise ValueError(f"The status of {run_id} names no state.")
    return row


def record_row(record: StatusRow, run_id: str) -> StatusRow:
    """The row of a parsed `record.json`."""
    error = record.get("error") or {}
    status = {
        "state": record["status"],
        "updated_at": datetime.fromisoformat(record["finished_at"]).timestamp(),
        "error": error.get("message"),
    }
    return status_row(status, run_id)
