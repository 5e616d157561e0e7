"""What a record says about training: the corpus, the teacher's targets, the loss curve."""

from explorer.records.base import RecordPart
from explorer.records.capability import Usage


class CurvePoint(RecordPart):
    """One point of the training curve."""

    step: int
    scored_tokens: int
    seconds: float
    loss: float
    """Mean over the scored tokens since the previous point, in nats."""
    learning_rate: float
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

    name: str
    digest: str
    num_documents: int
    num_tokens: int
    overlap_13grams: dict[str, int] | None = None
    """For each task, how many of its documents share 13 consecutive words with the corpus."""


class TargetsFacts(RecordPart):
    """The teacher's cached distributions."""

    key: str
    top_k: int
    num_positions: int
    bytes_per_token: float
    mean_mass: float
    """Mean probability of the stored top-k tokens."""
    seconds: float
    """Time of the teacher's pass. One pass serves all students."""
    id_bits: int | None = None
    """Bits of a token id on disk."""
    truncation_kl: float | None = None
    """What storing only the top k costs: the KL from the teacher to its stored targets with the
    tail spread evenly, on the held-out blocks, in nats per token. None if a server returned only
    what is stored."""
    usage: Usage | None = None
    """Tokens that the API counted for these targets, whichever run requested them. None if the
    teacher ran here."""
    num_unknown: int | None = None
    """Tokens that a server returned and the tokenizer does not know. Their mass is in the tail."""
    num_refused: int = 0
    """Blocks of text that a server refused for good. No run trains on them."""


class Distillation(RecordPart):
    """How the student was trained, and the cost of training it."""

    corpus: CorpusFacts
    targets: TargetsFacts | None
    """None if the student and the teacher have different tokenizers."""
    scored_tokens: int
    steps: int
    seconds: float
    """Training alone, without waiting and without time lost to interruptions."""
    device_hours: float
    """Hours of the device for training alone."""
    num_trained_parameters: int
    num_untrained_layers: int = 0
    """Layers of the student that training left unchanged."""
    kl_before: float | None
    kl_after: float | None
    top1_before: float | None
    top1_after: float | None
    curve: list[CurvePoint]
    num_resumes: int = 0
