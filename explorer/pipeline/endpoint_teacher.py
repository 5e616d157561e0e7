"""A teacher behind an endpoint: who it is, what its targets cost, and its answers."""

import contextlib
import logging
from collections.abc import Generator
from pathlib import Path

import torch

from explorer.catalogue import api_prices
from explorer.distill import endpoint_topk
from explorer.distill.schedule import num_steps
from explorer.distill.teacher_cache import Answer, Scorer, Targets
from explorer.errors import BadInput
from explorer.evaluate.backends.api_cost import Spent
from explorer.latency.runtimes import endpoint_logprobs
from explorer.models import endpoint
from explorer.models.endpoint import Endpoint
from explorer.models.loading import load_tokenizer
from explorer.pipeline.state import Run
from explorer.records import Usage
from explorer.specs import ApiSpec, RunSpec
from explorer.students.vocabulary import check_same_tokens

log = logging.getLogger("explorer")


def check(spec: RunSpec) -> None:
    """Refuse, before anything is asked, what an endpoint cannot teach.

    Raises:
        BadInput: It does not score given text, or wants a key.
    """
    if spec.student is None or not _wants_targets(spec):
        return
    where = endpoint.parse(spec.teacher)
    if where.is_chat:
        raise BadInput(
            f"{where.url} takes chats, and a chat endpoint does not score given text. Name an "
            "endpoint of plain completions that echoes them "
            f"(endpoint:http://HOST/v1/completions#MODEL), or {endpoint_logprobs.BY_TEXT}."
        )
    endpoint.key_of(where, _api(spec).key_variable)


def has_targets(run: Run) -> bool:
    """Whether this run's endpoint is asked for targets; its tokenizer is then the student's.

    Raises:
        BadInput: The spec names another one.
    """
    if not _wants_targets(run.spec):
        return False
    named = _api(run.spec).tokenizer
    if named is not None:
        check_same_tokens(run.spec.teacher, load_tokenizer(named), run.start)
    return True


def scorer(run: Run, where: Endpoint, targets: Targets) -> Scorer:
    """The endpoint as a teacher; every reply's tokens are counted beside the targets.

    Raises:
        BadInput: It cannot name as many tokens as are asked for.
    """
    api, root = _api(run.spec), run.root
    num_tokens = run.vocab_size
    if targets.top_k >= num_tokens:
        raise BadInput(
            f"distill.top_k must be below the {num_tokens:,} tokens of the vocabulary, so that "
            "something is left for the tail."
        )
    spent = Spent(_counted(targets))
    asked = endpoint_logprobs.Scorer(
        where, run.tokenizer, api, endpoint.key_of(where, api.key_variable), spent.add
    )

    def score(
        blocks_NT: torch.Tensor, numbers: list[int], top_k: int, temperature: float
    ) -> Generator[Answer, None, None]:
        assert temperature == 1, "refused in the spec"
        price = api_prices.of_endpoint(root, where.url, where.model)
        ahead = _usage(len(numbers), blocks_NT.shape[1])
        log.info("%s", api_prices.ahead_in_words(ahead, price))
        api_prices.affordable(ahead, price, api, where, root)
        texts = [blocks_NT[number].tolist() for number in numbers]
        with contextlib.closing(asked.score(texts, top_k)) as found:
            for place, one in found:
                ids_TK, log_p_TE = endpoint_topk.kept(one.likely, top_k, num_tokens)
                yield Answer(
                    [numbers[place]], ids_TK[None], log_p_TE[None], [None], one.num_unknown
                )

    return score


def spent(targets: Targets) -> Usage:
    """What these targets took of an API, whichever run asked."""
    return Spent(_counted(targets)).total()


def ahead(spec: RunSpec, root: Path) -> str | None:
    """What a student's targets will take, in a sentence; None where none are wanted.

    Raises:
        BadInput: They cannot be had; the message says why.
    """
    distill = spec.distill
    if spec.student is None or distill is None or not _wants_targets(spec):
        return None
    check(spec)
    where = endpoint.parse(spec.teacher)
    num_blocks = distill.heldout_blocks
    if distill.method == "cached":
        num_blocks += num_steps(distill) * distill.blocks_per_step
    price = api_prices.of_endpoint(root, where.url, where.model)
    return api_prices.ahead_in_words(_usage(num_blocks, distill.block_tokens), price)


def _wants_targets(spec: RunSpec) -> bool:
    """Text teaches without them: it is the way for servers that give no log-probabilities."""
    return spec.distill is not None and spec.distill.method != "text"


def _api(spec: RunSpec) -> ApiSpec:
    return (spec.capability and spec.capability.api) or ApiSpec()


def _usage(num_blocks: int, block_tokens: int) -> Usage:
    """A request a block, and one token written, which no server does without."""
    return Usage(
        num_replies=num_blocks, prompt_tokens=num_blocks * block_tokens, output_tokens=num_blocks
    )


def _counted(targets: Targets) -> Path:
    return targets.folder / "usage.jsonl"
