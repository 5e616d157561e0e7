"""One timed, streamed request to an endpoint: vLLM, SGLang, llama.cpp, hosted APIs.

The answer comes as server-sent events of OpenAI's interface. The clock is read when a piece of
text arrives. The server counts the tokens (`usage`), and the pieces of text check its count. A
request that goes wrong raises `RequestFailed` with its kind, so it is counted and enters no
average. It is never repeated: a retry would be part of the measured time.

    EXPLORER_ENDPOINT_KEY=... explorer run spec.yaml   # teacher: endpoint:http://...#model
"""

import asyncio
import json
import time
from typing import Any

import httpx2

from explorer.errors import RunFailed
from explorer.latency.runtimes.endpoint_client import (
    EndpointClient,
    RequestFailed,
    RequestRefused,
)
from explorer.models.endpoint import KEY_VARIABLE, Endpoint, default_key
from explorer.records import TimedRequest

FIXED_LENGTH = {"ignore_eos": True}
"""The option by which vLLM, SGLang and llama.cpp make an answer as long as requested. It is not
part of OpenAI's interface, so it is left out where a server refuses it."""
PIECES_PER_TOKEN = 2
"""A request ends when it has brought more pieces of text than this for each requested token."""


class StreamingClient(EndpointClient):
    """Times streamed requests to one model of one endpoint."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float) -> None:
        """Read the key from the environment; nothing is sent yet."""
        super().__init__(endpoint, timeout_s=timeout_s, key=default_key())
        self.options: dict[str, Any] = dict(FIXED_LENGTH)
        """Sent with every request, beside the fields of OpenAI's interface."""
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
            return await self._stream(prompt, num_tokens)

    async def negotiate(self, prompt: str, num_tokens: int) -> TimedRequest:
        """Send the first request, and find out whether the server accepts `FIXED_LENGTH`.

        Raises:
            RunFailed: It fails either way, so nothing can be measured.
        """
        for options in (dict(FIXED_LENGTH), {}):
            self.options = options
            try:
                return await self.time_request(prompt, num_tokens)
            except RequestFailed as error:
                failed = error
                if error.kind != "refused":
                    break
        hint = {
            "unreachable": "Is the server running, and is the address right?",
            "refused": f"Check the model's name, and the key in {KEY_VARIABLE}.",
            "no usage": "It has to support stream_options: {include_usage: true}.",
        }.get(failed.kind, "Look at the server's log.")
        raise RunFailed(f"The endpoint {self.endpoint.url} cannot be timed: {failed}. {hint}")

    async def _stream(self, prompt: str, num_tokens: int) -> TimedRequest:
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "max_tokens": num_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.options,
        }
        if self.endpoint.is_chat:
            body["messages"] = [{"role": "user", "content": prompt}]
        else:
            body["prompt"] = prompt
        answer = _StreamedAnswer(num_tokens)
        began = time.perf_counter()
        # httpx's timeout waits for bytes, and keep-alive comments are bytes too; this one waits
        # for text.
        async with (
            asyncio.timeout(self._timeout_s) as deadline,
            self._http.stream("POST", self.endpoint.url, json=body) as response,
        ):
            if response.status_code != 200:
                text = (await response.aread()).decode(errors="replace")[:300]
                raise RequestRefused(response.status_code, self._redacted(text))
            self.server = response.headers.get("server", self.server)
            async for event in httpx2.EventSource(response):
                now = time.perf_counter()
                num_before = answer.num_pieces
                try:
                    is_last = not answer.add_event(event.data, now)
                except RequestFailed as failed:
                    raise RequestFailed(failed.kind, self._redacted(failed.args[0])) from failed
                if is_last:
                    break
                if answer.num_pieces > num_before:
                    deadline.reschedule(asyncio.get_running_loop().time() + self._timeout_s)
        return answer.turn(began)


class _StreamedAnswer:
    """The events of one answer, checked as they arrive."""

    def __init__(self, num_requested: int) -> None:
        self.num_requested = num_requested
        self.num_pieces = 0
        self.first_s = self.last_s = 0.0
        self.usage: dict[str, Any] | None = None
        self.is_done = False

    def add_event(self, data: str, now: float) -> bool:
        """Read one event; False after the last one."""
        if data.strip() == "[DONE]":
            self.is_done = True
            return False
        try:
            event = json.loads(data)
        except ValueError as error:
            raise RequestFailed("garbage", repr(data[:80])) from error
        if not isinstance(event, dict):
            raise RequestFailed("garbage", repr(data[:80]))
        if event.get("error"):
            raise RequestFailed("error in the stream", json.dumps(event["error"])[:300])
        if isinstance(event.get("usage"), dict):
            self.usage = event["usage"]
        choices = event.get("choices")
        if not isinstance(choices, list):
            raise RequestFailed("garbage", f"an event without choices: {data[:80]!r}")
        if any(_has_text(choice) for choice in choices):
            self.first_s = self.first_s or now
            self.last_s = now
            self.num_pieces += 1
        if self.num_pieces > PIECES_PER_TOKEN * self.num_requested + 1:
            # A server that ignores max_tokens may never end.
            raise RequestFailed(
                "too long", f"{self.num_pieces} pieces for {self.num_requested} tokens"
            )
        return True

    def turn(self, began: float) -> TimedRequest:
        """The times and the server's token counts, if both are credible."""
        if not self.is_done:
            raise RequestFailed("closed early", f"after {self.num_pieces} pieces of text")
        if not self.num_pieces:
            raise RequestFailed("no text", "the stream was empty")
        usage = self.usage or {}
        num_output, num_prompt = usage.get("completion_tokens"), usage.get("prompt_tokens")
        if not isinstance(num_output, int) or not isinstance(num_prompt, int):
            raise RequestFailed("no usage", f"usage is {json.dumps(self.usage)}")
        if num_output > self.num_requested:
            raise RequestFailed("too long", f"{num_output} tokens, {self.num_requested} requested")
        # A tokenizer may hold back bytes and send them in a last piece of their own.
        if self.num_pieces > num_output + 1:
            raise RequestFailed("miscounted", f"{self.num_pieces} pieces of {num_output} tokens")
        return TimedRequest(
            ttft_ms=1e3 * (self.first_s - began),
            latency_ms=1e3 * (self.last_s - began),
            num_output_tokens=num_output,
            num_prompt_tokens=num_prompt,
        )


def _has_text(choice: Any) -> bool:
    """Whether an event's choice brings text of a completion, a chat or a chat's reasoning."""
    if not isinstance(choice, dict):
        raise RequestFailed("garbage", "a choice is not an object")
    delta = choice.get("delta") or {}
    if not isinstance(delta, dict):
        raise RequestFailed("garbage", "a delta is not an object")
    texts = (choice.get("text"), delta.get("content"), delta.get("reasoning_content"))
    return any(isinstance(text, str) and text for text in texts)
