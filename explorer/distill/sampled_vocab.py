"""A block's part of the vocabulary: the tokens that matter there, and a sample of the others.

Of the student's logits a loss needs those of the tokens that the teacher kept and of the labels.
All others go into one sum, the softmax's denominator, and that sum is estimated: some of the
others are drawn, and each of them stands for as many as were left out. So the largest product of
a small student, its head, is done for some thousand tokens in place of the whole vocabulary, and
so is what follows it. The sum is right on average, its logarithm a little low; the held-out
blocks are always measured with all tokens. `docs/distill.md` says what it gains and costs.

Source: Jean et al. 2015 (sampled softmax), arXiv:1412.2007, with the teacher's kept tokens as
those that are always in.
"""

import dataclasses
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

# Shape letters: S tokens of a shortlist, V vocabulary, C positions of a chunk, H hidden size.


@dataclasses.dataclass(frozen=True)
class SampledVocab:
    """Tokens in ascending order, and for each the log of how many it stands for."""

    ids_S: Tensor
    log_weights_S: Tensor

    @classmethod
    def draw(cls, always: Tensor, vocab_size: int, num_drawn: int, seed: int) -> "SampledVocab":
        """The given tokens, and as many of the others as asked for, or all where they are fewer.

        Args:
            always: Token ids of any shape, repeated or not, on the CPU; each stands for itself.
            vocab_size: Tokens of the student's vocabulary, V.
            num_drawn: How many of the others are drawn, without replacement; at least one.
            seed: Same seed, same draw.
        """
        rest_V = torch.ones(vocab_size, dtype=torch.bool)
        rest_V[always.flatten()] = False
        others = rest_V.nonzero().flatten()
        order = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))
        drawn = others[order[:num_drawn]]
        log_weights_V = torch.zeros(vocab_size)
        if len(drawn):
            log_weights_V[drawn] = math.log(len(others) / len(drawn))
        rest_V[drawn] = False
        ids_S = (~rest_V).nonzero().flatten()
        return cls(ids_S, log_weights_V[ids_S])

    def to(self, device: torch.device) -> "SampledVocab":
        """The same on a device."""
        return SampledVocab(self.ids_S.to(device), self.log_weights_S.to(device))

    def places(self, ids: Tensor) -> Tensor:
        """Where these tokens, which are always in, stand in the shortlist; same shape."""
        return torch.searchsorted(self.ids_S, ids.contiguous())

    def logits(self, head: nn.Module, hidden_CH: Tensor) -> Tensor:
        """The head's logits [C, S] of these tokens alone."""
        weight: Tensor = head.weight  # type: ignore[assignment]  # a projection, as check_head saw
        bias: Tensor | None = getattr(head, "bias", None)
        # Rows taken as of an embedding: in a third of the time of an index.
        rows_SH = embedding(self.ids_S, weight)
        return linear(hidden_CH, rows_SH, None if bias is None else bias[self.ids_S])
