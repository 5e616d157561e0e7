"""What a run's status.json and record.json say of its state, as a row of the queue.

Their words alone: whether a run that calls itself running still lives, `jobs.states` finds out.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

from explorer.errors import DamagedStore
from explorer.files import durable_files
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
    "device",
    "updated_at",
    "error",
    "note",
    "cancel_requested",
]
NUMBERS = ("done", "total", "seconds_left", "tokens_per_s", "pid", "queued_at", "submission")
TEXTS = ("stage", "unit", "error", "host", "process", "note", "queue", "device")
LARGEST = 1e15
"""A larger number is not one of ours, and not one that SQLite takes."""
LATEST_S = 1e10
"""A later moment, in seconds since 1970, is not one of a run: the year 2286."""
LONGEST_TEXT, MOST_LOSSES = 10_000, 1_000

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
        parsed: StatusRow = row(durable_files.read_json(path, dict[str, Any]), path.parent.name)
    except (FileNotFoundError, DamagedStore, ValueError, TypeError, KeyError, AttributeError):
        return None
    return parsed


def status_row(status: StatusRow, run_id: str) -> StatusRow:
    """The row of a parsed `status.json`; a value of the wrong kind counts as none.

    Raises:
        ValueError: It names no state.
    """
    row: StatusRow = dict.fromkeys(COLUMNS)
    row |= {"run_id": run_id, "name": run_id.rpartition("-")[0], "cancel_requested": False}
    row |= {name: _number(status.get(name)) for name in NUMBERS}
    row |= {name: _text(status.get(name)) for name in TEXTS}
    losses = status.get("losses")
    losses = losses[-MOST_LOSSES:] if isinstance(losses, list) else [None]
    row["losses"] = losses if losses and None not in map(_finite, losses) else None
    if row["total"] is not None:
        row["done"] = min(row["done"] or 0, row["total"])
    row["loss"] = _finite(status.get("loss"))
    row["busy"] = True if status.get("busy") is True else None
    # A status without a time counts as older than any other: its process is not taken for alive,
    # and a record replaces it.
    row["updated_at"] = min(float(_number(status.get("updated_at")) or 0), LATEST_S)
    row["state"] = status.get("state")
    if row["state"] not in STATES:
        raise ValueError(f"The status of {run_id} names no state.")
    return row


def _number(value: Any) -> float | None:
    """A finite number that is not negative, as it is; everything else is none."""
    number = _finite(value)
    return number if number is not None and number >= 0 else None


def _finite(value: Any) -> float | None:
    """A finite number as it is; everything else is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and abs(value) <= LARGEST else None


def _text(value: Any) -> str | None:
    """The beginning of a text, with whole characters; everything else is none."""
    if not isinstance(value, str):
        return None
    return value[:LONGEST_TEXT].encode("utf-8", "replace").decode()


def record_row(record: StatusRow, run_id: str) -> StatusRow:
    """The row of a parsed `record.json`."""
    error = record.get("error") or {}
    status = {
        "state": record["status"],
        "updated_at": datetime.fromisoformat(record["finished_at"]).timestamp(),
        "error": error.get("message"),
    }
    return status_row(status, run_id)
