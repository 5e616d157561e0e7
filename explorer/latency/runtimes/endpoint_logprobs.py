"""Log-probabilities of a given text from an endpoint: the likeliest tokens at each position.

Uses `/v1/completions` with `echo`, `logprobs` and one new token, as lm-eval does. The text is sent
as token ids, so the server does not tokenize it again, and the reply is compared with what was
sent. vLLM names tokens by their ids (`return_tokens_as_token_ids`). Other servers spell them out;
a spelling that fits no token, or several, is counted and left out. `docs/distill.md` lists the
servers that can do this.

Source: vLLM, `entrypoints/openai/completion/serving.py`; SGLang, `serving_completions.py`.
"""

import asyncio
import dataclasses
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from explorer.errors import BadInput, RunFailed
from explorer.latency.runtimes import endpoint_client
from explorer.latency.runtimes.endpoint_client import (
    EndpointClient,
    RequestFailed,
    RequestRefused,
)
from explorer.models.endpoint import Endpoint
from explorer.records import Usage
from explorer.specs import ApiSpec

TOKEN_ID_OPTION = {"return_tokens_as_token_ids": True}
"""Makes vLLM name tokens by their ids; left out where a server refuses it."""
TOKEN_ID_PREFIX = "token_id:"
"""What vLLM then writes before an id."""
MINUS_INFINITY = -9999.0
"""What vLLM writes for a log-probability of minus infinity."""
UNSUPPORTED_STATUSES = frozenset({400, 422, 500, 501})
"""Statuses of servers without `echo`, or without so many log-probabilities."""
REPLACEMENT_CHARACTER = "\ufffd"
"""Spells a token that is only part of a character; servers differ in how."""
TEXT_ONLY_ADVICE = (
    "train on text that the model wrote: distill.method: text, and that text's file in "
    "distill.corpus"
)
"""The distillation method that needs no log-probabilities."""

TokenLogprobs = dict[int, float]
"""Log-probabilities, in nats, of the likeliest next tokens, by token id."""


@dataclasses.dataclass(frozen=True)
class ScoredPrompt:
    """What a server reports for one text."""

    likely: list[TokenLogprobs]
    """One entry per position; empty after the last token where the server reported none."""
    num_unknown: int
    """Reported tokens whose spelling fits no token, or several."""


class PromptScorer:
    """Asks one model of one endpoint for the log-probabilities of given texts."""

    def __init__(
        self,
        endpoint: Endpoint,
        tokenizer: PreTrainedTokenizerBase,
        api: ApiSpec,
        key: str | None,
        on_usage: Callable[[Usage], None],
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            endpoint: The address and the model.
            tokenizer: The student's; the first reply shows whether the server has the same.
            api: Concurrency, timeout and number of attempts.
            key: The endpoint's API key.
            on_usage: Called with the token counts of every reply.
        """
        self._endpoint, self._api, self._key = endpoint, api, key
        self._on_usage = on_usage
        self._spellings = token_spellings(tokenizer)
        self._id_of_spelling: Mapping[str, int] = {}
        self._options: dict[str, Any] = {}

    def score(
        self, texts: Sequence[list[int]], num_likely: int
    ) -> Generator[tuple[int, ScoredPrompt | RequestRefused], None, None]:
        """Yield each text's index and its log-probabilities, in the order of the replies.

        For a text that the server refuses for good, such as by a content filter, the refusal takes
        the place of the log-probabilities. When a request stays unanswered, no new one is sent;
        requests in progress are still yielded before the error.

        Args:
            texts: Token ids.
            num_likely: Tokens wanted at each position.

        Raises:
            RunFailed: A request stayed unanswered; the message says what to do.
            BadInput: The server has another tokenizer, or reports fewer tokens.
        """
        with asyncio.Runner() as runner:
            client = EndpointClient(self._endpoint, timeout_s=self._api.timeout_s, key=self._key)
            runner.run(client.__aenter__())
            try:
                yield from self._score_all(runner, client, texts, num_likely)
            except RequestFailed as failed:
                message = endpoint_client.explain_unanswered(self._endpoint, failed)
                raise RunFailed(message + _advice(failed, num_likely)) from failed
            finally:
                runner.run(client.__aexit__(None, None, None))

    def _score_all(
        self,
        runner: asyncio.Runner,
        client: EndpointClient,
        texts: Sequence[list[int]],
        num_likely: int,
    ) -> Generator[tuple[int, ScoredPrompt | RequestRefused], None, None]:
        if texts and not self._id_of_spelling:
            runner.run(self._compare_tokenizers(client, texts, num_likely))
        waiting, running = iter(enumerate(texts)), dict[asyncio.Task[ScoredPrompt], int]()
        first_error: BaseException | None = None
        try:
            while True:
                if first_error is None:
                    num_free = self._api.num_concurrent - len(running)
                    for index, ids in itertools.islice(waiting, num_free):
                        request = self._score_one(client, ids, num_likely)
                        running[runner.get_loop().create_task(request)] = index
                if not running:
                    break
                for task in runner.run(_first_done(running)):
                    index = running.pop(task)
                    error = task.exception()
                    if error is None:
                        yield index, task.result()
                    elif isinstance(error, RequestRefused) and error.is_about_prompt:
                        yield index, error
                    else:
                        first_error = first_error or error
        finally:
            runner.run(_cancelled(running))
        if first_error is not None:
            raise first_error

    async def _compare_tokenizers(
        self, client: EndpointClient, texts: Sequence[list[int]], num_likely: int
    ) -> None:
        """Send the first text without `TOKEN_ID_OPTION`: the spellings show the tokenizer.

        A text that the server refuses for good shows nothing, so the next one is sent.

        Raises:
            BadInput: The server's tokenizer is not the student's.
            RequestRefused: The server refuses every text.
        """
        for last, ids in enumerate(texts, 1 - len(texts)):
            try:
                reply = await self._request(client, ids, num_likely, {})
                break
            except RequestRefused as refused:
                if not refused.is_about_prompt or last == 0:
                    raise
        for spellings in self._spellings:
            different = [
                (token, name)
                for token, name in zip(ids, reply.tokens, strict=True)
                if name not in (spellings[token], f"{TOKEN_ID_PREFIX}{token}")
                and REPLACEMENT_CHARACTER not in spellings[token]
            ]
            if not different:
                counts = Counter(spellings)
                self._id_of_spelling = {
                    spelling: token
                    for token, spelling in enumerate(spellings)
                    if counts[spelling] == 1
                }
                self._options = dict(TOKEN_ID_OPTION)
                return
        token, name = different[0]
        raise BadInput(
            f"{self._endpoint.url} read {name!r} where token {token}, "
            f"{self._spellings[0][token]!r}, was sent: {self._endpoint.model} has another "
            f"tokenizer than the student. Choose a student of its family, or {TEXT_ONLY_ADVICE}."
        )

    async def _score_one(
        self, client: EndpointClient, ids: list[int], num_likely: int
    ) -> ScoredPrompt:
        try:
            reply = await self._request(client, ids, num_likely, self._options)
        except RequestRefused as refused:
            if not self._options or refused.is_about_prompt:
                raise
            self._options = {}
            reply = await self._request(client, ids, num_likely, self._options)
        spellings = self._spellings[0]
        for token, name in zip(ids, reply.tokens, strict=True):
            if self._token_id(name) not in (None, token) and (
                REPLACEMENT_CHARACTER not in spellings[token]
            ):
                raise BadInput(
                    f"{self._endpoint.url} read {name!r} where token {token} was sent. Does it "
                    "serve another model now? The answers received before are kept."
                )
        named = [[(self._token_id(name), p) for name, p in at.items()] for at in reply.likely]
        likely = [{token: p for token, p in at if token is not None} for at in named]
        return ScoredPrompt(likely, sum(map(len, reply.likely)) - sum(map(len, likely)))

    def _token_id(self, name: str) -> int | None:
        """The token that a server's name means; None where it fits no token, or several."""
        digits = name.removeprefix(TOKEN_ID_PREFIX)
        if digits != name and digits.isdecimal():
            return int(digits) if int(digits) < len(self._spellings[0]) else None
        return self._id_of_spelling.get(name)

    async def _request(
        self, client: EndpointClient, ids: list[int], num_likely: int, options: Mapping[str, Any]
    ) -> "_EchoReply":
        body = {
            "model": self._endpoint.model,
            "prompt": ids,
            "max_tokens": 1,
            "temperature": 0,
            "echo": True,
            "logprobs": num_likely,
            **options,
        }

        def read(reply: dict[str, Any]) -> _EchoReply:
            self._on_usage(endpoint_client.reply_usage(reply))
            echo = _read_echo(reply, len(ids))
            most = max(map(len, echo.likely))
            # Parts of characters may be spelled alike, and one name then stands for several tokens.
            may_overlap = any(REPLACEMENT_CHARACTER in name for at in echo.likely for name in at)
            if most < num_likely and not may_overlap:
                raise BadInput(
                    f"{self._endpoint.url} reports {most} tokens a position, but distill.top_k is "
                    f"{num_likely}. Set distill.top_k: {most}, or raise the server's limit "
                    f"(vLLM: --max-logprobs {num_likely})."
                )
            return echo

        return await client.complete(body, read, self._api.max_retries)


def _advice(failed: RequestFailed, num_likely: int) -> str:
    """What to do where the server may not support scoring at all."""
    is_unsupported = isinstance(failed, RequestRefused) and failed.status in UNSUPPORTED_STATUSES
    if failed.kind != "garbage" and not is_unsupported:
        return ""
    limit = (
        f" The request asked for {num_likely} tokens a position (distill.top_k; vLLM allows 20 "
        "unless it is started with --max-logprobs)."
    )
    return f"{limit if is_unsupported else ''} If it cannot score given text, {TEXT_ONLY_ADVICE}."


@dataclasses.dataclass(frozen=True)
class _EchoReply:
    """A reply whose form was checked; tokens as the server names them."""

    tokens: list[str]
    likely: list[dict[str, float]]


def _read_echo(reply: Mapping[str, Any], num_tokens: int) -> _EchoReply:
    """The prompt's tokens and, at each position, the likeliest next ones.

    Raises:
        RequestFailed: The prompt's log-probabilities are missing, at some positions or at all.
        BadInput: The reply has more tokens than were sent.
    """
    try:
        logprobs = reply["choices"][0]["logprobs"]
        tokens, tops = logprobs["tokens"], logprobs["top_logprobs"]
        if len(tops) != len(tokens) or not all(isinstance(token, str) for token in tokens):
            raise ValueError("expected one token per position")
        likely = [_logprobs(top) for top in tops[1:]]
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        excerpt = json.dumps(reply)[:80]
        raise RequestFailed(
            "garbage",
            f"a reply without log-probabilities of the prompt (echo, logprobs): {excerpt}",
        ) from error
    if len(tokens) < num_tokens:
        raise RequestFailed("garbage", f"log-probabilities of {len(tokens)} of {num_tokens} tokens")
    if len(tokens) > num_tokens + 1:
        raise BadInput(
            f"A text of {num_tokens} tokens came back with {len(tokens) - 1}, {tokens[0]!r} first: "
            "does the server add tokens of its own?"
        )
    num_missing = sum(not at for at in likely[: num_tokens - 1])
    if num_missing:
        raise RequestFailed(
            "garbage", f"no log-probabilities at {num_missing} of {num_tokens - 1} positions"
        )
    return _EchoReply(tokens[:num_tokens], [*likely, {}][:num_tokens])


def _logprobs(top: Any) -> dict[str, float]:
    """One position's tokens, without those of probability 0.

    Raises:
        AttributeError, TypeError, ValueError: It is something else.
    """
    values = {str(name): float(value) for name, value in (top or {}).items()}
    if any(math.isnan(value) or value > 1e-3 for value in values.values()):
        raise ValueError("a log-probability is a number of at most 0")
    return {name: value for name, value in values.items() if value > MINUS_INFINITY}


def token_spellings(tokenizer: PreTrainedTokenizerBase) -> list[list[str]]:
    """Each token as servers spell it: decoded alone, or as the tokenizer's file has it."""
    ids = list(range(max(tokenizer.get_vocab().values()) + 1))
    decoded = tokenizer.batch_decode(
        [[token] for token in ids], skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    pieces = [str(piece) for piece in tokenizer.convert_ids_to_tokens(ids)]
    return [list(decoded), pieces]


async def _first_done(
    tasks: Mapping["asyncio.Task[ScoredPrompt]", int],
) -> list["asyncio.Task[ScoredPrompt]"]:
    """The tasks that are done, at least one, in the order of their texts."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return sorted(done, key=lambda task: tasks[task])


async def _cancelled(tasks: Mapping["asyncio.Task[ScoredPrompt]", int]) -> None:
    """Cancel tasks whose results are no longer needed."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
