"""lm-eval's own Hugging Face backend, leaner and with a count of what is answered.

Batches, order and arithmetic are the stock backend's, so the scores are too. Two things
are ours: logits are made only at the positions that are scored, and every answered
request is told to the run's progress, which may stop the evaluation by raising.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM

from explorer.models.loading import Loaded

Request = tuple[tuple[str, str] | None, list[int], list[int]]
"""The text, the context's tokens and the continuation's tokens."""


class ExplorerLM(HFLM):
    """A loaded causal model that answers lm-eval's requests."""

    def __init__(
        self,
        loaded: Loaded,
        *,
        batch_size: int,
        on_asked: Callable[[int], None],
        on_answered: Callable[[], None],
    ) -> None:
        """Wrap a model that is in memory already.

        Args:
            loaded: The model with its tokenizer, on its device.
            batch_size: Requests in one forward pass.
            on_asked: Called with the number of requests that are about to be answered.
            on_answered: Called once for each request that has its answer.
        """
        super().__init__(
            pretrained=loaded.model,
            tokenizer=loaded.tokenizer,
            backend="causal",
            batch_size=batch_size,
        )
        self._on_asked = on_asked
        self.set_cache_hook(_Counter(on_answered))
        self._num_kept: int | None = None
        parameters = inspect.signature(loaded.model.forward).parameters
        self._keeps_few_logits = "logits_to_keep" in parameters

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether greedy decoding gives it."""
        self._on_asked(len(requests))
        return super().loglikelihood(requests, disable_tqdm=True)  # type: ignore[no-any-return]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-probability of each whole text."""
        self._on_asked(len(requests))
        return super().loglikelihood_rolling(requests, disable_tqdm=True)  # type: ignore[no-any-return]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The model's own text after each prompt, up to a stop sequence."""
        self._on_asked(len(requests))
        return super().generate_until(requests, disable_tqdm=True)  # type: ignore[no-any-return]

    def _loglikelihood_tokens(
        self,
        requests: list[Request],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """The stock method, batch by batch: each batch knows how few logits it needs."""
        if not self._keeps_few_logits:
            return super()._loglikelihood_tokens(  # type: ignore[no-any-return]
                requests, disable_tqdm=True, override_bs=override_bs
            )
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for batch in self._batches(requests):
            rows = [requests[i] for row in batch for i in row]
            self._num_kept = self._num_scored_positions(rows)
            try:
                found = super()._loglikelihood_tokens(rows, disable_tqdm=True)
            finally:
                self._num_kept = None
            for index, answer in zip((i for row in batch for i in row), found, strict=True):
                answers[index] = answer
        return answers

    def _batches(self, requests: list[Request]) -> list[list[list[int]]]:
        """Indices of requests: batches of rows, a row being requests with the same input.

        The order is lm-eval's `Collator`'s, longest first, so that its batches and ours hold
        the same rows and padding changes no score.
        """
        rows: dict[tuple[int, ...], list[int]] = {}
        for index, (_, context, continuation) in enumerate(requests):
            rows.setdefault((*context, *continuation[:-1]), []).append(index)

        def order(row: list[int]) -> tuple[int, tuple[int, ...]]:
            longest = max((requests[i] for i in row), key=lambda request: len(request[2]))
            tokens = (*longest[1], *longest[2])
            return -len(tokens), tokens

        ordered = sorted(rows.values(), key=order)
        size = int(self.batch_size)
        return [ordered[i : i + size] for i in range(0, len(ordered), size)]

    def _num_scored_positions(self, requests: list[Request]) -> int:
        """Positions, counted from the end of the padded batch, that hold every scored one."""
        longest_input: int = self.max_length
        lengths = [
            (min(len(context) + len(continuation), longest_input + 1) - 1, len(continuation))
            for _, context, continuation in requests
        ]
        padded = max(length for length, _ in lengths)
        return max(padded - length + num_scored for length, num_scored in lengths)

    def _model_call(
        self,
        inps: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits [batch, kept positions, vocabulary]; the stock method finds its place in them."""
        if self._num_kept is None:
            return super()._model_call(inps, attn_mask, labels)  # type: ignore[no-any-return]
        with torch.no_grad():
            output = self.model(inps, use_cache=False, logits_to_keep=self._num_kept)
        logits: torch.Tensor = output.logits
        return logits


class _Counter(CacheHook):
    """lm-eval calls this once for each request it has an answer to."""

    def __init__(self, on_answered: Callable[[], None]) -> None:
        super().__init__(None)
        self._on_answered = on_answered

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        self._on_answered()
