"""lm-eval's Hugging Face back end, with everything that requests share computed once.

Prompts, truncation, stop sequences and the answers' form are lm-eval's own code. Ours is what
happens to tokens: requests become trees (`token_tree`), the model reads the trees and makes logits
only at scored positions (`tree_model`), generation keeps the header and drops finished texts
(`tree_generate`). A model that trees do not work for is asked by the stock code, and the log says
so.

    explorer lm-eval run --model explorer-hf --model_args pretrained=starter --tasks starter \
        --include_path explorer/tasks/starter

Source: github.com/EleutherAI/lm-evaluation-harness, `models/huggingface.py`, version 0.4.13.
"""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook
from lm_eval.api.registry import model_registry
from lm_eval.models.huggingface import HFLM

from explorer.distill import distributed
from explorer.evaluate import response_cache
from explorer.evaluate.backends.prefix_trie import Array, PackedRow, ScoredText, plan_batches
from explorer.evaluate.backends.request_progress import ProgressCounter, RequestProgress
from explorer.evaluate.backends.tree_cache import Header
from explorer.evaluate.backends.tree_generate import GreedyGenerator
from explorer.evaluate.backends.tree_model import TreeModel
from explorer.models import loading

log = logging.getLogger("explorer")

NAME = "explorer-hf"
"""As lm-eval knows it."""
VERSION = 2
"""Bump it to invalidate cached answers."""
TOKENS_PER_REQUEST = 64
"""A batch of n requests is a batch of this many times n tokens."""
AUTO_BATCH_SIZE = {"cpu": 16, "cuda": 256}
ROLLING_BATCH = 64
"""Texts of a rolling log-likelihood between two commits."""
GENERATION_BUDGET_FACTOR = 8
"""Texts generated together hold at most this many tokens, prompt and answer, for one of a batch."""

Request = tuple[tuple[str, str] | None, list[int], list[int]]
"""The text, the context's tokens and the continuation's tokens."""


@dataclasses.dataclass(frozen=True)
class RequestBatch:
    """Requests that one process computes together."""

    places: list[int]
    """Where in the call they stand."""
    requests: list[Any]
    """As lm-eval's cache and our log know them."""
    work: Any
    """What `PrefixLM.compute` takes."""
    num_tokens: int
    drawn: bool = False
    """Whether the answers come from torch's random numbers: rank 0 computes them alone, in order,
    and always anew."""


class PrefixLM(HFLM):
    """A causal model that answers lm-eval's requests."""

    def __init__(
        self,
        pretrained: Any,
        *,
        batch_size: int | str | None = 16,
        device: str | None = None,
        on_progress: Callable[[RequestProgress], None] | None = None,
        split: bool = False,
        **options: Any,
    ) -> None:
        """Load a model by any name that our pages take, or wrap one that is in memory.

        Args:
            pretrained: starter, a hub id, a folder, gguf:FILE, run:RUN_ID, or a model.
            batch_size: Requests in one forward pass, counted as 64 tokens each; `auto` is 16
                on a CPU and 256 on a GPU, halved when memory is full.
            device: cpu, cuda or cuda:N; None takes a GPU when there is one.
            on_progress: Told after each batch; then there is no bar of lm-eval's.
            split: Whether each rank of a launch computes a share of the batches. All ranks then
                make the same calls, and all get all answers.
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
        self._split = split
        self._header_tokens: Array = np.zeros(0, dtype=np.int64)
        self._header: Header = []
        self._budget = int(batch_size) * TOKENS_PER_REQUEST
        self._tree = self._checked_tree()
        self._generator = GreedyGenerator(self._tree, self.tokenizer) if self._tree else None

    def _checked_tree(self) -> TreeModel | None:
        """The model as trees ask it, or None where only the stock code is right."""
        if self.backend != "causal" or self.peft or self.mixed_precision_dtype is not None:
            reason = "only plain causal models are"
        else:
            with contextlib.suppress(AttributeError):
                tree = TreeModel(self.model, self.softmax_dtype)
                if tree.matches_plain_forward():
                    return tree
            reason = "its answers would differ"
        log.warning(
            "%s is not read as trees, because %s: lm-eval's own code asks it, which is slower and "
            "as right.",
            type(self.model).__name__,
            reason,
        )
        return None

    @property
    def _tree_model(self) -> TreeModel:
        assert self._tree is not None, "only trees come here"
        return self._tree

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
        lengths = [len(self.tok_encode(one.args[0])) for one in requests]
        places = range(len(requests))
        parts = [
            self._part(requests, list(places[start : start + ROLLING_BATCH]), lengths)
            for start in places[::ROLLING_BATCH]
        ]
        count = self._count(requests, sum(lengths), quiet, "Scoring")
        return self._answers("loglikelihood_rolling", parts, count)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The model's own text after each prompt, up to a stop sequence."""
        quiet = self._quiet(disable_tqdm)
        if self._generator is None:
            return super().generate_until(requests, disable_tqdm=quiet)  # type: ignore[no-any-return]
        lengths = [len(self.tok_encode(one.args[0])) for one in requests]
        parts = [
            self._part(requests, places, lengths)
            for places in self._generated_together(requests, lengths)
        ]
        count = self._count(requests, sum(lengths), quiet, "Generating")
        return self._answers("generate_until", parts, count)

    def _part(
        self, requests: list[Instance], places: list[int], lengths: list[int]
    ) -> RequestBatch:
        """Requests that lm-eval's own code takes as they are."""
        asked = [requests[i].args for i in places]
        num_tokens = sum(lengths[i] for i in places)
        return RequestBatch(places, asked, asked, num_tokens, any(map(_drawn, asked)))

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
            full = (len(part) + 1) * held > self._budget * GENERATION_BUDGET_FACTOR
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
        if self._generator is None or not self._generator.supports(kwargs):
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
        groups = plan_batches([self._text(request) for request in requests], budget=self._budget)
        parts = []
        for group in groups:
            for i, batch in enumerate(group.batches):
                places = [span.number for row in batch for span in row.spans]
                header = 0 if i else len(group.header)
                parts.append(
                    RequestBatch(
                        places,
                        [requests[place][0] for place in places],
                        (group.header, batch),
                        len(batch) * len(batch[0]) + header,
                    )
                )
        if override_bs is not None:
            # A part of a rolling log-likelihood, which is kept, shared and counted as a whole.
            answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
            for part in parts:
                for place, answer in zip(
                    part.places, self.compute("loglikelihood", part.work), strict=True
                ):
                    answers[place] = answer
            self._forget_header()
            return answers
        total = sum(part.num_tokens for part in parts)
        count = self._count(requests, total, disable_tqdm, "Scoring")
        found = self._answers("loglikelihood", parts, count)
        self._forget_header()
        return [(value, greedy) for value, greedy in found]

    def _answers(self, attr: str, parts: list[RequestBatch], count: ProgressCounter) -> list[Any]:
        """A call's answers in the order of its requests: those of before, and the others now."""
        answers: list[Any] = [None] * sum(len(part.places) for part in parts)

        def settle(part: RequestBatch, found: list[Any], *, known: bool) -> None:
            for place, answer in zip(part.places, found, strict=True):
                answers[place] = answer
            count.add(len(part.places), part.num_tokens, known=known)

        left = []
        for part, found in zip(parts, self._known(attr, parts), strict=True):
            if found is None:
                left.append(part)
            else:
                settle(part, found, known=True)
        for together in self._rounds(left):
            for part, found in zip(together, self._computed(attr, together), strict=True):
                response_cache.cache_answers(self.cache_hook, attr, part.requests, found)
                settle(part, found, known=False)
        count.close()
        return answers

    def _known(self, attr: str, parts: list[RequestBatch]) -> list[list[Any] | None]:
        """For each part its answers from before, which rank 0 has, or None."""

        def read() -> list[list[Any] | None]:
            return [
                None
                if part.drawn
                else response_cache.cached_answers(self.cache_hook, attr, part.requests)
                for part in parts
            ]

        return distributed.from_main(read) if self._split else read()

    def _rounds(self, parts: list[RequestBatch]) -> Iterator[list[RequestBatch]]:
        """Parts that are computed at the same time, one on each rank."""
        num_ranks = distributed.world_size() if self._split else 1
        together: list[RequestBatch] = []
        for part in parts:
            together.append(part)
            if part.drawn or len(together) == num_ranks:
                yield together
                together = []
        if together:
            yield together

    def _computed(self, attr: str, parts: list[RequestBatch]) -> list[list[Any]]:
        """The answers to each part of a round: this rank's own, and the others' by one gather."""
        if not self._split:
            return [self.compute(attr, part.work) for part in parts]
        rank = distributed.rank()
        answers = self.compute(attr, parts[rank].work) if rank < len(parts) else []
        return distributed.all_gather(answers)[: len(parts)]

    def compute(self, attr: str, work: Any) -> list[Any]:
        """The answers to the requests of one part, in any process the same."""
        if attr == "loglikelihood":
            header_tokens, batch = work
            if not np.array_equal(header_tokens, self._header_tokens):
                self._header = []  # makes room for the next
                self._header = self._tree_model.header(header_tokens)
                self._header_tokens = header_tokens
            return self._scores(batch, self._header)
        asked = [Instance(attr, {}, args, i) for i, args in enumerate(work)]
        if attr == "generate_until":
            with self._one_batch_of(len(asked)):
                return super().generate_until(asked, disable_tqdm=True)  # type: ignore[no-any-return]
        with self._one_batch_of(len(asked) * self.max_length):
            return super().loglikelihood_rolling(asked, disable_tqdm=True)  # type: ignore[no-any-return]

    def _forget_header(self) -> None:
        """Free the memory of its keys and values."""
        self._header_tokens, self._header = np.zeros(0, dtype=np.int64), []

    def _scores(self, batch: list[PackedRow], header: Header) -> list[tuple[float, bool]]:
        """The batch's answers; in halves, when memory is too small for it."""
        try:
            return list(zip(*self._tree_model.scores(batch, header), strict=True))
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(batch) // 2
        return self._scores(batch[:half], header) + self._scores(batch[half:], header)

    def _text(self, request: Request) -> ScoredText:
        """The tokens that the stock method reads: cut on the left, without the last."""
        _, context, continuation = request
        assert context, "lm-eval gives each request a context"
        assert 0 < len(continuation) <= self.max_length
        whole = np.array((context + continuation)[-(self.max_length + 1) :], dtype=np.int64)
        return ScoredText(whole[:-1], whole[len(whole) - len(continuation) :])

    def _quiet(self, disable_tqdm: bool) -> bool:
        return disable_tqdm or self._on_progress is not None

    def _count(
        self, requests: Sequence[Any], num_tokens: int, quiet: bool, what: str
    ) -> ProgressCounter:
        hidden = self._quiet(quiet) or self.rank != 0
        return ProgressCounter(
            len(requests), num_tokens, self._on_progress, bar=None if hidden else what
        )

    @contextlib.contextmanager
    def _one_batch_of(self, size: int) -> Iterator[None]:
        """The stock code cuts its requests by this and tells nobody; the batches are ours."""
        batch_size, hook = self.batch_size_per_gpu, self.cache_hook
        self.batch_size_per_gpu = size
        self.set_cache_hook(CacheHook(None))
        try:
            yield
        finally:
            self.batch_size_per_gpu = batch_size
            self.set_cache_hook(hook)


def _drawn(request: tuple[Any, ...]) -> bool:
    """Whether a request asks for an answer that chance decides."""
    if len(request) < 2:
        return False
    sample = request[1].get("do_sample")
    return bool(request[1].get("temperature")) if sample is None else bool(sample)


def register() -> None:
    """Make `explorer-hf` a model of lm-eval's in this process: 0.4.13 finds no plugins itself."""
    if NAME not in model_registry:
        model_registry.register(NAME, target=f"{__name__}:{PrefixLM.__name__}")
