"""Old records become present ones: one function per step from a schema version to the next.

A step takes and returns plain data of a whole record. It changes only what the next version
states differently; a field that is merely newer has a default that is true of older records.
To change the schema: raise `SCHEMA_VERSION`, add a step, and add a golden record of the new
version to tests/golden/records.
"""

import copy
from collections.abc import Callable
from typing import Any, Final

from explorer.errors import CannotRead, DamagedStore

SCHEMA_VERSION: Final = 2
"""The version that this explorer writes."""

Data = dict[str, Any]


def migrate(data: Any, source: str = "record.json") -> Data:
    """Bring a record's plain data from its schema version to the present one.

    Args:
        data: A record of any version; it is not changed.
        source: Named in errors.

    Raises:
        DamagedStore: `data` is not a mapping or has no version.
        CannotRead: It has a version from the future.
    """
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DamagedStore(f"{source} has no schema_version, so it is not a run record.")
    if version > SCHEMA_VERSION:
        raise CannotRead(
            f"{source} has schema_version {version}; this explorer reads up to "
            f"{SCHEMA_VERSION}. Update the explorer to read it."
        )
    if version < SCHEMA_VERSION:
        data = copy.deepcopy(data)
    for step in range(version, SCHEMA_VERSION):
        data = STEPS[step](data) | {"schema_version": step + 1}
    return dict(data)


def _from_1_to_2(record: Data) -> Data:
    """Missing numbers were 0, and eager transformers, once the only runtime, had no name."""
    latency = _part(record, "latency")
    for timing in (_part(latency, "own"), _part(latency, "teacher")):
        if not timing:
            continue
        # A spec cannot ask for an empty prompt: 0 meant that the endpoint did not count.
        if timing.get("prompt_tokens") == 0:
            timing["prompt_tokens"] = None
        if timing.get("runtime") is None:
            timing["runtime"] = {"name": "transformers eager"}
    targets = _part(_part(record, "distillation"), "targets")
    for usage in (_part(_part(record, "capability"), "usage"), _part(targets, "usage")):
        # 0 meant none, or that the API does not say; only the second is certain to be true.
        if usage.get("reasoning_tokens") == 0:
            usage["reasoning_tokens"] = None
    return record


STEPS: Final[dict[int, Callable[[Data], Data]]] = {1: _from_1_to_2}
"""A schema version to the function that lifts its records to the next."""


def _part(data: Data, name: str) -> Data:
    """A part of a record; an empty one where the record lacks it or is damaged."""
    part = data.get(name)
    return part if isinstance(part, dict) else {}
