"""Times, counts and safe Markdown; numbers with units are `analysis.numbers`."""

import datetime

from explorer.analysis import numbers

ESCAPED = "\\`*_{}[]<>#$~|:"


def moment(text: str) -> datetime.datetime:
    """A record's time as a timezone-aware datetime."""
    parsed = datetime.datetime.fromisoformat(text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)


def ago(text: str, now: datetime.datetime | None = None) -> str:
    """A record's time relative to now: `12 min ago`, `3 days ago`."""
    since = ((now or datetime.datetime.now(datetime.UTC)) - moment(text)).total_seconds()
    if since < 60:
        return "just now"
    if since < 2 * 86_400:
        return f"{numbers.duration(since)} ago"
    return f"{since / 86_400:.0f} days ago"


def absolute(text: str) -> str:
    """A record's time in full, in UTC."""
    return moment(text).astimezone(datetime.UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0")


def plural(count: int, noun: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def md(text: str) -> str:
    """Text that Streamlit's Markdown shows as it is: no formulas, no links, no emphasis."""
    return "".join(f"\\{letter}" if letter in ESCAPED else letter for letter in text)
