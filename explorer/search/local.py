"""A round's trainings one after another in this process."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from explorer.errors import RunFailed
from explorer.pipeline import run
from explorer.search.successive_halving import Round, Train, ended, told
from explorer.store import disk
from explorer.store.progress import Listener, Progress

log = logging.getLogger("explorer")

OnRun = Callable[[str], Listener]
"""Called before each run with a title; gives what hears the run's progress."""


def train(on_run: OnRun) -> Train:
    """What trains here and tells of each run."""

    def in_turn(now: Round, root: Path, progress: Progress) -> None:
        first = now.num_runs - len(now.missing)
        for number, (words, spec) in enumerate(now.missing.items(), start=first):
            # Asked for by hand, so an old request to stop is over.
            disk.withdraw_cancel(root, spec.run_id)
            listener = on_run(f"{now.title}: {words}")
            try:
                run(spec, root, partial(_tell, listener, progress, now, number))
            except RunFailed as error:
                if not ended(root, spec.run_id):
                    raise
                log.warning("Out of the tournament: %s", error)

    return in_turn


def _tell(
    listener: Listener, progress: Progress, now: Round, num_done: int, status: dict[str, Any]
) -> None:
    told(progress, now, num_done)
    listener(status)
