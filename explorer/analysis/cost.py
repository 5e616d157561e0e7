"""What a model costs on its device: per hour, and per million tokens it writes.

    usd_per_mtok = usd_per_hour / (output_tokens_per_s * utilisation * 3600) * 1e6

Prices apply when reading: a new price needs no new run. A device without a price costs
nothing known, so its figures are missing and `price_note` asks for one.
"""

import math
from collections.abc import Mapping

import pandas as pd

from explorer.catalogue.prices import Price
from explorer.errors import BadInput

SECONDS_PER_HOUR = 3600
COLUMNS = ["usd_per_hour", "usd_per_mtok", "usd_per_hour_at_load", "price_note"]


def add(
    runs: pd.DataFrame,
    prices: Mapping[str, Price],
    *,
    utilisation: float,
    load_tokens_per_s: float | None = None,
) -> pd.DataFrame:
    """Add the device's rate and what follows from it to a frame of runs.

    Args:
        runs: As `store.frame` gives it.
        prices: Device name to its price.
        utilisation: Share of the time in which the device is busy, in (0, 1].
        load_tokens_per_s: Output tokens per second to be served, > 0. None is what the teacher
            of each run serves at this utilisation, so a teacher's own cost is its rate.

    Returns:
        The runs with `usd_per_hour` (the device's rate), `usd_per_mtok` (dollars per million
        output tokens), `usd_per_hour_at_load` (rate times the share of the device, or the
        number of devices, that the load needs) and `price_note` (where the price is from).

    Raises:
        BadInput: A utilisation or load that cannot be.
    """
    check_utilisation(utilisation)
    if load_tokens_per_s is not None and not (
        math.isfinite(load_tokens_per_s) and load_tokens_per_s > 0
    ):
        raise BadInput(
            f"The load must be a number of output tokens per second above 0, got "
            f"{load_tokens_per_s}. Leave it out to take what the teacher serves."
        )
    known = {name: price for name, price in prices.items() if name in set(runs["device_name"])}
    usd_per_hour = runs["device_name"].map(
        {name: price.usd_per_hour for name, price in known.items()}
    )
    capacity_tokens_per_s = runs["output_tokens_per_s"].astype(float) * utilisation
    if load_tokens_per_s is None:
        load = _teacher_tokens_per_s(runs) * utilisation
    else:
        load = pd.Series(load_tokens_per_s, index=runs.index)
    added = runs.copy()
    added["usd_per_hour"] = usd_per_hour.astype(float)
    added["usd_per_mtok"] = added["usd_per_hour"] / (capacity_tokens_per_s * SECONDS_PER_HOUR) * 1e6
    added["usd_per_hour_at_load"] = added["usd_per_hour"] * load / capacity_tokens_per_s
    notes = {name: price.in_words() for name, price in known.items()}
    added["price_note"] = [
        notes.get(name, f"no price for {name}: give one to see costs")
        for name in runs["device_name"]
    ]
    return added


def check_utilisation(utilisation: float) -> None:
    """Refuse a share of the time that is none.

    Raises:
        BadInput: Not above 0 and at most 1.
    """
    if not 0 < utilisation <= 1:
        raise BadInput(
            f"The utilisation must be above 0 and at most 1, got {utilisation}. It is the share "
            "of the time in which the device is busy: 0.5 for half of it."
        )


def _teacher_tokens_per_s(runs: pd.DataFrame) -> "pd.Series[float]":
    """Output tokens per second of each run's teacher.

    A student was timed in turns with its teacher; that timing comes first, because the two
    met the same noise. Without it, the teacher's own run counts.
    """
    own = runs["output_tokens_per_s"].astype(float)
    in_turns = (
        1e3 * runs["batch_size"].astype(float) * runs["output_tokens"].astype(float)
        / runs["teacher_latency_ms"].astype(float)
    )  # fmt: skip
    by_run = dict(zip(runs["run_id"], own, strict=True))
    elsewhere = runs["teacher_run_id"].map(by_run).astype(float)
    return in_turns.fillna(elsewhere).where(runs["role"] != "teacher", own)
