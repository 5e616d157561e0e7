"""A search in the queue: the trainings of a round are queued runs, side by side.

One job runs the search: it reserves nothing, submits a round's runs, waits for them and submits
the next round. So the search outlives the page, and its runs can be watched and cancelled like
all runs.
"""

import math
import sys
from pathlib import Path

import pandas as pd

from explorer import jobs
from explorer.errors import ExplorerError, RunCancelled, RunFailed
from explorer.index.run_states import ACTIVE
from explorer.jobs.queue import OnProgress, no_progress
from explorer.search.successive_halving import (
    RoundStatus,
    final_record,
    read_spec,
    report_progress,
    round_status,
    save_spec,
    searches_folder,
)
from explorer.specs import TuneSpec
from explorer.store.progress import Progress


def submit(spec: TuneSpec, root: Path, on_progress: OnProgress = no_progress) -> str:
    """Queue a search and return its id; an active search is left alone.

    Raises:
        JobError: Ray does not start or does not answer; the search becomes interrupted.
    """
    tune_id = save_spec(spec, root)
    command = [sys.executable, "-m", "explorer", "tune", "--queued", tune_id]
    jobs.submit_command(tune_id, command, root, searches_folder(root), on_progress)
    return tune_id


def resume(root: Path, tune_id: str, on_progress: OnProgress = no_progress) -> str:
    """Queue a search again; finished trainings are not repeated.

    Raises:
        BadInput: The store has no such search.
        JobError: Ray does not start or does not answer.
    """
    return submit(read_spec(root, tune_id), root, on_progress)


def cancel(root: Path, tune_id: str) -> None:
    """Ask a search and its runs to stop, and return at once; checkpoints stay.

    Raises:
        BadInput: The store has no such search.
    """
    spec = read_spec(root, tune_id)
    jobs.request_stop(searches_folder(root), [tune_id])
    try:
        status = round_status(spec, root)
    except ExplorerError:
        return
    _cancel_runs(status, root)


def cancel_all(root: Path) -> list[str]:
    """Ask all active searches and runs of the store to stop, and return their ids.

    Searches come first: one whose run was cancelled would fail.
    """
    listing = status_table(root)
    tune_ids: list[str] = listing.loc[listing["state"].isin(ACTIVE), "run_id"].tolist()
    for tune_id in tune_ids:
        cancel(root, tune_id)
    return [*tune_ids, *jobs.cancel_all(root)]


def status_table(root: Path) -> pd.DataFrame:
    """One row per search, with the columns of `jobs.status_table`."""
    return jobs.status_table(searches_folder(root))


def train_in_queue(status: RoundStatus, root: Path, progress: Progress) -> None:
    """Submit a round's missing trainings and wait for them.

    Raises:
        RunCancelled: The search was asked to stop; its runs are asked too.
        RunFailed: A run neither finished nor diverged.
    """
    missing = {spec.run_id: spec for spec in status.missing.values()}

    def report(states: dict[str, str]) -> None:
        num_active = sum(states.get(run_id) in ACTIVE for run_id in missing)
        report_progress(progress, status, status.num_runs - num_active)

    try:
        jobs.submit(list(missing.values()), root)
        states = jobs.wait_until_done(root, list(missing), math.inf, report)
    except RunCancelled:
        _cancel_runs(status, root)
        raise
    for run_id, state in states.items():
        if not final_record(root, run_id):
            raise RunFailed(
                f"{run_id} is {state}, so the tournament cannot continue. Look at the log of that "
                "run, then resume the tournament."
            )


def _cancel_runs(status: RoundStatus, root: Path) -> None:
    """Ask the active runs of a round to stop."""
    for spec in status.missing.values():
        if jobs.state_of(root, spec.run_id) in ACTIVE:
            jobs.cancel(root, spec.run_id)
