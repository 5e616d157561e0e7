"""The record a run leaves: finished, failed or cancelled; an interrupted run leaves none."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from explorer.catalogue import terms
from explorer.distill import distributed
from explorer.errors import CannotRead, DamagedStore, NoRoom, RunCancelled
from explorer.files import durable_files
from explorer.pipeline import environment, run_guard, stopping
from explorer.pipeline.context import RunContext, utc_now
from explorer.records import ErrorFacts, RunRecord
from explorer.store import disk

log = logging.getLogger("explorer")


def finished(root: Path, run_id: str) -> RunRecord | None:
    """The record of a finished run; None if it has none, did not finish, or is now set aside.

    Raises:
        CannotRead: A newer version wrote the record, or permission is missing.
    """
    path = disk.run_folder(root, run_id) / disk.RECORD
    if not path.exists():
        return None
    try:
        record = disk.load(root, run_id)
    except CannotRead:
        raise
    except DamagedStore as error:
        durable_files.set_aside(path, str(error))
        return None
    return record if record.status == "finished" else None


@contextmanager
def failures_recorded(run: RunContext) -> Iterator[None]:
    """If an error ends rank 0's stages early, save a record of it and raise it again.

    Raises:
        ExplorerError: Instead of errors that a user can act on, such as a full disk.
    """
    try:
        with stopping.stop_in_words(run.progress):
            yield
    except Exception as error:
        known = run_guard.as_explorer_error(error)
        if not distributed.is_main():
            if known is None:
                raise
            raise known from error
        if isinstance(known, RunCancelled) and not disk.cancel_requested(run.root, run.spec.run_id):
            # SIGTERM, not a cancel request: without a record, running again continues.
            run.progress.write_status(state="interrupted", stage=run.stage, error=str(known))
            log.warning("Interrupted in %s: %s", run.stage, known)
            raise
        _save_failure(run, known or error, is_bug=known is None)
        if known is None:
            raise
        raise known from error
    except KeyboardInterrupt:
        run.progress.write_status(
            state="interrupted", stage=run.stage, error="Interrupted by hand."
        )
        raise


def save_finished(run: RunContext) -> RunRecord:
    """Save and return the record of a run whose stages all ended well."""
    record = _record(run, "finished")
    disk.save(run.root, record)
    run.progress.write_status(state="finished", stage="record")
    log.info("Finished %s", run.spec.run_id)
    return record


def _save_failure(run: RunContext, error: Exception, *, is_bug: bool) -> None:
    cancelled = isinstance(error, RunCancelled)
    text = traceback.format_exc() if is_bug else None
    log.error("%s in %s: %s", "Cancelled" if cancelled else "Failed", run.stage, text or error)
    failure = ErrorFacts(
        kind=type(error).__name__,
        message=str(error) or type(error).__name__,
        stage=run.stage,
        traceback=text,
    )
    status = "cancelled" if cancelled else "failed"
    try:
        if not hasattr(run, "environment"):
            run.environment = environment.environment(torch.device("cpu"), torch.get_num_threads())
        path = disk.save(run.root, _record(run, status, failure))
    except (NoRoom, OSError, MemoryError) as full:
        # Often the disk or the memory that ended the run, which is what people need to know.
        log.error("The record of this attempt could not be saved. %s", full)
    else:
        if path.name != disk.RECORD:
            log.warning("The earlier result still counts; this attempt is in %s.", path.name)
    run.progress.write_status(state=status, stage=run.stage, error=failure.message)


def _record(run: RunContext, status: Any, error: ErrorFacts | None = None) -> RunRecord:
    teacher = run.spec.teacher_run()
    return RunRecord(
        run_id=run.spec.run_id,
        teacher_run_id=teacher.run_id if teacher else None,
        spec=run.spec,
        status=status,
        started_at=run.started_at,
        finished_at=utc_now(),
        environment=run.environment,
        teacher_licence=terms.licence_of(run.spec.teacher, run.root),
        stage_seconds=run.stage_seconds,
        error=error,
        **run.record_parts,
    )
