"""How a student is trained."""

from typing import Literal, Self

import pydantic
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from explorer.specs.base import Added, Bits, Spec


class DistillSpec(Spec):
    """Everything that decides a distillation. Same spec, same losses."""

    method: Added[Literal["cached", "live", "text", "labels"]] = "cached"
    """What the student learns from. cached: the teacher's distributions, computed once for all
    students. live: its distributions, computed at each step. text: text that it wrote. labels: the
    corpus alone, without the teacher (the control arm)."""
    teacher_bits: Added[Bits | None] = None
    """Quantise the teacher's linear weights while it teaches, to save memory: 8 bits, or 4 on
    NVIDIA GPUs. Requires torchao. The student is still cut from, and compared with, the
    unquantised teacher. None quantises nothing."""
    corpus: str = "starter"
    """The training text: `starter` (included), `teacher` (the teacher writes it first), or a .txt,
    .jsonl or .parquet file."""
    max_tokens: PositiveInt = 60_000
    """Training budget, in scored tokens. A shorter corpus is read repeatedly."""
    block_tokens: int = Field(256, ge=8, le=131_072)
    """Tokens of a packed block."""
    blocks_per_step: PositiveInt = 4
    """Blocks per optimiser step."""
    micro_blocks: Added[PositiveInt | None] = None
    """Blocks per forward and backward pass; fewer need less memory. None takes a whole step."""
    gradient_checkpointing: Added[bool] = False
    """Recompute activations in the backward pass: slower, with less memory."""
    prefetch: Added[bool] = False
    """Read the text and the cached targets of the next pass in a thread while this one computes,
    into pinned memory where the device copies from it. The losses stay the same."""
    compile: Added[bool] = False
    """Compile the student's layers for training, if the first passes show that this is faster. The
    losses stay the same up to rounding."""
    heldout_blocks: PositiveInt = 24
    """Blocks held out to measure the KL to the teacher; never trained on."""
    top_k: PositiveInt = 32
    """Teacher log-probabilities stored per position; the rest is one tail bucket."""
    vocab_sample: Added[PositiveInt | None] = None
    """Trains on the teacher's top tokens plus this many randomly sampled others instead of the
    whole vocabulary. Faster for large vocabularies. None uses the whole vocabulary."""
    kd_weight: float = Field(1.0, ge=0, le=1)
    """Share of the KD term; cross-entropy on the labels gets the rest."""
    temperature: PositiveFloat = 1.0
    """Softmax temperature of both models in the KD term."""
    loss: Added[
        Literal[
            "forward_kl",
            "reverse_kl",
            "jsd",
            "skew_forward_kl",
            "skew_reverse_kl",
            "adaptive_kl",
            "total_variation",
        ]
    ] = "forward_kl"
    """The KD term: the divergence between teacher and student."""
    beta: Added[float] = Field(0.5, ge=0, le=1)
    """For `jsd`: 0 is the forward KL, 1 the reverse KL."""
    skew: Added[float] = Field(0.1, ge=0, lt=1)
    """For the skewed KLs: the share of the first distribution mixed into the second."""
    hidden_weight: Added[float] = Field(0.0, ge=0)
    """Weight of the hidden-state term, added to the loss; requires `method: live`."""
    hidden_loss: Added[Literal["mse", "cosine"]] = "mse"
    """The hidden-state term: relative squared difference, or 1 - cosine."""
    on_policy_fraction: Added[float] = Field(0.0, ge=0, le=1)
    """Share of the steps on text that the student generates and the teacher scores; requires
    `method: live`."""
    prompt_tokens: Added[PositiveInt] = 32
    """Tokens of each block used as the prompt of the student's own text."""
    precision: Added[Literal["auto", "float32", "bfloat16"]] = "auto"
    """Number format of matrix products in training; trained weights stay float32. auto is
    float32 on a CPU, and on an accelerator bfloat16 if it computes in it."""
    learning_rate: PositiveFloat = 6e-4
    """Peak learning rate of AdamW, after the warm-up and before the cosine decay."""
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay of AdamW."""
    train_embeddings: bool = False
    """Train the shared embedding too. Frozen is faster and forgets less."""
    train_layers: Added[Literal["all", "auto"]] = "all"
    """Which layers are trained. auto freezes the layers before the first one that was cut, if the
    student keeps at least half of the teacher's layers: up to there it computes what the teacher
    computes."""
    eval_every_steps: PositiveInt = 25
    """Steps between two held-out evaluations."""
    checkpoint_every_s: PositiveFloat = 60.0
    """Seconds between two checkpoints."""
    seed: NonNegativeInt = 0
    """Decides the order of the training blocks. The held-out blocks are the same for every seed."""

    @pydantic.model_validator(mode="after")
    def _refuse_terms_without_their_teacher(self) -> Self:
        for name, value in (
            ("on_policy_fraction", self.on_policy_fraction),
            ("hidden_weight", self.hidden_weight),
        ):
            if value > 0 and self.method != "live":
                raise ValueError(f"{name} {value:g} needs a live teacher; write method: live")
        if self.vocab_sample and self.method != "cached":
            raise ValueError(
                f"vocab_sample {self.vocab_sample} needs cached targets, and method is "
                f"{self.method}; write method: cached, or remove vocab_sample"
            )
        if self.on_policy_fraction > 0 and self.kd_weight == 0:
            raise ValueError(
                "on_policy_fraction needs kd_weight above 0: only the teacher scores that text"
            )
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
        """Whether training on a device of this kind multiplies matrices in bfloat16, if it can."""
        return self.precision == "bfloat16" or (self.precision == "auto" and device != "cpu")

    def control(self) -> "DistillSpec":
        """The control arm: same corpus, budget, steps and seed, without the teacher."""
        of_the_teacher = (
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
        return self.with_(method="labels", **{name: self.default(name) for name in of_the_teacher})
