"""A tournament in the queue: a round's trainings are runs of the queue, side by side.

One job holds the tournament: it reserves nothing, submits a round's runs, waits for them
and submits the next round's. So it goes on when the page is closed, and its runs are seen
and cancelled where all runs are.
"""

import math
import sys
from pathlib import Path

import pandas as pd

from explorer import jobs
from explorer.errors import ExplorerError, RunCancelled, RunFailed
from explorer.jobs.queue import OnProgress, no_progress
from explorer.jobs.states import ACTIVE
from explorer.search.successive_halving import Round, begin, ended, folder, read, standings, told
from explorer.specs import TuneSpec
from explorer.store.progress import Progress


def submit(spec: TuneSpec, root: Path, on_progress: OnProgress = no_progress) -> str:
    """Queue a tournament and return its id; one that is under way is left as it is.

    Raises:
        JobError: Ray does not start or does not answer; the tournament becomes interrupted.
    """
    tune_id = begin(spec, root)
    jobs.submit_command(tune_id, _command(tune_id), root, folder(root), on_progress)
    return tune_id


def resume(root: Path, tune_id: str, on_progress: OnProgress = no_progress) -> str:
    """Queue a tournament again; what it has trained is not trained anew.

    Raises:
        BadInput: There is no such tournament.
        JobError: Ray does not start or does not answer.
    """
    return submit(read(root, tune_id), root, on_progress)


def cancel(root: Path, tune_id: str) -> None:
    """Ask a tournament and its runs to stop, and return at once; checkpoints stay.

    Raises:
        BadInput: There is no such tournament.
    """
    spec = read(root, tune_id)
    jobs.request_stop(folder(root), tune_id)
    try:
        now = standings(spec, root)
    except ExplorerError:
        return
    _cancel_runs(now, root)


def listing(root: Path) -> pd.DataFrame:
    """A row a tournament, as `jobs.listing` has them for runs."""
    return jobs.status_table(folder(root))


def train(now: Round, root: Path, progress: Progress) -> None:
    """Do a round's missing trainings in the queue.

    Raises:
        RunCancelled: Somebody asked the tournament to stop; its runs are asked too.
        RunFailed: One of them neither ended nor failed by itself.
    """
    runs = {spec.run_id: spec for spec in now.missing.values()}

    def look(states: dict[str, str]) -> None:
        left = sum(states.get(spec.run_id) in ACTIVE for spec in now.missing.values())
        told(progress, now, now.num_runs - left)

    try:
        jobs.submit(list(runs.values()), root)
        states = jobs.wait_until_done(root, list(runs), math.inf, look)
    except RunCancelled:
        _cancel_runs(now, root)
        raise
    for run_id, state in states.items():
        if not ended(root, run_id):
            raise RunFailed(
                f"{run_id} is {state}, so the tournament cannot go on. See that run's log, "
                "then resume the tournament."
            )


def _command(tune_id: str) -> list[str]:
    return [sys.executable, "-m", "explorer", "tune", "--queued", tune_id]


def _cancel_runs(now: Round, root: Path) -> None:
    """Ask the round's runs that are under way to stop."""
    for spec in now.missing.values():
        if jobs.state_of(root, spec.run_id) in ACTIVE:
            jobs.cancel(root, spec.run_id)
