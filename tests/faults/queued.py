"""Ray's processes killed under a queued run: the head, its node, the job."""

import functools
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from explorer import jobs
from explorer.index.run_states import ACTIVE
from explorer.jobs import ray_head
from tests.faults.faults import Bad, Fault
from tests.faults.stores import Stores, enter, outcome_of

WAIT_S = 150.0
VICTIMS = {
    "the whole head": "",
    "the head's server": "gcs_server",
    "the node": "raylet",
    "the job": "-m explorer run",
}
"""What is killed, and what its command line holds."""


def faults(stores: Stores) -> Iterator[Fault]:
    """Every fault of this subject."""
    for name, words in VICTIMS.items():
        happen = functools.partial(killed, stores, words)
        yield Fault("Ray is killed under a run", name, happen, timeout_s=600.0, long=True)


def killed(stores: Stores, words: str, folder: Path) -> None:
    """Queue the run, kill what has these words in its command line, resume, and compare."""
    root, cache = folder / "results", folder / "cache"
    root.mkdir()
    enter(root)
    cache.mkdir()
    if (stores.cache / "tasks").is_dir():
        shutil.copytree(stores.cache / "tasks", cache / "tasks")
    os.environ["EXPLORER_CACHE"] = str(cache)
    os.environ.pop("RAY_ADDRESS", None)
    run_id = stores.spec.run_id
    try:
        jobs.submit([stores.spec], root)
        _wait(root, run_id, lambda state: state not in ("queued", None))
        head = ray_head._saved_head()
        assert head is not None
        for process in ray_head._processes_of(head):
            with suppress(psutil.Error):
                if words in " ".join(process.cmdline()):
                    process.send_signal(signal.SIGKILL)
        # A node that is killed ends its jobs within seconds; a run whose head alone was killed
        # may finish.
        _wait(root, run_id, lambda state: state not in ACTIVE)
        if jobs.state_of(root, run_id) != "finished":
            jobs.resume(root, run_id)
            _wait(root, run_id, lambda state: state not in ACTIVE)
        if jobs.state_of(root, run_id) != "finished":
            raise Bad("stuck", f"resumed, it is {jobs.status_row(root, run_id)}")
        stores.compare(outcome_of(root, stores.spec))
    finally:
        with suppress(Exception):
            jobs.stop_engine()


def _wait(root: Path, run_id: str, until: Callable[[str | None], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not until(jobs.state_of(root, run_id)):
        if time.monotonic() > deadline:
            raise Bad("stuck", f"after {WAIT_S:.0f} s it is {jobs.status_row(root, run_id)}")
        time.sleep(0.2)
