"""The student of a run: built, trained and stored once for all runs that need the same one.

    results/.work/students/<key>/  in progress: checkpoint, model
    results/.students/<key>/       finished: model, student.json

One rename moves it from the first to the second. After a kill the next run continues.
"""

import hashlib
import json
import logging
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from explorer.catalogue import terms
from explorer.devices import accelerator
from explorer.distill import distributed, token_file
from explorer.distill.checkpoint import TrainingProgress
from explorer.distill.corpus import Corpus
from explorer.distill.schedule import num_steps
from explorer.distill.train import OnStep, train
from explorer.distill.train_state import untrained_layers
from explorer.errors import UnknownModel
from explorer.evaluate import contamination
from explorer.files import durable_files
from explorer.lm_eval_io import hub_card
from explorer.models import weight_files
from explorer.models.facts import fingerprint
from explorer.models.loading import Loaded, quiet_transformers
from explorer.pipeline import (
    corpus_stage,
    environment,
    run_guard,
    student_build,
    targets_stage,
)
from explorer.pipeline.context import RunContext, stage_key
from explorer.records import CorpusFacts, CurvePoint, Distillation, TargetsFacts
from explorer.specs import DistillSpec, RunSpec
from explorer.store import disk, students

log = logging.getLogger("explorer")


def ensure_student(run: RunContext) -> Path:
    """Return the folder of the student's weights; build and train it if no run has yet.

    Training continues from the checkpoint of an interrupted run. Rank 0 builds and stores the
    student; all ranks train it.
    """
    spec, distill = run.spec, run.spec.distill or DistillSpec()
    assert spec.student is not None, "only a student's run comes here"
    if not distributed.is_main():
        return _train_beside_rank_0(run, distill)
    text = corpus_stage.ensure_corpus(run, distill)
    tokenizers = [run.tokenizer, *([run.start.tokenizer] if spec.student.start else [])]
    key = student_key(
        spec,
        teacher=run.teacher_fingerprint,
        corpus=token_file.corpus_identity(text, *tokenizers),
        start=fingerprint(run.start) if spec.student.start else None,
    )
    state: TrainingProgress | None = None
    unfinished, finished = run.work / "students" / key, run.root / disk.STUDENTS / key
    with run_guard.exclusive(run.root, f"student-{key}", run.progress):
        stored = _find(finished)
        # Complete in the first folder: finished by an older version, or killed before the move.
        if stored is None and _find(unfinished) is None:
            student, blocks, has_teacher = student_build.build_student(run, distill, text)
            distillation = None
            if spec.distill:
                data, targets = targets_stage.training_data(
                    run, distill, student, text, blocks, has_teacher=has_teacher
                )
                on_step = _start_training(run, student, distill)
                distributed.from_main(lambda: True)  # ranks above 0 train, too
                with run.timed("distil"):
                    state = train(student.model, data, distill, unfinished / "checkpoint", on_step)
                facts = targets_stage.targets_facts(run, targets, blocks) if targets else None
                corpus_facts = text.facts(blocks.num_tokens)
                distillation = _distillation(state, corpus_facts, facts, student, distill)
            _save(student, distillation, unfinished, _card(run))
            if spec.student.start or run.teacher_bits:
                # Training or a cut vocabulary changed the start model; bits are for training only.
                run.unload_models()
        if stored is None:
            students.forget_training(unfinished)
            durable_files.move_folder(unfinished, finished)
            stored = students.read_facts(finished)
    assert stored is not None, "just moved there"
    if stored.distillation:
        run.record_parts["distillation"] = _with_overlap(run, stored.distillation, text)
    disk.write_weights(run.root, spec.run_id, finished / "model")
    if state is None:
        distributed.from_main(lambda: False)
    return distributed.from_main(lambda: finished / "model")


def _train_beside_rank_0(run: RunContext, distill: DistillSpec) -> Path:
    """What ranks above 0 do for a student: train it, if rank 0 finds that it is not trained yet."""

    def report(progress: TrainingProgress, total: int, loss: float, rate: float) -> None:
        run.progress("distil", progress.step, total, "steps")

    if distributed.from_main(_decided_by_rank_0):
        train(None, None, distill, None, report)
    folder: Path = distributed.from_main(_decided_by_rank_0)
    return folder


def _decided_by_rank_0() -> Any:
    raise AssertionError("only rank 0 computes what it broadcasts")


def student_key(spec: RunSpec, *, teacher: str, corpus: str, start: str | None) -> str:
    """Name of a student's folder: sixteen hex digits over everything that decides its weights.

    Args:
        spec: The student's run.
        teacher: Fingerprint of the teacher.
        corpus: The text as `token_file.corpus_identity` names it.
        start: Fingerprint of the model the student is made from; None for the teacher.
    """
    assert spec.student is not None, "only a student's run has one"
    decides = {
        "teacher": teacher,
        "student": spec.student.identity(),
        "distill": _decides_weights(spec.distill) if spec.distill else None,
        "corpus": corpus,
    }
    return stage_key(decides | ({"start": start} if start else {}))


def _decides_weights(distill: DistillSpec) -> dict[str, Any]:
    """Everything but how often a checkpoint is saved, and whether batches are read ahead."""
    others = ("checkpoint_every_s", "prefetch")
    return {k: v for k, v in distill.identity().items() if k not in others}


def _find(folder: Path) -> students.StoredStudent | None:
    """The whole student in this folder; None if there is none, or it is damaged and set aside."""
    stored = students.find(folder)
    if stored is not None and not stored.files:
        # Older than the checksums: at least its weights must be as long as their header says.
        try:
            weight_files.read_tensors(folder / students.MODEL)
        except (UnknownModel, OSError) as error:
            students.set_aside(folder, str(error))
            return None
    return stored


def _start_training(run: RunContext, student: Loaded, distill: DistillSpec) -> OnStep:
    """Say that training begins, and return what reports each of its steps."""
    run.stage = "distil"
    on_cpu = run.device.type == "cpu" and distill.in_bfloat16("cpu")
    if on_cpu and not environment.computes_bfloat16():
        log.warning(
            "This CPU has no bfloat16 instructions, so distill.precision: bfloat16 is likely "
            "slower here than float32."
        )
    if layers := untrained_layers(student.model, distill):
        log.info("Layers before the first cut, which stay as they are: %d.", len(layers))
    num_logged = 0
    losses: deque[float] = deque(maxlen=120)

    def report(state: TrainingProgress, total: int, loss: float, rate: float) -> None:
        nonlocal num_logged
        for point in state.curve[num_logged:]:
            log.info("step %d of %d: %s", point.step, total, _in_words(point))
        num_logged = len(state.curve)
        losses.append(round(loss, 4))
        run.progress(
            "distil",
            state.step,
            total,
            "steps",
            loss=round(loss, 4),
            tokens_per_s=round(rate, 1),
            losses=list(losses),
        )

    run.progress("distil", 0, num_steps(distill), "steps")
    return report


def _in_words(point: CurvePoint) -> str:
    """A point of the loss curve for the log, such as `loss 2.1034, kd loss 1.9021`."""
    names = (
        "loss",
        "kd_loss",
        "label_loss",
        "hidden_loss",
        "heldout_kl",
        "heldout_top1",
        "heldout_label_loss",
    )
    values = {name: getattr(point, name) for name in names}
    known = {name: value for name, value in values.items() if value is not None}
    return ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in known.items())


def _card(run: RunContext) -> str:
    """The student's README.md, with its teacher's licence."""
    licence = terms.licence_of(run.spec.teacher, run.root)
    clause = terms.training_terms(run.spec.teacher, licence)
    return hub_card.student_card(
        run.spec, licence, clause.in_words(run.spec.teacher) if clause else None
    )


def _save(student: Loaded, distillation: Distillation | None, folder: Path, card: str) -> None:
    """Write the weights, then how the student was trained; a kill leaves no half-written model."""
    with durable_files.new_folder(folder / students.MODEL) as partial:
        with quiet_transformers():
            student.model.save_pretrained(partial)
        student.tokenizer.save_pretrained(partial)
        (partial / terms.CARD).write_text(card, encoding="utf-8")
    students.write_facts(folder, distillation)


def _distillation(
    state: TrainingProgress,
    corpus: CorpusFacts,
    targets: TargetsFacts | None,
    student: Loaded,
    distill: DistillSpec,
) -> Distillation:
    first, last = state.curve[0], state.curve[-1]
    trained = sum(p.numel() for p in student.model.parameters() if p.requires_grad)
    # Processes on CPUs share the machine, whose price is the device's.
    shares = accelerator.is_accelerator(student.model.device)
    num_devices = distributed.world_size() if shares else 1
    return Distillation(
        corpus=corpus,
        targets=targets,
        scored_tokens=state.scored_tokens,
        steps=state.step,
        seconds=round(state.seconds, 3),
        device_hours=num_devices * state.seconds / 3600,
        num_trained_parameters=trained,
        num_untrained_layers=len(untrained_layers(student.model, distill)),
        kl_before=first.heldout_kl,
        kl_after=last.heldout_kl,
        top1_before=first.heldout_top1,
        top1_after=last.heldout_top1,
        curve=state.curve,
        num_resumes=state.num_resumes,
        num_halvings=state.num_halvings,
        compilation=state.compilation,
    )


def _with_overlap(run: RunContext, distillation: Distillation, text: Corpus) -> Distillation:
    """Count the test documents that share 13 words in a row with the corpus.

    Runs on the same corpus and the same tasks share the count, as a large corpus takes minutes.
    """
    spec = run.spec.capability
    if spec is None:
        return distillation
    documents = contamination.task_documents(spec.tasks, spec.include_path)
    digest = hashlib.sha256(json.dumps(documents).encode()).hexdigest()
    key = stage_key({"corpus": text.digest, "documents": digest})
    path = run.work / "overlaps" / f"{key}.json"

    def texts() -> Iterator[str]:
        for number, document in enumerate(text.documents()):
            if number % 1000 == 0:
                total = text.num_documents
                run.progress("looking for test documents", number, total, "documents")
            yield document

    with run_guard.exclusive(run.root, f"overlaps-{key}", run.progress):
        counts = durable_files.read_or_set_aside(path, dict[str, int])
        if counts is None:
            counts = contamination.count_overlaps(texts(), documents)
            durable_files.write_json(path, counts)
    corpus = distillation.corpus.model_copy(update={"overlap_13grams": counts})
    return distillation.model_copy(update={"corpus": corpus})
