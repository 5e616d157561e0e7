"""A teacher behind an endpoint: whether it can teach, its targets, and what they cost."""

import contextlib
import dataclasses
import logging
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from explorer.catalogue import api_prices
from explorer.distill import endpoint_topk
from explorer.distill.schedule import num_steps
from explorer.distill.teacher_cache import TeacherCache, TopK, TopKPass
from explorer.distill.token_file import Blocks
from explorer.errors import BadInput
from explorer.evaluate.backends.api_cost import UsageLog
from explorer.latency.runtimes import endpoint_logprobs
from explorer.latency.runtimes.endpoint_client import RequestRefused
from explorer.models import endpoint
from explorer.models.endpoint import Endpoint
from explorer.models.loading import load_tokenizer
from explorer.pipeline.context import RunContext
from explorer.records import Usage
from explorer.specs import ApiSpec, RunSpec
from explorer.students.vocabulary import check_same_tokens

log = logging.getLogger("explorer")


def api_settings(spec: RunSpec) -> ApiSpec:
    """How the spec asks its endpoint; the defaults where it does not say."""
    return (spec.capability and spec.capability.api) or ApiSpec()


def wants_targets(spec: RunSpec) -> bool:
    """Whether the method needs them; `text` is for servers without log-probabilities."""
    return spec.distill is not None and spec.distill.method != "text"


def check_can_teach(spec: RunSpec) -> None:
    """Refuse a run whose endpoint cannot teach, before any request is sent.

    Raises:
        BadInput: The endpoint does not score given text, or its key is missing.
    """
    if spec.student is None or not wants_targets(spec):
        return
    where = endpoint.parse_endpoint(spec.teacher)
    if where.is_chat:
        raise BadInput(
            f"{where.url} takes chats, and a chat endpoint does not score given text. Name an "
            "endpoint of plain completions that echoes the prompt "
            f"(endpoint:http://HOST/v1/completions#MODEL), or {endpoint_logprobs.TEXT_ONLY_ADVICE}."
        )
    endpoint.key_for(where, api_settings(spec).key_variable)


def uses_targets(run: RunContext) -> bool:
    """Whether this run's endpoint computes targets, which needs the student's tokenizer.

    Raises:
        BadInput: The spec names another tokenizer for the endpoint.
    """
    if not wants_targets(run.spec):
        return False
    tokenizer = api_settings(run.spec).tokenizer
    if tokenizer is not None:
        check_same_tokens(run.spec.teacher, load_tokenizer(tokenizer), run.start)
    return True


def scorer(run: RunContext, where: Endpoint, targets: TeacherCache) -> TopKPass:
    """Computes targets by requests; the tokens of every reply are counted beside them.

    Raises:
        BadInput: `distill.top_k` is not below the size of the vocabulary.
    """
    api, root = api_settings(run.spec), run.root
    num_tokens = run.vocab_size
    if targets.top_k >= num_tokens:
        raise BadInput(
            f"distill.top_k must be below the {num_tokens:,} tokens of the vocabulary, so that "
            "something is left for the tail."
        )
    spent = UsageLog(_usage_file(targets))
    client = endpoint_logprobs.PromptScorer(
        where, run.tokenizer, api, endpoint.key_for(where, api.key_variable), spent.add
    )

    def score(
        blocks_NT: Blocks, numbers: list[int], top_k: int, temperature: float
    ) -> Generator[TopK, None, None]:
        assert temperature == 1, "refused in the spec"
        price = api_prices.endpoint_price(root, where.url, where.model)
        expected = _expected_usage(len(numbers), blocks_NT.shape[1])
        log.info("%s", api_prices.estimate_message(expected, price))
        api_prices.refuse_above_budget(expected, api, where, root)
        texts = _BlockTexts(blocks_NT, numbers)
        with contextlib.closing(client.score(texts, top_k)) as replies:
            for place, reply in replies:
                if isinstance(reply, RequestRefused):
                    targets.refuse(numbers[place], reply.detail)
                    continue
                ids_TK, log_p_TE = endpoint_topk.top_k_from_endpoint(
                    reply.likely, top_k, num_tokens
                )
                yield TopK(
                    [numbers[place]], ids_TK[None], log_p_TE[None], [None], reply.num_unknown
                )

    return score


@dataclasses.dataclass(frozen=True)
class _BlockTexts(Sequence[list[int]]):
    """Blocks as lists of token ids, each read when its request is made."""

    blocks_NT: Blocks
    numbers: list[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: Any) -> Any:
        return self.blocks_NT[self.numbers[place]].tolist()


def usage(targets: TeacherCache) -> Usage:
    """Replies and tokens these targets have cost so far, over all runs that share them."""
    return UsageLog(_usage_file(targets)).total()


def describe_requests(spec: RunSpec, root: Path) -> str | None:
    """Requests, tokens and price of a student's targets, in a sentence; None if it has none.

    Raises:
        BadInput: The endpoint cannot compute them; the message says why.
    """
    distill = spec.distill
    if spec.student is None or distill is None or not wants_targets(spec):
        return None
    check_can_teach(spec)
    where = endpoint.parse_endpoint(spec.teacher)
    num_blocks = distill.heldout_blocks
    if distill.method == "cached":
        num_blocks += num_steps(distill) * distill.blocks_per_step
    price = api_prices.endpoint_price(root, where.url, where.model)
    return api_prices.estimate_message(_expected_usage(num_blocks, distill.block_tokens), price)


def _expected_usage(num_blocks: int, block_tokens: int) -> Usage:
    """One request per block; servers write at least one token per request."""
    return Usage(
        num_replies=num_blocks, prompt_tokens=num_blocks * block_tokens, output_tokens=num_blocks
    )


def _usage_file(targets: TeacherCache) -> Path:
    return targets.folder / "usage.jsonl"
