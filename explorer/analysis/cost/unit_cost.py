"""What a model costs on its device: per hour, and per million output tokens.

    usd_per_mtok = usd_per_hour / (output_tokens_per_s * utilisation * 3600) * 1e6

Every page, command and export takes the cost per token from `usd_per_mtok`. The throughput
includes the time to the first token, so the cost depends on the lengths of prompt and answer,
which are always shown beside it (`lengths_text`).

Prices apply when records are read, so a new price needs no new run. A device without a price
has no costs, and `price_note` asks for one.
"""

from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

import pandas as pd

from explorer.analysis import interference, numbers
from explorer.analysis.cost.quantity import Quantity
from explorer.catalogue.prices import Price
from explorer.errors import BadInput
from explorer.specs import WORKLOADS
from explorer.store.columns import COST

SECONDS_PER_HOUR = 3600
UTILISATION = 0.5
"""Default share of the paid hours in which a device serves requests."""
COLUMNS = list(COST)
MAX_LENGTHS = 3
"""Beyond this many, pairs of lengths are counted instead of listed."""

Amount = TypeVar("Amount", float, "pd.Series[float]", Quantity)


def usd_per_mtok(
    usd_per_hour: Amount, output_tokens_per_s: Amount, utilisation: float = UTILISATION
) -> Amount:
    """US dollars per million output tokens, time to first token included.

    Args:
        usd_per_hour: Price of the device.
        output_tokens_per_s: Output tokens over the whole latency, for all requests of the batch
            together, while the device is busy.
        utilisation: Share of the paid hours in which the device is busy, in (0, 1].

    Raises:
        BadInput: A utilisation outside (0, 1].
    """
    check_utilisation(utilisation)
    return usd_per_hour / (output_tokens_per_s * (utilisation * SECONDS_PER_HOUR)) * 1e6


def utilisation_text(utilisation: float = UTILISATION) -> str:
    """`at 50 % busy`."""
    return f"at {100 * utilisation:g} % busy"


def heading(utilisation: float = UTILISATION) -> str:
    """Heading of `usd_per_mtok`: `$/1M output tokens at 50 % busy`."""
    return f"$/1M output tokens {utilisation_text(utilisation)}"


def utilisation_text_of(runs: pd.DataFrame) -> str:
    """`at 50 % busy` for a frame's costs; the default if the frame has no costs."""
    return utilisation_text(_stated(runs))


def heading_of(runs: pd.DataFrame) -> str:
    """Heading of a frame's `usd_per_mtok`; the default's if the frame has no costs."""
    return heading(_stated(runs))


def lengths_text(prompt_tokens: float | None, output_tokens: float | None) -> str:
    """`128-token prompts, 64-token answers`; an en dash if unknown."""
    if numbers.missing(prompt_tokens) or numbers.missing(output_tokens):
        return numbers.MISSING
    return f"{prompt_tokens:,.0f}-token prompts, {output_tokens:,.0f}-token answers"


def lengths_text_of(runs: pd.DataFrame) -> str:
    """The lengths at which runs were timed, with a warning if they differ; empty if none was timed.

    Args:
        runs: With `prompt_tokens` and `output_tokens`.
    """
    pairs = _pairs(runs)
    if not pairs:
        return ""
    if len(pairs) == 1:
        return lengths_text(*pairs[0][:2])
    listed = [
        f"{lengths_text(prompt, answer)} ({num_runs:,} {'run' if num_runs == 1 else 'runs'})"
        for prompt, answer, num_runs in pairs[:MAX_LENGTHS]
    ]
    if len(pairs) > MAX_LENGTHS:
        listed.append(f"{len(pairs) - MAX_LENGTHS:,} more pairs of lengths")
    return f"different lengths, so compare costs at equal lengths only: {'; '.join(listed)}"


def conditions_text(runs: pd.DataFrame) -> str:
    """The conditions of a frame's costs per token: utilisation, TTFT, lengths; no full stop.

    Args:
        runs: With the columns of `add_costs`, at least one run timed.
    """
    return (
        f"Cost per million output tokens {utilisation_text_of(runs)}, time to first token "
        f"included; {lengths_text_of(runs)}"
    )


def common_lengths(runs: pd.DataFrame) -> tuple[int, int]:
    """Prompt and answer length in tokens at which most of these runs were timed.

    Args:
        runs: With `prompt_tokens` and `output_tokens`. If no run has both, as where endpoints do
            not count tokens, the lengths are those of the workload `chat`.
    """
    pairs = _pairs(runs)
    return pairs[0][:2] if pairs else WORKLOADS["chat"]


def _stated(runs: pd.DataFrame) -> float:
    """The utilisation of a frame's costs; the default if the frame has no costs."""
    stated = runs["utilisation"].dropna().tolist() if "utilisation" in runs else []
    return float(stated[0]) if stated else UTILISATION


def _pairs(runs: pd.DataFrame) -> list[tuple[int, int, int]]:
    """Each pair of lengths with its number of runs, most runs first, then the shorter."""
    timed = runs[["prompt_tokens", "output_tokens"]].dropna().astype(int)
    counts = Counter(zip(timed["prompt_tokens"], timed["output_tokens"], strict=True))
    return sorted(((*pair, num) for pair, num in counts.items()), key=lambda row: (-row[2], row))


def add_costs(
    runs: pd.DataFrame, prices: Mapping[str, Price], *, utilisation: float = UTILISATION
) -> pd.DataFrame:
    """Add costs to a frame of runs.

    Args:
        runs: As from `frames.runs`.
        prices: Device name to its price.
        utilisation: Share of the paid hours in which the device is busy, in (0, 1].

    Returns:
        The runs with `usd_per_hour` (price of the device), `usd_per_mtok` (dollars per million
        output tokens), `output_tokens_per_usd`, `utilisation` (assumed for both),
        `usd_per_hour_at_load` (price times the share of the device that serving the teacher's
        load needs; for a teacher, the price) and
        `price_note` (the source of the price).

    Raises:
        BadInput: A utilisation outside (0, 1].
    """
    check_utilisation(utilisation)
    known = {name: price for name, price in prices.items() if name in set(runs["device_name"])}
    usd_per_hour = runs["device_name"].map(
        {name: price.usd_per_hour for name, price in known.items()}
    )
    output_tokens_per_s = runs["output_tokens_per_s"].astype(float)
    added = runs.copy()
    added["usd_per_hour"] = usd_per_hour.astype(float)
    added["usd_per_mtok"] = usd_per_mtok(added["usd_per_hour"], output_tokens_per_s, utilisation)
    added["output_tokens_per_usd"] = 1e6 / added["usd_per_mtok"]
    added["utilisation"] = float(utilisation)
    # Teacher and student are equally busy, so the utilisation cancels.
    added["usd_per_hour_at_load"] = (
        added["usd_per_hour"] * _teacher_tokens_per_s(runs) / output_tokens_per_s
    )
    notes = {name: price.in_words() for name, price in known.items()}
    added["price_note"] = [
        "no price: this run does not say its device"
        if numbers.missing(name)
        else notes.get(
            name, f"no price for {name}: set one to see costs, explorer price {name!r} USD_PER_HOUR"
        )
        for name in runs["device_name"]
    ]
    return added


def check_utilisation(utilisation: float) -> None:
    """Refuse an impossible utilisation.

    Raises:
        BadInput: Not above 0 and at most 1.
    """
    if not 0 < utilisation <= 1:
        raise BadInput(
            f"The utilisation must be above 0 and at most 1, got {utilisation}. It is the share "
            "of the time in which the device is busy: 0.5 for half of the time."
        )


def _teacher_tokens_per_s(runs: pd.DataFrame) -> "pd.Series[float]":
    """Output tokens per second of each run's teacher.

    A student was timed in turns with its teacher. That timing is preferred, because both met
    the same noise. Without it the teacher's own run counts, unless the machine was busy.
    """
    own = runs["output_tokens_per_s"].astype(float)
    in_turns = (
        1e3
        * runs["batch_size"].astype(float)
        * runs["output_tokens"].astype(float)
        / runs["teacher_latency_ms"].astype(float)
    )
    quiet = own.where(~interference.was_busy(runs))
    by_run = dict(zip(runs["run_id"], quiet, strict=True))
    own_run = runs["teacher_run_id"].map(by_run).astype(float)
    return in_turns.fillna(own_run).where(runs["role"] != "teacher", own)
