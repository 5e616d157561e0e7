"""A round's trainings one after another in this process.

The search is watched as its runs are: its status shows that it lives while a run is silent, and a
request to stop it acts in every stage of a run.
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from explorer.errors import RunFailed
from explorer.pipeline import run, stopping
from explorer.search.successive_halving import (
    RoundStatus,
    TrainRound,
    final_record,
    report_progress,
)
from explorer.store import disk
from explorer.store.progress import Listener, Progress

log = logging.getLogger("explorer")

OnRun = Callable[[str], Listener]
"""Called with a title before each run; returns what gets the run's progress."""


def train_here(on_run: OnRun) -> TrainRound:
    """A function that trains a round in this process, one run at a time."""

    def train_round(status: RoundStatus, root: Path, progress: Progress) -> None:
        with stopping.stoppable(progress):
            num_ended = status.num_runs - len(status.missing)
            for num_done, (changes, spec) in enumerate(status.missing.items(), start=num_ended):
                # Started by hand, which withdraws an earlier request to stop.
                disk.withdraw_cancel(root, spec.run_id)
                listener = on_run(f"{status.title}: {changes}")
                try:
                    run(spec, root, partial(_report, listener, progress, status, num_done))
                except RunFailed as error:
                    if not final_record(root, spec.run_id):
                        raise
                    log.warning("Out of the tournament: %s", error)

    return train_round


def _report(
    listener: Listener,
    progress: Progress,
    status: RoundStatus,
    num_done: int,
    run_status: dict[str, Any],
) -> None:
    report_progress(progress, status, num_done)
    listener(run_status)
