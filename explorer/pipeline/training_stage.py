"""The text, the teacher's targets and the training."""

import logging
from collections import deque
from pathlib import Path

import torch

from explorer.distill import corpus, teacher_signal
from explorer.distill.schedule import num_steps
from explorer.distill.synthesise import synthesise
from explorer.distill.teacher_cache import Scorer, Targets, by_weights
from explorer.distill.teacher_signal import Course
from explorer.distill.train import State, train
from explorer.distill.train_state import untrained
from explorer.models.facts import tokenizer_digest
from explorer.models.loading import Loaded
from explorer.pipeline import endpoint_teacher, environment, run_guard
from explorer.pipeline.state import Run, key
from explorer.records import CurvePoint, TargetsFacts
from explorer.specs import DistillSpec
from explorer.students import slice_vocabulary

log = logging.getLogger("explorer")


def read_text(run: Run, distill: DistillSpec) -> corpus.Corpus:
    """The corpus, which the teacher writes first where the spec asks for that."""
    if distill.corpus != "teacher":
        return corpus.read(distill.corpus)
    run.stage = "text"
    num_blocks = num_steps(distill) * distill.blocks_per_step + distill.heldout_blocks + 1
    num_tokens = num_blocks * distill.block_tokens
    name = key({"teacher": run.lecturer_fingerprint, "num_tokens": num_tokens})
    path = run.work / "texts" / f"{name}.jsonl"

    def tell(done: int, total: int) -> None:
        run.progress("text", done, total, "tokens")

    with run_guard.alone(run.root, f"text-{path.stem}", run.progress):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with run.timed("text"):
                synthesise(
                    run.lecturer,
                    path,
                    num_tokens=num_tokens,
                    document_tokens=distill.block_tokens,
                    progress=tell,
                )
    if run.teacher_bits:
        run.forget_models()  # The whole teacher comes next.
    return corpus.read(str(path))


def course(
    run: Run,
    student: Loaded,
    blocks_NT: torch.Tensor,
    text: corpus.Corpus,
    heldout: list[int],
    training: list[int],
) -> tuple[Course, Targets]:
    """What the method teaches with; the held-out blocks have the teacher's targets always."""
    distill = run.spec.distill
    assert distill is not None, "only a distilled student has a course"
    if run.teacher_bits:
        _fit_lecturer(run, student)
    plain = teacher_signal.Text(blocks_NT)
    wanted = list(heldout)
    if distill.method == "cached":
        wanted += training[: num_steps(distill) * distill.blocks_per_step]
    targets = _targets(run, blocks_NT, text, wanted)
    source: teacher_signal.Source = plain
    if distill.method == "cached":
        source = teacher_signal.Cached(targets, distill)
    elif distill.method == "live":
        teacher_signal.check_head(run.lecturer.model, blocks_NT[heldout[:1], :8])
        if distill.hidden_weight > 0:
            teacher_signal.check_hidden(run.lecturer.model, student.model)
        source = teacher_signal.Live(run.lecturer.model, blocks_NT, distill)
    return Course(source, training, teacher_signal.Cached(targets), heldout), targets


def _fit_lecturer(run: Run, student: Loaded) -> None:
    """Let the rounded teacher take the whole one's room and have the student's rows."""
    run.forget_models()
    _ = run.lecturer_fingerprint  # of the model as it is loaded, like the whole teacher's
    num_rows = int(student.model.config.vocab_size)
    if int(run.lecturer.model.config.vocab_size) != num_rows:
        slice_vocabulary(run.lecturer.model, num_rows)


def _targets(run: Run, blocks_NT: torch.Tensor, text: corpus.Corpus, wanted: list[int]) -> Targets:
    run.stage = "targets"
    distill = run.spec.distill
    assert distill is not None, "only a distilled student needs targets"
    identity = {
        "teacher": run.lecturer_fingerprint,
        "tokenizer": tokenizer_digest(run.lecturer.tokenizer),
        "corpus": text.digest,
        "block_tokens": distill.block_tokens,
        "top_k": distill.top_k,
        "temperature": distill.temperature,
        "vocab_size": run.vocab_size,
    }
    about = {"teacher": run.spec.teacher, "corpus": text.name}
    targets = Targets(run.work / "targets", blocks_NT, identity, about)

    def tell(done: int, total: int, rate: float) -> None:
        run.progress("targets", done, total, "tokens", tokens_per_s=round(rate, 1))

    def teacher() -> Scorer:
        if run.served:
            return endpoint_teacher.scorer(run, run.served, targets)
        return by_weights(run.lecturer)

    with run.timed("targets"):
        targets.fill(teacher, wanted, tell)
    return targets


def targets_facts(run: Run, targets: Targets, heldout: list[int]) -> TargetsFacts:
    """What a record keeps of the targets, and what a server counted for them."""
    found = targets.facts(heldout)
    return (
        found.model_copy(update={"usage": endpoint_teacher.spent(targets)}) if run.served else found
    )


def distil(run: Run, student: Loaded, course: Course, folder: Path) -> State:
    """Train the student, from its checkpoint in `folder` where there is one."""
    run.stage = "distil"
    distill = run.spec.distill
    assert distill is not None, "only a distilled student comes here"
    on_processor = run.device.type == "cpu" and distill.in_bfloat16("cpu")
    if on_processor and not environment.computes_bfloat16():
        log.warning(
            "This processor has no instructions for bfloat16, so distill.precision: bfloat16 is "
            "likely slower here than float32."
        )
    if left := untrained(student.model, distill):
        log.info("Layers before the first cut, which stay as they are: %d.", len(left))
    num_logged = 0
    losses: deque[float] = deque(maxlen=120)

    def tell(state: State, total: int, loss: float, rate: float) -> None:
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
    with run.timed("distil"):
        return train(student.model, course, distill, folder / "checkpoint", tell)


def _in_words(point: CurvePoint) -> str:
    """A point of the curve for the log: what was measured, in the order of the record."""
    said = [f"loss {point.loss:.4f}"]
    for name in (
        "kd_loss",
        "label_loss",
        "hidden_loss",
        "heldout_kl",
        "heldout_top1",
        "heldout_label_loss",
    ):
        value = getattr(point, name)
        if value is not None:
            said.append(f"{name.replace('_', ' ')} {value:.4f}")
    return ", ".join(said)
