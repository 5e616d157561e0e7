"""How a model was made, in one sentence."""

from explorer.analysis import numbers
from explorer.records import Distillation, RunRecord
from explorer.specs import (
    BothStudent,
    CheckpointStudent,
    DepthStudent,
    DistillSpec,
    FreshStudent,
)

CHOICES = {
    "block_influence": "chosen by importance",
    "uniform": "evenly spaced",
    "greedy": "chosen greedily by KL",
}
WIDTHS = {
    "hidden": "hidden dimensions",
    "channels": "MLP channels",
    "heads": "query heads",
    "groups": "key-value heads",
}


def how_made(record: RunRecord) -> str:
    """What the model was cut from, how it was trained, and the KL to the teacher."""
    student, training = record.spec.student, record.distillation
    if record.imported:
        return f"Imported from lm-eval results of {record.imported.model}"
    weights = "unchanged"
    if record.spec.gguf:
        weights = f"as GGUF {record.spec.gguf}"
    if record.spec.torch_bits:
        weights = f"linear weights quantised to {record.spec.torch_bits} bits"
    if student is None:
        return f"The teacher {record.spec.teacher}, {weights}"
    cut = f"{_cut(record)}, {weights}" if record.spec.format else _cut(record)
    if training is None:
        return f"{cut}; not trained"
    sentence = (
        f"{cut}; trained on {training.scored_tokens:,} tokens of {training.corpus.name}"
        f"{_shortcuts(record.spec.distill, training)} in {numbers.duration(training.seconds)}"
    )
    if training.kl_before is None or training.kl_after is None:
        return sentence
    before = numbers.significant(training.kl_before)
    after = numbers.significant(training.kl_after)
    return f"{sentence}; KL to the teacher {before} before and {after} nats after"


def _shortcuts(distill: DistillSpec | None, training: Distillation) -> str:
    """In parentheses, settings that trade exactness for speed; empty if there are none."""
    parts = []
    if training.num_untrained_layers:
        parts.append(f"the first {training.num_untrained_layers} layers frozen")
    if distill and distill.vocab_sample:
        parts.append(f"{distill.vocab_sample:,} sampled tokens")
    if distill and distill.precision == "bfloat16":
        parts.append("in bfloat16")
    return f" ({', '.join(parts)})" if parts else ""


def _cut(record: RunRecord) -> str:
    """How the teacher was cut, or what else the student was made from."""
    student, model = record.spec.student, record.model
    assert student is not None, "only students are cut"
    if isinstance(student, CheckpointStudent):
        return f"{student.model}, unchanged"
    if isinstance(student, FreshStudent):
        return f"The teacher's architecture with random weights, seed {student.seed}"
    if isinstance(student, DepthStudent):
        sizes = f"{student.num_layers} layers, {CHOICES[student.choice]}"
    else:
        sizes = student.label(model.num_parameters if model else None)
        widths = model.kept_widths if model and model.kept_widths else {}
        cut = [f"{kept} of {of} {WIDTHS[name]}" for name, (kept, of) in widths.items() if kept < of]
        if isinstance(student, BothStudent) and model:
            cut.insert(0, f"{model.num_layers} layers {CHOICES[student.choice]}")
        sizes += f": {', '.join(cut)}" if cut else ""
    step = f", from {student.start}" if student.start else ""
    return f"Cut to {sizes}{step}"
