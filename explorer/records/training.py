"""What a record says about training: the corpus, the teacher's targets, the loss curve."""

from typing import Literal

from explorer.records.base import Amount, Count, Name, Number, RecordPart, Spread
from explorer.records.capability import Usage


class CurvePoint(RecordPart):
    """One point of the training curve.

    A training that fails has points whose losses are no numbers; no record takes them.
    """

    step: Count
    scored_tokens: Count
    seconds: Amount
    loss: float
    """Mean over the scored tokens since the previous point, in nats."""
    learning_rate: Spread
    heldout_kl: float | None = None
    """Held-out KL(teacher || student), in nats per token, over the teacher's top-k tokens and the
    tail. None if the two models have different tokenizers."""
    heldout_top1: float | None = None
    """Share of held-out positions where both models have the same most likely token."""
    heldout_label_loss: float | None = None
    """Held-out cross-entropy on the text, in nats per token."""
    kd_loss: float | None = None
    """The divergence alone, without weight and temperature; None if the loss has no such term."""
    label_loss: float | None = None
    """The cross-entropy on the labels alone; None if the loss has no such term."""
    hidden_loss: float | None = None
    """The hidden-state term alone; None if the loss has no such term."""


class CorpusFacts(RecordPart):
    """The training text."""

    name: Name
    digest: Name
    num_documents: Count
    num_tokens: Count
    overlap_13grams: dict[str, Count] | None = None
    """For each task, how many of its documents share 13 consecutive words with the corpus."""


class TargetsFacts(RecordPart):
    """The teacher's cached distributions."""

    key: Name
    top_k: Count
    num_positions: Count
    bytes_per_token: Amount
    mean_mass: Amount
    """Mean probability of the stored top-k tokens."""
    seconds: Amount
    """Time of the teacher's pass. One pass serves all students."""
    id_bits: Count | None = None
    """Bits of a token id on disk."""
    truncation_kl: Number | None = None
    """What storing only the top k costs: the KL from the teacher to its stored targets with the
    tail spread evenly, on the held-out blocks, in nats per token. None if a server returned only
    what is stored."""
    usage: Usage | None = None
    """Tokens that the API counted for these targets, whichever run requested them. None if the
    teacher ran here."""
    num_unknown: Count | None = None
    """Tokens that a server returned and the tokenizer does not know. Their mass is in the tail."""
    num_refused: int = 0
    """Blocks of text that a server refused for good. No run trains on them."""


class Compilation(RecordPart):
    """Whether the student's layers ran compiled in training, and why."""

    kept: Literal["compiled", "eager"]
    """The faster way, in which the training went on."""
    eager_ms: Amount
    """Median time of a forward and backward pass through the layers as they are."""
    compiled_ms: Amount | None = None
    """The same of compiled layers; None if they failed."""
    problem: str | None = None
    """Why they failed."""


class Distillation(RecordPart):
    """How the student was trained, and the cost of training it."""

    corpus: CorpusFacts
    targets: TargetsFacts | None
    """None if the student and the teacher have different tokenizers."""
    scored_tokens: Count
    steps: Count
    seconds: Amount
    """Training alone, without waiting and without time lost to interruptions."""
    device_hours: Amount
    """Hours of the device for training alone; of several devices, their sum."""
    num_trained_parameters: Count
    num_untrained_layers: Count = 0
    """Layers of the student that training left unchanged."""
    kl_before: Number | None
    kl_after: Number | None
    top1_before: Amount | None
    top1_after: Amount | None
    curve: list[CurvePoint]
    num_resumes: Count = 0
    num_halvings: Count = 0
    """How often memory ran out during training and passes became half as large."""
    compilation: Compilation | None = None
    """Of a training with `compile`; None also if it ended before both ways were measured."""
