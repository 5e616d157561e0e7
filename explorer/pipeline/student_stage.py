"""The student: cut, taught and kept, once for all runs that ask for the same one.

    results/.work/students/<key>/  while it is made: checkpoint, model
    results/.students/<key>/       finished: model, student.json

One rename moves it from there to here. A run that was killed on the way goes on where it was.
"""

import hashlib
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from explorer import students
from explorer.distill import corpus, teacher_signal
from explorer.distill.teacher_cache import Targets
from explorer.distill.teacher_signal import Course
from explorer.distill.train import State
from explorer.distill.train_state import untrained
from explorer.errors import BadInput
from explorer.evaluate import contamination
from explorer.models.facts import fingerprint
from explorer.models.loading import Loaded, quiet
from explorer.pipeline import endpoint_teacher, run_guard, training_stage
from explorer.pipeline.state import Run, key
from explorer.records import CorpusFacts, Distillation, TargetsFacts
from explorer.specs import DistillSpec, RunSpec, StudentSpec
from explorer.store import disk

log = logging.getLogger("explorer")

STUDENT = "student.json"
"""In a student's folder: how it was taught. The checkpoint stays until it is written."""


def student_folder(run: Run) -> Path:
    """Make and teach the student, unless a run has made the same one before."""
    spec, distill = run.spec, run.spec.distill
    assert spec.student is not None, "only a student's run comes here"
    text = training_stage.read_text(run, distill or DistillSpec())
    name = student_key(
        spec,
        teacher=run.teacher_fingerprint,
        corpus=text.digest,
        start=fingerprint(run.start) if spec.student.start else None,
    )
    unfinished, finished = run.work / "students" / name, run.root / disk.STUDENTS / name
    with run_guard.alone(run.root, f"student-{name}", run.progress):
        if not _is_finished(finished):
            # Finished in the folder of unfinished ones: by an earlier version, or before a kill.
            if not _is_finished(unfinished):
                taught = _make(run, text, unfinished)
                distillation = json.dumps(taught.model_dump() if taught else None)
                disk.write_text(unfinished / STUDENT, distillation)
            _drop_all_but_student(unfinished)
            disk.move_folder(unfinished, finished)
        found = json.loads((finished / STUDENT).read_text(encoding="utf-8"))
    if found:
        taught = Distillation.model_validate(found)
        run.parts["distillation"] = _with_overlap(run, taught, text)
    disk.write_weights(run.root, spec.run_id, finished / "model")
    return finished / "model"


def student_key(spec: RunSpec, *, teacher: str, corpus: str, start: str | None) -> str:
    """The name of a student's folder: sixteen hex digits over all that decides its weights.

    Args:
        spec: The student's run.
        teacher: Fingerprint of the teacher.
        corpus: Digest of the text.
        start: Fingerprint of the model that it is made from; None for the teacher.
    """
    assert spec.student is not None, "only a student's run has one"
    decides = {
        "teacher": teacher,
        "student": spec.student.decisive(),
        "distill": _decisive(spec.distill) if spec.distill else None,
        "corpus": corpus,
    }
    return key(decides | ({"start": start} if start else {}))


def _is_finished(folder: Path) -> bool:
    """Whether a student's folder has its weights and how it was taught, which is written last."""
    return all((folder / name).is_file() for name in (STUDENT, "model/config.json"))


def _drop_all_but_student(folder: Path) -> None:
    """Remove checkpoints and half-written weights, which a finished student needs no more."""
    for path in folder.iterdir():
        if path.name not in (STUDENT, "model"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _make(run: Run, text: corpus.Corpus, folder: Path) -> Distillation | None:
    spec, distill = run.spec, run.spec.distill or DistillSpec()
    assert spec.student is not None, "only a student's run comes here"
    num_needed = distill.heldout_blocks + 1
    blocks_NT, num_tokens = corpus.pack(text, run.tokenizer, distill.block_tokens, num_needed)
    heldout, training = corpus.split(len(blocks_NT), distill.heldout_blocks, distill.seed)

    def measured(done: int, total: int, unit: str) -> None:
        run.progress("prepare", done, total, unit)

    if spec.student.kind == "fresh" and spec.distill and not spec.distill.train_embeddings:
        raise BadInput(
            "A fresh student's embedding is random and would stay so: write "
            "distill.train_embeddings: true."
        )
    began = time.monotonic()
    shared = True
    if run.served:
        shared = endpoint_teacher.has_targets(run)
    elif spec.distill and spec.student.start:
        shared = _share_vocabulary(run, run.start, required=distill.uses_distributions)
    sample = students.sample_numbers(spec.student, heldout, training)
    student = students.build(
        run.original,
        run.start,
        spec.student,
        blocks_NT[sample],
        measured,
        _drop_order(run, spec.student, blocks_NT[sample]),
    )
    run.stage_seconds["prepare"] = time.monotonic() - began
    taught = None
    if spec.distill:
        targets: Targets | None = None
        if shared:
            course, targets = training_stage.course(
                run, student, blocks_NT, text, heldout, training
            )
        else:
            blocks_NT, num_tokens = corpus.pack(
                text, student.tokenizer, distill.block_tokens, num_needed
            )
            heldout, training = corpus.split(len(blocks_NT), distill.heldout_blocks, distill.seed)
            plain = teacher_signal.Text(blocks_NT)
            course = Course(plain, training, plain, heldout)
        state = training_stage.distil(run, student, course, folder)
        of_targets = training_stage.targets_facts(run, targets, heldout) if targets else None
        taught = _distillation(state, text.facts(num_tokens), of_targets, student, distill)
    partial = folder / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    with quiet():
        student.model.save_pretrained(partial)
    student.tokenizer.save_pretrained(partial)
    disk.flush_folder(partial)
    shutil.rmtree(folder / "model", ignore_errors=True)
    partial.replace(folder / "model")
    if spec.student.start or run.teacher_bits:
        # Changed by another model's training or vocabulary, or rounded only to teach.
        run.forget_models()
    return taught


def _drop_order(run: Run, spec: StudentSpec, sample_BT: torch.Tensor) -> students.DropOrder | None:
    """The layers that a model loses one by one on a sample, kept for students of all sizes."""
    if getattr(spec, "choice", None) != "greedy":
        return None
    decides = {
        "teacher": run.teacher_fingerprint,
        "start": fingerprint(run.start) if spec.start else run.teacher_fingerprint,
        "sample": hashlib.sha256(sample_BT.numpy().tobytes()).hexdigest(),
    }
    return students.DropOrder(run.work / "drop_order" / f"{key(decides)}.json")


def _share_vocabulary(run: Run, student: Loaded, *, required: bool) -> bool:
    """Cut embeddings of other lengths to the tokens they share; whether there are such.

    Raises:
        BadInput: The tokenizers differ, and the method needs the same one.
    """
    models = (run.teacher.model, student.model)
    try:
        num_tokens = students.check_same_vocabulary(run.teacher, student)
    except BadInput:
        if required:
            raise
        return False
    rows = [int(model.config.vocab_size) for model in models]
    if rows[0] != rows[1]:
        for model in models:
            students.slice_vocabulary(model, num_tokens)
        log.info(
            "The teacher's embedding has %d rows and the student's %d; both are cut to the %d "
            "tokens of their common vocabulary.",
            *rows,
            num_tokens,
        )
    return True


def _with_overlap(run: Run, taught: Distillation, text: corpus.Corpus) -> Distillation:
    """Count which test documents share a run of 13 words with the corpus."""
    spec = run.spec.capability
    if spec is None:
        return taught
    documents = contamination.task_documents(spec.tasks, spec.include_path)
    counts = contamination.overlap(text.texts, documents)
    with_counts = taught.corpus.model_copy(update={"overlap_13grams": counts})
    return taught.model_copy(update={"corpus": with_counts})


def _distillation(
    state: State,
    text: CorpusFacts,
    targets: TargetsFacts | None,
    student: Loaded,
    distill: DistillSpec,
) -> Distillation:
    first, last = state.curve[0], state.curve[-1]
    trained = sum(p.numel() for p in student.model.parameters() if p.requires_grad)
    return Distillation(
        corpus=text,
        targets=targets,
        scored_tokens=state.scored_tokens,
        steps=state.step,
        seconds=round(state.seconds, 3),
        device_hours=state.seconds / 3600,
        num_trained_parameters=trained,
        num_untrained_layers=len(untrained(student.model, distill)),
        kl_before=first.heldout_kl,
        kl_after=last.heldout_kl,
        top1_before=first.heldout_top1,
        top1_after=last.heldout_top1,
        curve=state.curve,
        num_resumes=state.num_resumes,
    )


def _decisive(distill: DistillSpec) -> dict[str, Any]:
    """What decides the student's weights: everything but how often its state is saved."""
    return {k: v for k, v in distill.decisive().items() if k != "checkpoint_every_s"}
