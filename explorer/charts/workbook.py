"""A table of runs as a spreadsheet: the numbers, the score of each task, and notes.

Text never becomes a formula or a link, because a run may have any name and its table goes to
other people.
"""

import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from explorer.analysis.cost import unit_cost
from explorer.store import columns

SHARE, DOLLARS, WHOLE, TIME, DATE = "0.0%", "$#,##0.0000", "#,##0", "0.00", "yyyy-mm-dd hh:mm"
SCORE = "0.000"
SHARES = ("retention", "raw_", "utilisation", "busy_", "top1_", "tpot_spread", "sure")
"""Beginnings of the names of columns that hold shares."""
ABOUT = (
    "One row per run. Units end the column names. An empty cell was not measured or cannot "
    "exist; it is never 0."
)


def write_workbook(table: pd.DataFrame) -> bytes:
    """The table as an XLSX file: sheets `table`, `scores` where runs have them, and `notes`."""
    import xlsxwriter  # only for this format

    buffer = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with xlsxwriter.Workbook(buffer, options) as workbook:
        _sheet(workbook, "table", table, {name: number_format(name) for name in table.columns})
        scores = scores_by_task(table)
        if not scores.empty:
            _sheet(workbook, "scores", scores, dict.fromkeys(scores.columns[2:], SCORE))
        _notes(workbook, table)
    return buffer.getvalue()


def number_format(name: str) -> str:
    """The number format of a column; empty for the spreadsheet's own."""
    if name.endswith("_at"):
        return DATE
    if name.endswith("_per_usd"):
        return WHOLE
    if "usd" in name:
        return DOLLARS
    if name.startswith(SHARES):
        return SHARE
    if name.startswith("num_") or name.endswith(("_bytes", "_tokens")):
        return WHOLE
    if name.endswith(("_ms", "_s", "_seconds", "_ratio", "_hours")):
        return TIME
    return ""


def scores_by_task(table: pd.DataFrame) -> pd.DataFrame:
    """`run_id`, `label` and a column per task, for the runs that have `task_scores`."""
    if "task_scores" not in table:
        return pd.DataFrame()
    known = table.dropna(subset=["task_scores"])
    by_run: list[dict[str, float]] = [json.loads(text) for text in known["task_scores"]]
    tasks = sorted({task for row in by_run for task in row})
    scores = pd.DataFrame(by_run, index=known.index, columns=tasks)
    return known[["run_id", "label"]].join(scores)


def _sheet(workbook: Any, title: str, table: pd.DataFrame, formats: Mapping[str, str]) -> None:
    """A sheet with a frozen bold header and a filter."""
    sheet = workbook.add_worksheet(title)
    bold = workbook.add_format({"bold": True, "bottom": 1})
    styles = {text: workbook.add_format({"num_format": text}) for text in {*formats.values()}}
    for place, name in enumerate(table.columns):
        text = formats.get(name, "")
        style = styles[text] if text else None
        sheet.write_string(0, place, str(name), bold)
        for line, cell in enumerate(table[name], start=1):
            _write_cell(sheet, line, place, _as_date(cell) if text == DATE else cell, style)
    sheet.freeze_panes(1, 1)
    if len(table):
        sheet.autofilter(0, 0, len(table), len(table.columns) - 1)
    sheet.autofit()


def _as_date(cell: Any) -> Any:
    """A record's time as a date in UTC, which a spreadsheet can sort; any other cell as it is."""
    if not isinstance(cell, str):
        return cell
    try:
        moment = datetime.fromisoformat(cell)
    except ValueError:
        return cell
    return moment.astimezone(UTC).replace(tzinfo=None)


def _write_cell(sheet: Any, line: int, column: int, cell: Any, style: Any) -> None:
    if isinstance(cell, str):
        sheet.write_string(line, column, cell)
    elif cell is None or pd.isna(cell):
        return
    elif isinstance(cell, datetime):
        sheet.write_datetime(line, column, cell, style)
    elif isinstance(cell, bool):
        sheet.write_boolean(line, column, cell)
    else:
        sheet.write_number(line, column, float(cell), style)


def _notes(workbook: Any, table: pd.DataFrame) -> None:
    """The conditions of the numbers, then what each column means."""
    sheet = workbook.add_worksheet("notes")
    bold = workbook.add_format({"bold": True})
    lines = [*conditions(table), ""]
    for line, text in enumerate(lines):
        sheet.write_string(line, 0, text)
    known = {**columns.RECORD, **columns.RETENTION, **columns.COST}
    meanings = {name: known[name].plain_meaning() for name in table.columns if name in known}
    for line, (name, meaning) in enumerate(meanings.items(), start=len(lines)):
        sheet.write_string(line, 0, name, bold)
        sheet.write_string(line, 1, meaning)
    sheet.set_column(0, 0, 24)
    sheet.set_column(1, 1, 110)


def conditions(table: pd.DataFrame) -> list[str]:
    """What the numbers hold for: utilisation and lengths, devices with their prices, dates."""
    lines = [ABOUT] if "run_id" in table else []
    costs = {"usd_per_mtok", "utilisation", "prompt_tokens", "output_tokens"}
    if costs <= {*table.columns} and table["usd_per_mtok"].notna().any():
        lines.append(f"{unit_cost.conditions_text(table)}.")
    if {"device_name", "price_note"} <= {*table.columns}:
        priced = table[["device_name", "price_note"]].dropna().drop_duplicates()
        lines += [
            f"{name}: {note}."
            for name, note in zip(priced["device_name"], priced["price_note"], strict=True)
        ]
    if "finished_at" in table and not (days := table["finished_at"].dropna().str[:10]).empty:
        between = days.min() if days.min() == days.max() else f"{days.min()} to {days.max()}"
        lines.append(f"Measured {between} (UTC).")
    return lines
