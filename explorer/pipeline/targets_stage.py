"""The teacher's cached targets, and the training data that a distillation method needs."""

import logging

from explorer.distill import teacher_signal, token_file
from explorer.distill.corpus import Corpus
from explorer.distill.schedule import num_steps
from explorer.distill.teacher_cache import TeacherCache, TopKPass, local_teacher
from explorer.distill.teacher_signal import TrainingData
from explorer.errors import RunFailed
from explorer.models.facts import tokenizer_digest
from explorer.models.loading import Loaded
from explorer.models.output_head import check_head
from explorer.pipeline import endpoint_teacher
from explorer.pipeline.context import RunContext
from explorer.pipeline.corpus_stage import Blocks
from explorer.records import TargetsFacts
from explorer.specs import DistillSpec
from explorer.students.vocabulary import slice_vocabulary

log = logging.getLogger("explorer")


def training_data(
    run: RunContext,
    distill: DistillSpec,
    student: Loaded,
    text: Corpus,
    blocks: Blocks,
    *,
    has_teacher: bool,
) -> tuple[TrainingData, TeacherCache | None]:
    """What a distillation method trains on, and the cached targets behind it.

    Held-out blocks always have the teacher's cached targets, whatever the training blocks have.
    Without a teacher (its tokens are not the student's) there is only the text.
    """
    only_text = teacher_signal.NoTeacher(blocks.tokens_NT)
    if not has_teacher:
        return TrainingData(only_text, blocks.training, only_text, blocks.heldout), None
    if run.teacher_bits:
        _load_quantized_teacher(run, student)
    targets = _ensure_targets(run, distill, text, blocks)
    heldout, training = map(targets.without_refused, (blocks.heldout, blocks.training))
    source: teacher_signal.TeacherSignal = only_text
    if distill.method == "cached":
        source = teacher_signal.CachedTeacher(targets, distill)
    elif distill.method == "live":
        teacher = run.training_teacher.model
        check_head(teacher, blocks.tokens_NT[heldout[:1]][:, :8])
        if distill.hidden_weight > 0:
            teacher_signal.check_hidden_states(teacher, student.model)
        source = teacher_signal.LiveTeacher(teacher, blocks.tokens_NT, distill)
    return TrainingData(source, training, teacher_signal.CachedTeacher(targets), heldout), targets


def targets_facts(run: RunContext, targets: TeacherCache, blocks: Blocks) -> TargetsFacts:
    """What the record says about the targets, an endpoint's token usage included."""
    facts = targets.facts(targets.without_refused(blocks.heldout))
    if run.teacher_endpoint:
        return facts.model_copy(update={"usage": endpoint_teacher.usage(targets)})
    return facts


def _load_quantized_teacher(run: RunContext, student: Loaded) -> None:
    """Replace the teacher in memory by its quantised copy, cut to the student's vocabulary."""
    run.unload_models()
    # The fingerprint is that of the weights as loaded, so it comes before the cut.
    _ = run.training_teacher_fingerprint
    num_rows = int(student.model.config.get_text_config().vocab_size)
    if int(run.training_teacher.model.config.get_text_config().vocab_size) != num_rows:
        slice_vocabulary(run.training_teacher.model, num_rows)


def _ensure_targets(
    run: RunContext, distill: DistillSpec, text: Corpus, blocks: Blocks
) -> TeacherCache:
    """Compute the targets that are not cached yet: of held-out blocks and those to train on.

    A block that an endpoint refuses is replaced by the next one of the corpus.

    Raises:
        RunFailed: The endpoint refused so many that none are left.
    """
    run.stage = "targets"
    identity = {
        "teacher": run.training_teacher_fingerprint,
        "tokenizer": tokenizer_digest(run.training_teacher.tokenizer),
        "corpus": token_file.corpus_identity(text, run.training_teacher.tokenizer),
        "block_tokens": distill.block_tokens,
        "top_k": distill.top_k,
        "temperature": distill.temperature,
        "vocab_size": run.vocab_size,
    }
    about = {"teacher": run.spec.teacher, "corpus": text.name}
    targets = TeacherCache(run.work / "targets", blocks.tokens_NT, identity, about)

    def report(done: int, total: int, rate: float) -> None:
        run.progress("targets", done, total, "tokens", tokens_per_s=round(rate, 1))

    def scorer() -> TopKPass:
        if run.teacher_endpoint:
            return endpoint_teacher.scorer(run, run.teacher_endpoint, targets)
        return local_teacher(run.training_teacher)

    num_training = num_steps(distill) * distill.blocks_per_step if distill.method == "cached" else 0
    with run.timed("targets"):
        num_refused = -1
        while len(targets.refused) > num_refused:
            num_refused = len(targets.refused)
            training = targets.without_refused(blocks.training)[:num_training]
            targets.fill(scorer, [*blocks.heldout, *training], report)
    _report_refused(targets, blocks, required=bool(num_training))
    return targets


def _report_refused(targets: TeacherCache, blocks: Blocks, *, required: bool) -> None:
    """Log how many blocks the endpoint refused.

    Args:
        targets: Knows the refused blocks.
        blocks: All blocks of the corpus.
        required: Whether training blocks need targets, beside the held-out ones.

    Raises:
        RunFailed: It refused all held-out blocks, or all training blocks.
    """
    if not targets.refused:
        return
    reason = next(iter(targets.refused.values()))
    refused = f"The endpoint refused {len(targets.refused)} blocks of the corpus for good"
    parts = {"held-out": blocks.heldout, "training": blocks.training if required else []}
    for name, numbers in parts.items():
        if numbers and not targets.without_refused(numbers):
            raise RunFailed(
                f"{refused}, among them all {len(numbers)} {name} blocks. Its first reason: "
                f"{reason}. Take another corpus, or shorter blocks (distill.block_tokens)."
            )
    log.warning("%s; nothing is trained on them. Its first reason: %s.", refused, reason)
