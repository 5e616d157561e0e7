"""What APIs charge for tokens: the catalogue's dated prices, genai-prices, the user's own.

genai-prices matches model names loosely. Its result is compared with the requested name, and
another model's price is refused.

The user's own prices lie beside the configuration. A store may have prices, too, but anybody may
have written them: they are shown, and no limit of what may be spent goes by a lower one of them.
"""

import datetime
import importlib.metadata
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pydantic

from explorer.catalogue import load, prices
from explorer.catalogue.rows import DateIfKnown
from explorer.consent import user_config
from explorer.errors import BadInput
from explorer.files import yaml_files
from explorer.files.yaml_files import Places
from explorer.models import endpoint
from explorer.models.endpoint import Endpoint
from explorer.records import RunRecord, Usage
from explorer.records.rows import row_dicts
from explorer.specs import ApiSpec, Spec

OVERRIDES = "api_prices.yaml"
"""A file of prices: beside the configuration it is the user's, in a store the store's."""
PACKAGE = "genai-prices"


class ApiPrice(Spec):
    """A seller's price per million tokens of a model, with its date and source."""

    provider: str
    model: str
    """The seller's name for the model."""
    input_usd_per_mtok: float
    """US dollars per million prompt tokens, 0 or more."""
    output_usd_per_mtok: float
    date_seen: DateIfKnown = ""
    source_url: str = ""
    note: str = ""

    @pydantic.field_validator("input_usd_per_mtok", "output_usd_per_mtok", mode="before")
    @classmethod
    def _dollars(cls, value: Any) -> Any:
        """Accept an amount of 0 or more."""
        amount = prices.dollars(value)
        if amount is None:
            raise ValueError(
                "must be US dollars per million tokens, 0 or more, as in 0.60; convert other "
                "currencies first"
            )
        return amount

    @property
    def name(self) -> str:
        """The offer's name, such as `openai/gpt-4o-mini`."""
        return f"{self.provider}/{self.model}"

    def of(self, usage: Usage) -> float:
        """US dollars for this usage. Reasoning tokens count as output."""
        input_cost = usage.prompt_tokens * self.input_usd_per_mtok
        return (input_cost + usage.output_tokens * self.output_usd_per_mtok) / 1e6

    def in_words(self) -> str:
        """The price's name, date and note, in one line."""
        parts = [self.name, f"seen {self.date_seen}" if self.date_seen else "", self.note]
        return ", ".join(part for part in parts if part)


def catalogue_prices() -> list[ApiPrice]:
    """The catalogue's prices, the cheapest output first."""
    rows = load.load_table("api_prices").sort_values("output_usd_per_m", kind="stable")
    return [
        ApiPrice(
            provider=row["provider"],
            model=row["provider_model_id"],
            input_usd_per_mtok=row["input_usd_per_m"],
            output_usd_per_mtok=row["output_usd_per_m"],
            date_seen=row["vendor_page_checked_on"] or row["price_as_of"],
            source_url=row["source_url"],
            note=row["note"] or "",
        )
        for row in row_dicts(rows)
    ]


def look_up_price(name: str, today: datetime.date | None = None) -> ApiPrice:
    """Look up the price of `provider/model` in genai-prices, which ships its data.

    Where the price depends on the hour, returns the highest of the day, so that a lookup at
    night does not understate the cost of requests by day.

    Raises:
        BadInput: genai-prices does not know the provider or model, or matched another model.
    """
    from genai_prices import Usage, calc_price  # takes 0.2 s, so only here

    provider, _, model = name.strip().partition("/")
    if not model:
        raise BadInput(f"Write an API's model as provider/model, as in openai/gpt-5, got {name!r}.")
    # A short request: a million tokens would count as a long context.
    short = Usage(input_tokens=1_000, output_tokens=1_000)
    day = today or datetime.datetime.now(datetime.UTC).date()
    half_hours = [
        datetime.datetime.combine(day, datetime.time(hour, minute), datetime.UTC)
        for hour in range(24)
        for minute in (0, 30)
    ]
    try:
        by_hour = [
            calc_price(short, model_ref=model, provider_id=provider, genai_request_timestamp=when)
            for when in half_hours
        ]
    except LookupError as error:
        raise BadInput(f"{PACKAGE} does not know {name}: {error}. Give your own price.") from error
    highest = max(by_hour, key=lambda price: price.total_price)
    varies = len({price.total_price for price in by_hour}) > 1
    if highest.model.id != model:
        raise BadInput(
            f"{PACKAGE} has no price for {name}; its nearest match is {highest.model.id!r}. "
            "Use that name, or give your own price."
        )
    return ApiPrice(
        provider=provider,
        model=model,
        input_usd_per_mtok=float(1000 * highest.input_price),
        output_usd_per_mtok=float(1000 * highest.output_price),
        date_seen=data_date(day),
        source_url="https://github.com/pydantic/genai-prices",
        note=f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"
        + (", the most expensive hours of the day" if varies else ""),
    )


def data_date(today: datetime.date | None = None) -> str:
    """The latest start date of a price in genai-prices, as an ISO date; empty if it has none.

    Its data are at least as new as this. The package states no date itself.
    """
    from genai_prices.data import providers
    from genai_prices.types import StartDateConstraint

    today = today or datetime.datetime.now(datetime.UTC).date()
    began = [
        price.constraint.start_date
        for provider in providers
        for model in provider.models
        if isinstance(model.prices, list)
        for price in model.prices
        if isinstance(price.constraint, StartDateConstraint)
        and price.constraint.start_date <= today
    ]
    return max(began).isoformat() if began else ""


def read_overrides(path: Path, note: str = "your own price") -> list[ApiPrice]:
    """Read a file of prices; an empty list if there is none.

    Args:
        path: The file.
        note: The note of a price that has none of its own.

    Raises:
        BadInput: The file can't be read, or has an invalid price.
    """
    if not path.exists():
        return []
    document = yaml_files.read(path, "the prices")
    data = document.data
    if not isinstance(data, dict | None):
        raise BadInput(
            f"{path} should map provider/model to prices, but holds {type(data).__name__}."
        )
    places = document.places
    return [_own(name, entry, note, str(path), places) for name, entry in (data or {}).items()]


def own_prices_file() -> Path:
    """Where the user's own prices are.

    Raises:
        BadInput: The configuration lies in the store.
    """
    return user_config.beside_config(OVERRIDES)


def known_prices(root: Path) -> list[ApiPrice]:
    """The user's own prices, a store's that they don't replace, then the catalogue's."""
    by_name: dict[str, ApiPrice] = {}
    for price in (*read_overrides(own_prices_file()), *_of_store(root), *catalogue_prices()):
        by_name.setdefault(price.name, price)
    return list(by_name.values())


def endpoint_price(root: Path, url: str, model: str) -> ApiPrice | None:
    """The price of a model at an endpoint, to show; None if unknown.

    The user's own price comes first, then the store's. Its key is the endpoint's host or the
    seller's name, as in `127.0.0.1:8000/my-model` or `openai/gpt-5`. Otherwise genai-prices
    identifies the seller by the address.

    Args:
        root: The store.
        url: The endpoint's address.
        model: The endpoint's name for the model.
    """
    written = [*read_overrides(own_prices_file()), *_of_store(root)]
    return _price_in(written, url, model) or _looked_up(url, model)


def _of_store(root: Path) -> list[ApiPrice]:
    return read_overrides(root / OVERRIDES, "the store's price")


def _price_in(listed: list[ApiPrice], url: str, model: str) -> ApiPrice | None:
    sellers = (urlsplit(url).netloc, _seller(url))
    named = (price for price in listed if price.model == model)
    return next((price for price in named if price.provider in sellers), None)


def _looked_up(url: str, model: str) -> ApiPrice | None:
    seller = _seller(url)
    if seller is None:
        return None
    try:
        return look_up_price(f"{seller}/{model}")
    except BadInput:
        return None


def _seller(url: str) -> str | None:
    """genai-prices' name for the seller at this address; None if unknown or local."""
    from genai_prices.data import providers

    host = urlsplit(url).hostname or ""
    if host in ("localhost", "127.0.0.1", "::1"):
        return None
    return next((seller.id for seller in providers if re.match(seller.api_pattern, url)), None)


def estimate_message(expected: Usage, price: ApiPrice | None) -> str:
    """A sentence with the expected usage, and its cost without answers and with the longest."""
    tokens = (
        f"About {expected.num_replies:,} requests with {expected.prompt_tokens:,} tokens, and "
        f"answers of {expected.output_tokens:,} tokens at most"
    )
    if price is None:
        return f"{tokens}; no price is known."
    least = price.of(expected.model_copy(update={"output_tokens": 0}))
    return f"{tokens}: ${least:.2g} to ${price.of(expected):.2g} ({price.in_words()})."


def refuse_above_budget(expected: Usage, api: ApiSpec, where: Endpoint, root: Path) -> None:
    """Refuse requests that may cost more than the spec's `max_usd`, before any is sent.

    Goes by the user's own price, else by the looked-up one. A store's price counts only where it
    makes the requests dearer: whoever wrote the store does not lift a limit.

    Raises:
        BadInput: They may cost more, or no price is known.
    """
    if api.max_usd is None:
        return
    own = _price_in(read_overrides(own_prices_file()), where.url, where.model)
    limiting = own or _looked_up(where.url, where.model)
    in_store = None if own else _price_in(_of_store(root), where.url, where.model)
    if limiting is None:
        line = f"{where.host}/{where.model}: {{input_usd_per_mtok: ..., output_usd_per_mtok: ...}}"
        why = (
            f"the price of {where.model} at {where.host} is known from {root / OVERRIDES} alone, "
            "which others may have written. If it is right, add it"
            if in_store
            else f"no price of {where.model} at {where.host} is known. Add it"
        )
        raise BadInput(
            f"capability.api.max_usd is set, but {why} to {own_prices_file()} as {line}, or "
            "remove max_usd."
        )
    price = max((limiting, in_store or limiting), key=lambda price: price.of(expected))
    if price.of(expected) > api.max_usd:
        raise BadInput(
            f"{estimate_message(expected, price)} That may exceed capability.api.max_usd, "
            f"{api.max_usd:g}. No request was sent. Ask for fewer requests, or raise max_usd."
        )


def run_usage_message(record: RunRecord, root: Path) -> str | None:
    """A sentence on a run's API usage and cost; None if it used no API.

    Covers the run's evaluation or its teacher's targets. Uses today's price, not the price on
    the day of the run.
    """
    targets = record.distillation.targets if record.distillation else None
    usages = [part.usage for part in (record.capability, targets) if part and part.usage]
    if not usages:
        return None
    (usage,) = usages
    where = endpoint.parse_endpoint(record.spec.teacher)
    return usage_message(usage, endpoint_price(root, where.url, where.model))


def usage_message(usage: Usage, price: ApiPrice | None) -> str:
    """A sentence with the tokens that an API counted, and their cost."""
    reasoning = f" ({usage.reasoning_tokens:,} of them reasoning)" if usage.reasoning_tokens else ""
    uncounted = (
        f"; {usage.num_uncounted:,} replies without a token count" if usage.num_uncounted else ""
    )
    counts = (
        f"{usage.num_replies:,} replies, {usage.prompt_tokens:,} tokens read, "
        f"{usage.output_tokens:,} written{reasoning}{uncounted}"
    )
    if price is None:
        return f"{counts}; no price is known."
    return f"{counts}: ${price.of(usage):.3g} ({price.in_words()})."


def _own(name: str, entry: Any, note: str, source: str, places: Places) -> ApiPrice:
    provider, _, model = name.partition("/")
    if not model or not isinstance(entry, dict):
        raise BadInput(
            f"{source}, {places.of([name])}: {name!r} should be provider/model with "
            "input_usd_per_mtok and output_usd_per_mtok."
        )
    return ApiPrice.parse(
        {"note": note, **entry, "provider": provider, "model": model},
        f"{source}: the price of {name}",
        places.within(name),
    )
