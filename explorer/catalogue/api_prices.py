"""What APIs ask for tokens: the catalogue's dated prices, genai-prices, and the user's own.

genai-prices finds models by loose names, so what it found is compared with what was asked
for: another model's price is refused, never shown.
"""

import datetime
import importlib.metadata
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pydantic
import yaml

from explorer.catalogue import load
from explorer.catalogue.prices import Price
from explorer.errors import BadInput
from explorer.models import endpoint
from explorer.models.endpoint import Endpoint
from explorer.records import RunRecord, Usage
from explorer.records.rows import row_dicts
from explorer.specs import ApiSpec, Spec

OVERRIDES = "api_prices.yaml"
PACKAGE = "genai-prices"


class ApiPrice(Spec):
    """Dollars of a model's million tokens at one seller, with where and when they were seen."""

    provider: str
    model: str
    """As the seller names it."""
    input_usd_per_mtok: float
    """US dollars, 0 or more."""
    output_usd_per_mtok: float
    date_seen: str = ""
    source_url: str = ""
    note: str = ""

    @pydantic.field_validator("input_usd_per_mtok", "output_usd_per_mtok", mode="before")
    @classmethod
    def _dollars(cls, value: Any) -> Any:
        """An amount as the price book takes it; 0 is a price too."""
        if value in (0, "0"):
            return 0.0
        try:
            return Price.parse({"usd_per_hour": value}).usd_per_hour
        except BadInput as error:
            raise ValueError(
                "must be US dollars per million tokens, 0 or more, as in 0.60; convert other "
                "currencies first"
            ) from error

    @property
    def name(self) -> str:
        """`openai/gpt-4o-mini`, which names an offer."""
        return f"{self.provider}/{self.model}"

    def of(self, usage: Usage) -> float:
        """US dollars for this usage. Reasoning counts as output."""
        asked = usage.prompt_tokens * self.input_usd_per_mtok
        return (asked + usage.output_tokens * self.output_usd_per_mtok) / 1e6

    def in_words(self) -> str:
        """Where the price is from, in one line."""
        parts = [self.name, f"seen {self.date_seen}" if self.date_seen else "", self.note]
        return ", ".join(part for part in parts if part)


def book() -> list[ApiPrice]:
    """The catalogue's prices, the cheapest output first."""
    rows = load.table("api_prices").sort_values("output_usd_per_m", kind="stable")
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


def lookup(name: str, today: datetime.date | None = None) -> ApiPrice:
    """The price of `provider/model` in genai-prices, whose data lie in the package.

    If it depends on the hour, the highest of the day: a price looked up at night must not look
    cheap to somebody who sends requests by day.

    Raises:
        BadInput: No such provider or model, or it found the price of another model.
    """
    from genai_prices import Usage, calc_price  # a fifth of a second, and only for this

    provider, _, model = name.strip().partition("/")
    if not model:
        raise BadInput(f"Name an API's model as provider/model, as in openai/gpt-5, got {name!r}.")
    # A short request: a million tokens would be priced as a long context.
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
        raise BadInput(f"{PACKAGE} knows no {name}: {error}. Give your own price.") from error
    found = max(by_hour, key=lambda one: one.total_price)
    varies = len({one.total_price for one in by_hour}) > 1
    if found.model.id != model:
        raise BadInput(
            f"{PACKAGE} has no price of {name}; the nearest name it has is {found.model.id!r}. "
            "Ask for that one, or give your own price."
        )
    return ApiPrice(
        provider=provider,
        model=model,
        input_usd_per_mtok=float(1000 * found.input_price),
        output_usd_per_mtok=float(1000 * found.output_price),
        date_seen=data_date(day),
        source_url="https://github.com/pydantic/genai-prices",
        note=f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"
        + (", the dearest hours of the day" if varies else ""),
    )


def data_date(today: datetime.date | None = None) -> str:
    """How new the data of genai-prices are at least: its newest price in force began then.

    The package names no day of its own.
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


def read_overrides(path: Path) -> list[ApiPrice]:
    """The user's own prices; none when there is no file.

    Raises:
        BadInput: The file cannot be read, or holds something that is no price.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"Could not read the prices in {path}: {error}") from error
    if not isinstance(data, dict | None):
        raise BadInput(
            f"{path} should map provider/model to prices, but holds {type(data).__name__}."
        )
    return [_own(str(name), entry, str(path)) for name, entry in (data or {}).items()]


def offers(root: Path) -> list[ApiPrice]:
    """The user's own prices of a store, then the catalogue's that they do not replace."""
    own = read_overrides(root / OVERRIDES)
    named = {one.name for one in own}
    return [*own, *(one for one in book() if one.name not in named)]


def of_endpoint(root: Path, url: str, model: str) -> ApiPrice | None:
    """What a model costs at an endpoint; None if no price is known.

    The user's own price stands under the endpoint's host or under the seller's name, as in
    `127.0.0.1:8000/my-model` or `openai/gpt-5`; else genai-prices knows sellers by their address.

    Args:
        root: The store, for the user's own prices.
        url: The endpoint's address.
        model: As the endpoint names it.
    """
    seller = _seller(url)
    for one in read_overrides(root / OVERRIDES):
        if one.model == model and one.provider in (urlsplit(url).netloc, seller):
            return one
    if seller is None:
        return None
    try:
        return lookup(f"{seller}/{model}")
    except BadInput:
        return None


def _seller(url: str) -> str | None:
    """genai-prices' name of who sells at this address."""
    from genai_prices.data import providers

    host = urlsplit(url).hostname or ""
    if host in ("localhost", "127.0.0.1", "::1"):
        return None
    return next((one.id for one in providers if re.match(one.api_pattern, url)), None)


def ahead_in_words(ahead: Usage, price: ApiPrice | None) -> str:
    """An estimate in one sentence, without and with the answers at their longest."""
    tokens = (
        f"About {ahead.num_replies:,} requests with {ahead.prompt_tokens:,} tokens, and answers of "
        f"{ahead.output_tokens:,} tokens at most"
    )
    if price is None:
        return f"{tokens}; no price is known."
    least = price.of(ahead.model_copy(update={"output_tokens": 0}))
    return f"{tokens}: ${least:.2g} to ${price.of(ahead):.2g} ({price.in_words()})."


def affordable(
    ahead: Usage, price: ApiPrice | None, api: ApiSpec, where: Endpoint, root: Path
) -> None:
    """Refuse what may cost more than the spec allows.

    Raises:
        BadInput: It may, or no price is known; nothing was asked yet.
    """
    if api.max_usd is None:
        return
    if price is None:
        raise BadInput(
            f"capability.api.max_usd is set, but no price of {where.model} at {where.host} is "
            f"known. Write it into {root / OVERRIDES} as {where.host}/{where.model}, or remove "
            "max_usd."
        )
    if price.of(ahead) > api.max_usd:
        raise BadInput(
            f"{ahead_in_words(ahead, price)} That may be more than capability.api.max_usd, "
            f"{api.max_usd:g}: nothing was asked. Ask for less, or raise max_usd."
        )


def spent(record: RunRecord, root: Path) -> str | None:
    """What a run used of an API, in one sentence; None if its models ran here.

    Its tasks, or its teacher's targets. A price is that of now: a new one needs no new run.
    """
    targets = record.distillation.targets if record.distillation else None
    found = [part.usage for part in (record.capability, targets) if part and part.usage]
    if not found:
        return None
    (usage,) = found
    where = endpoint.parse_endpoint(record.spec.teacher)
    return spent_in_words(usage, of_endpoint(root, where.url, where.model))


def spent_in_words(usage: Usage, price: ApiPrice | None) -> str:
    """What an API counted in one sentence, and what that cost."""
    thoughts = f" ({usage.reasoning_tokens:,} of them thoughts)" if usage.reasoning_tokens else ""
    silent = f"; {usage.num_uncounted:,} replies were not counted" if usage.num_uncounted else ""
    said = (
        f"{usage.num_replies:,} replies, {usage.prompt_tokens:,} tokens read, "
        f"{usage.output_tokens:,} written{thoughts}{silent}"
    )
    if price is None:
        return f"{said}; no price is known."
    return f"{said}: ${price.of(usage):.3g} ({price.in_words()})."


def _own(name: str, entry: Any, source: str) -> ApiPrice:
    provider, _, model = name.partition("/")
    if not model or not isinstance(entry, dict):
        raise BadInput(
            f"{source}: {name!r} should be provider/model with input_usd_per_mtok and "
            "output_usd_per_mtok."
        )
    return ApiPrice.parse(
        {"note": "your own price", **entry, "provider": provider, "model": model},
        f"{source}: the price of {name}",
    )
