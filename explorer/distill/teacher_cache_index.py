"""The index of cached targets: which shard holds which blocks, and what its file has to be."""

import contextlib
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic

from explorer.errors import DamagedStore
from explorer.files import durable_files
from explorer.files.durable_files import FileSum

log = logging.getLogger("explorer")

INDEX = "index.jsonl"
"""One line a shard, in the order of writing."""
REFUSED = "refused.jsonl"
"""The blocks that an endpoint refused for good, one a line, with its reason."""
OLD_INDEX = "index.json"
"""All shards of a folder that an older version wrote; read, and no longer written."""


SHARD_NAME = r"^shard-[0-9]+\.bin$"
"""A shard lies beside its index; an index from elsewhere may name any file."""


class CacheFacts(pydantic.BaseModel):
    """What meta.json of a folder of targets holds."""

    identity: dict[str, Any]
    about: dict[str, Any]


class IndexLine(pydantic.BaseModel):
    """A line of the index: a shard, and where each of its blocks is."""

    name: str = pydantic.Field(pattern=SHARD_NAME)
    sha256: str
    num_bytes: pydantic.NonNegativeInt
    seconds: pydantic.NonNegativeFloat
    blocks: list[pydantic.NonNegativeInt]
    mass: list[float]
    truncation_kl: list[float | None]
    num_unknown: pydantic.NonNegativeInt | None = None


def iterate_index(folder: Path) -> Iterator[tuple[dict[str, Any] | None, int]]:
    """Each shard of a folder of targets, and the bytes of the index up to its end.

    Half a line at the end, which a killed pass leaves, is no shard. A damaged line gives None, and
    the log says so.

    Raises:
        DamagedStore: The index of an older version cannot be read; the message says what to do.
    """
    num_bytes, names = 0, set()
    with contextlib.suppress(FileNotFoundError), (folder / INDEX).open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            num_bytes += len(line)
            shard = _parsed_line(folder / INDEX, line)
            if shard is not None:
                names.add(shard["name"])
            yield shard, num_bytes
    if (folder / OLD_INDEX).exists():
        for shard in read_json(folder / OLD_INDEX)["shards"]:
            if not re.fullmatch(SHARD_NAME, str(shard.get("name"))):
                raise _unreadable(folder / OLD_INDEX, f"it names {shard['name']!r}, no shard.")
            if shard["name"] not in names:
                yield shard, num_bytes


def _parsed_line(path: Path, line: bytes) -> dict[str, Any] | None:
    """The shard of a line of the index; None if it is not what was written."""
    try:
        shard = IndexLine.model_validate(durable_files.parse_json(line.decode()))
    except ValueError as error:
        log.warning("A line of %s is damaged, and its blocks are computed again: %s", path, error)
        return None
    return shard.model_dump(exclude_unset=True)


def index_line(shard: dict[str, Any]) -> str:
    """The line of a shard, with its checksum."""
    return durable_files.with_checksum(json.dumps(shard))


def read_refused(folder: Path) -> dict[int, str]:
    """The reasons of refused blocks by number. A line that cannot be read is asked again."""
    refused = {}
    with contextlib.suppress(FileNotFoundError):
        for line in durable_files.read_bytes(folder / REFUSED).splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                data = durable_files.parse_json(line.decode())
                refused[int(data["block"])] = str(data["reason"])
    return refused


def sum_of_shard(shard: dict[str, Any]) -> FileSum:
    """Size and checksum of a shard's file, as the index has them."""
    return FileSum(num_bytes=shard["num_bytes"], sha256=shard["sha256"])


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a cache's folder.

    Raises:
        DamagedStore: It cannot be read; the message says what to do.
    """
    try:
        return durable_files.read_json(path, dict[str, Any])
    except (FileNotFoundError, DamagedStore) as error:
        raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, why: str) -> DamagedStore:
    return DamagedStore(
        f"{path} cannot be read: {why} Remove its folder (explorer targets rm {path.parent.name}); "
        "the next run then repeats the teacher's pass."
    )
