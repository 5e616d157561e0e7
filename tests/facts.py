"""The catalogue put together once for all tests that read it."""

import functools

from explorer.analysis.published import published_retention
from explorer.analysis.published.published_retention import Published
from explorer.catalogue import load


@functools.cache
def found() -> Published:
    """What ships, as the page shows it; do not change its frames."""
    return published_retention.collect_published(load.all_tables())
