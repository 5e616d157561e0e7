"""A number with its interval, or the reasons why it is not known.

    Quantity(100.0, 95.0, 106.0) / 4      # 25, in [23.75, 26.5]
    unknown("the price of the device") * 3  # still not known, for the same reason

Intervals are carried through by their worst cases: the ends of a product of two uncertain
numbers are further apart than chance alone would put them, never nearer. Where one side has
no interval it counts as exact.
"""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from explorer.analysis import numbers
from explorer.records.quantiles import median_interval


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A positive number or zero, its 95 % interval if there is one, and what is missing."""

    value: float | None
    low: float | None = None
    high: float | None = None
    missing: tuple[str, ...] = ()
    """What would have to be known; empty where the value is."""

    @property
    def known(self) -> bool:
        """Whether there is a value."""
        return self.value is not None

    def __mul__(self, other: "Quantity | float") -> "Quantity":
        return _combined(self, _quantity(other), lambda a, b: a * b)

    __rmul__ = __mul__

    def __truediv__(self, other: "Quantity | float") -> "Quantity":
        by = _quantity(other)
        if by.value == 0 or by.low == 0:
            return unknown("a divisor that is not zero")
        return _combined(self, by, lambda a, b: a / b)

    def __rtruediv__(self, other: float) -> "Quantity":
        return _quantity(other) / self

    def __add__(self, other: "Quantity | float") -> "Quantity":
        return _combined(self, _quantity(other), lambda a, b: a + b)

    __radd__ = __add__

    def __sub__(self, other: "Quantity | float") -> "Quantity":
        return _combined(self, _quantity(other), lambda a, b: a - b)

    def in_words(self, write: Any = numbers.significant) -> str:
        """The value as `write` writes it, its interval behind it; an en dash for none."""
        if self.value is None:
            return numbers.MISSING
        ends = ""
        if self.low is not None and self.high is not None:
            ends = f" [{write(self.low)}, {write(self.high)}]"
        return f"{write(self.value)}{ends}"


def unknown(*missing: str) -> Quantity:
    """A number that is not known, and what would make it known."""
    return Quantity(None, missing=missing)


def from_value(value: Any, name: str) -> Quantity:
    """A number of a frame or an input; None, NaN and NA are unknown for want of `name`."""
    return unknown(name) if numbers.missing(value) else Quantity(float(value))


def median_quantity(values: Sequence[float], name: str = "a timing") -> Quantity:
    """The median with its 95 % interval, whatever the distribution.

    The interval is that of `quantiles.median_interval`; below six values there is none.
    """
    ordered = sorted(float(v) for v in values if not numbers.missing(v))
    if not ordered:
        return unknown(name)
    return Quantity(statistics.median(ordered), *(median_interval(ordered) or ()))


def _quantity(value: "Quantity | float") -> Quantity:
    return value if isinstance(value, Quantity) else Quantity(float(value))


def _combined(a: Quantity, b: Quantity, how: Any) -> Quantity:
    """The result, with the least and the most that the ends allow."""
    missing = tuple(dict.fromkeys((*a.missing, *b.missing)))
    if a.value is None or b.value is None:
        return Quantity(None, missing=missing)
    value = how(a.value, b.value)
    if a.low is None and b.low is None:
        return Quantity(value)
    ends = [how(x, y) for x in _ends(a) for y in _ends(b)]
    return Quantity(value, min(ends), max(ends))


def _ends(one: Quantity) -> tuple[float, float]:
    assert one.value is not None, "the caller looked"
    if one.low is None or one.high is None:
        return one.value, one.value
    return one.low, one.high
