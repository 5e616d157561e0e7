"""Each file that a run writes, damaged in five ways: what readers say, and what the run does."""

import functools
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from explorer.errors import ExplorerError
from explorer.store import disk
from tests.faults.faults import Bad, Fault
from tests.faults.stores import Stores, open_pages, shown

TIMES = ("started_at", "finished_at")
NOT_READ = (".lock", "log.txt", "/spec.yaml")
"""Ends of names of files that are never read as data here; specs have faults of their own."""


def faults(stores: Stores) -> Iterator[Fault]:
    """Every fault of this subject."""
    for template in (stores.finished, stores.interrupted):
        for kind, how in DAMAGES.items():
            happen = functools.partial(damage_spec, stores, template, how)
            yield Fault(f"a file {kind}", f"{template.name}/{stores.spec.run_id}/spec.yaml", happen)
        for path in files_of(template, stores.finished):
            for kind, how in DAMAGES.items():
                happen = functools.partial(damage, stores, template, path, how)
                yield Fault(f"a file {kind}", f"{template.name}/{path}", happen)


def files_of(template: Path, other: Path) -> list[Path]:
    """The files that a run writes; of an interrupted store those that a finished one lacks."""
    paths = [path.relative_to(template) for path in sorted(template.rglob("*")) if path.is_file()]
    paths = [path for path in paths if not path.as_posix().endswith(NOT_READ)]
    if template == other:
        return paths
    return [path for path in paths if "checkpoint" in path.as_posix()]


def truncated(content: bytes, others: list[bytes]) -> bytes:
    """The first half."""
    return content[: len(content) // 2]


def emptied(content: bytes, others: list[bytes]) -> bytes:
    """Nothing."""
    return b""


def zeroed(content: bytes, others: list[bytes]) -> bytes:
    """As many zeros, as a power cut leaves on some disks."""
    return bytes(len(content))


def bit_flipped(content: bytes, others: list[bytes]) -> bytes:
    """One bit, at a place that depends on the content alone."""
    if not content:
        return b"\1"
    place = random.Random(len(content)).randrange(8 * len(content))
    flipped = bytearray(content)
    flipped[place // 8] ^= 1 << place % 8
    return bytes(flipped)


def replaced(content: bytes, others: list[bytes]) -> bytes:
    """Another file of the same kind."""
    return next((other for other in others if other != content), b"{}")


DAMAGES: dict[str, Callable[[bytes, list[bytes]], bytes]] = {
    "truncated": truncated,
    "emptied": emptied,
    "zeroed": zeroed,
    "with a flipped bit": bit_flipped,
    "replaced": replaced,
}


def damage(
    stores: Stores,
    template: Path,
    path: Path,
    how: Callable[[bytes, list[bytes]], bytes],
    folder: Path,
) -> None:
    """Damage one file, look at the store, and run again what needs it."""
    root = stores.copy(template, folder)
    before = shown(root)
    shutil.rmtree(folder / f"index-of-{root.name}")
    others = [
        other.read_bytes()
        for other in sorted(template.rglob(f"*{path.suffix}"))
        if other.is_file() and other != template / path
    ]
    target = root / path
    content = how(target.read_bytes(), others)
    if content == target.read_bytes():
        return
    target.write_bytes(content)
    check_truth(before, shown(root), str(path))
    open_pages(root, ("explore", "compare"))
    is_record = path.name == disk.RECORD
    if not is_record:
        # The files behind a finished record are read only when it is made again.
        for record in root.glob(f"*/{disk.RECORD}"):
            record.unlink()
    stores.go_on(root, folder)


def damage_spec(
    stores: Stores, template: Path, how: Callable[[bytes, list[bytes]], bytes], folder: Path
) -> None:
    """Damage a run's spec.yaml: Resume takes the right spec or none; running it makes it good."""
    root, run_id = stores.copy(template, folder), stores.spec.run_id
    before = shown(root)
    shutil.rmtree(folder / f"index-of-{root.name}")
    target = root / run_id / disk.SPEC
    others = [path.read_bytes() for path in sorted(root.glob(f"*/{disk.SPEC}")) if path != target]
    target.write_bytes(how(target.read_bytes(), others))
    check_truth(before, shown(root), run_id)
    open_pages(root, ("explore", "run", "compare"))
    try:
        if disk.read_spec(root, run_id) != stores.spec:
            raise Bad("untrue", "Resume would do another run")
    except ExplorerError as error:
        if disk.SPEC not in str(error):
            raise Bad("untrue", f"a damaged {disk.SPEC} was called {error}") from error
    for record in root.glob(f"*/{disk.RECORD}"):
        record.unlink()
    stores.go_on(root, folder)
    if disk.read_spec(root, run_id) != stores.spec:
        raise Bad("lost", f"{disk.SPEC} is not made good")


def check_truth(before: dict[str, Any], after: dict[str, Any], what: str) -> None:
    """What is shown is as before, or something is said to be damaged.

    Raises:
        Bad: It differs without a word.
    """
    if after["problems"] != before["problems"]:
        if any(what.split("/")[0] in problem for problem in after["problems"]):
            return
        raise Bad("untrue", f"{what} is damaged, and the problems are {after['problems']}")
    for name, value in before.items():
        if after[name] != value:
            raise Bad("untrue", f"{what}: {name} changed without a word: {after[name]!s:.200}")
