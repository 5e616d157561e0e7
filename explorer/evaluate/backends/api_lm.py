"""lm-eval's own models for APIs, with our HTTP client.

lm-eval makes the prompts and requests and reads the answers (`local-completions`,
`local-chat-completions`, `openai-*`, `anthropic-*`). The transport is ours: every answer is saved
when it arrives, tokens are counted, failing requests are retried, and a lasting failure is
reported in a sentence. A prompt that the server refuses for good, because it is too long or a
filter objects, is kept apart (`refusals`); the others are answered.

Source: github.com/EleutherAI/lm-evaluation-harness, `models/api_models.py`.
"""

import asyncio
import copy
import importlib.util
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM, hash_args
from lm_eval.api.registry import get_model

from explorer.errors import BadInput, RunFailed
from explorer.evaluate import response_cache
from explorer.evaluate.backends.request_progress import ProgressCounter, RequestProgress
from explorer.latency.runtimes import endpoint_client
from explorer.latency.runtimes.endpoint_client import (
    EndpointClient,
    RequestFailed,
    RequestRefused,
)
from explorer.latency.runtimes.endpoint_errors import ServerMessage
from explorer.latency.runtimes.endpoint_fields import fields_of
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
UNEXPLAINED_STATUSES = frozenset({400, 422})
"""Statuses of a refusal that may be about one prompt or about all requests."""
MAX_UNEXPLAINED = 3
"""Such refusals, beside those in flight, after which a server that has answered nothing is given
up."""
FILTER_REASONS = frozenset({"content_filter", "refusal", "SAFETY"})
"""Reasons for which a server ends an answer that it does not show."""
REQUIRED_PACKAGES = ("tenacity", "aiohttp", "requests")
"""Packages that lm-eval's API models import."""


def lm_eval_model_name(where: Endpoint, spec: ApiSpec) -> str:
    """The name of lm-eval's model class for an endpoint.

    Raises:
        BadInput: The spec names a kind that does not fit the address.
    """
    if spec.kind != "auto":
        if ("chat" in spec.kind) != where.is_chat:
            raise BadInput(
                f"capability.api.kind is {spec.kind}, but {where.url} takes "
                f"{'chats' if where.is_chat else 'plain text'}. Change one of them, or drop kind."
            )
        return spec.kind
    if where.is_anthropic:
        return "anthropic-chat-completions"
    seller = "openai" if where.host == "api.openai.com" else "local"
    return f"{seller}-chat-completions" if where.is_chat else f"{seller}-completions"


def supported_output_types(where: Endpoint, spec: ApiSpec) -> tuple[frozenset[str], str]:
    """lm-eval's output types that the endpoint supports, and why not the others.

    Raises:
        BadInput: As `lm_eval_model_name`.
    """
    if where.is_chat:
        return GENERATE_ONLY, (
            "a chat endpoint gives no log-probabilities of a given answer. Choose tasks that "
            "generate text (generate_until, such as gsm8k and ifeval), an endpoint for plain "
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
            "scoring a given answer requires the model's tokenizer. Set capability.api.tokenizer "
            "(a hub id, a folder, starter)"
        )
    return ALL_OUTPUT_TYPES, ""


def make_api_lm(
    where: Endpoint,
    spec: ApiSpec,
    on_usage: Callable[[Usage], None],
    on_progress: Callable[[RequestProgress], None],
) -> "ApiLM":
    """lm-eval's model for this endpoint, with our transport.

    Args:
        where: The address and the model.
        spec: Concurrency, lengths, timeout and tokenizer.
        on_usage: Called with the token counts of every reply.
        on_progress: Called after every answer.

    Raises:
        BadInput: A package is missing, or the tokenizer cannot be loaded.
    """
    missing = [name for name in REQUIRED_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise BadInput(
            f"lm-eval's API models need {', '.join(missing)}, which is not installed: "
            "pip install 'lm-eval[api]'"
        )
    name = lm_eval_model_name(where, spec)
    stock = get_model(name)
    subclass = type(f"Explorer{stock.__name__}", (ApiLM, stock), {})
    return cast(ApiLM, subclass(where, spec, on_usage, on_progress))


class ApiLM(TemplateLM):
    """Our transport as a mix-in; the other base class is lm-eval's."""

    shares_prefixes = False

    def __init__(
        self,
        where: Endpoint,
        spec: ApiSpec,
        on_usage: Callable[[Usage], None],
        on_progress: Callable[[RequestProgress], None],
    ) -> None:
        thinking = {"think_end_token": spec.think_end_token} if spec.think_end_token else {}
        super().__init__(
            model=where.model,
            base_url=where.url,
            tokenizer_backend=None,
            num_concurrent=2,  # selects lm-eval's concurrent path, which we replace
            max_length=spec.max_length,
            max_gen_toks=spec.max_gen_toks,
            **thinking,
        )
        if spec.tokenizer is not None and not where.is_chat:
            self.tokenizer = load_tokenizer(spec.tokenizer)
            self.tokenizer_backend, self.tokenized_requests = "huggingface", True
        self.refusals: dict[str, str] = {}
        """The server's reason by hash of the request that it refused for good."""
        self._num_answered = self._num_empty = 0
        self._num_unexplained = 0
        self._where, self._spec = where, spec
        self._on_usage, self._on_progress = on_usage, on_progress

    async def get_batched_requests(
        self,
        requests: list[Any],
        cache_keys: list[Any],
        *,
        generate: bool = True,
        ctxlens: list[int] | None = None,
        **options: Any,
    ) -> list[list[Any]]:
        """Each request's answer, in a list of one; cached ones are not sent again.

        Raises:
            BadInput: The endpoint requires a key, and none is set.
            RunFailed: A request stayed unanswered; the other answers are saved.
        """
        key = endpoint.key_for(self._where, self._spec.key_variable)
        method = "generate_until" if generate else "loglikelihood"
        semaphore = asyncio.Semaphore(self._spec.num_concurrent)
        count = ProgressCounter(len(requests), len(requests), self._on_progress)

        async def answer(message: Any, cache_key: Any, ctxlen: int | None) -> list[Any]:
            cached = response_cache.cached_answers(self.cache_hook, method, [cache_key])
            if cached is None:
                async with semaphore:
                    body = self._create_payload(
                        self.create_message([message]),
                        generate=generate,
                        seed=self._seed,
                        # A copy: lm-eval removes entries.
                        **copy.deepcopy(options),
                    )

                    def read(reply: dict[str, Any]) -> Any:
                        stops = client.fields.stop_texts(body)
                        return _cut(self._read(reply, generate, message, ctxlen), stops)

                    try:
                        result = await client.complete(body, read, self._spec.max_retries)
                    except RequestRefused as refused:
                        if cache_key is None or not self._can_go_on(refused):
                            raise
                        self.refusals[hash_args(method, cache_key)] = refused.detail
                        count.add(1, 1)
                        return ["" if generate else (0.0, False)]
                response_cache.cache_answers(self.cache_hook, method, [cache_key], [result])
            else:
                result = cached[0] if generate else tuple(cached[0])
            self._num_answered += 1
            count.add(1, 1, known=cached is not None)
            return [result]

        try:
            async with (
                EndpointClient(self._where, timeout_s=self._spec.timeout_s, key=key) as client,
                asyncio.TaskGroup() as group,
            ):
                lengths: list[int | None] = [*ctxlens] if ctxlens else [None] * len(requests)
                tasks = [
                    group.create_task(answer(*request))
                    for request in zip(requests, cache_keys, lengths, strict=True)
                ]
        except BaseExceptionGroup as errors:
            first = errors.exceptions[0]
            if isinstance(first, RequestFailed):
                raise RunFailed(endpoint_client.explain_unanswered(self._where, first)) from first
            raise first from None
        finally:
            count.close()
        return [task.result() for task in tasks]

    @property
    def request_changes(self) -> list[str]:
        """Fields that the server did not take, and answers that had no room for text."""
        changes = fields_of(self._where).sentences()
        if self._num_empty:
            changes.append(
                f"{self._num_empty} answers used all their tokens before any text and count "
                "as empty: raise capability.api.max_gen_toks."
            )
        return changes

    def begin_task(self) -> None:
        """Forget the refusals and empty answers of the task before."""
        self.refusals.clear()
        self._num_empty = 0

    def refused_documents(self, instances: Sequence[Instance]) -> dict[int, str]:
        """The documents with a refused request, and the server's reasons."""
        reasons = {}
        for instance in instances:
            generates = instance.request_type == "generate_until"
            method = "generate_until" if generates else "loglikelihood"
            reason = self.refusals.get(hash_args(method, instance.args))
            if reason is not None:
                reasons[int(instance.doc_id)] = reason
        return reasons

    def _can_go_on(self, refused: RequestRefused) -> bool:
        """Whether a refusal concerns its own prompt only, as far as is known by now."""
        if refused.is_about_prompt or (
            refused.status in UNEXPLAINED_STATUSES and self._num_answered
        ):
            return True
        self._num_unexplained += refused.status in UNEXPLAINED_STATUSES
        most = MAX_UNEXPLAINED + self._spec.num_concurrent
        return refused.status in UNEXPLAINED_STATUSES and self._num_unexplained <= most

    def _read(self, reply: dict[str, Any], generate: bool, message: Any, ctxlen: int | None) -> Any:
        """The answer in a reply, read by lm-eval; its tokens are counted first."""
        self._on_usage(endpoint_client.reply_usage(reply))
        if generate and _is_filtered(reply):
            raise RequestRefused(200, ServerMessage("the answer was removed by a content filter"))
        try:
            if not generate:
                parsed = self.parse_logprobs(outputs=reply, tokens=[message], ctxlens=[ctxlen])
                value, is_greedy = parsed[0]
                if not math.isfinite(value):
                    raise ValueError("a log-likelihood is a finite number")
                return float(value), bool(is_greedy)
            texts = self.parse_generations(outputs=_with_plain_text(reply))
            self._num_empty += not texts[0] and _is_cut_off(reply)
            return texts[0] or ""
        except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
            excerpt = json.dumps(reply)[:80]
            expected = "text" if generate else "log-probabilities of the prompt (echo, logprobs)"
            raise RequestFailed("garbage", f"a reply without {expected}: {excerpt}") from error


def read_text(reply: dict[str, Any]) -> str:
    """The text of an answer to a chat or a completion, or else its reasoning.

    Raises:
        RequestFailed: The reply has none.
    """
    try:
        plain = _with_plain_text(reply)
        if "content" in plain:
            return str(plain["content"][0]["text"])
        first = plain["choices"][0]
        return str(first["text"] if "text" in first else first["message"]["content"])
    except (AttributeError, LookupError, TypeError) as error:
        excerpt = json.dumps(reply)[:80]
        raise RequestFailed("garbage", f"a reply without text: {excerpt}") from error


def _is_cut_off(reply: dict[str, Any]) -> bool:
    """Whether the answer ended because it had used all its tokens."""
    choices = reply.get("choices") or [{}]
    return "length" in (choices[0].get("finish_reason"), reply.get("stop_reason")) or (
        reply.get("stop_reason") == "max_tokens"
    )


def _is_filtered(reply: dict[str, Any]) -> bool:
    """Whether a filter took the answer away; a reply of another form has none."""
    choices = reply.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    reasons = (
        first.get("finish_reason") if isinstance(first, dict) else None,
        reply.get("stop_reason"),
    )
    return any(isinstance(reason, str) and reason in FILTER_REASONS for reason in reasons)


def _cut(answer: Any, stops: list[str]) -> Any:
    """A text up to the first of the stop texts, as a server that knows `stop` cuts it."""
    if not isinstance(answer, str):
        return answer
    return answer[: min((answer.find(stop) for stop in stops if stop in answer), default=None)]


def _with_plain_text(reply: dict[str, Any]) -> dict[str, Any]:
    """The reply with its text where lm-eval looks for it.

    Reasoning models may leave the content empty, split it in parts, or put it beside their
    reasoning.

    Raises:
        LookupError, TypeError: The reply has no text.
    """
    if isinstance(reply.get("content"), list):
        text = "".join(part["text"] for part in reply["content"] if part.get("type") == "text")
        return reply | {"content": [{"type": "text", "text": text}]}
    first = reply["choices"][0]
    if "message" not in first:
        return reply | {"choices": [first | {"index": 0, "text": _text_or_empty(first["text"])}]}
    message = first["message"]
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content)
    content = content or message.get("reasoning_content") or message.get("reasoning") or ""
    message = message | {"content": _text_or_empty(content)}
    return reply | {"choices": [first | {"index": 0, "message": message}]}


def _text_or_empty(text: Any) -> str:
    """The text; empty where the model wrote none.

    Raises:
        TypeError: It is not a text.
    """
    if not isinstance(text, str | None):
        raise TypeError(f"expected text, got {type(text).__name__}")
    return text or ""
