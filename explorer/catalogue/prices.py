"""What devices cost per hour: a dated price book with sources, and the user's own prices.

The book suggests; only a price that the user took or wrote is used, from prices.yaml in
the results folder. A device without one has no price, and nothing is invented.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pydantic
import yaml

from explorer.errors import BadInput
from explorer.records.rows import row_dicts
from explorer.specs import Spec
from explorer.store import atomic

BOOK = Path(__file__).with_name("hardware.csv")
OVERRIDES = "prices.yaml"
GPU_WORDS = re.compile(r"nvidia|geforce|tesla|quadro|instinct|radeon|\bgpu\b", re.IGNORECASE)
OTHER_PARTS = {"laptop", "mig", "nvl", "max", "d"}
"""Words that make a GPU another part than the one without them."""


class Price(Spec):
    """Dollars per hour of one device, with where and when they were seen."""

    usd_per_hour: float
    """US dollars per hour of one device, above 0."""
    provider: str = "your own price"
    """Who rents the device out."""
    instance: str = ""
    """The provider's name for the machine."""
    tier: str = ""
    """On-demand, spot and so on."""
    date_seen: str = ""
    """Day on which the price was read."""
    source_url: str = ""
    """Page or file on which it was read."""
    note: str = ""
    """What limits the figure."""

    @pydantic.field_validator("usd_per_hour", mode="before")
    @classmethod
    def _dollars(cls, value: Any) -> float:
        """A number, or a text that is one with an optional dollar sign."""
        if isinstance(value, str):
            text = re.sub(r"^\s*(US)?\$|\s*(USD|usd)?\s*$", "", value).strip()
            try:
                value = float(text)
            except ValueError as error:
                raise ValueError(_expected()) from error
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
            or value <= 0
        ):
            raise ValueError(_expected())
        return float(value)

    def in_words(self) -> str:
        """Where the price is from, in one line."""
        who = " ".join(part for part in (self.provider, self.instance, self.tier) if part)
        when = f"seen {self.date_seen}" if self.date_seen else ""
        return ", ".join(part for part in (who, when, self.note) if part)


def _expected() -> str:
    return "must be US dollars per hour above 0, as in 0.05; convert other currencies first"


def book() -> pd.DataFrame:
    """All rows of the price book, one device each: see hardware.csv for the columns."""
    return pd.read_csv(BOOK)


def suggest(device_name: str, num_cpus: int, book: pd.DataFrame) -> list[Price]:
    """Rows of the book that describe this device, cheapest first.

    A GPU is found by its name; form factor and memory must fit where the book tells them
    apart. Any other device is a machine of `num_cpus` processors, or of the next size up.
    """
    fits = book["hardware"].map(lambda hardware: _is_gpu(device_name, hardware)).astype(bool)
    rows = book[(book["kind"] == "gpu") & fits]
    if rows.empty and not GPU_WORDS.search(device_name):
        large_enough = book[(book["kind"] == "cpu") & (book["vcpus"] >= num_cpus)]
        rows = large_enough[large_enough["vcpus"] == large_enough["vcpus"].min()]
    rows = rows.sort_values("usd_per_unit_hour", kind="stable")
    return [_price(row) for row in row_dicts(rows)]


def part(device_name: str, hardware: list[str]) -> str | None:
    """The part of the catalogue that a driver's name means; None where it has none such."""
    return next((name for name in hardware if _is_gpu(device_name, name)), None)


def read_overrides(path: Path) -> dict[str, Price]:
    """The user's own prices by device name; none when there is no file.

    Raises:
        BadInput: The file cannot be read, or holds something that is no price.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"Could not read the prices in {path}: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise BadInput(
            f"{path} should map device names to prices, but holds {type(data).__name__}."
        )
    return {
        str(name): Price.parse(
            entry if isinstance(entry, dict) else {"usd_per_hour": entry},
            f"{path}: the price of {name}",
        )
        for name, entry in data.items()
    }


def write_override(path: Path, device_name: str, price: Price | None) -> None:
    """Set the user's price of one device; None takes it away.

    Raises:
        BadInput: The device has no name, or the file already there cannot be read.
        NoRoom: The file cannot be written.
    """
    if not device_name.strip():
        raise BadInput("A price needs the name of its device, as `explorer doctor` shows it.")
    prices = read_overrides(path)
    prices.pop(device_name, None)
    if price is not None:
        prices[device_name] = price
    data = {
        name: one.model_dump(exclude_defaults=True) | {"provider": one.provider}
        for name, one in prices.items()
    }
    atomic.write_text(path, yaml.safe_dump(data, sort_keys=True, allow_unicode=True))


def prices_for(runs: pd.DataFrame, root: Path) -> dict[str, Price]:
    """The user's prices of the devices in these runs; a device without one is not in it."""
    devices = set(runs["device_name"])
    overrides: Mapping[str, Price] = read_overrides(root / OVERRIDES)
    return {name: price for name, price in overrides.items() if name in devices}


def devices(runs: pd.DataFrame, root: Path) -> list[tuple[str, Price | None, list[Price]]]:
    """Each device of these runs: name, price if it has one, and the book's for such a device."""
    known, rows = prices_for(runs, root), book()
    # An imported run was made on a device that nobody named.
    named = runs[["device_name", "num_cpus"]].dropna().drop_duplicates()
    return [
        (name, known.get(name), suggest(name, int(num_cpus), rows))
        for name, num_cpus in zip(named["device_name"], named["num_cpus"], strict=True)
    ]


SETS = ("Your prices", "Cheapest listed", "Dearest listed")
"""Price sets: what the user took or wrote, and the two ends of the price book."""


def first_known(known: Mapping[str, Mapping[str, Price]]) -> str:
    """The first of `SETS` in which a device has a price; the first where none has."""
    return next((name for name in SETS if known[name]), SETS[0])


def sets(runs: pd.DataFrame, root: Path) -> dict[str, dict[str, Price]]:
    """Prices of the devices of these runs by price set; a device without one is left out."""
    found: dict[str, dict[str, Price]] = {name: {} for name in SETS}
    for device_name, known, suggested in devices(runs, root):
        if known is not None:
            found[SETS[0]][device_name] = known
        if suggested:
            found[SETS[1]][device_name], found[SETS[2]][device_name] = suggested[0], suggested[-1]
    return found


def own(typed: str, source: str) -> Price:
    """The price a person typed, dated today; `source` names it where it is refused.

    Raises:
        BadInput: It is no amount of US dollars above 0.
    """
    today = datetime.now(UTC).date().isoformat()
    return Price.parse({"usd_per_hour": typed, "date_seen": today}, source)


def _is_gpu(device_name: str, hardware: str) -> bool:
    """Whether a driver's name, as in `NVIDIA A100-SXM4-80GB`, is a part of the book."""
    words = set(re.split(r"[^a-z0-9]+", device_name.lower()))
    if words & OTHER_PARTS:
        return False
    for wanted in hardware.lower().split():
        if wanted == "sxm":
            # The driver says only of PCIe cards that they are PCIe.
            if "pcie" in words:
                return False
        elif wanted not in words:
            return False
    return True


def _price(row: dict[str, Any]) -> Price:
    def text(key: str) -> str:
        return "" if row[key] is None else str(row[key])

    bundle = f"rented in units of {row['min_units']}" if row["min_units"] > 1 else ""
    checked = "vendor's own page not seen" if "not seen" in text("source_seen") else ""
    notes = (text("hardware"), bundle, text("price_note"), checked)
    return Price(
        usd_per_hour=row["usd_per_unit_hour"],
        provider=text("provider"),
        instance=text("instance"),
        tier=text("tier"),
        date_seen=text("date_seen"),
        source_url=text("source_url"),
        note="; ".join(note for note in notes if note),
    )
