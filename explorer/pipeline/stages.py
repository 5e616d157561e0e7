"""A run from its spec to its record; whatever happens on the way, the record says it."""

import dataclasses
import logging
import traceback
from pathlib import Path
from typing import Any

import torch

from explorer.errors import ExplorerError, RunCancelled, RunFailed
from explorer.latency.runtimes import open_runtime
from explorer.models.loading import load_tokenizer
from explorer.pipeline import (
    endpoint_stage,
    endpoint_teacher,
    environment,
    evaluation_stage,
    preflight,
    run_guard,
    student_stage,
)
from explorer.pipeline.state import Run, now
from explorer.records import ErrorFacts, RunRecord
from explorer.specs import RunSpec
from explorer.store import disk
from explorer.store.progress import Listener, Progress
from explorer.tasks import task_loading

log = logging.getLogger("explorer")


def do(spec: RunSpec, root: Path, listener: Listener | None = None) -> RunRecord:
    """Do what is missing of a run and return its record.

    Args:
        spec: What is asked.
        root: The store.
        listener: Gets every progress update, the teacher's run's included.

    Raises:
        ExplorerError: The run failed or was cancelled; its record says so too.
    """
    disk.open_run(root, spec)
    progress = Progress(root, spec.run_id, listener)
    with run_guard.alone(root, spec.run_id, progress):
        done = _finished(root, spec.run_id)
        if done is not None and not disk.again_requested(root, spec.run_id):
            progress.write(state="finished", stage="record")
            return done
        log_path = disk.run_folder(root, spec.run_id) / disk.LOG
        with run_guard.logged(log_path), run_guard.stoppable(progress):
            return _record(Run(spec, root, progress))


def _finished(root: Path, run_id: str) -> RunRecord | None:
    """The record of a run that needs nothing more."""
    if not (disk.run_folder(root, run_id) / disk.RECORD).exists():
        return None
    record = disk.load(root, run_id)
    return record if record.status == "finished" else None


def _record(run: Run) -> RunRecord:
    """Do the stages; whatever happens, leave a record that says what became of the run."""
    try:
        run.progress.check()
        run.progress("prepare")
        if disk.again_requested(run.root, run.spec.run_id):
            disk.share_evidence(run.root, run.spec.run_id)
        run.take_device()
        if run.spec.capability:
            task_loading.check(run.spec.capability.tasks, run.spec.capability.include_path)
        if run.served:
            endpoint_teacher.check(run.spec)
        preflight.check(run.spec, run.root)
        _teacher_first(run)
        _stages(run)
    except Exception as error:
        known = run_guard.as_known(error)
        if isinstance(known, RunCancelled) and not disk.cancel_requested(run.root, run.spec.run_id):
            # Told to end from outside: no record, so that running again continues.
            run.progress.write(state="interrupted", stage=run.stage, error=str(known))
            log.warning("Interrupted in %s: %s", run.stage, known)
            raise
        _save_failure(run, known or error, bug=known is None)
        if known is None:
            raise
        raise known from error
    except KeyboardInterrupt:
        run.progress.write(state="interrupted", stage=run.stage, error="Interrupted by hand.")
        raise
    record = _make_record(run, "finished")
    disk.save(run.root, record)
    run.progress.write(state="finished", stage="record")
    log.info("Finished %s", run.spec.run_id)
    return record


def _save_failure(run: Run, error: Exception, *, bug: bool) -> None:
    cancelled = isinstance(error, RunCancelled)
    text = traceback.format_exc() if bug else None
    log.error("%s in %s: %s", "Cancelled" if cancelled else "Failed", run.stage, text or error)
    failure = ErrorFacts(
        kind=type(error).__name__,
        message=str(error) or type(error).__name__,
        stage=run.stage,
        traceback=text,
    )
    status = "cancelled" if cancelled else "failed"
    if not hasattr(run, "environment"):
        run.environment = environment.environment(torch.device("cpu"), torch.get_num_threads())
    path = disk.save(run.root, _make_record(run, status, failure))
    if path.name != disk.RECORD:
        log.warning("The earlier result stays in force; this attempt is in %s.", path.name)
    run.progress.write(state=status, stage=run.stage, error=failure.message)


def _make_record(run: Run, status: Any, error: ErrorFacts | None = None) -> RunRecord:
    teacher = run.spec.teacher_run()
    return RunRecord(
        run_id=run.spec.run_id,
        teacher_run_id=teacher.run_id if teacher else None,
        spec=run.spec,
        status=status,
        started_at=run.started_at,
        finished_at=now(),
        environment=run.environment,
        stage_seconds=run.stage_seconds,
        error=error,
        **run.parts,
    )


def _teacher_first(run: Run) -> None:
    """A student is compared with its teacher, so the teacher's run comes first."""
    spec = run.spec.teacher_run()
    if spec is None or _finished(run.root, spec.run_id):
        return
    run.stage = "teacher"
    log.info("The teacher's run %s is not there yet; doing it first.", spec.run_id)

    def tell(status: dict[str, Any]) -> None:
        # The student's own status shows how far the teacher's run is.
        told = {k: status[k] for k in ("done", "total", "unit")}
        run.progress(f"teacher: {status['stage']}", **told)

    try:
        do(spec, run.root, tell)
    except RunCancelled:
        run.progress.check()
        raise
    except ExplorerError as error:
        raise RunFailed(f"The teacher's run {spec.run_id} failed: {error}") from error


def _stages(run: Run) -> None:
    """Make what is to be measured, and measure it where it runs."""
    run.stage = "prepare"
    spec = run.spec
    if run.served and spec.student is None:
        endpoint_stage.ask(run, run.served)
        return
    if spec.teacher.startswith(open_runtime.LLAMA_CPP):
        path = Path(spec.teacher.removeprefix(open_runtime.LLAMA_CPP))
        evaluation_stage.in_llama_cpp(run, spec.teacher, path, load_tokenizer(f"gguf:{path}"))
        return
    if spec.student is None:
        load_name = name = spec.teacher
    else:
        load_name, name = str(student_stage.student_folder(run)), f"run:{spec.run_id}"
    if spec.student is None and not spec.torch_bits:
        model = run.teacher
    else:
        model = dataclasses.replace(run.load(load_name, spec.torch_bits), name=name)
    if spec.gguf:
        evaluation_stage.as_gguf(run, model, spec.gguf)
    else:
        evaluation_stage.in_torch(run, model, load_name)
