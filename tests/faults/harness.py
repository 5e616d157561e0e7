"""Tries faults on runs and stores, and counts what is lost, stuck, down or untrue.

    make faults
    python -m tests.faults.harness --kind foreign --name "a date" --short

Prints each fault that did not go well, a table, and one line of JSON.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

# Before torch: a fork keeps one thread.
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

from tests.faults import damage, foreign, kills, queued, together
from tests.faults.faults import Fault, Result, summary, table, try_all
from tests.faults.stores import Stores

SUBJECTS = (queued, damage, foreign, kills, together)
SHORT_EVERY = 40
"""In a short try one fault in so many of each kind."""


def all_faults(stores: Stores) -> Iterator[Fault]:
    """Every fault of every subject."""
    for subject in SUBJECTS:
        yield from subject.faults(stores)


def short_faults(stores: Stores, every: int = SHORT_EVERY) -> list[Fault]:
    """The first fault of each kind, and one in `every` of the others."""
    seen: dict[str, int] = {}
    chosen = []
    for fault in all_faults(stores):
        number = seen.setdefault(fault.kind, 0)
        seen[fault.kind] += 1
        if number % every == 0 and not fault.long:
            chosen.append(fault)
    return chosen


def try_faults(
    folder: Path, *, short: bool = False, kind: str = "", name: str = "", processes: int = 2
) -> list[Result]:
    """Make the stores and try the faults; prints those that did not go well."""
    stores = Stores(folder)
    stores.make_templates()
    faults = short_faults(stores) if short else list(all_faults(stores))
    faults = [fault for fault in faults if kind in fault.kind and name in fault.name]
    results = []
    for result in try_all(faults, processes):
        results.append(result)
        if result.outcome != "survived":
            print(f"{result.outcome}: {result.kind}: {result.name}: {result.why}", flush=True)
    return results


def main() -> None:
    """Try faults, and print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", default="", help="only kinds with this in their name")
    parser.add_argument("--name", default="", help="only faults with this in their name")
    parser.add_argument("--short", action="store_true", help="a few of each kind")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fault-stores-") as folder:
        results = try_faults(
            Path(folder),
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
