"""One streamed request to an OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp, hosted APIs.

The answer comes as server-sent events. Times are read when a piece of text comes; tokens are
counted by the server (`usage`) and checked against the pieces. A request that goes wrong in
any way raises `Failed` with its kind, so that it can be counted and is in no average.

    EXPLORER_ENDPOINT_KEY=... explorer run spec.yaml   # teacher: endpoint:http://...#model
"""

import asyncio
import json
import time
from types import TracebackType
from typing import Any, Self

import httpx2

from explorer.errors import RunFailed
from explorer.models.endpoint import KEY_VARIABLE, Endpoint, key
from explorer.records import TimedRequest

FIXED_LENGTH = {"ignore_eos": True}
"""What vLLM, SGLang and llama.cpp take to make an answer as long as asked; no part of the
official interface, so it is left away where a server refuses it."""
FAILURES = {
    "unreachable": "the connection failed",
    "refused": "the server answered with an error status",
    "stalled": "no text came for timeout_s",
    "not a stream": "the answer was no stream of server-sent events",
    "garbage": "an event was no JSON of the expected form",
    "error in the stream": "the server reported an error after it had begun",
    "closed early": "the stream ended before [DONE]",
    "no text": "the answer had no text",
    "too long": "the answer went on past the tokens that were asked for",
    "no usage": "the server did not count its tokens",
    "miscounted": "more pieces of text came than tokens were counted",
}
"""Kinds of failure, and what each means."""
PIECES_PER_TOKEN = 2
"""More pieces of text than so many for each token that was asked for end a request."""


class Failed(Exception):
    """A request that is counted as failed; never a bug of ours."""

    def __init__(self, kind: str, detail: str) -> None:
        """One of FAILURES, and what was seen."""
        assert kind in FAILURES, kind
        super().__init__(f"{kind} ({FAILURES[kind]}): {detail}")
        self.kind = kind


class Client:
    """Asks one model of one endpoint; an asynchronous context manager."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float) -> None:
        """Take the key from the environment now; nothing is sent yet."""
        self.endpoint = endpoint
        self.extra: dict[str, Any] = dict(FIXED_LENGTH)
        """What is sent beside the official fields."""
        self.server: str | None = None
        """What the server says of itself."""
        self._key = key()
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._http = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(timeout_s),
            limits=httpx2.Limits(max_connections=None),
            # A redirect would take the key elsewhere; a proxy does not know this machine's ports.
            follow_redirects=False,
            trust_env=not endpoint.is_local,
        )
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        """Open the pool of connections."""
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all connections."""
        await self._http.__aexit__(kind, error, trace)

    async def ask(self, prompt: str, num_tokens: int) -> TimedRequest:
        """Time one request.

        Returns:
            From before the request is sent to the first and to the last piece of text.

        Raises:
            Failed: Whatever was wrong with it.
        """
        try:
            return await self._ask(prompt, num_tokens)
        except (httpx2.TimeoutException, TimeoutError) as error:
            raise Failed("stalled", f"after {self._timeout_s:g} s") from error
        except httpx2.SSEError as error:
            raise Failed("not a stream", self._safe(str(error))) from error
        except (httpx2.RemoteProtocolError, httpx2.ReadError) as error:
            raise Failed("closed early", self._safe(str(error) or "connection lost")) from error
        except UnicodeDecodeError as error:
            raise Failed("garbage", "the stream is no UTF-8") from error
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            detail = self._safe(str(error)) or type(error).__name__
            raise Failed("unreachable", f"{self.endpoint.host}: {detail}") from error

    async def agree(self, prompt: str, num_tokens: int) -> TimedRequest:
        """The first request: find out whether the server can be told to keep the length.

        Raises:
            RunFailed: It fails either way; no measurement is possible.
        """
        for extra in (dict(FIXED_LENGTH), {}):
            self.extra = extra
            try:
                return await self.ask(prompt, num_tokens)
            except Failed as error:
                failed = error
                if error.kind != "refused":
                    break
        hint = {
            "unreachable": "Is the server running, and the address right?",
            "refused": f"Check the model's name, and the key in {KEY_VARIABLE}.",
            "no usage": "It has to support stream_options: {include_usage: true}.",
        }.get(failed.kind, "Look at the server's log.")
        raise RunFailed(f"The endpoint {self.endpoint.url} cannot be timed: {failed}. {hint}")

    async def _ask(self, prompt: str, num_tokens: int) -> TimedRequest:
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "max_tokens": num_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.extra,
        }
        if self.endpoint.is_chat:
            body["messages"] = [{"role": "user", "content": prompt}]
        else:
            body["prompt"] = prompt
        stream = _Stream(num_tokens)
        began = time.perf_counter()
        # httpx waits for bytes, and comments that keep a connection alive are bytes too.
        async with (
            asyncio.timeout(self._timeout_s) as patience,
            self._http.stream("POST", self.endpoint.url, json=body) as response,
        ):
            if response.status_code != 200:
                text = (await response.aread()).decode(errors="replace")[:300]
                raise Failed("refused", f"HTTP {response.status_code}: {self._safe(text)}")
            self.server = response.headers.get("server", self.server)
            async for event in httpx2.EventSource(response):
                now = time.perf_counter()
                num_before = stream.num_pieces
                try:
                    going_on = stream.take(event.data, now)
                except Failed as failed:
                    raise Failed(failed.kind, self._safe(failed.args[0])) from failed
                if not going_on:
                    break
                if stream.num_pieces > num_before:
                    patience.reschedule(asyncio.get_running_loop().time() + self._timeout_s)
        return stream.turn(began)

    def _safe(self, text: str) -> str:
        """What a server said, without the key that it may repeat, on one line."""
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(text.split())


class _Stream:
    """The events of one answer, checked one by one."""

    def __init__(self, num_asked: int) -> None:
        self.num_asked = num_asked
        self.num_pieces = 0
        self.first_s = self.last_s = 0.0
        self.usage: dict[str, Any] | None = None
        self.is_done = False

    def take(self, data: str, now: float) -> bool:
        """Read one event; False after the last one."""
        if data.strip() == "[DONE]":
            self.is_done = True
            return False
        try:
            event = json.loads(data)
        except ValueError as error:
            raise Failed("garbage", repr(data[:80])) from error
        if not isinstance(event, dict):
            raise Failed("garbage", repr(data[:80]))
        if event.get("error"):
            raise Failed("error in the stream", json.dumps(event["error"])[:300])
        if isinstance(event.get("usage"), dict):
            self.usage = event["usage"]
        choices = event.get("choices")
        if not isinstance(choices, list):
            raise Failed("garbage", f"an event without choices: {data[:80]!r}")
        if any(_text(choice) for choice in choices):
            self.first_s = self.first_s or now
            self.last_s = now
            self.num_pieces += 1
        if self.num_pieces > PIECES_PER_TOKEN * self.num_asked + 1:
            # A server that knows no max_tokens may never end.
            raise Failed("too long", f"{self.num_pieces} pieces for {self.num_asked} tokens")
        return True

    def turn(self, began: float) -> TimedRequest:
        """The times and the server's count, when both can be believed."""
        if not self.is_done:
            raise Failed("closed early", f"after {self.num_pieces} pieces of text")
        if not self.num_pieces:
            raise Failed("no text", "the stream was empty")
        counts = [(self.usage or {}).get(f"{part}_tokens") for part in ("completion", "prompt")]
        num_output, num_prompt = counts
        if not isinstance(num_output, int) or not isinstance(num_prompt, int):
            raise Failed("no usage", f"usage is {json.dumps(self.usage)}")
        if num_output > self.num_asked:
            raise Failed("too long", f"{num_output} tokens where {self.num_asked} were asked for")
        # A tokenizer may hold back bytes and give them in a last piece of their own.
        if self.num_pieces > num_output + 1:
            raise Failed("miscounted", f"{self.num_pieces} pieces of {num_output} tokens")
        return TimedRequest(
            ttft_ms=1e3 * (self.first_s - began),
            latency_ms=1e3 * (self.last_s - began),
            num_output_tokens=num_output,
            num_prompt_tokens=num_prompt,
        )


def _text(choice: Any) -> bool:
    """Whether a choice of an event brings text: of a completion, a chat, or its reasoning."""
    if not isinstance(choice, dict):
        raise Failed("garbage", "a choice that is no object")
    delta = choice.get("delta") or {}
    if not isinstance(delta, dict):
        raise Failed("garbage", "a delta that is no object")
    parts = (choice.get("text"), delta.get("content"), delta.get("reasoning_content"))
    return any(isinstance(part, str) and part for part in parts)
