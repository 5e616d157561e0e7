"""The untrained student, and the corpus in blocks of the tokens it trains on."""

import hashlib
import logging
import time

import torch

from explorer.distill.corpus import Corpus
from explorer.errors import BadInput
from explorer.models.facts import fingerprint
from explorer.models.loading import Loaded
from explorer.pipeline import corpus_stage, endpoint_teacher
from explorer.pipeline.context import RunContext, stage_key
from explorer.pipeline.corpus_stage import Blocks
from explorer.specs import DistillSpec, StudentSpec
from explorer.students import create, depth, vocabulary

log = logging.getLogger("explorer")


def build_student(
    run: RunContext, distill: DistillSpec, text: Corpus
) -> tuple[Loaded, Blocks, bool]:
    """Cut the student from its start model, or load or initialise it.

    Returns:
        The student, the corpus in blocks of its tokens, and whether it can train on the
        teacher's distributions; it then has the teacher's tokens.

    Raises:
        BadInput: The spec's student cannot be built or trained so.
    """
    spec = run.spec.student
    assert spec is not None, "only a student's run comes here"
    blocks = corpus_stage.pack(run, text, run.tokenizer, distill)
    if spec.kind == "fresh" and run.spec.distill and not distill.train_embeddings:
        raise BadInput(
            "A fresh student starts with random embeddings, and they would stay random. Write "
            "distill.train_embeddings: true."
        )
    began = time.monotonic()
    has_teacher = True
    if run.teacher_endpoint:
        has_teacher = endpoint_teacher.uses_targets(run)
    elif run.spec.distill and spec.start:
        has_teacher = _match_vocabularies(run, required=distill.uses_distributions)
    sample = create.importance_blocks(spec, blocks.heldout, blocks.training)
    sample_BT = blocks.tokens_NT[sample]

    def report(done: int, total: int, unit: str) -> None:
        run.progress("prepare", done, total, unit)

    student = create.create_student(
        run.local_teacher, run.start, spec, sample_BT, report, _drop_order(run, spec, sample_BT)
    )
    run.stage_seconds["prepare"] = time.monotonic() - began
    if run.spec.distill and not has_teacher:
        blocks = corpus_stage.pack(run, text, student.tokenizer, distill)
    return student, blocks, has_teacher


def _drop_order(
    run: RunContext, spec: StudentSpec, sample_BT: torch.Tensor
) -> depth.DropOrder | None:
    """The stored order in which greedy choice drops layers; students of all sizes share it."""
    if getattr(spec, "choice", None) != "greedy":
        return None
    decides = {
        "teacher": run.teacher_fingerprint,
        "start": fingerprint(run.start) if spec.start else run.teacher_fingerprint,
        "sample": hashlib.sha256(sample_BT.numpy().tobytes()).hexdigest(),
    }
    return depth.DropOrder(run.work / "drop_order" / f"{stage_key(decides)}.json")


def _match_vocabularies(run: RunContext, *, required: bool) -> bool:
    """Whether teacher and start model have the same tokens.

    Embeddings of different lengths are cut to the tokens both have.

    Raises:
        BadInput: The tokenizers differ, and the method needs the same one.
    """
    models = (run.teacher.model, run.start.model)
    try:
        num_tokens = vocabulary.check_same_vocabulary(run.teacher, run.start)
    except BadInput:
        if required:
            raise
        return False
    teacher_rows, student_rows = (
        int(model.config.get_text_config().vocab_size) for model in models
    )
    if teacher_rows != student_rows:
        for model in models:
            vocabulary.slice_vocabulary(model, num_tokens)
        log.info(
            "The teacher's embedding has %d rows and the student's %d; both are cut to the %d "
            "tokens of their common vocabulary.",
            teacher_rows,
            student_rows,
            num_tokens,
        )
    return True
