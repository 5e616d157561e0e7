"""A causal model that reads packed trees: one mask, correct positions, few logits.

Works with transformers models that accept a 4-dimensional mask and keep their attention in
key-value caches. `matches_plain_forward` compares it with the plain forward pass, so that a model
which does not work this way is found before it answers anything.

Sources: transformers' `masking_utils.py` (a 4-D mask is passed on unchanged; models that mix kinds
of attention take a dictionary) and `cache_utils.py`.
"""

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from explorer.evaluate.backends.prefix_trie import (
    MIN_HEADER,
    ROW_TOKENS,
    Array,
    PackedRow,
    PrefixGroup,
    ScoredText,
    plan_batches,
    single_text_row,
)
from explorer.evaluate.backends.tree_cache import Header, PreallocatedLayer, PrefixLayer
from explorer.models.decoding import length_switch
from explorer.models.layers import body_of
from explorer.models.output_head import OutputHead

log = logging.getLogger("explorer")

# Shape letters: R rows, L tokens of a row, P of the header, K = P + L keys, S scored positions,
# H hidden size, V vocabulary.

CHUNK_BYTES = 64 * 2**20
"""Maximum bytes of logits in memory at a time."""


class TreeModel:
    """A model's layers and its head, called separately."""

    def __init__(self, model: PreTrainedModel, softmax_dtype: torch.dtype | None = None) -> None:
        """Read from the configuration which kinds of attention the layers have.

        Args:
            model: The model, on its device.
            softmax_dtype: Dtype of the log-probabilities; None is float32.
        """
        config: Any = model.config.get_text_config()
        self.model, self.device, self.dtype = model, model.device, model.dtype
        self.vocab_size = int(config.vocab_size)
        self.num_layers = int(config.num_hidden_layers)
        self.context_tokens: int | None = getattr(config, "max_position_embeddings", None)
        self._softmax_dtype = softmax_dtype or torch.float32
        self._window: int | None = getattr(config, "sliding_window", None)
        self._chunk: int | None = getattr(config, "attention_chunk_size", None)
        self._kinds = sorted(set(getattr(config, "layer_types", None) or []))
        self._head = OutputHead.of(model)
        self.length_switch = length_switch(model)
        self._limits = _local_limits(config)
        self._checked_tokens = 0

    @torch.no_grad()
    def header(self, tokens: Array) -> Header:
        """Keys and values of the shared header; empty if it has no tokens."""
        if not len(tokens):
            return []
        layers = [PreallocatedLayer(len(tokens)) for _ in range(self.num_layers)]
        self.hidden_states([single_text_row(tokens)], [], Cache(layers=[*layers]))
        return [layer.whole() for layer in layers]

    @torch.no_grad()
    def scores(self, rows: Sequence[PackedRow], header: Header) -> tuple[list[float], list[bool]]:
        """Log-likelihood of each text's targets in nats, and whether greedy decoding gives them.

        Args:
            rows: One batch; the results are in the order of its rows' `spans`.
            header: What the rows' texts begin with, from `header`.
        """
        hidden_RLH = self.hidden_states(rows, header)
        length = hidden_RLH.shape[1]
        spans = [(span, r * length) for r, row in enumerate(rows) for span in row.spans]
        slots = np.concatenate([span.slots + start for span, start in spans])
        targets = np.concatenate([span.targets for span, _ in spans])
        owners = np.repeat(np.arange(len(spans)), [len(span.targets) for span, _ in spans])
        # Texts share positions; texts that differ only in the last token share all of them.
        scored, ranks = np.unique(slots, return_inverse=True)
        order = np.argsort(ranks, kind="stable")
        hidden_SH = hidden_RLH.flatten(0, 1)[torch.from_numpy(scored).to(self.device)]
        values, firsts = self._score_targets(hidden_SH, ranks[order], targets[order])
        loglikelihoods = np.bincount(owners[order], weights=values, minlength=len(spans))
        misses = np.bincount(owners[order], weights=~firsts, minlength=len(spans))
        return loglikelihoods.tolist(), (misses == 0).tolist()

    def _score_targets(
        self, hidden_SH: Tensor, ranks: Array, targets: Array
    ) -> tuple[Array, Array]:
        """Log-probability of target i at position ranks[i], and whether it is the most likely.

        `ranks` is in ascending order.
        """
        size = max(1, CHUNK_BYTES // (self.vocab_size * 4))
        values, firsts = [], []
        for start in range(0, len(hidden_SH), size):
            low, high = np.searchsorted(ranks, [start, start + size])
            rank = torch.from_numpy(ranks[low:high] - start).to(self.device)
            target = torch.from_numpy(targets[low:high]).to(self.device)
            logits_CV = self.logits(hidden_SH[start : start + size])
            top_C = logits_CV.amax(dim=-1)
            chosen = logits_CV[rank, target]
            first = chosen == top_C[rank]
            # Greedy decoding takes one of several equally likely tokens: the one argmax returns.
            first[first.clone()] = logits_CV[rank[first]].argmax(dim=-1) == target[first]
            sums_C = logits_CV.sub_(top_C[:, None]).exp_().sum(dim=-1)
            value = chosen - top_C[rank] - sums_C.log()[rank]
            values.append(value.double().cpu().numpy())
            firsts.append(first.cpu().numpy())
        return np.concatenate(values), np.concatenate(firsts)

    def logits(self, hidden: Tensor) -> Tensor:
        """The head's logits of hidden states; the caller may overwrite them."""
        return self._head.finish(self._head.projection(hidden).to(self._softmax_dtype))

    def hidden_states(
        self, rows: Sequence[PackedRow], header: Header, cache: Cache | None = None
    ) -> Tensor:
        """Last hidden states [R, L, H] of right-padded rows; the values at padding are undefined.

        Args:
            rows: Trees; their positions include the header.
            header: The header's keys and values, which all rows see.
            cache: Receives the keys and values; needs an empty header.
        """
        length, num_header = max(map(len, rows)), header[0][0].shape[-2] if header else 0
        tokens = np.zeros((len(rows), length), dtype=np.int64)
        positions = np.zeros((len(rows), length), dtype=np.int64)
        # A padding token sees only itself: a query without keys would give NaN.
        ends = np.tile(np.arange(1, length + 1), (len(rows), 1))
        for r, row in enumerate(rows):
            tokens[r, : len(row)] = row.tokens
            positions[r, : len(row)] = row.positions
            ends[r, : len(row)] = row.ends
        index_L = torch.arange(length, device=self.device)
        ends_RL = torch.from_numpy(ends).to(self.device)
        seen_RLL = (index_L[:, None] >= index_L) & (index_L[:, None] < ends_RL[:, None, :])
        positions_RL = torch.from_numpy(positions).to(self.device)
        seen_RLK = torch.nn.functional.pad(seen_RLL, (num_header, 0), value=True)
        header_RP = torch.arange(num_header, device=self.device).expand(len(rows), -1)
        keys_RK = torch.cat([header_RP, positions_RL], dim=1)
        if header:
            cache = Cache(layers=[PrefixLayer(*layer, len(rows)) for layer in header])
        tokens_RL = torch.from_numpy(tokens).to(self.device)
        return self.forward(tokens_RL, positions_RL, seen_RLK, keys_RK, cache)

    def forward(
        self,
        tokens_RL: Tensor,
        positions_RL: Tensor,
        seen_RLK: Tensor,
        keys_RK: Tensor,
        cache: Cache | None,
    ) -> Tensor:
        """Last hidden states [R, L, H], given which keys each query sees and their positions."""
        output = body_of(self.model)(
            input_ids=tokens_RL,
            attention_mask=self._masks(seen_RLK, positions_RL, keys_RK),
            position_ids=positions_RL,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        hidden_RLH: Tensor = output.last_hidden_state
        return hidden_RLH

    def _masks(
        self, seen_RLK: Tensor, positions_RL: Tensor, keys_RK: Tensor
    ) -> Tensor | dict[str, Tensor]:
        """The additive mask [R, 1, L, K]; a dictionary of them where a model mixes attention."""
        lowest = torch.finfo(self.dtype).min

        def mask(kind: str) -> Tensor:
            seen = seen_RLK
            if kind == "sliding_attention" and self._window is not None:
                seen = seen & (positions_RL[:, :, None] - keys_RK[:, None, :] < self._window)
            if kind == "chunked_attention" and self._chunk is not None:
                same = positions_RL[:, :, None] // self._chunk == keys_RK[:, None, :] // self._chunk
                seen = seen & same
            zeros = torch.zeros(seen.shape, dtype=self.dtype, device=self.device)
            return zeros.masked_fill_(~seen, lowest)[:, None]

        if len(self._kinds) > 1:
            return {kind: mask(kind) for kind in self._kinds}
        return mask(self._kinds[0] if self._kinds else "sliding_attention")

    def plan(self, texts: list[ScoredText], budget: int) -> list[PrefixGroup]:
        """Arrange texts for this model, as `plan_batches` does.

        Texts on the two sides of `length_switch` share neither a batch nor a header.
        """
        switch = self.length_switch
        if switch is None:
            return plan_batches(texts, budget=budget)
        short = [i for i, text in enumerate(texts) if len(text.tokens) <= switch]
        long = [i for i, text in enumerate(texts) if len(text.tokens) > switch]
        groups = []
        for numbers, min_header in ((short, MIN_HEADER), (long, switch + 1)):
            some = [texts[i] for i in numbers]
            for group in plan_batches(some, budget=budget, min_header=min_header):
                for row in (row for batch in group.batches for row in batch):
                    row.spans = [
                        dataclasses.replace(span, number=numbers[span.number]) for span in row.spans
                    ]
                groups.append(group)
        return groups

    def holds_for(self, longest: int) -> bool:
        """Whether texts of up to so many tokens can be read as trees.

        Attention that sees only what is near looks like any other on a short text. So the check
        is repeated on a longer one when the first text comes that reaches beyond such a limit.
        """
        reached = [limit for limit in self._limits if self._checked_tokens < limit < longest]
        return not reached or self.matches_plain_forward(max(reached) + ROW_TOKENS)

    @torch.no_grad()
    def matches_plain_forward(self, num_tokens: int = ROW_TOKENS + 8) -> bool:
        """Whether trees give the log-likelihoods of the plain forward pass, on random tokens.

        The second branch lies a whole row behind the prefix that it sees, so a model that computes
        distances from indices, or ignores the mask, gives other values.

        Args:
            num_tokens: Length of the text; cut to what the model holds.
        """
        limits = [self.context_tokens, self.length_switch, num_tokens]
        length = min(limit for limit in limits if limit)
        draw = np.random.default_rng(0).integers(0, self.vocab_size, length + 8)
        prefix = min(max(MIN_HEADER + 8, length - 2 * ROW_TOKENS), length - 8)
        long = draw[:length]
        texts = [
            ScoredText(tokens[:-1], tokens[-4:])
            for tokens in (long, np.concatenate([draw[:prefix], draw[-8:]]))
        ]
        try:
            plain = [self._plain(text) for text in texts]
            # Once in one row, once with the prefix as a header.
            rows = (2 * length + ROW_TOKENS, MIN_HEADER + 8)
            planned = [self._planned(texts, row_tokens) for row_tokens in rows]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # any model's own code, called as it may not expect
            log.debug("%s cannot read trees: %r", type(self.model).__name__, error)
            return False
        difference = np.abs(np.array(planned) - np.array(plain)).max()
        holds = bool(difference < (1e-3 if self.dtype in (torch.float32, torch.float64) else 0.5))
        if holds:
            self._checked_tokens = max(num_tokens, self._checked_tokens)
        return holds

    def _plain(self, text: ScoredText) -> float:
        output = self.model(input_ids=torch.from_numpy(text.tokens[None]).to(self.device))
        log_p_TV = output.logits[0, text.first_scored :].to(self._softmax_dtype).log_softmax(-1)
        targets = torch.from_numpy(text.targets[:, None]).to(self.device)
        return float(log_p_TV.gather(1, targets).sum())

    def _planned(self, texts: list[ScoredText], row_tokens: int) -> list[float]:
        values = [math.nan] * len(texts)
        for group in plan_batches(texts, budget=row_tokens, row_tokens=row_tokens):
            header = self.header(group.header)
            for batch in group.batches:
                numbers = [span.number for row in batch for span in row.spans]
                for number, value in zip(numbers, self.scores(batch, header)[0], strict=True):
                    values[number] = value
        return values


def _local_limits(config: Any) -> list[int]:
    """Distances beyond which some layer does not look, as far as a configuration names them."""
    return [
        value
        for name, value in vars(config).items()
        if ("window" in name or "chunk" in name) and type(value) is int and value > 1
    ]
