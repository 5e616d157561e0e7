"""Tries faults on runs and stores, and counts what is lost, stuck, down or untrue.

    make faults
    python -m tests.faults.harness foreign --name "a date"

Prints each fault that did not go well, a table, and one line of JSON.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

# Before torch: a fork keeps one thread.
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

from tests.faults import damage, foreign, kills, mounted, queued, together
from tests.faults.faults import Fault, Result, summary, table, try_all
from tests.faults.stores import Stores

SUBJECTS = {
    "together": together,
    "kills": kills,
    "mounted": mounted,
    "queued": queued,
    "damage": damage,
    "foreign": foreign,
}
SHORT = (
    "kill -9 before a change",
    "the disk is full and stays so",
    "a file truncated",
    "a foreign folder, all pages",
)
"""The kinds of which a short try has one fault each."""


def all_faults(stores: Stores, subjects: Sequence[str] = tuple(SUBJECTS)) -> Iterator[Fault]:
    """Every fault of these subjects."""
    for name in subjects:
        yield from SUBJECTS[name].faults(stores)


def short_faults(faults: list[Fault]) -> list[Fault]:
    """The fault in the middle of each kind of `SHORT`."""
    kinds = [[fault for fault in faults if fault.kind == kind] for kind in SHORT]
    return [own[len(own) // 2] for own in kinds if own]


def try_faults(
    folder: Path,
    subjects: Sequence[str] = tuple(SUBJECTS),
    *,
    short: bool = False,
    kind: str = "",
    name: str = "",
    processes: int = 2,
) -> list[Result]:
    """Make the stores and try the faults; prints those that did not go well."""
    stores = Stores(folder)
    stores.make_templates()
    faults = list(all_faults(stores, subjects))
    faults = short_faults(faults) if short else faults
    faults = [fault for fault in faults if kind in fault.kind and name in fault.name]
    results = []
    for result in try_all(faults, processes):
        results.append(result)
        if len(results) % 50 == 0:
            print(f"{len(results)} of {len(faults)} faults tried", file=sys.stderr, flush=True)
        if result.outcome != "survived":
            print(f"{result.outcome}: {result.kind}: {result.name}: {result.why}", flush=True)
    return results


def main() -> None:
    """Try faults, and print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="*", help=f"of {', '.join(SUBJECTS)}; all by default")
    parser.add_argument("--kind", default="", help="only kinds with this in their name")
    parser.add_argument("--name", default="", help="only faults with this in their name")
    parser.add_argument("--short", action="store_true", help="one of a few kinds")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fault-stores-") as folder:
        results = try_faults(
            Path(folder),
            options.subjects or tuple(SUBJECTS),
            short=options.short,
            kind=options.kind,
            name=options.name,
            processes=options.processes,
        )
    print(table(results))
    last = summary(results) | {"seconds": round(time.monotonic() - began)}
    print(json.dumps(last), flush=True)
    sys.exit(last["survived"] != last["tried"] or not results)


if __name__ == "__main__":
    main()
