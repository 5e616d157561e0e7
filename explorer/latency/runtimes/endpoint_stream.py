"""One timed, streamed request to an endpoint: vLLM, SGLang, llama.cpp, hosted APIs.

The answer comes as server-sent events of OpenAI's interface. The clock is read when a piece of
text arrives. The server counts the tokens (`usage`), and the pieces of text check its count. A
request that goes wrong raises `RequestFailed` with its kind, so it is counted and enters no
average. It is never repeated: a retry would be part of the measured time.

    EXPLORER_ENDPOINT_KEY=... explorer run spec.yaml   # teacher: endpoint:http://...#model
"""

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import httpx2

from explorer.errors import RunFailed
from explorer.latency.runtimes import endpoint_client, endpoint_errors
from explorer.latency.runtimes.endpoint_client import (
    EndpointClient,
    RequestFailed,
    RequestRefused,
)
from explorer.models.endpoint import Endpoint, key_for
from explorer.records import TimedRequest

PIECES_PER_TOKEN = 2
"""A request ends when it has brought more pieces of text than this for each requested token."""
NOT_TEXT = frozenset({"role", "id", "type", "object", "index", "name", "format", "signature"})
"""Texts in a delta that are not part of the answer."""
TEXT_PARTS = frozenset(
    {
        *("content", "text", "parts", "refusal", "tool_calls", "function", "function_call"),
        *("arguments", "reasoning", "reasoning_content", "reasoning_details", "reasoning_text"),
        *("thinking", "thinking_blocks", "thought", "summary"),
    }
)
"""Lists and objects in a delta that hold parts of the answer or of its reasoning."""
MAX_DEPTH = 6
"""Levels of lists and objects in a delta that are searched for text."""
STREAM_TYPE = "text/event-stream"
PLAIN_TYPES = frozenset({"", "text/plain", "application/octet-stream"})
"""Content types that some servers and proxies give to a stream."""


def ignore_eos(num_tokens: int) -> dict[str, Any]:
    """The field by which vLLM, SGLang and llama.cpp make an answer as long as requested.

    It is not part of OpenAI's interface, so it is left out where a server refuses it.
    """
    return {"ignore_eos": True}


class StreamingClient(EndpointClient):
    """Times streamed requests to one model of one endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout_s: float,
        key_variable: str | None = None,
        sends_key: bool = True,
        fixed_length: Callable[[int], dict[str, Any]] = ignore_eos,
    ) -> None:
        """Read the key from the environment, unless it sends none; nothing is sent yet.

        Args:
            endpoint: The address and the model.
            timeout_s: How long a server may be silent.
            key_variable: The environment variable with the key; None for the host's own.
            sends_key: Whether requests carry a key.
            fixed_length: The fields that make an answer this many tokens long.

        Raises:
            BadInput: The key is missing or unusable, or the proxy or certificates are.
        """
        key = key_for(endpoint, key_variable) if sends_key else None
        super().__init__(endpoint, timeout_s=timeout_s, key=key)
        self._fixed_length = fixed_length
        self.server: str | None = None
        """The `server` header of the last reply."""

    async def time_request(self, prompt: str, num_tokens: int) -> TimedRequest:
        """Send one request and time its answer.

        Returns:
            Times from before the request is sent to the first and to the last piece of text.

        Raises:
            RequestFailed: Whatever went wrong.
        """
        with self._named_failures():
            return await self._stream(self.fields.adapted(self._body(prompt, num_tokens)))

    async def negotiate(self, prompt: str, num_tokens: int) -> TimedRequest:
        """Send the first request, and find out which of its fields the server accepts.

        Raises:
            RunFailed: It fails in any case, so nothing can be measured.
        """
        while True:
            sent = self.fields.adapted(self._body(prompt, num_tokens))
            try:
                with self._named_failures():
                    return await self._stream(sent)
            except RequestRefused as refused:
                failed: RequestFailed = refused
                if self.fields.learn(sent, refused.status, refused.message):
                    continue
            except RequestFailed as error:
                failed = error
            hint = endpoint_client.advice(self.endpoint, failed)
            raise RunFailed(f"The endpoint {self.endpoint.url} cannot be timed: {failed}. {hint}")

    def _body(self, prompt: str, num_tokens: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "max_tokens": num_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._fixed_length(num_tokens),
        }
        if self.endpoint.is_chat:
            body["messages"] = [{"role": "user", "content": prompt}]
        else:
            body["prompt"] = prompt
        return body

    async def _stream(self, body: dict[str, Any]) -> TimedRequest:
        answer = _StreamedAnswer(body.get("max_tokens") or body["max_completion_tokens"])
        began = time.perf_counter()
        # httpx's timeout waits for bytes, and keep-alive comments are bytes too; this one waits
        # for text.
        async with (
            asyncio.timeout(self._timeout_s) as deadline,
            self._http.stream("POST", self.endpoint.url, json=body) as response,
        ):
            if response.status_code != 200:
                raise self._refused(response, (await response.aread()).decode(errors="replace"))
            self.server = response.headers.get("server", self.server)
            if not _is_stream(response):
                text = (await response.aread()).decode(errors="replace")
                message = endpoint_errors.read_message(self._redacted(text))
                raise RequestFailed("not a stream", message.text)
            async for event in httpx2.EventSource(cast(httpx2.Response, _Ended(response))):
                now = time.perf_counter()
                num_before = answer.num_pieces
                try:
                    is_last = not answer.add_event(event, now)
                except RequestFailed as failed:
                    raise RequestFailed(failed.kind, self._redacted(failed.detail)) from failed
                if is_last:
                    break
                if answer.num_pieces > num_before:
                    deadline.reschedule(asyncio.get_running_loop().time() + self._timeout_s)
        return answer.turn(began)


def _is_stream(response: httpx2.Response) -> bool:
    """Whether a response says that it is a stream of events, or at least not what else it is."""
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return content_type == STREAM_TYPE or content_type in PLAIN_TYPES


@dataclasses.dataclass
class _Ended:
    """A response without a byte order mark, and with the empty line that its last event needs."""

    response: httpx2.Response

    @property
    def request(self) -> httpx2.Request:
        return self.response.request

    @property
    def headers(self) -> dict[str, str]:
        return {"content-type": STREAM_TYPE}

    async def aiter_text(self) -> AsyncIterator[str]:
        is_first = True
        async for text in self.response.aiter_text():
            yield text.removeprefix("\ufeff") if is_first else text
            is_first = False
        yield "\n\n"


class _StreamedAnswer:
    """The events of one answer, checked as they arrive."""

    def __init__(self, num_requested: int) -> None:
        self.num_requested = num_requested
        self.num_pieces = 0
        self.first_s = self.last_s = 0.0
        self.usage: dict[str, Any] | None = None
        self.is_done = False
        self.has_reasoning = False

    def add_event(self, event: httpx2.ServerSentEvent, now: float) -> bool:
        """Read one event; False after the last one."""
        data = event.data.strip()
        if data == "[DONE]":
            self.is_done = True
            return False
        if event.event == "error":
            raise RequestFailed("error in the stream", endpoint_errors.read_message(data).text)
        if not data or event.event == "ping":
            return True
        try:
            content = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise RequestFailed("garbage", repr(data[:80])) from error
        if not isinstance(content, dict):
            raise RequestFailed("garbage", repr(data[:80]))
        if content.get("error") or "error" in (content.get("object"), content.get("type")):
            raise RequestFailed("error in the stream", endpoint_errors.message_in(content).text)
        choices = content.get("choices") or []
        if not isinstance(choices, list):
            raise RequestFailed("garbage", f"choices are not a list: {data[:80]!r}")
        for choice in choices:
            self._add_choice(choice, now)
        counts = isinstance(content.get("usage"), dict)
        if counts:
            self.usage = content["usage"]
            # A count beside text may be that of the answer so far, and one before it of the prompt.
            self.is_done = self.is_done or (not choices and self.num_pieces > 0)
        if self.num_pieces > PIECES_PER_TOKEN * self.num_requested + 1:
            # A server that ignores max_tokens may never end.
            raise RequestFailed(
                "too long", f"{self.num_pieces} pieces for {self.num_requested} tokens"
            )
        # Servers without [DONE] may leave the connection open.
        return not (self.is_done and counts)

    def _add_choice(self, choice: Any, now: float) -> None:
        """Count the text of an event's choice: of a completion, a chat or its reasoning."""
        if not isinstance(choice, dict):
            raise RequestFailed("garbage", "a choice is not an object")
        delta = choice.get("delta") or choice.get("message") or {}
        if not isinstance(delta, dict):
            raise RequestFailed("garbage", "a delta is not an object")
        if choice.get("finish_reason"):
            self.is_done = True
        if _has_text({"text": choice.get("text"), **delta}):
            self.first_s = self.first_s or now
            self.last_s = now
            self.num_pieces += 1
        others = {name: part for name, part in delta.items() if name not in ("content", "refusal")}
        self.has_reasoning = self.has_reasoning or _has_text(others) or _has_thoughts(delta)

    def turn(self, began: float) -> TimedRequest:
        """The times and the server's token counts, if both are credible."""
        usage = self.usage or {}
        if not self.is_done:
            raise RequestFailed("closed early", f"after {self.num_pieces} pieces of text")
        num_output, num_prompt = (
            output_tokens(usage),
            endpoint_client.whole_count(usage, "prompt_tokens"),
        )
        num_hidden = _reasoning_tokens(usage)
        # Reasoning may also come inside the text: then there are more pieces than other tokens.
        num_shown = (num_output or 0) - num_hidden
        if num_hidden and not self.has_reasoning and self.num_pieces <= num_shown + 1:
            raise RequestFailed("hidden reasoning", f"{num_hidden} of {num_output} tokens")
        if not self.num_pieces:
            raise RequestFailed("no text", "the stream was empty")
        if num_output is None or num_prompt is None:
            raise RequestFailed("no usage", f"usage is {json.dumps(self.usage)}")
        if num_output > self.num_requested:
            raise RequestFailed("too long", f"{num_output} tokens, {self.num_requested} requested")
        # A tokenizer may hold back bytes and send them in a last piece of their own.
        if self.num_pieces > num_output + 1:
            raise RequestFailed("miscounted", f"{self.num_pieces} pieces of {num_output} tokens")
        if self.num_pieces == 1 and num_output > 1:
            # The only time is that of the last token.
            raise RequestFailed("not a stream", f"{num_output} tokens came in one piece")
        return TimedRequest(
            ttft_ms=1e3 * (self.first_s - began),
            latency_ms=1e3 * (self.last_s - began),
            num_output_tokens=num_output,
            num_prompt_tokens=num_prompt,
        )


def output_tokens(usage: dict[str, Any]) -> int | None:
    """The tokens of an answer, reasoning included; None if the server does not count them.

    Some servers count reasoning beside the answer: then only the total includes both.
    """
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    num_prompt, num_output, total = (endpoint_client.whole_count(usage, name) for name in names)
    num_reasoning = _reasoning_tokens(usage)
    if num_prompt is None or num_output is None or total is None:
        return num_output
    return num_output + num_reasoning * (total == num_prompt + num_output + num_reasoning)


def _reasoning_tokens(usage: dict[str, Any]) -> int:
    details = usage.get("completion_tokens_details")
    counts = details if isinstance(details, dict) else {}
    return endpoint_client.whole_count(counts, "reasoning_tokens") or 0


def _has_text(delta: dict[str, Any]) -> bool:
    """Whether a delta brings text, in any field that is not known to hold something else."""
    return any(
        bool(part) if isinstance(part, str) else name in TEXT_PARTS and _holds_text(part)
        for name, part in delta.items()
        if name not in NOT_TEXT
    )


def _holds_text(part: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether a text, or any part of a list or an object, is not empty."""
    if isinstance(part, dict):
        part = [value for name, value in part.items() if name in TEXT_PARTS]
    if isinstance(part, list):
        return depth > 0 and any(_holds_text(inner, depth - 1) for inner in part)
    return isinstance(part, str) and bool(part)


def _has_thoughts(delta: dict[str, Any]) -> bool:
    """Whether the content's parts include one of reasoning."""
    parts = delta.get("content")
    return isinstance(parts, list) and any(
        isinstance(part, dict) and part.get("type") not in (None, "text") for part in parts
    )
