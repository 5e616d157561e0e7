"""A number with its interval, or the list of what is missing to know it.

    Quantity(100.0, 95.0, 106.0) / 4        # 25, in [23.75, 26.5]
    unknown("the price of the device") * 3  # still unknown, for the same reason

Arithmetic propagates intervals by their worst cases, so the interval of a product of two
uncertain numbers may be too wide, never too narrow. A number without an interval is exact, such as
a price, or `uncertain`: measured too few times to have one. What is computed from an uncertain
number has no interval either.
"""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from explorer.analysis import numbers
from explorer.records.quantiles import median_interval


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A number >= 0 with its 95 % interval, if it has one; or what is missing to know it."""

    value: float | None
    low: float | None = None
    high: float | None = None
    missing: tuple[str, ...] = ()
    """The unknown inputs; empty if the value is known."""
    uncertain: bool = dataclasses.field(default=False, compare=False)
    """Whether the value was measured, but too few times for an interval."""

    @property
    def known(self) -> bool:
        """Whether there is a value."""
        return self.value is not None

    def __mul__(self, other: "Quantity | float") -> "Quantity":
        return _combined(self, _quantity(other), lambda a, b: a * b)

    __rmul__ = __mul__

    def __truediv__(self, other: "Quantity | float") -> "Quantity":
        divisor = _quantity(other)
        if divisor.value == 0 or divisor.low == 0:
            return unknown("a divisor that is not zero")
        return _combined(self, divisor, lambda a, b: a / b)

    def __rtruediv__(self, other: float) -> "Quantity":
        return _quantity(other) / self

    def __add__(self, other: "Quantity | float") -> "Quantity":
        return _combined(self, _quantity(other), lambda a, b: a + b)

    __radd__ = __add__

    def __sub__(self, other: "Quantity | float") -> "Quantity":
        return _combined(self, _quantity(other), lambda a, b: a - b)

    def in_words(self, write: Any = numbers.significant) -> str:
        """The value formatted by `write`, followed by its interval; an en dash if unknown."""
        if self.value is None:
            return numbers.MISSING
        ends = ""
        if self.low is not None and self.high is not None:
            ends = f" [{write(self.low)}, {write(self.high)}]"
        return f"{write(self.value)}{ends}"


def unknown(*missing: str) -> Quantity:
    """An unknown number, and the inputs that are missing."""
    return Quantity(None, missing=missing)


def from_value(value: Any, name: str) -> Quantity:
    """A quantity from a cell or an input; None, NaN and NA mean that `name` is missing."""
    return unknown(name) if numbers.missing(value) else Quantity(float(value))


def median_quantity(values: Sequence[float], name: str = "a timing") -> Quantity:
    """The median with its 95 % interval, which assumes no distribution.

    The interval is that of `quantiles.median_interval`; below six values there is none.
    """
    ordered = sorted(float(v) for v in values if not numbers.missing(v))
    if not ordered:
        return unknown(name)
    value, interval = statistics.median(ordered), median_interval(ordered)
    return Quantity(value, uncertain=True) if interval is None else Quantity(value, *interval)


def _quantity(value: "Quantity | float") -> Quantity:
    return value if isinstance(value, Quantity) else Quantity(float(value))


def _combined(a: Quantity, b: Quantity, how: Any) -> Quantity:
    """The result, with the smallest and the largest value that the ends allow."""
    missing = tuple(dict.fromkeys((*a.missing, *b.missing)))
    if a.value is None or b.value is None:
        return Quantity(None, missing=missing)
    value = how(a.value, b.value)
    if a.uncertain or b.uncertain or (a.low is None and b.low is None):
        return Quantity(value, uncertain=a.uncertain or b.uncertain)
    ends = [how(x, y) for x in _ends(a) for y in _ends(b)]
    return Quantity(value, min(ends), max(ends))


def _ends(quantity: Quantity) -> tuple[float, float]:
    assert quantity.value is not None, "the caller checked"
    if quantity.low is None or quantity.high is None:
        return quantity.value, quantity.value
    return quantity.low, quantity.high
