"""What devices cost per hour: a dated price book with sources, and the user's own prices.

The book only suggests prices. The explorer uses a price once the user has chosen or typed it;
prices.yaml in the results folder holds these. Other devices have no price.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pydantic

from explorer.catalogue.rows import DateIfKnown
from explorer.errors import BadInput
from explorer.files import durable_files, yaml_files
from explorer.records.rows import row_dicts
from explorer.specs import Spec

BOOK = Path(__file__).with_name("hardware.csv")
OVERRIDES = "prices.yaml"
LOCK = Path(".work") / "locks" / "prices.lock"
ACCELERATOR = re.compile(
    r"nvidia|geforce|tesla|quadro|instinct|radeon|\b(gpu|arc|gaudi|graphics)\b|\([a-z]+\)$",
    re.IGNORECASE,
)
"""Names of accelerators; one that ends like `Apple M2 Max (mps)` is a part beside the processor."""
PROCESSOR = re.compile(r"\(\d+ cores?\)$")
"""How records name processors, some of which are sold `with Radeon Graphics`."""
OTHER_PARTS = {"laptop", "mig", "nvl", "max", "d", "ti", "super"}
"""Words in a GPU's name that make it another part than one whose name in the book lacks them."""
SLICE = re.compile(r"\s+MIG\s+(\d)g\.\d+gb(\+\S+)?$", re.IGNORECASE)
"""What a driver appends to a GPU's name for a MIG slice with some of its seven compute slices."""
NUM_SLICES = 7


class Price(Spec):
    """Dollars per hour of one device, with date and source."""

    usd_per_hour: float
    """US dollars per hour of one device, above 0."""
    provider: str = "your own price"
    """The company that rents out the device."""
    instance: str = ""
    """The provider's name for the machine."""
    tier: str = ""
    """On-demand, spot and so on."""
    date_seen: DateIfKnown = ""
    """The day on which the price was read."""
    source_url: str = ""
    """The page or file it was read from."""
    note: str = ""
    """Limits of the figure."""

    @pydantic.field_validator("usd_per_hour", mode="before")
    @classmethod
    def _dollars(cls, value: Any) -> float:
        """Accept an amount above 0."""
        amount = dollars(value)
        if not amount:
            raise ValueError(
                "must be US dollars per hour above 0, as in 0.05; convert other currencies first"
            )
        return amount

    def in_words(self) -> str:
        """The price's provider, date and note, in one line."""
        offer = " ".join(part for part in (self.provider, self.instance, self.tier) if part)
        when = f"seen {self.date_seen}" if self.date_seen else ""
        return ", ".join(part for part in (offer, when, self.note) if part)


def dollars(value: Any) -> float | None:
    """The amount that a person wrote: a number, or one as text with a dollar sign or USD.

    None if it is anything else, such as another currency, or below 0.
    """
    if isinstance(value, str):
        text = re.sub(r"^\s*(US)?\$|\s*(USD|usd)?\s*$", "", value).strip()
        if not re.fullmatch(r"[0-9]+\.?[0-9]*(e-?[0-9]+)?|\.[0-9]+", text, re.IGNORECASE):
            return None
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return None
    return float(value) if math.isfinite(value) else None


def price_book() -> pd.DataFrame:
    """All rows of the price book, with the columns of hardware.csv."""
    return pd.read_csv(BOOK)


def suggest_prices(device_name: str, num_cpus: float, book: pd.DataFrame) -> list[Price]:
    """Prices in the book that fit this device, cheapest first.

    A GPU is matched by name, and by form factor and memory where the book distinguishes them. A MIG
    slice costs its share of the GPU's compute slices.
    Any other device counts as a machine with `num_cpus` processors or the next larger size; none
    fits if that number is NaN.
    """
    slice_of = SLICE.search(device_name)
    if slice_of:
        whole = suggest_prices(device_name[: slice_of.start()], num_cpus, book)
        return [_share(price, int(slice_of[1])) for price in whole]
    fits = book["hardware"].map(lambda hardware: _is_gpu(device_name, hardware)).astype(bool)
    rows = book[(book["kind"] == "gpu") & fits]
    is_processor = PROCESSOR.search(device_name) or not ACCELERATOR.search(device_name)
    if rows.empty and is_processor:
        large_enough = book[(book["kind"] == "cpu") & (book["vcpus"] >= num_cpus)]
        rows = large_enough[large_enough["vcpus"] == large_enough["vcpus"].min()]
    rows = rows.sort_values("usd_per_unit_hour", kind="stable")
    return [_price(row) for row in row_dicts(rows)]


def _share(price: Price, num_slices: int) -> Price:
    """The price of a MIG slice, from that of its GPU."""
    of_whole = f"{num_slices}/{NUM_SLICES} of ${price.usd_per_hour:g} for the whole GPU"
    return price.with_(
        usd_per_hour=price.usd_per_hour * num_slices / NUM_SLICES,
        note=f"{price.note}; {of_whole}",
    )


def match_hardware(device_name: str, hardware: list[str]) -> str | None:
    """The catalogue's name for the GPU that a driver reports; None if it has no such GPU."""
    return next((name for name in hardware if _is_gpu(device_name, name)), None)


def read_overrides(path: Path) -> dict[str, Price]:
    """Read the user's own prices by device name; empty if there is no file.

    Raises:
        BadInput: The file can't be read, or has an invalid price.
        DamagedStore: It is not a file.
    """
    durable_files.check_regular(path)
    if not path.exists():
        return {}
    document = yaml_files.read(path, "the prices")
    data = document.data
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise BadInput(
            f"{path} should map device names to prices, but holds {type(data).__name__}."
        )
    return {
        name: Price.parse(
            entry if isinstance(entry, dict) else {"usd_per_hour": entry},
            f"{path}: the price of {name}",
            document.places.within(name),
        )
        for name, entry in data.items()
    }


def write_override(path: Path, device_name: str, price: Price | None) -> None:
    """Set the user's price of a device; None removes it.

    Raises:
        BadInput: The device has no name, or the existing file can't be read.
        NoRoom: The file can't be written.
    """
    if not device_name.strip():
        raise BadInput("A price needs the name of its device, as `explorer doctor` shows it.")
    with durable_files.locked(path.parent / LOCK):
        prices = read_overrides(path)
        prices.pop(device_name, None)
        if price is not None:
            prices[device_name] = price
        data = {
            name: price.model_dump(exclude_defaults=True) | {"provider": price.provider}
            for name, price in prices.items()
        }
        durable_files.write_text(path, yaml_files.dump(dict(sorted(data.items()))))


def prices_for(runs: pd.DataFrame, root: Path) -> dict[str, Price]:
    """The user's prices by device, for the devices of these runs that have one."""
    devices = set(runs["device_name"])
    overrides: Mapping[str, Price] = read_overrides(root / OVERRIDES)
    return {name: price for name, price in overrides.items() if name in devices}


def device_prices(runs: pd.DataFrame, root: Path) -> list[tuple[str, Price | None, list[Price]]]:
    """Each device of these runs: name, the user's price or None, and the book's suggestions."""
    known, rows = prices_for(runs, root), price_book()
    # Imported runs may not name their device, or name it without its processors.
    named = runs[["device_name", "num_cpus"]].dropna(subset="device_name").drop_duplicates()
    largest = named.groupby("device_name", sort=False)["num_cpus"].max()
    return [
        (name, known.get(name), suggest_prices(name, num_cpus, rows))
        for name, num_cpus in zip(map(str, largest.index), largest, strict=True)
    ]


SETS = ("Your prices", "Cheapest listed", "Dearest listed")
"""The price sets: the user's own, and the lowest and highest in the price book."""


def first_known(known: Mapping[str, Mapping[str, Price]]) -> str:
    """The first of `SETS` with a price for some device; the first of all if none has one."""
    return next((name for name in SETS if known[name]), SETS[0])


def price_sets(runs: pd.DataFrame, root: Path) -> dict[str, dict[str, Price]]:
    """Prices by price set and device, for these runs; devices without a price are left out."""
    by_set: dict[str, dict[str, Price]] = {name: {} for name in SETS}
    for device_name, known, suggested in device_prices(runs, root):
        if known is not None:
            by_set[SETS[0]][device_name] = known
        if suggested:
            by_set[SETS[1]][device_name], by_set[SETS[2]][device_name] = suggested[0], suggested[-1]
    return by_set


def typed_price(typed: str, source: str) -> Price:
    """Parse a price that the user typed, and date it today.

    Args:
        typed: US dollars per hour.
        source: What to call the input in an error.

    Raises:
        BadInput: Not an amount of US dollars above 0.
    """
    today = datetime.now(UTC).date().isoformat()
    return Price.parse({"usd_per_hour": typed, "date_seen": today}, source)


def _is_gpu(device_name: str, hardware: str) -> bool:
    """Whether a driver's name like `NVIDIA A100-SXM4-80GB` means this part of the book."""
    words = set(re.split(r"[^a-z0-9]+", device_name.lower()))
    wanted_words = hardware.lower().split()
    if (words & OTHER_PARTS).difference(wanted_words):
        return False
    for wanted in wanted_words:
        if wanted == "sxm":
            # Drivers mention the form factor only for PCIe cards.
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
