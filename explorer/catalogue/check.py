"""Checks the catalogue: rows, sources, dates, references between tables, and arithmetic.

explorer catalogue check
"""

import dataclasses
import datetime
from pathlib import Path

import pandas as pd

from explorer.catalogue import load
from explorer.catalogue.rows import TABLES, UNDATED, first_day
from explorer.errors import BadInput
from explorer.records.rows import row_dicts

DATES = ("date_seen", "released", "published", "vendor_page_checked_on", "price_as_of")
KEYS = {
    "models": ["model"],
    "scores": ["table_id", "model", "benchmark", "setting"],
    "tables": ["table_id"],
    "pairs": ["student", "compared_to", "table_id"],
    "chance": ["benchmark"],
    "speeds": ["student", "teacher", "what"],
    "api_prices": ["provider", "provider_model_id"],
    "hardware_specs": ["hardware"],
    "shapes": ["model"],
    "deployments": ["model", "hardware"],
    "terms": ["rule"],
}
"""The columns that identify a row. The price book has no key: an offer may recur on other days."""
REFERENCES = [
    ("scores", "model", "models", "model"),
    ("scores", "table_id", "tables", "table_id"),
    ("pairs", "student", "models", "model"),
    ("pairs", "compared_to", "models", "model"),
    ("pairs", "table_id", "tables", "table_id"),
    ("chance", "benchmark", "scores", "benchmark"),
    ("speeds", "student", "models", "model"),
    ("speeds", "teacher", "models", "model"),
    ("shapes", "model", "models", "model"),
    ("deployments", "model", "models", "model"),
    ("deployments", "hardware", "hardware_specs", "hardware"),
]
"""Table and column, then the table and column that must contain each of its values."""
PARENT = "(parent) "
"""Prefix of models that have prices but no scores."""
MEAN_TOLERANCE_PCT = 0.1
"""The published means are rounded to one decimal place."""
SPECS = ("memory_gb", "mem_bandwidth_gb_s", "dense_bf16_tflops", "tdp_w")


@dataclasses.dataclass(frozen=True)
class Findings:
    """The result of a check: row counts, errors and remarks."""

    num_rows: dict[str, int]
    faults: list[str]
    """Errors that must be fixed."""
    notes: list[str]
    """Limits of the data that a reader should know; the files are correct."""


def check_catalogue(folder: Path = load.FOLDER, today: datetime.date | None = None) -> Findings:
    """Check every row of every table, and that the tables agree with each other.

    Args:
        folder: The folder of the tables.
        today: The latest date allowed; None for the current date.

    Raises:
        DamagedStore: A table is missing or can't be read.
    """
    today = today or datetime.datetime.now(datetime.UTC).date()
    faults: list[str] = []
    notes: list[str] = []
    num_rows = {}
    for name in TABLES:
        rows = load.read_table_text(name, folder)
        num_rows[name] = len(rows)
        if not rows:
            faults.append(f"{name}.csv has no rows.")
        faults += _rows(name, rows, today)
        undated = sum(any(UNDATED in row.get(column, "") for column in DATES) for row in rows)
        if undated:
            notes.append(f"{name}.csv: {undated} of {len(rows)} rows have no date in their source.")
    if faults:
        # The later checks would only repeat the faults of broken rows.
        return Findings(num_rows, faults, notes)
    frames = {name: load.load_table(name, folder) for name in TABLES}
    faults += _references(frames)
    faults += _specs_agree(frames)
    more_faults, more_notes = _means(frames)
    parents = frames["api_prices"]["catalogue_model"].str.startswith(PARENT)
    unknown = frames["api_prices"].loc[~parents, "catalogue_model"]
    faults += _missing("api_prices", "catalogue_model", unknown, frames["models"]["model"])
    if parents.any():
        models = ", ".join(frames["api_prices"].loc[parents, "provider_model_id"])
        notes.append(f"api_prices.csv: {models} have prices but no scores.")
    return Findings(num_rows, faults + more_faults, notes + more_notes)


def _rows(name: str, rows: list[dict[str, str]], today: datetime.date) -> list[str]:
    """Faults of single rows: invalid values, duplicates and future dates."""
    faults = []
    seen: set[tuple[str | None, ...]] = set()
    for line, row in enumerate(rows, start=2):
        where = f"{name}.csv, line {line}"
        try:
            TABLES[name].parse(row, where)
        except BadInput as error:
            faults.append(str(error))
            continue
        for column in DATES:
            known = first_day(row.get(column, ""))
            if known is not None and known > today:
                faults.append(f"{where}: {column} is {row[column]}, which is in the future.")
        if name in KEYS:
            key = tuple(row.get(column) for column in KEYS[name])
            if key in seen:
                faults.append(f"{where}: {', '.join(map(str, key))} is a duplicate.")
            seen.add(key)
    return faults


def _references(frames: dict[str, pd.DataFrame]) -> list[str]:
    """Values that refer to another table but are not in it."""
    faults = []
    for name, column, other, other_column in REFERENCES:
        faults += _missing(name, column, frames[name][column], frames[other][other_column], other)
    return faults


def _missing(
    name: str, column: str, values: pd.Series, known: pd.Series, other: str = "models"
) -> list[str]:
    lost = sorted(set(values.dropna()) - set(known))
    return [f"{name}.csv: the {column} {value!r} is not in {other}.csv." for value in lost]


def _specs_agree(frames: dict[str, pd.DataFrame]) -> list[str]:
    """Device specifications on which hardware.csv and hardware_specs.csv disagree."""
    merged = frames["hardware"].merge(frames["hardware_specs"], on="hardware", suffixes=("", "_"))
    faults = []
    for column in SPECS:
        differ = merged[column].notna() & (merged[column] != merged[f"{column}_"])
        faults += [
            f"hardware.csv gives {row['hardware']} {column} {row[column]:g}, "
            f"hardware_specs.csv {'nothing' if row[f'{column}_'] is None else row[f'{column}_']}."
            for row in row_dicts(merged[differ])
        ]
    return faults


def _means(frames: dict[str, pd.DataFrame]) -> tuple[list[str], list[str]]:
    """Recompute the means in pairs.csv from scores.csv. Returns faults and notes.

    The published means ignore settings, so this check does too; `analysis.published` does not.
    """
    faults, notes = [], []
    scores = frames["scores"][frames["scores"]["unit"] != "Elo"]
    for pair in row_dicts(frames["pairs"]):
        table = scores[scores["table_id"] == pair["table_id"]]
        both = table[table["model"] == pair["student"]].merge(
            table[table["model"] == pair["compared_to"]], on="benchmark", suffixes=("", "_teacher")
        )
        where = f"pairs.csv: {pair['student']} to {pair['compared_to']} in {pair['table_id']}"
        if len(both) != pair["n_benchmarks"]:
            faults.append(
                f"{where} is said to share {pair['n_benchmarks']} benchmarks, but scores.csv has "
                f"{len(both)}."
            )
            continue
        ratio = both["score"] / both["score_teacher"]
        ratio = ratio.where(both["higher_is_better"].astype(bool), 1 / ratio)
        mean_pct = 100 * float(ratio.mean())
        if abs(mean_pct - pair["mean_pct"]) > MEAN_TOLERANCE_PCT:
            faults.append(
                f"{where} is said to keep {pair['mean_pct']} %, but the scores give {mean_pct:.2f}."
            )
        settings = both.loc[both["setting"] != both["setting_teacher"], "benchmark"]
        if len(settings):
            notes.append(
                f"{where}: the settings of {', '.join(settings)} differ; not counted as retention."
            )
    return faults, notes
