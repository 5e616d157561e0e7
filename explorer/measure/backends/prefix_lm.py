"""lm-eval's Hugging Face back end, with everything that requests share computed once.

Prompts, truncation, stop sequences and the answers' form are lm-eval's own code. Ours is what
happens to tokens: requests become trees (`token_tree`), the model reads the trees and makes logits
only at scored positions (`tree_model`), generation keeps the header and drops finished texts
(`tree_generate`). A model that trees do not work for is asked by the stock code, and the log says
so.

    explorer lm-eval run --model explorer-hf --model_args pretrained=starter --tasks starter \
        --include_path explorer/measure/tasks

Source: github.com/EleutherAI/lm-evaluation-harness, `models/huggingface.py`, version 0.4.13.
"""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import model_registry
from lm_eval.models.huggingface import HFLM

from explorer.measure.backends import answer_log
from explorer.measure.backends.token_tree import Row, Text, plan
from explorer.measure.backends.tree_cache import Header
from explorer.measure.backends.tree_generate import Generator
from explorer.measure.backends.tree_model import TreeModel
from explorer.measure.backends.work import Count, Work
from explorer.models import loading

log = logging.getLogger("explorer")

NAME = "explorer-hf"
"""As lm-eval knows it."""
VERSION = 1
"""Rises when answers may change, so that none of before is read."""
TOKENS_PER_REQUEST = 64
"""A batch of n requests is a batch of this many times n tokens."""
AUTO_BATCH_SIZE = {"cpu": 16, "cuda": 256}
WINDOWS_TOGETHER = 64
"""Texts of a rolling log-likelihood between two commits."""
KEPT_PER_TOKEN = 8
"""Texts generated together hold at most this many tokens, prompt and answer, for one of a batch."""

Request = tuple[tuple[str, str] | None, list[int], list[int]]
"""The text, the context's tokens and the continuation's tokens."""


class PrefixLM(HFLM):
    """A causal model that answers lm-eval's requests."""

    def __init__(
        self,
        pretrained: Any,
        *,
        batch_size: int | str | None = 16,
        device: str | None = None,
        on_progress: Callable[[Work], None] | None = None,
        **options: Any,
    ) -> None:
        """Load a model by any name that our pages take, or wrap one that is in memory.

        Args:
            pretrained: starter, a hub id, a folder, gguf:FILE, run:RUN_ID, or a model.
            batch_size: Requests in one forward pass, counted as 64 tokens each; `auto` is 16
                on a CPU and 256 on a GPU, halved when memory is full.
            device: cpu, cuda or cuda:N; None takes a GPU when there is one.
            on_progress: Told after each batch; then there is no bar of lm-eval's.
            **options: lm-eval's, as for its model `hf`.
        """
        if isinstance(pretrained, str):
            source = loading.locate(pretrained)
            pretrained = source.path
            options = {"gguf_file": source.gguf_file, **options}
            if options["gguf_file"] is None:
                # A pickle of weights may run code.
                options["use_safetensors"] = True
        where = device or str(loading.pick_device())
        if str(batch_size).startswith("auto") or batch_size is None:
            batch_size = AUTO_BATCH_SIZE.get(where.partition(":")[0], 16)
        options.setdefault("backend", "causal")
        super().__init__(pretrained=pretrained, batch_size=batch_size, device=where, **options)
        self.batch_size_per_gpu: int = int(batch_size)
        self._on_progress = on_progress
        self._budget = int(batch_size) * TOKENS_PER_REQUEST
        self._tree = self._checked_tree()
        self._generator = Generator(self._tree, self.tokenizer) if self._tree else None

    def _checked_tree(self) -> TreeModel | None:
        """The model as trees ask it, or None where only the stock code is right."""
        if self.backend != "causal" or self.peft or self.mixed_precision_dtype is not None:
            reason = "only plain causal models are"
        else:
            with contextlib.suppress(AttributeError):
                tree = TreeModel(self.model, self.softmax_dtype)
                if tree.works():
                    return tree
            reason = "its answers would differ"
        log.warning(
            "%s is not read as trees, because %s: lm-eval's own code asks it, which is slower and "
            "as right.", type(self.model).__name__, reason,
        )  # fmt: skip
        return None

    @property
    def shares_prefixes(self) -> bool:
        """Whether trees are in use; else the stock code answers."""
        return self._tree is not None

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether greedy decoding gives it."""
        return super().loglikelihood(requests, disable_tqdm=self._quiet(disable_tqdm))  # type: ignore[no-any-return]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-probability of each whole text."""
        quiet = self._quiet(disable_tqdm)
        if self._tree is None or self.world_size > 1:
            return super().loglikelihood_rolling(requests, disable_tqdm=quiet)  # type: ignore[no-any-return]
        found: list[float] = []
        lengths = [len(self.tok_encode(one.args[0])) for one in requests]
        count = self._count(requests, sum(lengths), quiet, "Scoring")
        for start in range(0, len(requests), WINDOWS_TOGETHER):
            part = requests[start : start + WINDOWS_TOGETHER]
            known = answer_log.known(
                self.cache_hook, "loglikelihood_rolling", [one.args for one in part]
            )
            if known is None:
                with self._batch_size_of(len(part) * self.max_length):
                    known = super().loglikelihood_rolling(part, disable_tqdm=True)
                answer_log.commit(self.cache_hook)
            found += known
            count.add(len(part), sum(lengths[start : start + len(part)]))
        count.close()
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The model's own text after each prompt, up to a stop sequence."""
        quiet = self._quiet(disable_tqdm)
        if self._generator is None:
            return super().generate_until(requests, disable_tqdm=quiet)  # type: ignore[no-any-return]
        answers = [""] * len(requests)
        lengths = [len(self.tok_encode(one.args[0])) for one in requests]
        parts = list(self._generated_together(requests, lengths))
        count = self._count(requests, sum(lengths), quiet, "Generating")
        for part in parts:
            asked = [requests[i] for i in part]
            known = None
            if not any(one.args[1].get("do_sample") for one in asked):
                known = answer_log.known(
                    self.cache_hook, "generate_until", [one.args for one in asked]
                )
            if known is None:
                with self._batch_size_of(len(part)):
                    known = super().generate_until(asked, disable_tqdm=True)
                answer_log.commit(self.cache_hook)
            for i, answer in zip(part, known, strict=True):
                answers[i] = answer
            count.add(len(part), sum(lengths[i] for i in part))
        count.close()
        return answers

    def _generated_together(
        self, requests: list[Instance], lengths: list[int]
    ) -> Iterator[list[int]]:
        """Places of requests with the same settings, longest first, as many as memory is for."""

        def settings(i: int) -> str:
            return json.dumps(requests[i].args[1], sort_keys=True, default=str)

        order = sorted(range(len(requests)), key=lambda i: (settings(i), -lengths[i], i))
        part: list[int] = []
        for i in order:
            most = int(requests[i].args[1].get("max_gen_toks", self.max_gen_toks))
            held = lengths[part[0] if part else i] + most
            full = (len(part) + 1) * held > self._budget * KEPT_PER_TOKEN
            if part and (full or settings(i) != settings(part[0])):
                yield part
                part = []
            part.append(i)
        if part:
            yield part

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **kwargs: Any
    ) -> torch.Tensor:
        """Prompt and answer [batch, length]; greedy decoding is ours, all else transformers'."""
        if self._generator is None or not self._generator.knows(kwargs):
            return super()._model_generate(context, max_length, stop, **kwargs)  # type: ignore[no-any-return]
        new = max_length - context.shape[1]
        return self._generator.generate(context, kwargs["attention_mask"], new, stop)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[Request],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """The stock method's answers, from trees."""
        if self._tree is None:
            return super()._loglikelihood_tokens(requests, self._quiet(disable_tqdm), override_bs)  # type: ignore[no-any-return]
        groups = plan([self._text(request) for request in requests], budget=self._budget)
        total = sum(group.num_tokens for group in groups)
        # A part of a rolling log-likelihood is counted by who asks for it.
        if override_bs is not None:
            count = Count(len(requests), total, None)
        else:
            count = self._count(requests, total, disable_tqdm, "Scoring")
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for group in groups:
            header: Header | None = None
            for batch in group.batches:
                numbers = [one.number for row in batch for one in row.asked]
                found = answer_log.known(
                    self.cache_hook, "loglikelihood", [requests[n][0] for n in numbers]
                )
                if found is None:
                    if header is None:
                        header = self._tree.header(group.header)
                    found = self._scores(batch, header)
                    for number, answer in zip(numbers, found, strict=True):
                        if (text := requests[number][0]) is not None:
                            self.cache_hook.add_partial("loglikelihood", text, answer)
                    answer_log.commit(self.cache_hook)
                for number, (value, greedy) in zip(numbers, found, strict=True):
                    answers[number] = value, greedy
                count.add(len(numbers), len(batch) * len(batch[0]))
            count.add(0, len(group.header))
        count.close()
        return answers

    def _scores(self, batch: list[Row], header: Header) -> list[tuple[float, bool]]:
        """The batch's answers; in halves, when memory is too small for it."""
        assert self._tree is not None, "only trees come here"
        try:
            return list(zip(*self._tree.scores(batch, header), strict=True))
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(batch) // 2
        return self._scores(batch[:half], header) + self._scores(batch[half:], header)

    def _text(self, request: Request) -> Text:
        """The tokens that the stock method reads: cut on the left, without the last."""
        _, context, continuation = request
        assert context, "lm-eval gives each request a context"
        assert 0 < len(continuation) <= self.max_length
        whole = np.array((context + continuation)[-(self.max_length + 1) :], dtype=np.int64)
        return Text(whole[:-1], whole[len(whole) - len(continuation) :])

    def _quiet(self, disable_tqdm: bool) -> bool:
        return disable_tqdm or self._on_progress is not None

    def _count(self, requests: Sequence[Any], num_tokens: int, quiet: bool, what: str) -> Count:
        hidden = self._quiet(quiet) or self.rank != 0
        return Count(len(requests), num_tokens, self._on_progress, bar=None if hidden else what)

    @contextlib.contextmanager
    def _batch_size_of(self, size: int) -> Iterator[None]:
        """The stock code cuts its requests by this; the batches inside are ours."""
        before = self.batch_size_per_gpu
        self.batch_size_per_gpu = size
        try:
            yield
        finally:
            self.batch_size_per_gpu = before


def register() -> None:
    """Make `explorer-hf` a model of lm-eval's in this process: 0.4.13 finds no plugins itself."""
    if NAME not in model_registry:
        model_registry.register(NAME, target=f"{__name__}:{PrefixLM.__name__}")
