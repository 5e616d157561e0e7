r"""lm-eval's Hugging Face backend, with shared prefixes computed once.

lm-eval's own code makes the prompts, truncates them, applies stop sequences and formats the
answers. Ours is what happens to the tokens: requests become trees (`prefix_trie`), the model reads
the trees and makes logits only at scored positions (`tree_model`), and generation keeps the header
and drops finished texts (`tree_generate`). If trees do not work for a model, the stock code
evaluates it, and the log says so.

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

from explorer.devices import accelerator, memory
from explorer.distill import distributed
from explorer.errors import BadInput
from explorer.evaluate import response_cache
from explorer.evaluate.backends.prefix_trie import Array, PackedRow, ScoredText
from explorer.evaluate.backends.request_progress import ProgressCounter, RequestProgress
from explorer.evaluate.backends.tree_cache import Header
from explorer.evaluate.backends.tree_generate import GreedyGenerator
from explorer.evaluate.backends.tree_model import TreeModel
from explorer.models import loading
from explorer.models.decoding import length_switch
from explorer.models.output_head import check_causal

log = logging.getLogger("explorer")

NAME = "explorer-hf"
"""The model's name in lm-eval."""
VERSION = 2
"""Bump it to invalidate cached answers."""
TOKENS_PER_REQUEST = 64
"""Tokens that count as one request of `batch_size`."""
AUTO_BATCH_SIZE = 16
AUTO_BATCH_SIZE_ACCELERATOR = 256
ROLLING_BATCH = 64
"""Texts of a rolling log-likelihood in one batch."""
GENERATION_BUDGET_FACTOR = 8
"""Texts generated together hold at most this many times a batch's tokens, answers included."""

OTHER_ANSWERS = "read as token trees, its answers would differ"

Request = tuple[tuple[str, str] | None, list[int], list[int]]
"""The text, the context's tokens and the continuation's tokens."""


@dataclasses.dataclass(frozen=True)
class RequestBatch:
    """Requests that one process computes together."""

    indices: list[int]
    """Indices of the requests in the call."""
    requests: list[Any]
    """The requests as the response cache identifies them."""
    work: Any
    """The argument of `PrefixLM.compute`."""
    num_tokens: int
    is_sampled: bool = False
    """Whether the answers are drawn from torch's random numbers: rank 0 computes them alone, in
    order, and they are never cached."""


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
        """Load a model by name, or wrap a loaded one.

        Args:
            pretrained: starter, a hub id, a folder, gguf:FILE, run:RUN_ID, or a model.
            batch_size: Requests in one forward pass, counted as 64 tokens each; `auto` is 16
                on a CPU and 256 on an accelerator, halved when memory is full.
            device: As a spec's `device`; None is an accelerator if there is one.
            on_progress: Called after each batch; replaces lm-eval's progress bar.
            split: Whether each rank of a launch computes a share of the batches. All ranks then
                make the same calls, and all get all answers.
            **options: lm-eval's options for its model `hf`.
        """
        if isinstance(pretrained, str):
            revision = options.pop("revision", None)
            if revision not in (None, "main"):
                pretrained = f"{pretrained}@{revision}"
            source = loading.locate(pretrained).fetched(weights=True)
            pretrained = source.path
            options = {"gguf_file": source.gguf_file, **options}
            if options["gguf_file"] is None:
                # A pickle of weights may run code.
                options["use_safetensors"] = True
        if isinstance(pretrained, str):
            where = accelerator.pick_device(device or accelerator.AUTO)
        else:
            where = pretrained.device
        if str(batch_size).startswith("auto") or batch_size is None:
            large = accelerator.is_accelerator(where)
            batch_size = AUTO_BATCH_SIZE_ACCELERATOR if large else AUTO_BATCH_SIZE
        options.setdefault("backend", "causal")
        super().__init__(pretrained=pretrained, batch_size=batch_size, device=str(where), **options)
        self.batch_size_per_gpu: int = int(batch_size)
        self._on_progress = on_progress
        self._split = split
        self._header_tokens: Array = np.zeros(0, dtype=np.int64)
        self._header: Header = []
        self._budget = int(batch_size) * TOKENS_PER_REQUEST
        if self.backend == "causal":
            check_causal(self.model)
        self._length_switch = length_switch(self.model) if self.backend == "causal" else None
        self._alone_above = self._length_switch
        """Texts longer than this are continued one at a time; None for none."""
        self._tree = self._checked_tree()
        self._generator = GreedyGenerator(self._tree, self.tokenizer) if self._tree else None

    def _checked_tree(self) -> TreeModel | None:
        """The model for trees, or None where only the stock code is correct."""
        if self.backend != "causal" or self.peft or self.mixed_precision_dtype is not None:
            reason = "only plain causal models can be read as token trees"
        else:
            with contextlib.suppress(AttributeError, BadInput):
                tree = TreeModel(self.model, self.softmax_dtype)
                if tree.matches_plain_forward():
                    return tree
            reason = OTHER_ANSWERS
        self._say_stock(reason)
        return None

    def _say_stock(self, reason: str) -> None:
        log.warning(
            "%s is evaluated by lm-eval's own code, which is slower, because %s.",
            type(self.model).__name__,
            reason,
        )

    def _usable_tree(self, longest: int) -> TreeModel | None:
        """The model for trees, if it reads texts of up to so many tokens rightly; else None."""
        if self._tree is not None and not self._tree.holds_for(longest):
            self._say_stock(OTHER_ANSWERS)
            self._tree = self._generator = None
        return self._tree

    @property
    def _tree_model(self) -> TreeModel:
        assert self._tree is not None, "called for trees only"
        return self._tree

    @property
    def shares_prefixes(self) -> bool:
        """Whether trees are used; otherwise the stock code answers."""
        return self._tree is not None

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether greedy decoding gives it."""
        quiet = self._quiet(disable_tqdm)
        scores: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=quiet)
        return scores

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-probability of each whole text."""
        quiet = self._quiet(disable_tqdm)
        if self._tree is None or self.world_size > 1:
            scores: list[float] = super().loglikelihood_rolling(requests, disable_tqdm=quiet)
            return scores
        lengths = [len(self.tok_encode(request.args[0])) for request in requests]
        indices = range(len(requests))
        parts = [
            self._part(requests, list(indices[start : start + ROLLING_BATCH]), lengths)
            for start in indices[::ROLLING_BATCH]
        ]
        count = self._count(requests, sum(lengths), quiet, "Scoring")
        return self._answers("loglikelihood_rolling", parts, count)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The text that the model generates after each prompt, up to a stop sequence."""
        quiet = self._quiet(disable_tqdm)
        lengths = [len(self.tok_encode(request.args[0])) for request in requests]
        longest = [
            length + self._most_new(request)
            for length, request in zip(lengths, requests, strict=True)
        ]
        if self._usable_tree(max(longest, default=0)) is None:
            if self._alone_above is None and self.backend == "causal" and requests:
                self._alone_above = 0 if self._padding_counts() else None
            if self._alone_above is None:
                texts: list[str] = super().generate_until(requests, disable_tqdm=quiet)
                return texts
        parts = [
            self._part(requests, indices, lengths)
            for indices in self._generated_together(requests, lengths)
        ]
        count = self._count(requests, sum(lengths), quiet, "Generating")
        return self._answers("generate_until", parts, count)

    def _part(
        self, requests: list[Instance], indices: list[int], lengths: list[int]
    ) -> RequestBatch:
        """A batch of requests that lm-eval's own code computes."""
        arguments = [requests[i].args for i in indices]
        num_tokens = sum(lengths[i] for i in indices)
        is_sampled = any(map(_is_sampled, arguments))
        return RequestBatch(indices, arguments, arguments, num_tokens, is_sampled)

    def _generated_together(
        self, requests: list[Instance], lengths: list[int]
    ) -> Iterator[list[int]]:
        """Yield indices of requests with equal settings, longest first, as many as memory holds."""

        def settings(i: int) -> str:
            return json.dumps(requests[i].args[1], sort_keys=True, default=str)

        order = sorted(range(len(requests)), key=lambda i: (settings(i), -lengths[i], i))
        part: list[int] = []
        for i in order:
            held = lengths[part[0] if part else i] + self._most_new(requests[i])
            full = (len(part) + 1) * held > self._budget * GENERATION_BUDGET_FACTOR
            full = full or self._continued_alone(held)
            if part and (full or settings(i) != settings(part[0])):
                yield part
                part = []
            part.append(i)
        if part:
            yield part

    def _most_new(self, request: Instance) -> int:
        """Maximum tokens of an answer."""
        return int(request.args[1].get("max_gen_toks", self.max_gen_toks))

    def _continued_alone(self, num_tokens: int) -> bool:
        """Whether a text of so many tokens must be continued alone."""
        return self._alone_above is not None and num_tokens > self._alone_above

    def _padding_counts(self) -> bool:
        """Whether padding on the left changes what the model expects, as where it has no mask."""
        ids_1T = (torch.arange(2, 10, device=self.device) % self.vocab_size)[None]
        padding_1T = torch.full_like(ids_1T, int(self.tokenizer.pad_token_id or 0))
        mask_1T = torch.ones_like(ids_1T)
        alone, padded = (
            self.model.generate(
                torch.cat([before_1T, ids_1T], dim=1),
                attention_mask=torch.cat([0 * mask_1T[:, : before_1T.shape[1]], mask_1T], dim=1),
                max_new_tokens=1,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            ).logits[0]
            for before_1T in (padding_1T[:, :0], padding_1T)
        )
        return bool((padded - alone).abs().mean() > 0.05 * alone.std())

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **kwargs: Any
    ) -> torch.Tensor:
        """Prompt and answer [batch, length]; greedy decoding is ours, the rest transformers'."""
        if (
            self._generator is None
            or self._continued_alone(max_length)
            or not self._generator.supports(kwargs)
        ):
            tokens: torch.Tensor = super()._model_generate(context, max_length, stop, **kwargs)
            return tokens
        new = max_length - context.shape[1]
        return self._generator.generate(context, kwargs["attention_mask"], new, stop)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[Request],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """The stock method's answers, computed from trees."""
        texts = [self._text(request) for request in requests]
        tree = self._usable_tree(max((len(text.tokens) for text in texts), default=0))
        if tree is None:
            quiet = self._quiet(disable_tqdm)
            if self._length_switch is not None:
                # Of texts in one batch, the longest would decide how all are read.
                override_bs = 1
            stock: list[tuple[float, bool]] = super()._loglikelihood_tokens(
                requests, quiet, override_bs
            )
            return stock
        groups = tree.plan(texts, self._budget)
        parts = []
        for group in groups:
            for i, batch in enumerate(group.batches):
                indices = [span.number for row in batch for span in row.spans]
                header = 0 if i else len(group.header)
                parts.append(
                    RequestBatch(
                        indices,
                        [requests[i][0] for i in indices],
                        (group.header, batch),
                        len(batch) * len(batch[0]) + header,
                    )
                )
        if override_bs is not None:
            # Part of a rolling log-likelihood, which is cached, shared and counted as a whole.
            answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
            for part in parts:
                for place, answer in zip(
                    part.indices, self.compute("loglikelihood", part.work), strict=True
                ):
                    answers[place] = answer
            self._forget_header()
            return answers
        total = sum(part.num_tokens for part in parts)
        count = self._count(requests, total, disable_tqdm, "Scoring")
        scores = self._answers("loglikelihood", parts, count)
        self._forget_header()
        return [(value, greedy) for value, greedy in scores]

    def _answers(self, attr: str, parts: list[RequestBatch], count: ProgressCounter) -> list[Any]:
        """A call's answers in the order of its requests: cached ones, and the rest computed."""
        answers: list[Any] = [None] * sum(len(part.indices) for part in parts)

        def settle(part: RequestBatch, found: list[Any], *, known: bool) -> None:
            for place, answer in zip(part.indices, found, strict=True):
                answers[place] = answer
            count.add(len(part.indices), part.num_tokens, known=known)

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
        """For each batch its cached answers, which rank 0 has, or None."""

        def read() -> list[list[Any] | None]:
            return [
                None
                if part.is_sampled
                else response_cache.cached_answers(self.cache_hook, attr, part.requests)
                for part in parts
            ]

        return distributed.from_main(read) if self._split else read()

    def _rounds(self, parts: list[RequestBatch]) -> Iterator[list[RequestBatch]]:
        """Yield the batches that are computed at the same time, one on each rank."""
        num_ranks = distributed.world_size() if self._split else 1
        together: list[RequestBatch] = []
        for part in parts:
            together.append(part)
            if part.is_sampled or len(together) == num_ranks:
                yield together
                together = []
        if together:
            yield together

    def _computed(self, attr: str, parts: list[RequestBatch]) -> list[list[Any]]:
        """The answers to each batch of a round: this rank's own, the others' by one gather."""
        if not self._split:
            return [self.compute(attr, part.work) for part in parts]
        rank = distributed.rank()
        answers = self.compute(attr, parts[rank].work) if rank < len(parts) else []
        return distributed.all_gather(answers)[: len(parts)]

    def compute(self, attr: str, work: Any) -> list[Any]:
        """The answers to one batch; the same in every process."""
        if attr == "loglikelihood":
            header_tokens, batch = work
            if not np.array_equal(header_tokens, self._header_tokens):
                self._header = []  # frees its memory first
                self._header = self._tree_model.header(header_tokens)
                self._header_tokens = header_tokens
            return self._scores(batch, self._header)
        instances = [Instance(attr, {}, args, i) for i, args in enumerate(work)]
        if attr == "generate_until":
            with self._one_batch_of(len(instances)):
                texts: list[str] = super().generate_until(instances, disable_tqdm=True)
            return texts
        with self._one_batch_of(len(instances) * self.max_length):
            scores: list[float] = super().loglikelihood_rolling(instances, disable_tqdm=True)
        return scores

    def _forget_header(self) -> None:
        """Free the memory of the header's keys and values."""
        self._header_tokens, self._header = np.zeros(0, dtype=np.int64), []

    def _scores(self, batch: list[PackedRow], header: Header) -> list[tuple[float, bool]]:
        """The batch's answers; computed in halves if memory is too small."""
        try:
            return list(zip(*self._tree_model.scores(batch, header), strict=True))
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        memory.release_cached(self.device)
        half = len(batch) // 2
        return self._scores(batch[:half], header) + self._scores(batch[half:], header)

    def _text(self, request: Request) -> ScoredText:
        """The tokens that the stock method reads: truncated on the left, without the last one."""
        texts, context, continuation = request
        assert context, "lm-eval gives each request a context"
        assert continuation, "tasks with an empty choice are refused before"
        if len(continuation) > self.max_length:
            texts = texts or ("", "")
            raise BadInput(
                f"A text to score has {len(continuation):,} tokens, but the model reads "
                f"{self.max_length:,} at most. It begins {texts[1].strip()[:60]!r}. Shorten it, or "
                "remove its task from the list."
            )
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
        """Make the stock code compute `size` requests as one batch, without its cache."""
        batch_size, hook = self.batch_size_per_gpu, self.cache_hook
        self.batch_size_per_gpu = size
        self.set_cache_hook(CacheHook(None))
        try:
            yield
        finally:
            self.batch_size_per_gpu = batch_size
            self.set_cache_hook(hook)


def _is_sampled(request: tuple[Any, ...]) -> bool:
    """Whether a request samples its answer."""
    if len(request) < 2:
        return False
    sample = request[1].get("do_sample")
    return bool(request[1].get("temperature")) if sample is None else bool(sample)


def register() -> None:
    """Register `explorer-hf` with lm-eval in this process: 0.4.13 does not load plugins."""
    if NAME not in model_registry:
        model_registry.register(NAME, target=f"{__name__}:{PrefixLM.__name__}")
