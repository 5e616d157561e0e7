"""The base class of every part of a record, and what its numbers and texts may be.

A record may come from elsewhere, or from a damaged disk. A value that no run can have is refused
when the record is read, so that no page has to expect it.
"""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

LARGEST = 10**15
"""Bytes, tokens, seconds or milliseconds above which a number is not a measurement."""
YEARS = range(1970, 2261)
"""Years of a run; later ones are not moments of pandas."""


def _aware(text: str) -> str:
    """Accept a moment with its time zone, in a year of `YEARS`."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("expected a moment with its time zone, as in 2026-11-28T11:54:07+00:00")
    if moment.year not in YEARS:
        raise ValueError(f"expected a year from {YEARS[0]} to {YEARS[-1]}, got {moment.year}")
    return text


Count = Annotated[int, Field(ge=0, le=LARGEST)]
"""How many of something."""
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
"""How many of something that is never without one."""
Amount = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
"""A time, a rate or a share."""
Number = Annotated[float, Field(allow_inf_nan=False)]
"""A score, a loss or a difference."""
Spread = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""The standard error of a score."""
Name = Annotated[str, Field(max_length=2000)]
"""The name of a model, a task, a device or a version."""
Moment = Annotated[str, AfterValidator(_aware)]
"""ISO 8601 with the time zone."""


class RecordPart(BaseModel):
    """A frozen part of a record. An unknown key is an error: it comes from a newer version."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, str_max_length=1_000_000
    )
