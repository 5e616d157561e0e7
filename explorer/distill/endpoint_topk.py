"""Targets from a teacher behind a server, which names its most likely tokens and no others.

The named tokens keep their log-probabilities; what they leave of 1 is the bucket's. A server may
name fewer than k at a position, because some of its words mean no token. Other tokens then take
their places, each with an even share of the bucket.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from explorer.distill.losses import LEAST_TAIL

# Shape letters: T tokens of a block, K kept tokens, E kept tokens and bucket, V vocabulary.


def top_k_from_endpoint(
    likely: Sequence[Mapping[int, float]], top_k: int, vocab_size: int
) -> tuple[Tensor, Tensor]:
    """The k most likely of the named tokens at each position, and the bucket.

    Args:
        likely: At each of T positions, log-probabilities by token id, in nats.
        top_k: Tokens to keep, below the vocabulary's size.
        vocab_size: Tokens of the vocabulary.

    Returns:
        Ids [T, K], and log-probabilities of them and of the bucket [T, E] with E = K + 1.
    """
    assert top_k < vocab_size, "a bucket holds at least one token"
    ids_TK, log_p_TE = [], []
    for named in likely:
        top = sorted(named.items(), key=lambda item: (-item[1], item[0]))[:top_k]
        ids, log_p = [token for token, _ in top], [value for _, value in top]
        tail = max(1 - math.fsum(map(math.exp, log_p)), LEAST_TAIL)
        share = tail / (vocab_size - len(ids))
        others = (token for token in range(vocab_size) if token not in named)
        num_missing = top_k - len(ids)
        ids += [next(others) for _ in range(num_missing)]
        log_p += [math.log(share)] * num_missing
        ids_TK.append(ids)
        log_p_TE.append([*log_p, math.log(tail - num_missing * share)])
    return torch.tensor(ids_TK), torch.tensor(log_p_TE)
