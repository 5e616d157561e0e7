"""A causal model that reads packed trees: one mask, right positions, logits only where asked.

Works with the models of transformers that take a mask of four dimensions and keep their attention
in key-value caches. `works` compares with the plain forward pass, so that a model which does not is
found before it answers anything.

Sources: transformers' `masking_utils.py` (a 4-D mask is passed on as it is; models that mix kinds
of attention take a dictionary) and `cache_utils.py`.
"""

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
    ScoredText,
    plan_batches,
    single_text_row,
)
from explorer.evaluate.backends.tree_cache import Header, PreallocatedLayer, PrefixLayer

# Shape letters: R rows, L tokens of a row, P of the header, K = P + L keys, S scored positions,
# H hidden size, V vocabulary.

CHUNK_BYTES = 64 * 2**20
"""Logits in memory at one time."""


class TreeModel:
    """A model's layers and its head, called apart."""

    def __init__(self, model: PreTrainedModel, softmax_dtype: torch.dtype | None = None) -> None:
        """Read from the configuration what kinds of attention the layers have.

        Args:
            model: On its device.
            softmax_dtype: Of the log-probabilities; float32 unless said.
        """
        config: Any = model.config.get_text_config()
        self.model, self.device, self.dtype = model, model.device, model.dtype
        self.vocab_size = int(config.vocab_size)
        self.num_layers = int(config.num_hidden_layers)
        self.context_tokens: int | None = getattr(config, "max_position_embeddings", None)
        self._softmax_dtype = softmax_dtype or torch.float32
        self._window: int | None = getattr(config, "sliding_window", None)
        self._kinds = sorted(set(getattr(config, "layer_types", None) or []))
        self._softcap: float | None = getattr(config, "final_logit_softcapping", None)

    @torch.no_grad()
    def header(self, tokens: Array) -> Header:
        """Keys and values of what every row reads first; empty for no tokens."""
        if not len(tokens):
            return []
        layers = [PreallocatedLayer(len(tokens)) for _ in range(self.num_layers)]
        self.read([single_text_row(tokens)], [], Cache(layers=[*layers]))
        return [layer.whole() for layer in layers]

    @torch.no_grad()
    def scores(self, rows: Sequence[PackedRow], header: Header) -> tuple[list[float], list[bool]]:
        """Log-likelihood of each text's targets in nats, and whether greedy decoding gives them.

        Args:
            rows: One batch; answers come in the order of its rows' `asked`.
            header: What the rows' texts begin with, from `header`.
        """
        hidden_RLH = self.read(rows, header)
        length = hidden_RLH.shape[1]
        asked = [(one, r * length) for r, row in enumerate(rows) for one in row.asked]
        slots = np.concatenate([one.slots + start for one, start in asked])
        targets = np.concatenate([one.targets for one, _ in asked])
        owners = np.repeat(np.arange(len(asked)), [len(one.targets) for one, _ in asked])
        # Texts share positions, and texts that differ in the last token share all of them.
        scored, ranks = np.unique(slots, return_inverse=True)
        order = np.argsort(ranks, kind="stable")
        hidden_SH = hidden_RLH.flatten(0, 1)[torch.from_numpy(scored).to(self.device)]
        values, firsts = self._judge(hidden_SH, ranks[order], targets[order])
        loglikelihoods = np.bincount(owners[order], weights=values, minlength=len(asked))
        misses = np.bincount(owners[order], weights=~firsts, minlength=len(asked))
        return loglikelihoods.tolist(), (misses == 0).tolist()

    def _judge(self, hidden_SH: Tensor, ranks: Array, targets: Array) -> tuple[Array, Array]:
        """Log-probability of target i at position ranks[i], ascending, and whether it is first."""
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
            # Of equally likely tokens greedy decoding takes one, which only argmax knows.
            first[first.clone()] = logits_CV[rank[first]].argmax(dim=-1) == target[first]
            sums_C = logits_CV.sub_(top_C[:, None]).exp_().sum(dim=-1)
            value = chosen - top_C[rank] - sums_C.log()[rank]
            values.append(value.double().cpu().numpy())
            firsts.append(first.cpu().numpy())
        return np.concatenate(values), np.concatenate(firsts)

    def logits(self, hidden: Tensor) -> Tensor:
        """What the head makes of hidden states; the caller may write into it."""
        logits: Tensor = self.model.get_output_embeddings()(hidden).to(self._softmax_dtype)
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return logits

    def read(self, rows: Sequence[PackedRow], header: Header, cache: Cache | None = None) -> Tensor:
        """Last hidden states [R, L, H] of right-padded rows; padding holds whatever.

        Args:
            rows: Trees; their positions count the header in.
            header: What they see before themselves.
            cache: Gets the keys and values instead of forgetting them; needs no header.
        """
        length, num_header = max(map(len, rows)), header[0][0].shape[-2] if header else 0
        tokens = np.zeros((len(rows), length), dtype=np.int64)
        positions = np.zeros((len(rows), length), dtype=np.int64)
        # A padding token sees itself alone: a query without keys would be no number.
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
        """Last hidden states [R, L, H], given which keys each query sees and where the keys are."""
        output = self.model.base_model(
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
        """The additive mask [R, 1, L, K]; one for each kind of attention where a model mixes."""
        lowest = torch.finfo(self.dtype).min

        def mask(kind: str) -> Tensor:
            seen = seen_RLK
            if kind == "sliding_attention" and self._window is not None:
                seen = seen & (positions_RL[:, :, None] - keys_RK[:, None, :] < self._window)
            zeros = torch.zeros(seen.shape, dtype=self.dtype, device=self.device)
            return zeros.masked_fill_(~seen, lowest)[:, None]

        if len(self._kinds) > 1:
            return {kind: mask(kind) for kind in self._kinds}
        return mask(self._kinds[0] if self._kinds else "sliding_attention")

    @torch.no_grad()
    def works(self) -> bool:
        """Whether trees get the log-likelihoods of the plain forward pass, on random tokens.

        The second branch lies a whole row behind the opening that it sees, so a model that
        counts distances by index, or ignores the mask, gives itself away.
        """
        draw = np.random.default_rng(0).integers(0, self.vocab_size, ROW_TOKENS + 16)
        opening = MIN_HEADER + 8
        long = draw[: min(len(draw) - 8, self.context_tokens or len(draw))]
        texts = [
            ScoredText(tokens[:-1], tokens[-4:])
            for tokens in (long, np.concatenate([draw[:opening], draw[-8:]]))
        ]
        try:
            plain = [self._plain(text) for text in texts]
            # In one row, and with the opening as a header.
            found = [self._planned(texts, 4 * ROW_TOKENS), self._planned(texts, opening)]
        except torch.OutOfMemoryError:
            raise
        except (TypeError, ValueError, AttributeError, NotImplementedError, RuntimeError):
            return False
        off = np.abs(np.array(found) - np.array(plain)).max()
        return bool(off < (1e-3 if self.dtype in (torch.float32, torch.float64) else 0.5))

    def _plain(self, text: ScoredText) -> float:
        output = self.model(input_ids=torch.from_numpy(text.tokens[None]).to(self.device))
        log_p_TV = output.logits[0, text.first_scored :].to(self._softmax_dtype).log_softmax(-1)
        targets = torch.from_numpy(text.targets[:, None]).to(self.device)
        return float(log_p_TV.gather(1, targets).sum())

    def _planned(self, texts: list[ScoredText], row_tokens: int) -> list[float]:
        found = [math.nan] * len(texts)
        for group in plan_batches(texts, budget=row_tokens, row_tokens=row_tokens):
            header = self.header(group.header)
            for batch in group.batches:
                numbers = [one.number for row in batch for one in row.asked]
                for number, value in zip(numbers, self.scores(batch, header)[0], strict=True):
                    found[number] = value
        return found
