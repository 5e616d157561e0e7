"""Given text, scored by a server: the likeliest tokens at each of its positions.

`/v1/completions` with `echo`, `logprobs` and one token to write, which lm-eval asks for too. The
text is sent as token ids, so the server cuts nothing anew; what comes back is compared with
what was sent. vLLM names tokens by their ids (`return_tokens_as_token_ids`); other servers
name them in words, and words that mean no token, or several, are counted and left out.
`docs/distill.md` says which servers can do it.

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
from explorer.latency.runtimes import endpoint_completions
from explorer.latency.runtimes.endpoint import Failed
from explorer.latency.runtimes.endpoint_completions import Asker, Refused
from explorer.models.endpoint import Endpoint
from explorer.records import Usage
from explorer.specs import ApiSpec

AS_IDS = {"return_tokens_as_token_ids": True}
"""What vLLM takes to name tokens by their ids; left away where a server refuses it."""
ID = "token_id:"
"""What comes before an id then."""
NEVER = -9999.0
"""What vLLM writes for a log-probability of minus infinity."""
UNABLE = frozenset({400, 422, 500, 501})
"""Statuses of servers that do not know `echo`, or not with so many log-probabilities."""
NO_CHARACTER = "\ufffd"
"""Stands in the words of a token that is only part of a character: servers differ in it."""
BY_TEXT = (
    "let the student learn from text that the model wrote: distill.method: text, and that text's "
    "file in distill.corpus"
)
"""The way of teaching that needs no log-probabilities."""

Likely = dict[int, float]
"""Log-probabilities, in nats, of the likeliest next tokens, by id."""


@dataclasses.dataclass(frozen=True)
class Scored:
    """What a server says of one text."""

    likely: list[Likely]
    """At each position; empty after the last token where the server wrote none."""
    num_unknown: int
    """Tokens that were named in words which mean none, or several."""


class Scorer:
    """Asks one model of one endpoint how likely given texts are."""

    def __init__(
        self,
        where: Endpoint,
        tokenizer: PreTrainedTokenizerBase,
        api: ApiSpec,
        key: str | None,
        spent: Callable[[Usage], None],
    ) -> None:
        """Nothing is asked yet.

        Args:
            where: The endpoint.
            tokenizer: The model's, as far as is known; the first reply tells.
            api: How it is asked.
            key: Of the endpoint.
            spent: Told the tokens of every reply.
        """
        self._where, self._api, self._key, self._spent = where, api, key, spent
        self._spellings = spellings(tokenizer)
        self._ids_of: Mapping[str, int] = {}
        self._extra: dict[str, Any] = {}

    def score(
        self, texts: Sequence[list[int]], num_likely: int
    ) -> Generator[tuple[int, Scored], None, None]:
        """Each text's number and what was said of it, as the answers come.

        When a text stays unanswered, no new one is asked; those that are under way are still
        yielded before the error.

        Args:
            texts: Token ids.
            num_likely: Tokens that are wanted at each position.

        Raises:
            RunFailed: A request stayed unanswered; the message says what to do.
            BadInput: The server has another tokenizer, or gives fewer tokens.
        """
        with asyncio.Runner() as runner:
            client = Asker(self._where, timeout_s=self._api.timeout_s, key=self._key)
            runner.run(client.__aenter__())
            try:
                yield from self._all(runner, client, texts, num_likely)
            except Failed as failed:
                said = endpoint_completions.in_words(self._where, failed)
                raise RunFailed(said + _advice(failed, num_likely)) from failed
            finally:
                runner.run(client.__aexit__(None, None, None))

    def _all(
        self, runner: asyncio.Runner, client: Asker, texts: Sequence[list[int]], num_likely: int
    ) -> Generator[tuple[int, Scored], None, None]:
        if texts and not self._ids_of:
            runner.run(self._agree(client, texts[0], num_likely))
        waiting, under_way = iter(enumerate(texts)), dict[asyncio.Task[Scored], int]()
        problem: BaseException | None = None
        try:
            while True:
                if problem is None:
                    room = self._api.num_concurrent - len(under_way)
                    for number, ids in itertools.islice(waiting, room):
                        asked = self._ask(client, ids, num_likely)
                        under_way[runner.get_loop().create_task(asked)] = number
                if not under_way:
                    break
                for task in runner.run(_first_of(under_way)):
                    number = under_way.pop(task)
                    error = task.exception()
                    if error is None:
                        yield number, task.result()
                    problem = problem or error
        finally:
            runner.run(_given_up(under_way))
        if problem is not None:
            raise problem

    async def _agree(self, client: Asker, ids: list[int], num_likely: int) -> None:
        """The first request is answered in words: see whether the tokenizer is the same one.

        Raises:
            BadInput: It is not.
        """
        read = await self._insist(client, ids, num_likely, {})
        for words in self._spellings:
            strange = [
                (token, said)
                for token, said in zip(ids, read.tokens, strict=True)
                if said not in (words[token], f"{ID}{token}") and NO_CHARACTER not in words[token]
            ]
            if not strange:
                counts = Counter(words)
                self._ids_of = {w: token for token, w in enumerate(words) if counts[w] == 1}
                self._extra = dict(AS_IDS)
                return
        token, said = strange[0]
        raise BadInput(
            f"{self._where.url} read {said!r} where token {token}, {self._spellings[0][token]!r}, "
            f"was sent: {self._where.model} has another tokenizer than the student. Take a student "
            f"of its family, or {BY_TEXT}."
        )

    async def _ask(self, client: Asker, ids: list[int], num_likely: int) -> Scored:
        try:
            read = await self._insist(client, ids, num_likely, self._extra)
        except Refused:
            if not self._extra:
                raise
            self._extra = {}
            read = await self._insist(client, ids, num_likely, self._extra)
        words = self._spellings[0]
        for token, said in zip(ids, read.tokens, strict=True):
            if self._id(said) not in (None, token) and NO_CHARACTER not in words[token]:
                raise BadInput(
                    f"{self._where.url} read {said!r} where token {token} was sent; is another "
                    "model served there now? What came before is kept."
                )
        known = [[(self._id(said), value) for said, value in each.items()] for each in read.likely]
        found = [{token: value for token, value in each if token is not None} for each in known]
        return Scored(found, sum(map(len, read.likely)) - sum(map(len, found)))

    def _id(self, said: str) -> int | None:
        """The token that a server means; None where nobody knows."""
        number = said.removeprefix(ID)
        if number != said and number.isdecimal():
            return int(number) if int(number) < len(self._spellings[0]) else None
        return self._ids_of.get(said)

    async def _insist(
        self, client: Asker, ids: list[int], num_likely: int, extra: Mapping[str, Any]
    ) -> "_Read":
        body = {
            "model": self._where.model,
            "prompt": ids,
            "max_tokens": 1,
            "temperature": 0,
            "echo": True,
            "logprobs": num_likely,
            **extra,
        }

        def read(reply: dict[str, Any]) -> _Read:
            self._spent(endpoint_completions.usage(reply))
            found = _read(reply, len(ids))
            most = max(map(len, found.likely))
            # Parts of characters may all be written alike, and one name then stands for several.
            fell_together = any(NO_CHARACTER in said for each in found.likely for said in each)
            if most < num_likely and not fell_together:
                raise BadInput(
                    f"{self._where.url} names {most} tokens at a position, and distill.top_k asks "
                    f"for {num_likely}. Write distill.top_k: {most}, or let the server name more "
                    f"(vLLM: --max-logprobs {num_likely})."
                )
            return found

        return await client.insist(body, read, self._api.max_retries)


def _advice(failed: Failed, num_likely: int) -> str:
    """What to do where it may be scoring itself that the server cannot do."""
    asked_too_much = isinstance(failed, Refused) and failed.status in UNABLE
    if failed.kind != "garbage" and not asked_too_much:
        return ""
    many = (
        f" It was asked to name {num_likely} tokens (distill.top_k; vLLM names 20 at most, unless "
        "it is started with --max-logprobs)."
    )
    return f"{many if asked_too_much else ''} If it cannot score given text, {BY_TEXT}."


@dataclasses.dataclass(frozen=True)
class _Read:
    """A reply, checked for its form, in the server's own words."""

    tokens: list[str]
    likely: list[dict[str, float]]


def _read(reply: Mapping[str, Any], num_tokens: int) -> _Read:
    """The prompt's tokens and, at each position, the likeliest next ones.

    Raises:
        Failed: The reply has no log-probabilities of the prompt, or not at every position.
        BadInput: It has more tokens than were sent.
    """
    try:
        found = reply["choices"][0]["logprobs"]
        tokens, tops = found["tokens"], found["top_logprobs"]
        if len(tops) != len(tokens) or not all(isinstance(token, str) for token in tokens):
            raise ValueError("a token a position")
        likely = [_numbers(top) for top in tops[1:]]
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        said = json.dumps(reply)[:80]
        raise Failed(
            "garbage", f"a reply without log-probabilities of the prompt (echo, logprobs): {said}"
        ) from error
    if len(tokens) < num_tokens:
        raise Failed("garbage", f"log-probabilities of {len(tokens)} of {num_tokens} tokens")
    if len(tokens) > num_tokens + 1:
        raise BadInput(
            f"A text of {num_tokens} tokens came back with {len(tokens) - 1}, {tokens[0]!r} first: "
            "does the server add tokens of its own?"
        )
    dropped = sum(not each for each in likely[: num_tokens - 1])
    if dropped:
        raise Failed("garbage", f"no log-probabilities at {dropped} of {num_tokens - 1} positions")
    return _Read(tokens[:num_tokens], [*likely, {}][:num_tokens])


def _numbers(top: Any) -> dict[str, float]:
    """One position's tokens; those that cannot come at all are left out.

    Raises:
        AttributeError, TypeError, ValueError: It is something else.
    """
    found = {str(said): float(value) for said, value in (top or {}).items()}
    if any(math.isnan(value) or value > 1e-3 for value in found.values()):
        raise ValueError("a log-probability is a number of at most 0")
    return {said: value for said, value in found.items() if value > NEVER}


def spellings(tokenizer: PreTrainedTokenizerBase) -> list[list[str]]:
    """Each token in the words that servers have for it: decoded alone, or as the file has it."""
    ids = list(range(max(tokenizer.get_vocab().values()) + 1))
    decoded = tokenizer.batch_decode(
        [[one] for one in ids], skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    pieces = [str(piece) for piece in tokenizer.convert_ids_to_tokens(ids)]
    return [list(decoded), pieces]


async def _first_of(tasks: Mapping["asyncio.Task[Scored]", int]) -> list["asyncio.Task[Scored]"]:
    """Those that are done, at least one, in the order of their numbers."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return sorted(done, key=lambda task: tasks[task])


async def _given_up(tasks: Mapping["asyncio.Task[Scored]", int]) -> None:
    """End those that nobody waits for any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
