"""How a student is taught."""

from typing import Literal, Self

import pydantic
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from explorer.specs.base import Bits, Spec


class DistillSpec(Spec):
    """Everything that decides a distillation. Same spec, same losses."""

    added = {
        "loss": "forward_kl",
        "beta": 0.5,
        "skew": 0.1,
        "hidden_weight": 0.0,
        "hidden_loss": "mse",
        "method": "cached",
        "on_policy_fraction": 0.0,
        "prompt_tokens": 32,
        "micro_blocks": None,
        "gradient_checkpointing": False,
        "teacher_bits": None,
        "vocab_sample": None,
        "precision": "auto",
        "train_layers": "all",
    }

    method: Literal["cached", "live", "text", "labels"] = "cached"
    """How the teacher teaches: by distributions that are cached once for all students, by
    distributions computed live, by text that it wrote, or not at all (the control arm)."""
    teacher_bits: Bits | None = None
    """Bits of the teacher's linear weights while it teaches, to save memory: 8, or 4 on CUDA; needs
    torchao. The student is cut from the whole teacher and compared with it. None rounds nothing."""
    corpus: str = "starter"
    """`starter` (ships with us), `teacher` (it writes the text first), or a .txt, .jsonl or
    .parquet file."""
    max_tokens: PositiveInt = 60_000
    """Budget, in scored tokens; a corpus that is shorter is read again."""
    block_tokens: int = Field(256, ge=8, le=131_072)
    """Tokens of a packed block."""
    blocks_per_step: PositiveInt = 4
    """Blocks of one optimiser step."""
    micro_blocks: PositiveInt | None = None
    """Blocks of one forward and backward pass, to save memory; None takes a step's at once."""
    gradient_checkpointing: bool = False
    """Whether layers are computed again on the way back, slower and with less memory."""
    heldout_blocks: PositiveInt = 24
    """Blocks kept aside to measure the KL to the teacher; never trained on."""
    top_k: PositiveInt = 32
    """Teacher log-probabilities kept per position; the rest is one tail bucket."""
    vocab_sample: PositiveInt | None = None
    """Of the tokens that the teacher kept nowhere in a block, so many are drawn at each step and
    stand for all: faster, the more so the larger the vocabulary beside the student. None takes
    all."""
    kd_weight: float = Field(1.0, ge=0, le=1)
    """Share of the KD term; cross-entropy on the labels gets the rest."""
    temperature: PositiveFloat = 1.0
    """Softmax temperature of both models in the KD term."""
    loss: Literal[
        "forward_kl",
        "reverse_kl",
        "jsd",
        "skew_forward_kl",
        "skew_reverse_kl",
        "adaptive_kl",
        "total_variation",
    ] = "forward_kl"
    """The KD term: how the student's distribution is compared with the teacher's."""
    beta: float = Field(0.5, ge=0, le=1)
    """Of `jsd`: 0 is the forward KL, 1 the reverse KL."""
    skew: float = Field(0.1, ge=0, lt=1)
    """Of the skewed KLs: the share of the first distribution that is mixed into the second."""
    hidden_weight: float = Field(0.0, ge=0)
    """Weight of the hidden-state term, added to the others; needs a live teacher."""
    hidden_loss: Literal["mse", "cosine"] = "mse"
    """The hidden-state term: relative squared difference, or 1 - cosine."""
    on_policy_fraction: float = Field(0.0, ge=0, le=1)
    """Share of the steps whose text the student writes and the teacher scores; needs a live
    teacher."""
    prompt_tokens: PositiveInt = 32
    """Tokens of each block that the student's own text begins with."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the matrix products while a student is taught; what is trained stays
    float32. auto is bfloat16 on CUDA and float32 on a processor."""
    learning_rate: PositiveFloat = 6e-4
    """Peak rate of AdamW, after the warm-up and before the cosine decay."""
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the rate rises."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay of AdamW."""
    train_embeddings: bool = False
    """Whether the shared embedding is trained; frozen is faster and forgets less."""
    train_layers: Literal["all", "auto"] = "all"
    """Which layers are trained. auto leaves those before the first cut as they are, where at least
    half of the teacher's layers stay: there a student computes what its teacher does."""
    eval_every_steps: PositiveInt = 25
    """Steps between two measurements on the held-out blocks."""
    checkpoint_every_s: PositiveFloat = 60.0
    """Seconds between two checkpoints."""
    seed: NonNegativeInt = 0
    """Which blocks are read, and in which order."""

    @pydantic.model_validator(mode="after")
    def _terms_have_their_teacher(self) -> Self:
        for name, value in (
            ("on_policy_fraction", self.on_policy_fraction),
            ("hidden_weight", self.hidden_weight),
        ):
            if value > 0 and self.method != "live":
                raise ValueError(f"{name} {value:g} needs a live teacher; write method: live")
        if self.vocab_sample and self.method != "cached":
            raise ValueError(
                f"vocab_sample {self.vocab_sample} draws beside the tokens of cached targets, and "
                f"method is {self.method}; write method: cached, or leave vocab_sample out"
            )
        if self.on_policy_fraction > 0 and self.kd_weight == 0:
            raise ValueError("on_policy_fraction needs kd_weight above 0: the teacher scores it")
        if self.on_policy_fraction > 0 and self.prompt_tokens >= self.block_tokens:
            raise ValueError(
                f"prompt_tokens {self.prompt_tokens} leaves nothing of block_tokens "
                f"{self.block_tokens} for the student to write; lower it"
            )
        return self

    @property
    def uses_distributions(self) -> bool:
        """Whether the student learns from the teacher's distributions, not from text alone."""
        return self.method in ("cached", "live")

    def in_bfloat16(self, device: str) -> bool:
        """Whether a student is taught with products in bfloat16 on a `cpu` or on `cuda`."""
        return self.precision == "bfloat16" or (self.precision == "auto" and device == "cuda")

    def control(self) -> "DistillSpec":
        """The same corpus, budget, steps and seed without the teacher: all that it adds is gone."""
        teachers = (
            "kd_weight",
            "temperature",
            "loss",
            "beta",
            "skew",
            "hidden_weight",
            "hidden_loss",
            "on_policy_fraction",
            "prompt_tokens",
            "vocab_sample",
        )
        plain = {name: type(self).model_fields[name].default for name in teachers}
        return self.with_(method="labels", **plain)
