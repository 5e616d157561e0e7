"""The teacher's signal on a batch, which is all that the distillation methods differ in.

A signal turns block numbers into a `Batch`: token ids and the teacher's distributions there. The
training loop asks for batches and knows no more.

| signal | the teacher's distributions |
| --- | --- |
| `CachedTeacher` | read from the targets on disk: top k and a tail bucket |
| `LiveTeacher` | computed now, dense; on-policy, of text that the student has just written |
| `NoTeacher` | none: there are only the labels |
"""

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from explorer.devices import accelerator
from explorer.distill.losses import events
from explorer.distill.sampled_vocab import SampledVocab
from explorer.distill.synthesise import generate
from explorer.distill.teacher_cache import TeacherCache
from explorer.distill.token_file import Blocks
from explorer.errors import BadInput
from explorer.models.layers import KEPT_LAYERS, body_of
from explorer.models.output_head import OutputHead
from explorer.specs import DistillSpec

# Shape letters: N blocks of the corpus, B blocks of a batch, T tokens of a block, P scored
# positions, C positions of a chunk, K kept tokens, E kept tokens and bucket, V vocabulary,
# H hidden size.


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Scored positions whose logits exist at the same time."""

    positions: slice
    vocab: SampledVocab | None = None
    """The tokens that have logits; None for all."""

    def logits(self, head: OutputHead, hidden_PH: Tensor) -> Tensor:
        """A model's logits here, from its hidden states at all scored positions."""
        return head(hidden_PH[self.positions], self.vocab.ids_S if self.vocab else None)

    def softened(self, logits_CV: Tensor, temperature: float) -> Tensor:
        """Float32 logits whose softmax is the distribution at a temperature.

        A sampled token's logit is raised by the log of how many tokens it stands for.
        """
        logits_CV = logits_CV.float()
        if temperature != 1:
            logits_CV = logits_CV / temperature
        return logits_CV + self.vocab.log_weights_S if self.vocab else logits_CV

    def of(self, ids_P: Tensor) -> Tensor:
        """The ids at these positions [C, ...], as columns of their logits."""
        ids_C = ids_P[self.positions]
        return self.vocab.places(ids_C) if self.vocab else ids_C


WHOLE_BATCH = Chunk(slice(None))
"""All scored positions, all tokens."""


class Distributions(Protocol):
    """A teacher's distributions at the scored positions of a batch."""

    def pair(self, student_CV: Tensor, chunk: Chunk, temperature: float) -> tuple[Tensor, Tensor]:
        """Student and teacher logits at a chunk's positions, in one shape, ready to compare."""

    def top1(self) -> Tensor:
        """The teacher's most likely token at each scored position, shape [P]."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some blocks and the teacher's distributions there."""

    blocks_BT: Tensor
    teacher: Distributions | None
    first: int = 0
    """The first scored position of a block; its label is the token after it."""
    labelled: bool = True
    """Whether the text itself is a target; what the student wrote is not."""
    hidden: list[Tensor] | None = None
    """For each layer of the student, the teacher's hidden state [P, H] that it should match."""
    vocabs: list[SampledVocab] | None = None
    """For each block, the tokens that get logits; None for all."""

    @property
    def labels_P(self) -> Tensor:
        """The token after each scored position."""
        return self.blocks_BT[:, self.first + 1 :].flatten()

    def scored(self, states_BTH: Tensor) -> Tensor:
        """Select the scored positions, shape [P, ...]; a block's last token has no label."""
        return states_BTH[:, self.first : -1].flatten(0, 1)

    def chunks(self, num_positions: int) -> Iterator[Chunk]:
        """The scored positions, at most `num_positions` at a time; a chunk has one vocabulary."""
        num_scored = len(self.labels_P)
        lists: Sequence[SampledVocab | None] = self.vocabs or [None]
        per_list = num_scored // len(lists)
        for i, vocab in enumerate(lists):
            end = (i + 1) * per_list
            for start in range(i * per_list, end, num_positions):
                yield Chunk(slice(start, min(start + num_positions, end)), vocab)


@dataclasses.dataclass(frozen=True)
class Stored:
    """What is on disk of a batch: tensors of the CPU, or copies of them on a device."""

    blocks_BT: Tensor
    kept: "_Kept | None" = None
    """The teacher's cached distributions at the scored positions."""
    vocabs: list[SampledVocab] | None = None
    pinned: bool = False
    """Whether a device may copy the tensors while the CPU goes on."""

    def on(self, device: torch.device) -> "Stored":
        """A copy on a device."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=self.pinned))

    def pin(self) -> "Stored":
        """A copy in pinned memory."""
        return dataclasses.replace(self._mapped(Tensor.pin_memory), pinned=True)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> "Stored":
        kept, vocabs = self.kept, self.vocabs
        return Stored(
            change(self.blocks_BT),
            kept and _Kept(change(kept.ids_PK), change(kept.log_p_PE)),
            vocabs and [SampledVocab(change(v.ids_S), change(v.log_weights_S)) for v in vocabs],
        )


class TeacherSignal(Protocol):
    """Turns block numbers into a batch to train on."""

    @property
    def blocks_NT(self) -> Blocks:
        """Token ids of the corpus."""

    def read(self, numbers: list[int], step: int) -> Stored:
        """What is on disk of these blocks; it needs no model, so a thread may read ahead."""

    def batch(
        self, numbers: list[int], step: int, student: PreTrainedModel, stored: Stored | None = None
    ) -> Batch:
        """These blocks with the teacher's distributions, as of this step.

        Args:
            numbers: The blocks.
            step: The step, which decides what is random.
            student: Who trains on them, on its device.
            stored: What `read` returned for them; None reads it now.
        """


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """What a student trains on and what it is evaluated on."""

    signal: TeacherSignal
    training: list[int]
    """Blocks to train on, in this order."""
    heldout_signal: TeacherSignal
    heldout: list[int]
    """Blocks to evaluate on; never trained on."""


@dataclasses.dataclass(frozen=True)
class NoTeacher:
    """Blocks without a teacher."""

    blocks_NT: Blocks

    def read(self, numbers: list[int], step: int) -> Stored:
        """The blocks."""
        return Stored(self.blocks_NT[numbers])

    def batch(
        self, numbers: list[int], step: int, student: PreTrainedModel, stored: Stored | None = None
    ) -> Batch:
        """The blocks; their labels are the only target."""
        stored = (stored or self.read(numbers, step)).on(student.device)
        return Batch(stored.blocks_BT, None)


@dataclasses.dataclass(frozen=True)
class CachedTeacher:
    """Targets that were computed once for all students."""

    targets: TeacherCache
    spec: DistillSpec | None = None
    """Decides whether the vocabulary is sampled; None, as for held-out blocks, keeps all tokens."""

    @property
    def blocks_NT(self) -> Blocks:
        """Token ids of the corpus."""
        return self.targets.blocks_NT

    def read(self, numbers: list[int], step: int) -> Stored:
        """The kept tokens at every position, and the bucket."""
        blocks_BT, ids_BTK, log_p_BTE = self.targets.batch(numbers)
        vocabs = None
        if self.spec and self.spec.vocab_sample:
            vocabs = [
                SampledVocab.draw(
                    torch.cat([ids_TK[:-1].flatten(), block_T[1:]]),
                    int(self.targets.identity["vocab_size"]),
                    self.spec.vocab_sample,
                    # Of the block alone, so the sample is the same in any batch and on any rank.
                    random.Random(f"{self.spec.seed} {step} {number}").getrandbits(62),
                )
                for number, ids_TK, block_T in zip(numbers, ids_BTK, blocks_BT, strict=True)
            ]
        ids_PK, log_p_PE = (t[:, :-1].flatten(0, 1) for t in (ids_BTK, log_p_BTE))
        return Stored(blocks_BT, _Kept(ids_PK, log_p_PE), vocabs)

    def batch(
        self, numbers: list[int], step: int, student: PreTrainedModel, stored: Stored | None = None
    ) -> Batch:
        """The blocks with what is stored of the teacher's distributions."""
        stored = (stored or self.read(numbers, step)).on(student.device)
        return Batch(stored.blocks_BT, stored.kept, vocabs=stored.vocabs)


@dataclasses.dataclass(frozen=True)
class LiveTeacher:
    """The teacher itself, run on every batch.

    In a share of the steps (`on_policy_fraction`) the student continues the first `prompt_tokens`
    of each block, and only what it wrote is scored.

    Source: Agarwal et al. 2023 (GKD), arXiv:2306.13649.
    """

    teacher: PreTrainedModel
    blocks_NT: Blocks
    spec: DistillSpec

    def move_to(self, device: torch.device) -> None:
        """Move the teacher to a device."""
        teacher: Any = self.teacher  # Module.to has no usable type in transformers
        teacher.to(device)

    def read(self, numbers: list[int], step: int) -> Stored:
        """The blocks; the teacher itself is asked in `batch`."""
        return Stored(self.blocks_NT[numbers])

    def batch(
        self, numbers: list[int], step: int, student: PreTrainedModel, stored: Stored | None = None
    ) -> Batch:
        """The teacher's dense distributions, and its hidden states if they have a weight."""
        blocks_BT = (stored or self.read(numbers, step)).on(self.teacher.device).blocks_BT
        # A function of seed and step, so that a resumed training decides the same.
        draw = random.Random(f"{self.spec.seed} {step}").random()
        on_policy = draw < self.spec.on_policy_fraction
        if on_policy:
            blocks_BT = self._written(blocks_BT, f"{self.spec.seed} {step} {numbers[0]}", student)
        first = self.spec.prompt_tokens - 1 if on_policy else 0
        wants_hidden = self.spec.hidden_weight > 0
        with torch.no_grad():
            output = body_of(self.teacher)(
                blocks_BT, use_cache=False, output_hidden_states=wants_hidden
            )
        batch = Batch(blocks_BT, None, first, labelled=not on_policy)
        states = output.hidden_states
        return dataclasses.replace(
            batch,
            teacher=_Dense(batch.scored(output.last_hidden_state), OutputHead.of(self.teacher)),
            hidden=[batch.scored(states[i]) for i in matched_states(student, len(states) - 1)]
            if wants_hidden
            else None,
        )

    def _written(self, blocks_BT: Tensor, seed: str, student: PreTrainedModel) -> Tensor:
        """The blocks' openings, continued by the student at temperature 1."""
        num_prompt = self.spec.prompt_tokens
        seed_number = random.Random(seed).getrandbits(62)
        was_training = student.training
        student.eval()
        written_BT = generate(
            student,
            blocks_BT[:, :num_prompt],
            num_tokens=blocks_BT.shape[1] - num_prompt,
            generator=accelerator.generator(student.device, seed_number),
        )
        student.train(was_training)
        return torch.cat([blocks_BT[:, :num_prompt], written_BT], dim=1)


@dataclasses.dataclass(frozen=True)
class _Kept:
    """Cached distributions over the kept tokens and the bucket."""

    ids_PK: Tensor
    log_p_PE: Tensor

    def pair(self, student_CV: Tensor, chunk: Chunk, temperature: float) -> tuple[Tensor, Tensor]:
        softened_CV = chunk.softened(student_CV, temperature)
        return events(softened_CV, chunk.of(self.ids_PK), self.log_p_PE[chunk.positions])

    def top1(self) -> Tensor:
        return self.ids_PK[:, 0]


@dataclasses.dataclass(frozen=True)
class _Dense:
    """A live teacher's distributions, computed a chunk at a time from its last hidden states."""

    hidden_PH: Tensor
    head: OutputHead

    @torch.no_grad()
    def _logits(self, chunk: Chunk) -> Tensor:
        return chunk.logits(self.head, self.hidden_PH)

    def pair(self, student_CV: Tensor, chunk: Chunk, temperature: float) -> tuple[Tensor, Tensor]:
        both = student_CV, self._logits(chunk)
        student_CV, teacher_CV = (chunk.softened(logits_CV, temperature) for logits_CV in both)
        return student_CV, teacher_CV

    def top1(self) -> Tensor:
        return self._logits(WHOLE_BATCH).argmax(-1)


def matched_states(student: PreTrainedModel, num_teacher_layers: int) -> list[int]:
    """For each layer of the student, the index of the teacher's hidden state that it should match.

    It is the input of the next kept layer, so that a layer learns to do the work of the layers
    dropped behind it. Indices as in transformers' `hidden_states`: 0 is the embedding.

    Raises:
        BadInput: The student was not cut from its teacher's layers.
    """
    kept_layers = getattr(student.config, KEPT_LAYERS, None)
    if kept_layers is None:
        raise BadInput(
            "distill.hidden_weight needs a student that keeps layers of its teacher: only then is "
            "it known which hidden states belong together. Write hidden_weight: 0."
        )
    return [*kept_layers[1:], num_teacher_layers]


def check_hidden_states(teacher: PreTrainedModel, student: PreTrainedModel) -> None:
    """Refuse hidden-state matching where the states cannot be compared.

    Raises:
        BadInput: The hidden sizes differ, or there is no map of the kept layers.
    """
    teacher_sizes, own_sizes = (m.config.get_text_config() for m in (teacher, student))
    matched_states(student, teacher_sizes.num_hidden_layers)
    theirs, own = teacher_sizes.hidden_size, own_sizes.hidden_size
    if theirs != own:
        raise BadInput(
            f"distill.hidden_weight compares hidden states, but the student's size is {own} and "
            f"the teacher's {theirs}. Write hidden_weight: 0, or take a depth student."
        )
