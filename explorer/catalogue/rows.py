"""The schema of each catalogue table. Every row has a source, and most have a date.

models.csv          a published model: size, method, teacher, whether that is disclosed
scores.csv          a score of a model on a benchmark, in one table of one publisher
tables.csv          the tables that the scores are from
pairs.csv           a student and the model it is compared with, in one table
chance.csv          the score of random guessing on a benchmark, where known
speeds.csv          a published speed of a student and of its teacher
api_prices.csv      what an API charges for a model's tokens
hardware.csv        what a device costs per hour
hardware_specs.csv  a device's memory, bandwidth, compute and power
shapes.csv          the size of a model's KV cache per token
deployments.csv     hardware on which others run a model
"""

import datetime
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from explorer.specs import Spec

UNDATED = "undated"
"""Marks a date that the source does not give, alone or in brackets."""


def first_day(text: str) -> datetime.date | None:
    """The first day of a date such as 2026-11-24, 2025-01, 2024-07/08 (report) or 2019.

    None if the text does not start with a date.

    Raises:
        ValueError: There is no such day, as in 2026-02-30.
    """
    match = re.match(r"(\d{4})(?:-(\d\d))?(?:-(\d\d))?(?!-?\d)", text)
    if match is None:
        return None
    year, month, date = (int(part) if part else None for part in match.groups())
    assert year is not None, "the pattern requires a year"
    if month is None:
        return datetime.date(year, 1, 1)
    return datetime.date(year, month, date or 1)


def _dated(text: str) -> str:
    try:
        known = first_day(text)
    except ValueError as error:
        raise ValueError("must be a day that exists, such as 2026-11-24") from error
    if known is None and UNDATED not in text:
        raise ValueError("must begin with a date like 2026-11-24, or say undated")
    return text


def _dated_or_empty(text: str) -> str:
    return _dated(text) if text else text


def _web(text: str) -> str:
    if not re.match(r"https?://[^\s/]+\.[^\s/]+", text):
        raise ValueError("must be an address that starts with http:// or https://")
    return text


Url = Annotated[str, AfterValidator(_web)]
Date = Annotated[str, AfterValidator(_dated)]
DateIfKnown = Annotated[str, AfterValidator(_dated_or_empty)]
Name = Annotated[str, Field(min_length=1)]
Positive = Annotated[float, Field(gt=0)]
YesNo = Literal["yes", "no", "partly"]


class Model(Spec):
    """A published model."""

    model: Name
    org: Name
    role: Name
    params_total_b: Positive | None = None
    """Billions of parameters; None if not published."""
    params_active_b: Positive | None = None
    """Billions of parameters active per token; below the total in a mixture of experts."""
    params_note: str | None = None
    hf_id: str | None = None
    hf_id_seen: str | None = None
    teacher: str | None = None
    """As the publisher names it."""
    teacher_disclosed: YesNo | None = None
    compare_to: str | None = None
    compare_table_id: str | None = None
    method: str | None = None
    method_note: str | None = None
    released: Date | None = None
    licence: str | None = None
    source_url: Url
    source_title: Name
    date_seen: Date


class Score(Spec):
    """A published score."""

    model: Name
    benchmark: Name
    score: float = Field(ge=0)
    setting: Name
    source_url: Url
    source_title: Name
    table_id: Name
    unit: Literal["%", "Elo", "ppl", "score/10"]
    higher_is_better: bool
    seen_via: Name
    """Whether the source itself was read or a copy of it."""


class Table(Spec):
    """A published table of scores."""

    table_id: Name
    publisher: Name
    """Who measured all scores of the table."""
    source_title: Name
    source_url: Url
    date_seen: Date


class Pair(Spec):
    """A student and the model it is compared with, in the same table."""

    family: Name
    student: Name
    compared_to: Name
    table_id: Name
    n_benchmarks: int = Field(gt=0)
    mean_pct: Positive
    """Mean raw ratio in percent as first computed; `check_catalogue` recomputes it."""
    median_pct: Positive
    min_pct: Positive
    min_benchmark: Name
    max_pct: Positive
    max_benchmark: Name
    n_at_least_95: int = Field(ge=0)
    n_at_least_90: int = Field(ge=0)
    method: Name
    teacher_disclosed: YesNo
    is_declared_teacher: YesNo
    """Whether the publisher names exactly this model as the student's teacher."""


class Chance(Spec):
    """The score of random guessing on a benchmark, as a fraction."""

    benchmark: Name
    chance: float = Field(ge=0, lt=1)
    why: Name
    source_url: Url
    published: Date


class Speed(Spec):
    """A published speed of a student and of its teacher."""

    student: Name
    teacher: Name
    what: Name
    student_value: Positive
    teacher_value: Positive
    unit: Name
    higher_is_faster: bool
    source_url: Url
    source_title: Name
    date_seen: Date
    note: str | None = None


class ApiPriceRow(Spec):
    """What an API charges per million tokens, in US dollars."""

    catalogue_model: Name
    provider: Name
    provider_model_id: Name
    input_usd_per_m: float = Field(ge=0)
    output_usd_per_m: float = Field(ge=0)
    vendor_page_checked_on: Date | None = None
    price_as_of: Date
    source_url: Url
    source_title: Name
    vendor_pricing_url: Url
    note: str | None = None


class DevicePrice(Spec):
    """What a device costs per hour at one provider."""

    hardware: Name
    kind: Literal["gpu", "cpu"]
    provider: Name
    tier: Name
    instance: str | None = None
    min_units: int = Field(gt=0)
    usd_per_unit_hour: Positive
    date_seen: Date
    vendor_page: Url | None = None
    source_url: Url
    source_title: Name
    price_note: str | None = None
    vcpus: Positive | None = None
    ram_gb: Positive | None = None
    memory_gb: Positive | None = None
    mem_bandwidth_gb_s: Positive | None = None
    dense_bf16_tflops: Positive | None = None
    tdp_w: Positive | None = None
    spec_source_url: Url | None = None
    source_seen: Name


class DeviceSpec(Spec):
    """A device's memory, bandwidth, compute and power."""

    hardware: Name
    kind: Literal["gpu", "cpu"]
    memory_gb: Positive
    mem_bandwidth_gb_s: Positive
    dense_bf16_tflops: Positive
    """Without sparsity, which published peaks often include."""
    tdp_w: Positive | None = None
    spec_note: str | None = None
    spec_source_url: Url
    spec_source_title: Name
    other_sources: str | None = None
    date_seen: Date


class Shape(Spec):
    """The size of a model's KV cache per token."""

    model: Name
    num_layers: int = Field(gt=0)
    kv_values_per_layer: int = Field(gt=0)
    """Numbers stored per token and layer."""
    what: Name
    source_url: Url
    date_seen: Date


class Deployment(Spec):
    """Hardware on which others run a model."""

    model: Name
    hardware: Name
    num_devices: int = Field(gt=0)
    bits: Literal["16", "8", "4"]
    source_url: Url
    note: str | None = None
    date_seen: Date


class Clause(Spec):
    """What a licence or an API's terms say of training on a model's output."""

    rule: Name
    publisher: Name
    licence: str | None = None
    """The licence's id on the Hub; None for an API."""
    model_pattern: Name
    """A regular expression for names of models, or of licences."""
    host: str | None = None
    """The API's host; None for a licence."""
    effect: Literal["forbids", "condition"]
    clause: Name
    text: Name
    """The clause's words."""
    source_url: Url
    source_title: Name
    seen_via: Name
    date_seen: Date


TABLES: dict[str, type[Spec]] = {
    "models": Model,
    "scores": Score,
    "tables": Table,
    "pairs": Pair,
    "chance": Chance,
    "speeds": Speed,
    "api_prices": ApiPriceRow,
    "hardware": DevicePrice,
    "hardware_specs": DeviceSpec,
    "shapes": Shape,
    "deployments": Deployment,
    "terms": Clause,
}
"""The row type of every table."""
