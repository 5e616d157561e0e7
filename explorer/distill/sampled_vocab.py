"""A block's part of the vocabulary: the tokens that matter there, and a sample of the others.

A loss needs the student's logits of the tokens that the teacher kept and of the labels. All others
only enter one sum, the softmax's denominator, which a sample estimates: each sampled token stands
for as many as were left out. The head, the largest product of a small student, then computes some
thousand logits a position instead of the whole vocabulary, and so does all that follows it. The
sum is right on average and its logarithm a little low. Held-out blocks always use all tokens.
`docs/distill.md` says what the sample gains and costs.

Source: Jean et al. 2015 (sampled softmax), arXiv:1412.2007; here the teacher's kept tokens are
always in.
"""

import dataclasses
import math

import torch
from torch import Tensor

# Shape letters: S tokens of a sample, V vocabulary.


@dataclasses.dataclass(frozen=True)
class SampledVocab:
    """Token ids in ascending order, and for each the log of how many tokens it stands for."""

    ids_S: Tensor
    log_weights_S: Tensor

    @classmethod
    def draw(cls, always: Tensor, vocab_size: int, num_drawn: int, seed: int) -> "SampledVocab":
        """Sample from the vocabulary, without replacement.

        Args:
            always: Token ids that are always in, of any shape, on the CPU; repeats are fine. Each
                has weight 1.
            vocab_size: Tokens of the student's vocabulary, V.
            num_drawn: How many of the others to sample, at least one; all if there are fewer.
            seed: Same seed, same sample.
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

    def places(self, ids: Tensor) -> Tensor:
        """Columns of these tokens, which are all in the sample; same shape as `ids`."""
        return torch.searchsorted(self.ids_S, ids.contiguous())
