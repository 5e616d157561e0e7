r"""Greedy decoding of many prompts: their common prefix is read once, finished texts are dropped.

GreedyGenerator(TreeModel(model), tokenizer).generate(context, attention_mask, 64, ["\n"])
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.cache_utils import Cache

from explorer.evaluate.backends.prefix_trie import MIN_HEADER, Array
from explorer.evaluate.backends.tree_cache import Header, PreallocatedLayer
from explorer.evaluate.backends.tree_model import TreeModel

# Shape letters: R texts, L tokens of the longest prompt after the header, N new tokens, K keys.

EXTRA_STOP_TOKENS = 2
"""lm-eval looks for a stop sequence in this many more tokens than it has."""
GREEDY_NEUTRAL_SETTINGS: dict[str, tuple[Any, ...]] = {
    "repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1.0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "bad_words_ids": (None,),
    "sequence_bias": (None,),
    "suppress_tokens": (None,),
    "begin_suppress_tokens": (None,),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "exponential_decay_length_penalty": (None,),
    "guidance_scale": (None, 1.0),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "num_beams": (None, 1),
    "watermarking_config": (None,),
    "stop_strings": (None,),
    "max_time": (None,),
}
"""Generation settings that change greedy decoding, each with the values that do not."""


class GreedyGenerator:
    """Answers prompts of equal settings; keeps their header for the next call."""

    def __init__(self, tree: TreeModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Use a model for which `TreeModel.matches_plain_forward` is true."""
        self.tree, self.tokenizer = tree, tokenizer
        self._header_tokens: Array = np.zeros(0, dtype=np.int64)
        self._header: Header = []

    def supports(self, kwargs: dict[str, Any]) -> bool:
        """Whether these settings and the model's own mean plain greedy decoding."""
        settings = {k: v for k, v in kwargs.items() if k not in ("attention_mask", "do_sample")}
        greedy = kwargs.get("do_sample") is False or (
            kwargs.get("do_sample") is None and not kwargs.get("temperature")
        )
        if not greedy or set(settings) - {"temperature"}:
            return False
        own = self.tree.model.generation_config
        return all(
            getattr(own, name, None) in values for name, values in GREEDY_NEUTRAL_SETTINGS.items()
        )

    @torch.no_grad()
    def generate(
        self, context: Tensor, attention_mask: Tensor, num_new: int, stop: Sequence[str]
    ) -> Tensor:
        """Prompts and answers, in the form that transformers' `generate` returns.

        Args:
            context: Prompts, padded on the left.
            attention_mask: 1 where a token counts.
            num_new: Maximum tokens of an answer.
            stop: A text ends after the first of these that it contains.

        Returns:
            Shape [R, prompt + answer], answers padded on the right.
        """
        prompts = [
            tokens[mask.astype(bool)]
            for tokens, mask in zip(
                context.cpu().numpy(), attention_mask.cpu().numpy(), strict=True
            )
        ]
        num_header = self._read_header(prompts)
        tails = [prompt[num_header:] for prompt in prompts]
        answers = self._decode(tails, num_new, stop)
        width = max(map(len, answers))
        pad = int(self.tokenizer.pad_token_id)
        padded = torch.full((len(answers), width), pad, dtype=context.dtype)
        for r, answer in enumerate(answers):
            padded[r, : len(answer)] = torch.tensor(answer)
        return torch.cat([context, padded.to(context.device)], dim=1)

    def _read_header(self, prompts: list[Array]) -> int:
        """Keep what all prompts begin with, unless it is kept already; its length."""
        shortest = min(map(len, prompts))
        same = np.all([prompt[:shortest] == prompts[0][:shortest] for prompt in prompts], axis=0)
        # Each prompt keeps at least its last token, so that there is something to continue.
        common = min(shortest - 1, len(same) if same.all() else int(np.argmin(same)))
        # Two questions may begin with the same words, which are not part of the examples.
        common -= common % 16
        tokens = prompts[0][: common if common >= MIN_HEADER else 0]
        # Earlier prompts must not affect how these are read.
        if not np.array_equal(tokens, self._header_tokens):
            self._header = []  # frees its memory first
            self._header = self.tree.header(tokens)
            self._header_tokens = tokens
        return len(tokens)

    def _decode(self, tails: list[Array], num_new: int, stop: Sequence[str]) -> list[list[int]]:
        tree, device = self.tree, self.tree.device
        num_rows, length = len(tails), max(map(len, tails))
        num_header = len(self._header_tokens)
        num_keys = num_header + length + num_new
        layers = [
            PreallocatedLayer(num_keys, self._header[i] if self._header else None)
            for i in range(tree.num_layers)
        ]
        cache = Cache(layers=[*layers])
        lengths_R = torch.tensor([len(tail) for tail in tails], device=device)
        tokens_RL = torch.zeros(num_rows, length, dtype=torch.long, device=device)
        for r, tail in enumerate(tails):
            tokens_RL[r, : len(tail)] = torch.from_numpy(tail)
        index_L = torch.arange(length, device=device)
        # Padding sees only itself; its keys are hidden from the answer.
        seen_LL = index_L[:, None] >= index_L
        seen_RLK = torch.nn.functional.pad(seen_LL, (num_header, 0), value=True)
        keys_RK = torch.arange(num_keys, device=device).repeat(num_rows, 1)
        new_N = torch.arange(num_new, device=device)
        keys_RK[:, num_header + length :] = num_header + lengths_R[:, None] + new_N
        positions_RL = (num_header + index_L).expand(num_rows, -1)
        read = num_header + length
        hidden = tree.forward(
            tokens_RL, positions_RL, seen_RLK.expand(num_rows, -1, -1), keys_RK[:, :read], cache
        )
        last_R1H = hidden[torch.arange(num_rows, device=device), lengths_R - 1][:, None]
        counts_RK = torch.ones(num_rows, num_keys, dtype=torch.bool, device=device)
        counts_RK[:, num_header : num_header + length] = index_L < lengths_R[:, None]
        answers: list[list[int]] = [[] for _ in tails]
        alive = list(range(num_rows))
        ends = self._ends(stop)
        for step in range(num_new):
            chosen = tree.logits(last_R1H[:, -1]).argmax(dim=-1)
            for r, token in zip(alive, chosen.tolist(), strict=True):
                answers[r].append(token)
            unfinished = [i for i, r in enumerate(alive) if not ends(answers[r])]
            if not unfinished or step == num_new - 1:
                break
            if len(unfinished) < len(alive):
                keep = torch.tensor(unfinished, device=device)
                alive = [alive[i] for i in unfinished]
                chosen, counts_RK, keys_RK = chosen[keep], counts_RK[keep], keys_RK[keep]
                for layer in layers:
                    layer.keep(keep)
            read += 1
            last_R1H = tree.forward(
                chosen[:, None],
                keys_RK[:, read - 1 : read],
                counts_RK[:, None, :read],
                keys_RK[:, :read],
                cache,
            )
        return answers

    def _ends(self, stop: Sequence[str]) -> Callable[[list[int]], bool]:
        """A function that says whether an answer ends: with an end token or a stop sequence."""
        own = self.tree.model.generation_config.eos_token_id
        last = set(own) if isinstance(own, list) else {own}
        encode = self.tokenizer.encode
        num_searched = [
            EXTRA_STOP_TOKENS + len(encode(text, add_special_tokens=False)) for text in stop
        ]

        def ends(answer: list[int]) -> bool:
            if answer[-1] in last:
                return True
            tail = self.tokenizer.decode(answer[-max(num_searched, default=1) :])
            return any(text in tail for text in stop)

        return ends
