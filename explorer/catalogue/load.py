"""Reads the catalogue's tables as data frames. Each file is read once.

load.load_table("scores")   # 1,615 published scores
"""

import csv
import functools
from pathlib import Path

import pandas as pd

from explorer.catalogue.rows import TABLES
from explorer.errors import DamagedStore

FOLDER = Path(__file__).parent


def load_table(name: str, folder: Path = FOLDER) -> pd.DataFrame:
    """Return a copy of a table; `catalogue.rows` describes the columns.

    Raises:
        DamagedStore: The file is missing or not a CSV table.
    """
    return _read(name, folder).copy()


@functools.cache
def _read(name: str, folder: Path) -> pd.DataFrame:
    path = folder / f"{name}.csv"
    try:
        return pd.read_csv(path, dtype={"bits": str})
    except (OSError, ValueError) as error:
        raise DamagedStore(f"Could not read the catalogue's {path.name}: {error}") from error


def read_table_text(name: str, folder: Path = FOLDER) -> list[dict[str, str]]:
    """The rows of a table as text, without empty cells.

    Raises:
        DamagedStore: The file is missing or is not UTF-8.
    """
    path = folder / f"{name}.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedStore(f"Could not read the catalogue's {path.name}: {error}") from error
    return [{k: v for k, v in row.items() if v != ""} for row in rows]


def all_tables(folder: Path = FOLDER) -> dict[str, pd.DataFrame]:
    """All tables by name."""
    return {name: load_table(name, folder) for name in TABLES}
