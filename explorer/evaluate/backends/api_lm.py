"""lm-eval's own models for APIs, asked through our client.

Prompts, requests and the reading of answers are lm-eval's (`local-completions`,
`local-chat-completions`, `openai-*`, `anthropic-*`). Ours is the way there: every answer is kept
when it comes, tokens are counted, a server in trouble is asked again, and what stays wrong is
said in a sentence.

Source: github.com/EleutherAI/lm-evaluation-harness, `models/api_models.py`.
"""

import asyncio
import copy
import importlib.util
import json
import math
from collections.abc import Callable
from typing import Any, cast

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import get_model

from explorer.errors import BadInput, RunFailed
from explorer.evaluate import response_cache
from explorer.evaluate.backends.request_progress import ProgressCounter, RequestProgress
from explorer.latency.runtimes import endpoint_client
from explorer.latency.runtimes.endpoint_client import EndpointClient, RequestFailed
from explorer.models import endpoint
from explorer.models.endpoint import Endpoint
from explorer.models.loading import load_tokenizer
from explorer.records import Usage
from explorer.specs import ApiSpec

VERSION = 1
"""Bump it to invalidate cached answers."""
GENERATE_ONLY = frozenset({"generate_until"})
ALL_OUTPUT_TYPES = GENERATE_ONLY | {"loglikelihood", "loglikelihood_rolling", "multiple_choice"}
OPENAI_MODELS_WITH_LOGPROBS = ("babbage-002", "davinci-002")
REQUIRED_PACKAGES = ("tenacity", "aiohttp", "requests")
"""What lm-eval's API models import."""


def lm_eval_model_name(where: Endpoint, spec: ApiSpec) -> str:
    """lm-eval's name of the model class for an endpoint.

    Raises:
        BadInput: The spec names a kind that does not speak as the address does.
    """
    if spec.kind != "auto":
        if ("chat" in spec.kind) != where.is_chat:
            raise BadInput(
                f"capability.api.kind is {spec.kind}, but {where.url} takes "
                f"{'chats' if where.is_chat else 'plain text'}. Correct one of them, or leave kind "
                "out."
            )
        return spec.kind
    if where.is_anthropic:
        return "anthropic-chat-completions"
    seller = "openai" if where.host == "api.openai.com" else "local"
    return f"{seller}-chat-completions" if where.is_chat else f"{seller}-completions"


def supported_output_types(where: Endpoint, spec: ApiSpec) -> tuple[frozenset[str], str]:
    """Which of lm-eval's output types the endpoint can answer, and why not the others.

    Raises:
        BadInput: As `kind`.
    """
    if where.is_chat:
        return GENERATE_ONLY, (
            "a chat endpoint gives no log-probabilities of a given answer. Choose tasks in which "
            "the model writes (generate_until, as gsm8k and ifeval), ask an endpoint of plain "
            "completions that echoes them (endpoint:http://HOST/v1/completions#MODEL), or run the "
            "model's weights"
        )
    if (
        lm_eval_model_name(where, spec) == "openai-completions"
        and where.model not in OPENAI_MODELS_WITH_LOGPROBS
    ):
        names = " and ".join(OPENAI_MODELS_WITH_LOGPROBS)
        return GENERATE_ONLY, f"OpenAI gives log-probabilities of a prompt only for {names}"
    if spec.tokenizer is None:
        return GENERATE_ONLY, (
            "to score a given answer one has to know where its tokens begin. Write the model's "
            "tokenizer (a hub id, a folder, starter) into capability.api.tokenizer"
        )
    return ALL_OUTPUT_TYPES, ""


def make_api_lm(
    where: Endpoint,
    spec: ApiSpec,
    spent: Callable[[Usage], None],
    on_progress: Callable[[RequestProgress], None],
) -> "ApiLM":
    """lm-eval's model of this kind, with our way of asking.

    Args:
        where: The endpoint.
        spec: How it is asked.
        spent: Told the tokens of every reply.
        on_progress: Told after every answer.

    Raises:
        BadInput: A package is missing, or the tokenizer cannot be had.
    """
    missing = [name for name in REQUIRED_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise BadInput(
            f"lm-eval's API models need {', '.join(missing)}, which this Python lacks: "
            "pip install 'lm-eval[api]'"
        )
    name = lm_eval_model_name(where, spec)
    stock = get_model(name)
    of_kind = type(f"Asked{stock.__name__}", (ApiLM, stock), {})
    return cast(ApiLM, of_kind(where, spec, spent, on_progress))


class ApiLM(TemplateLM):
    """The part that is ours; the other base is lm-eval's class of the kind."""

    shares_prefixes = False

    def __init__(
        self,
        where: Endpoint,
        spec: ApiSpec,
        spent: Callable[[Usage], None],
        on_progress: Callable[[RequestProgress], None],
    ) -> None:
        thinking = {"think_end_token": spec.think_end_token} if spec.think_end_token else {}
        super().__init__(
            model=where.model,
            base_url=where.url,
            tokenizer_backend=None,
            num_concurrent=2,  # lm-eval's concurrent way, which is the one that we replace
            max_length=spec.max_length,
            max_gen_toks=spec.max_gen_toks,
            **thinking,
        )
        if spec.tokenizer is not None and not where.is_chat:
            self.tokenizer = load_tokenizer(spec.tokenizer)
            self.tokenizer_backend, self.tokenized_requests = "huggingface", True
        self._where, self._spec = where, spec
        self._spent, self._on_progress = spent, on_progress

    async def get_batched_requests(
        self,
        requests: list[Any],
        cache_keys: list[Any],
        *,
        generate: bool = True,
        ctxlens: list[int] | None = None,
        **options: Any,
    ) -> list[list[Any]]:
        """Each request's answer, a list of one; known ones are not asked again.

        Raises:
            BadInput: The endpoint wants a key, and none is set.
            RunFailed: A request stayed unanswered; the others' answers are kept.
        """
        key = endpoint.key_for(self._where, self._spec.key_variable)
        method = "generate_until" if generate else "loglikelihood"
        gate = asyncio.Semaphore(self._spec.num_concurrent)
        count = ProgressCounter(len(requests), len(requests), self._on_progress)

        async def one(message: Any, cache_key: Any, ctxlen: int | None) -> list[Any]:
            known = response_cache.cached_answers(self.cache_hook, method, [cache_key])
            if known is None:
                async with gate:
                    body = self._create_payload(
                        self.create_message([message]),
                        generate=generate,
                        seed=self._seed,
                        # lm-eval takes what it knows out of them.
                        **copy.deepcopy(options),
                    )
                    found = await client.complete(
                        body,
                        lambda reply: self._read(reply, generate, message, ctxlen),
                        self._spec.max_retries,
                    )
                response_cache.cache_answers(self.cache_hook, method, [cache_key], [found])
            else:
                found = known[0] if generate else tuple(known[0])
            count.add(1, 1, known=known is not None)
            return [found]

        try:
            async with (
                EndpointClient(self._where, timeout_s=self._spec.timeout_s, key=key) as client,
                asyncio.TaskGroup() as group,
            ):
                lengths: list[int | None] = [*ctxlens] if ctxlens else [None] * len(requests)
                tasks = [
                    group.create_task(one(*each))
                    for each in zip(requests, cache_keys, lengths, strict=True)
                ]
        except BaseExceptionGroup as errors:
            first = errors.exceptions[0]
            if isinstance(first, RequestFailed):
                raise RunFailed(endpoint_client.explain_unanswered(self._where, first)) from first
            raise first from None
        finally:
            count.close()
        return [task.result() for task in tasks]

    def _read(self, reply: dict[str, Any], generate: bool, message: Any, ctxlen: int | None) -> Any:
        """The answer of a reply, by lm-eval's own reading; its tokens are counted first."""
        self._spent(endpoint_client.reply_usage(reply))
        try:
            if not generate:
                found = self.parse_logprobs(outputs=reply, tokens=[message], ctxlens=[ctxlen])
                value, is_greedy = found[0]
                if not math.isfinite(value):
                    raise ValueError("a log-likelihood is a finite number")
                return float(value), bool(is_greedy)
            written = self.parse_generations(outputs=_answered(reply))
            return written[0] or ""
        except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
            said = json.dumps(reply)[:80]
            wanted = "text" if generate else "log-probabilities of the prompt (echo, logprobs)"
            raise RequestFailed("garbage", f"a reply without {wanted}: {said}") from error


def _answered(reply: dict[str, Any]) -> dict[str, Any]:
    """The reply with the answer where lm-eval looks for it.

    Reasoning models may leave the content empty, or in parts, or beside their thoughts.

    Raises:
        LookupError, TypeError: There is no such place in it.
    """
    if isinstance(reply.get("content"), list):
        text = "".join(part["text"] for part in reply["content"] if part.get("type") == "text")
        return reply | {"content": [{"type": "text", "text": text}]}
    first = reply["choices"][0]
    if "message" not in first:
        return reply | {"choices": [first | {"index": 0, "text": _words(first["text"])}]}
    message = first["message"]
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content)
    content = content or message.get("reasoning_content") or message.get("reasoning") or ""
    message = message | {"content": _words(content)}
    return reply | {"choices": [first | {"index": 0, "message": message}]}


def _words(text: Any) -> str:
    """A text; nothing where the model said nothing.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(text, str | None):
        raise TypeError(f"an answer is a text, not {type(text).__name__}")
    return text or ""
