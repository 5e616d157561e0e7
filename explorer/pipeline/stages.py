"""A run as the list of its stages: checks, the teacher's run, the student, its measurements."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

from explorer.distill import distributed
from explorer.errors import ExplorerError, RunCancelled, RunFailed
from explorer.latency.runtimes import open_runtime
from explorer.models.loading import load_tokenizer
from explorer.pipeline import (
    endpoint_stage,
    evaluation_stage,
    preflight,
    run_guard,
    run_record,
    served_stage,
    stopping,
)
from explorer.pipeline.context import RunContext
from explorer.pipeline.student_stage import ensure_student
from explorer.records import RunRecord
from explorer.specs import RunSpec
from explorer.store import disk
from explorer.store.progress import Listener, Progress

log = logging.getLogger("explorer")


def run(
    spec: RunSpec, root: Path, listener: Listener | None = None, *, checked: bool = False
) -> RunRecord:
    """Run the stages that have no result yet and return the record.

    Every rank of a launch calls this. All train and evaluate; rank 0 does the rest, and writes.

    Args:
        spec: The run.
        root: The store.
        listener: Gets every progress update, those of the teacher's run included.
        checked: Whether `preflight.refuse` has accepted the whole order just now; then only its
            quick checks are repeated.

    Raises:
        ExplorerError: The run failed or was cancelled; its record says so too.
    """
    distributed.check_joined()
    distributed.check_num_devices(spec.num_devices)
    kind = Progress if distributed.is_main() else run_guard.SilentProgress
    progress = kind(root, spec.run_id, listener)
    progress.writes = False
    with stopping.stoppable(progress), run_guard.exclusive(root, spec.run_id, progress):
        progress.writes = True
        with run_guard.exclusive(root, disk.CLEANING, progress):
            pass  # not while leftovers are removed: this run may need some of them
        record = distributed.from_main(lambda: _open(spec, root))
        if record is not None:
            progress.write_status(state="finished", stage="record")
            return record
        log_path = disk.run_folder(root, spec.run_id) / disk.LOG
        context = RunContext(spec, root, progress)
        with run_guard.logged(log_path):
            if progress.note:
                log.warning("%s", progress.note)
            with run_record.failures_recorded(context):
                _prepare(context, checked=checked)
                _ensure_teacher_run(context)
                student = ensure_student(context) if spec.student else None
                _measure(context, student)
            return distributed.from_main(lambda: run_record.save_finished(context))


def _open(spec: RunSpec, root: Path) -> RunRecord | None:
    """Make the run's folder; return the record if nothing is left to do."""
    disk.open_run(root, spec)
    if disk.remeasure_requested(root, spec.run_id):
        return None
    return run_record.finished(root, spec.run_id)


def _prepare(context: RunContext, *, checked: bool) -> None:
    """Choose the device and refuse what cannot work before anything costs time or money."""
    spec = context.spec
    context.progress("prepare")
    if not distributed.is_main():
        context.choose_device()
        return
    if disk.remeasure_requested(context.root, spec.run_id):
        disk.share_results(context.root, spec.run_id)
    context.choose_device()
    for finding in preflight.refuse([spec], context.root, "quick" if checked else "full"):
        log.warning("%s", finding.in_words())


def _ensure_teacher_run(context: RunContext) -> None:
    """Run the teacher's own spec first: a student is compared with its results."""
    spec = context.spec.teacher_run()
    if spec is None:
        return
    run_id = spec.run_id
    if distributed.from_main(lambda: run_record.finished(context.root, run_id) is not None):
        return
    context.stage = "teacher"
    log.info("The teacher's run %s has no result yet and comes first.", spec.run_id)

    def report(status: dict[str, Any]) -> None:
        # The student's own status shows how far the teacher's run is.
        progress = {name: status[name] for name in ("done", "total", "unit")}
        context.progress(f"teacher: {status['stage']}", **progress)

    try:
        run(spec, context.root, report, checked=True)
    except RunCancelled:
        context.progress.raise_if_stopped()
        raise
    except ExplorerError as error:
        raise RunFailed(f"The teacher's run {spec.run_id} failed: {error}") from error
    context.stage = "prepare"


def _measure(context: RunContext, student: Path | None) -> None:
    """Evaluate and time the student, or the teacher in a run without one, where it runs."""
    spec = context.spec
    is_served = context.teacher_endpoint is not None and student is None
    in_llama_cpp = spec.teacher.startswith(open_runtime.LLAMA_CPP) or spec.gguf
    if is_served or in_llama_cpp:
        if not distributed.is_main():
            return
        context.use_all_threads()
    if context.teacher_endpoint and student is None:
        endpoint_stage.measure(context, context.teacher_endpoint)
        return
    if spec.teacher.startswith(open_runtime.LLAMA_CPP):
        path = Path(spec.teacher.removeprefix(open_runtime.LLAMA_CPP))
        tokenizer = load_tokenizer(f"gguf:{path}")
        evaluation_stage.measure_in_llama_cpp(context, spec.teacher, path, tokenizer)
        served = str(path)
    else:
        served = _measure_weights(context, student)
    # By now no model is loaded here: a server takes the memory.
    if spec.server and distributed.is_main():
        served_stage.measure(context, served)


def _measure_weights(context: RunContext, student: Path | None) -> str:
    """Evaluate and time weights in torch, or as GGUF; returns the files that a server reads."""
    spec = context.spec
    name = f"run:{spec.run_id}" if student else spec.teacher
    stored_as = str(student) if student else spec.teacher
    if student is None and not spec.torch_bits:
        model = context.teacher
    else:
        model = dataclasses.replace(context.load(stored_as, spec.torch_bits), name=name)
    if spec.server:
        context.unload_models()
    if spec.gguf:
        return str(evaluation_stage.measure_as_gguf(context, model, spec.gguf))
    evaluation_stage.measure_in_torch(context, model, stored_as)
    return stored_as
