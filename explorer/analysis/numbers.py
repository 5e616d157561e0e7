"""How numbers are written everywhere: three significant digits, a unit, an en dash if missing."""

import math
from typing import Any

from explorer.records.rows import missing as missing

MISSING = "–"


def significant(value: Any, digits: int = 3) -> str:
    """A number rounded to `digits` significant digits, without an exponent."""
    if missing(value):
        return MISSING
    number = float(value)
    if number == 0:
        return "0"
    number = float(f"{number:.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(number))))
    return f"{number:,.{decimals}f}"


def interval(low: Any, high: Any, digits: int = 3) -> str:
    """`[79.1, 87.2]`; empty if either end is missing."""
    if missing(low) or missing(high):
        return ""
    return f"[{significant(low, digits)}, {significant(high, digits)}]"


def percent(value: Any, low: Any = None, high: Any = None, digits: int = 3) -> str:
    """`83.4 % [79.1, 87.2]` from shares, where 1.0 is 100 %."""
    if missing(value):
        return MISSING
    ends = ""
    if not missing(low) and not missing(high):
        ends = f"[{_whole(100 * low, digits)}, {_whole(100 * high, digits)}]"
    return f"{_whole(100 * value, digits)} % {ends}".rstrip()


def _whole(number: float, digits: int) -> str:
    """As `significant`, but never rounded to tens: 141 beside a table's 141."""
    return significant(number, max(digits, len(str(int(abs(number))))))


def dollars(value: Any, digits: int = 3) -> str:
    """`$0.0496`, `$12.3`, `$1,230`."""
    if missing(value):
        return MISSING
    sign = "-" if value < 0 else ""
    return f"{sign}${significant(abs(value), digits)}"


def milliseconds(value: Any) -> str:
    """`45.2 ms`."""
    return MISSING if missing(value) else f"{significant(value)} ms"


def parameters(value: Any) -> str:
    """`135 M`, `1.71 B`."""
    return _scaled(value, [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")], "")


def size(value: Any) -> str:
    """Bytes as `538 MB` or `1.20 GB`; 1 GB is 10^9 bytes."""
    return _scaled(value, [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")], "B")


def duration(seconds: Any) -> str:
    """`45 s`, `12 min`, `3.2 h`."""
    if missing(seconds):
        return MISSING
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def times(value: Any, digits: int = 3) -> str:
    """A ratio, as in `0.521×`."""
    return MISSING if missing(value) else f"{significant(value, digits)}×"


def _scaled(value: Any, units: list[tuple[float, str]], smallest: str) -> str:
    if missing(value):
        return MISSING
    for factor, unit in units:
        # 999.7 M would be written as 1,000 M otherwise.
        if abs(value) >= 0.9995 * factor:
            return f"{significant(value / factor)} {unit}"
    return f"{value:.0f} {smallest}".rstrip()
