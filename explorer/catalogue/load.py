"""The catalogue's tables as frames, each read once.

load.table("scores")   # 1,615 published scores
"""

import csv
import functools
from pathlib import Path

import pandas as pd

from explorer.catalogue.rows import TABLES
from explorer.errors import DamagedStore

FOLDER = Path(__file__).parent


def table(name: str, folder: Path = FOLDER) -> pd.DataFrame:
    """One table, a fresh frame each time: see `rows` for its columns.

    Raises:
        DamagedStore: The file is missing or is no table.
    """
    return _read(name, folder).copy()


@functools.cache
def _read(name: str, folder: Path) -> pd.DataFrame:
    path = folder / f"{name}.csv"
    try:
        return pd.read_csv(path, dtype={"bits": str})
    except (OSError, ValueError) as error:
        raise DamagedStore(f"Could not read the catalogue's {path.name}: {error}") from error


def texts(name: str, folder: Path = FOLDER) -> list[dict[str, str]]:
    """The rows of a table as they are written, an empty cell left out."""
    path = folder / f"{name}.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedStore(f"Could not read the catalogue's {path.name}: {error}") from error
    return [{k: v for k, v in row.items() if v != ""} for row in rows]


def all_tables(folder: Path = FOLDER) -> dict[str, pd.DataFrame]:
    """Every table by its name."""
    return {name: table(name, folder) for name in TABLES}
