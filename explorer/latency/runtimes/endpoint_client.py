"""The HTTP client for OpenAI-compatible and Anthropic endpoints: keys, failures, retries.

`EndpointClient.complete` sends a request until it is answered: a server that is busy (429, 5xx),
silent, gone or that sends garbage is asked again, each time later, and as late as its Retry-After
says. Requests that are timed are never repeated (`endpoint_stream`).
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from explorer.models.endpoint import Endpoint
from explorer.records import Usage

Answer = TypeVar("Answer")

FAILURES = {
    "unreachable": "the connection failed",
    "refused": "the server answered with an error status",
    "stalled": "no text came for timeout_s",
    "not a stream": "the answer was not a stream of server-sent events",
    "garbage": "the answer was not JSON of the expected form",
    "error in the stream": "the server reported an error after it had begun",
    "closed early": "the stream ended before [DONE]",
    "no text": "the answer had no text",
    "too long": "the answer went on past the requested number of tokens",
    "no usage": "the server did not count its tokens",
    "miscounted": "more pieces of text came than tokens were counted",
}
"""Kinds of failure, and what each means."""
RETRY_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""HTTP statuses after which the same request may succeed later."""
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0


class RequestFailed(Exception):
    """A request that counts as failed; never a bug of ours."""

    def __init__(self, kind: str, detail: str) -> None:
        """One of FAILURES, and what was seen."""
        assert kind in FAILURES, kind
        super().__init__(f"{kind} ({FAILURES[kind]}): {detail}")
        self.kind = kind


class RequestRefused(RequestFailed):
    """The server answered with an error status."""

    def __init__(self, status: int, detail: str, wait_s: float | None = None) -> None:
        """The status, the server's message, and the seconds of its Retry-After."""
        super().__init__("refused", f"HTTP {status}: {detail}")
        self.status, self.wait_s = status, wait_s


class EndpointClient:
    """Sends requests to one model of one endpoint; an asynchronous context manager."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float, key: str | None) -> None:
        """Prepare the connection pool; nothing is sent yet.

        Args:
            endpoint: The address and the model.
            timeout_s: How long a server may be silent.
            key: API key; sent with every request and removed from every error message.
        """
        self.endpoint = endpoint
        self._key, self._timeout_s = key, timeout_s
        self._http = httpx2.AsyncClient(
            headers=auth_headers(endpoint, key),
            timeout=httpx2.Timeout(timeout_s),
            limits=httpx2.Limits(max_connections=None),
            # A redirect would take the key elsewhere; a proxy does not know this machine's ports.
            follow_redirects=False,
            trust_env=not endpoint.is_local,
        )

    async def __aenter__(self) -> Self:
        """Open the connection pool."""
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

    async def complete(
        self, body: Mapping[str, Any], read: Callable[[dict[str, Any]], Answer], attempts: int
    ) -> Answer:
        """Send a request until its reply can be read.

        Args:
            body: The request.
            read: Makes the answer from a reply; may raise `RequestFailed` of the kind garbage.
            attempts: How often to try, at least 1.

        Raises:
            RequestFailed: Why the last attempt failed.
        """
        for attempt in range(1, attempts + 1):
            try:
                return read(await self._post(body))
            except RequestFailed as failed:
                refused = failed if isinstance(failed, RequestRefused) else None
                if attempt == attempts or (refused and refused.status not in RETRY_STATUSES):
                    raise
                retry_after_s = (refused.wait_s if refused else None) or 0.0
            # A random factor spreads the clients out, or the server stays as busy as it was.
            backoff_s = FIRST_WAIT_S * 2 ** (attempt - 1) * random.uniform(1, 1.5)
            await asyncio.sleep(min(LONGEST_WAIT_S, max(backoff_s, retry_after_s)))
        raise AssertionError("attempts is at least 1")

    async def _post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        with self._named_failures():
            response = await self._http.post(self.endpoint.url, json=dict(body))
        text = self._redacted(response.text[:300])
        if response.status_code != 200:
            wait_s = _retry_after_s(response.headers.get("Retry-After"))
            raise RequestRefused(response.status_code, text, wait_s)
        try:
            reply = response.json()
        except ValueError as error:
            raise RequestFailed("garbage", repr(text[:80])) from error
        if not isinstance(reply, dict) or reply.get("error"):
            raise RequestFailed("garbage", repr(text[:80]))
        return reply

    @contextlib.contextmanager
    def _named_failures(self) -> Iterator[None]:
        """Turn whatever the HTTP library raises into `RequestFailed` with its kind."""
        try:
            yield
        except (httpx2.TimeoutException, TimeoutError) as error:
            raise RequestFailed("stalled", f"after {self._timeout_s:g} s") from error
        except httpx2.SSEError as error:
            raise RequestFailed("not a stream", self._redacted(str(error))) from error
        except (httpx2.RemoteProtocolError, httpx2.ReadError) as error:
            detail = self._redacted(str(error) or "connection lost")
            raise RequestFailed("closed early", detail) from error
        except UnicodeDecodeError as error:
            raise RequestFailed("garbage", "the stream is not UTF-8") from error
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            detail = self._redacted(str(error)) or type(error).__name__
            raise RequestFailed("unreachable", f"{self.endpoint.host}: {detail}") from error

    def _redacted(self, text: str) -> str:
        """The text on one line and without the key, which a server may repeat."""
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(text.split())


def reply_usage(reply: dict[str, Any]) -> Usage:
    """The tokens that a reply reports, in OpenAI's or Anthropic's names."""
    reported = reply.get("usage")
    counts = reported if isinstance(reported, dict) else {}
    num_prompt = _count(counts, "prompt_tokens", "input_tokens")
    num_output = _count(counts, "completion_tokens", "output_tokens")
    if num_prompt is None or num_output is None:
        return Usage(num_replies=1, num_uncounted=1)
    details = counts.get("completion_tokens_details")
    num_reasoning = _count(details if isinstance(details, dict) else {}, "reasoning_tokens")
    return Usage(
        num_replies=1,
        prompt_tokens=num_prompt,
        output_tokens=num_output,
        reasoning_tokens=num_reasoning,
    )


def explain_unanswered(endpoint: Endpoint, failed: RequestFailed) -> str:
    """The message for a request that stayed unanswered after all attempts, and what to do."""
    hint = {
        "unreachable": "Is the server running, and is the address right?",
        "refused": "Check the model's name, its limits and the API key.",
        "stalled": "Raise capability.api.timeout_s, or lower capability.api.num_concurrent.",
    }.get(failed.kind, "Look at the server's log.")
    return (
        f"The endpoint {endpoint.url} left a request unanswered: {failed}. {hint} The answers "
        "received so far are kept; run again to continue from there."
    )


def _retry_after_s(header: str | None) -> float | None:
    """Seconds of a Retry-After header; None for a date, which our own backoff covers."""
    try:
        return float(header) if header is not None else None
    except ValueError:
        return None


def _count(counts: dict[str, Any], *names: str) -> int | None:
    """The first of these names that holds a number of tokens."""
    values = (counts.get(name) for name in names)
    return next((value for value in values if isinstance(value, int) and value >= 0), None)


def auth_headers(endpoint: Endpoint, key: str | None) -> dict[str, str]:
    """The headers that carry the API key, as this kind of endpoint expects it."""
    if key is None:
        return {}
    if endpoint.is_anthropic:
        return {"x-api-key": key, "anthropic-version": "2023-06-01"}
    return {"Authorization": f"Bearer {key}"}
