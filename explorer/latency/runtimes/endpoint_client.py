"""The HTTP client for OpenAI-compatible and Anthropic endpoints: keys, failures, retries.

`EndpointClient.complete` sends a request until it is answered: a server that is busy (429, 5xx),
silent, gone or that sends garbage is asked again, each time later, and as late as its Retry-After
says. A field that it refuses is renamed or left out (`endpoint_fields`). Requests that are timed
are never repeated (`endpoint_stream`).
"""

import asyncio
import contextlib
import os
import random
import ssl
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from explorer.errors import BadInput
from explorer.latency.runtimes import endpoint_errors
from explorer.latency.runtimes.endpoint_errors import ServerMessage
from explorer.latency.runtimes.endpoint_fields import RequestFields, fields_of
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
    "closed early": "the stream ended before the answer did",
    "no text": "the answer had no text",
    "hidden reasoning": "the server counted tokens of reasoning that it did not send",
    "too long": "the answer went on past the requested number of tokens",
    "no usage": "the server did not count its tokens",
    "miscounted": "more pieces of text came than tokens were counted",
}
"""Kinds of failure, and what each means."""
RETRY_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""HTTP statuses after which the same request may succeed later."""
PROMPT_STATUSES = frozenset({200, 400, 403, 422, 500})
"""Statuses with which servers refuse a prompt that is too long or not allowed."""
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0


class RequestFailed(Exception):
    """A request that counts as failed; never a bug of ours."""

    def __init__(self, kind: str, detail: str) -> None:
        """One of FAILURES, and what was seen."""
        assert kind in FAILURES, kind
        super().__init__(f"{kind} ({FAILURES[kind]}): {detail}")
        self.kind, self.detail = kind, detail


class RequestRefused(RequestFailed):
    """The server answered with an error status, or with an answer that its filter emptied."""

    def __init__(self, status: int, message: ServerMessage, wait_s: float | None = None) -> None:
        """The status, the server's message, and the seconds of its Retry-After."""
        super().__init__("refused", f"HTTP {status}: {message.text}")
        self.status, self.message, self.wait_s = status, message, wait_s

    @property
    def is_about_prompt(self) -> bool:
        """Whether this prompt is refused for good, and another one may be answered."""
        about_prompt = self.status in PROMPT_STATUSES and self.message.is_about_prompt
        return about_prompt or self.status == 413

    @property
    def may_pass_later(self) -> bool:
        """Whether the same request may be answered if it is sent again."""
        return (
            self.status in RETRY_STATUSES
            and not self.is_about_prompt
            and not self.message.is_about_quota
        )


class EndpointClient:
    """Sends requests to one model of one endpoint; an asynchronous context manager."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float, key: str | None) -> None:
        """Prepare the connection pool; nothing is sent yet.

        Args:
            endpoint: The address and the model.
            timeout_s: How long a server may be silent.
            key: API key; sent with every request and removed from every error message.

        Raises:
            BadInput: The environment names a proxy or certificates that cannot be used.
        """
        self.endpoint = endpoint
        self.fields: RequestFields = fields_of(endpoint)
        """What the endpoint refused so far; shared by all clients of it."""
        self._key, self._timeout_s = key, timeout_s
        self._http = _open_http(endpoint, timeout_s, key)

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
                return read(await self._post_adapted(body))
            except RequestFailed as failed:
                refused = failed if isinstance(failed, RequestRefused) else None
                if attempt == attempts or (refused and not refused.may_pass_later):
                    raise
                retry_after_s = (refused.wait_s if refused else None) or 0.0
            # A random factor spreads the clients out, or the server stays as busy as it was.
            backoff_s = FIRST_WAIT_S * 2 ** (attempt - 1) * random.uniform(1, 1.5)
            await asyncio.sleep(min(LONGEST_WAIT_S, max(backoff_s, retry_after_s)))
        raise AssertionError("attempts is at least 1")

    async def _post_adapted(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request, each time without the fields that the server has just refused."""
        while True:
            sent = self.fields.adapted(body)
            try:
                return await self._post(sent)
            except RequestRefused as refused:
                if not self.fields.learn(sent, refused.status, refused.message):
                    raise

    async def _post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        with self._named_failures():
            response = await self._http.post(self.endpoint.url, json=dict(body))
        if response.status_code != 200:
            raise self._refused(response, response.text)
        text = self._redacted(response.text)
        try:
            reply = response.json()
        except ValueError as error:
            seen = endpoint_errors.read_message(text).text
            raise RequestFailed("garbage", repr(seen[:80])) from error
        if not isinstance(reply, dict):
            raise RequestFailed("garbage", repr(text[:80]))
        if reply.get("error"):
            raise RequestFailed("garbage", repr(endpoint_errors.read_message(text).text))
        return reply

    def _refused(self, response: httpx2.Response, body: str) -> RequestRefused:
        """The refusal in a response, with the server's own message."""
        message = endpoint_errors.read_message(self._redacted(body))
        target = response.headers.get("Location")
        if response.is_redirect and target:
            message = ServerMessage(f"a redirect to {self._redacted(target)}")
        wait_s = _retry_after_s(response.headers.get("Retry-After"))
        return RequestRefused(response.status_code, message, wait_s)

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
    num_prompt = whole_count(counts, "prompt_tokens", "input_tokens")
    num_output = whole_count(counts, "completion_tokens", "output_tokens")
    if num_prompt is None or num_output is None:
        return Usage(num_replies=1, num_uncounted=1)
    details = counts.get("completion_tokens_details")
    num_reasoning = whole_count(details if isinstance(details, dict) else {}, "reasoning_tokens")
    return Usage(
        num_replies=1,
        prompt_tokens=num_prompt,
        output_tokens=num_output,
        reasoning_tokens=num_reasoning,
    )


def explain_unanswered(endpoint: Endpoint, failed: RequestFailed) -> str:
    """The message for a request that stayed unanswered after all attempts, and what to do."""
    return (
        f"The endpoint {endpoint.url} left a request unanswered: {failed}. "
        f"{advice(endpoint, failed)} The answers received so far are kept; run again to continue "
        "from there."
    )


def advice(endpoint: Endpoint, failed: RequestFailed) -> str:
    """What to do about a failed request, in a sentence."""
    if isinstance(failed, RequestRefused):
        return endpoint_errors.advice(endpoint, failed.status, failed.message)
    seen = str(failed)
    if "CERTIFICATE_VERIFY_FAILED" in seen:
        return "If its certificate is your own, set SSL_CERT_FILE to the PEM file that signed it."
    if "WRONG_VERSION_NUMBER" in seen or "record layer failure" in seen:
        return "The server speaks plain HTTP there: write http:// instead of https://."
    if failed.kind == "unreachable" and not endpoint.is_local and _has_proxy(endpoint):
        return "Requests go through the proxy in the environment: check it, or set NO_PROXY."
    return {
        "unreachable": "Is the server running, and is the address right?",
        "stalled": "Raise timeout_s, or lower the number of concurrent requests.",
        "not a stream": "It has to support stream: true. Is the address that of an API?",
        "garbage": "Is the address that of an API? It usually ends in /v1.",
        "no usage": "It has to support stream_options: {include_usage: true}.",
        "hidden reasoning": (
            "Neither the first token nor the time per token can be seen: switch reasoning off or "
            "let the server stream it, or write latency: null."
        ),
    }.get(failed.kind, "Look at the server's log.")


def _has_proxy(endpoint: Endpoint) -> bool:
    return bool(urllib.request.getproxies()) and not urllib.request.proxy_bypass(endpoint.host)


def _open_http(endpoint: Endpoint, timeout_s: float, key: str | None) -> httpx2.AsyncClient:
    """The connection pool, with the proxy and the certificates of the environment.

    Raises:
        BadInput: These cannot be used.
    """
    certificates = os.environ.get("SSL_CERT_FILE")
    try:
        context = ssl.create_default_context(cafile=certificates) if certificates else True
    except (OSError, ssl.SSLError) as error:
        raise BadInput(
            f"SSL_CERT_FILE names {certificates}, which holds no certificates ({error}). Name a "
            "PEM file, or unset it."
        ) from error
    try:
        return httpx2.AsyncClient(
            headers=auth_headers(endpoint, key),
            timeout=httpx2.Timeout(timeout_s),
            limits=httpx2.Limits(max_connections=None),
            verify=context,
            # A redirect would take the key elsewhere; a proxy does not know this machine's ports.
            follow_redirects=False,
            trust_env=not endpoint.is_local,
        )
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        raise BadInput(
            f"The proxy in the environment (HTTP_PROXY, HTTPS_PROXY or ALL_PROXY) cannot be used "
            f"for {endpoint.host}: {error} Correct it, or list the host in NO_PROXY."
        ) from error


def _retry_after_s(header: str | None) -> float | None:
    """Seconds of a Retry-After header; None for a date, which our own backoff covers."""
    try:
        return float(header) if header is not None else None
    except ValueError:
        return None


def whole_count(counts: dict[str, Any], *names: str) -> int | None:
    """The first of these names that holds a number of tokens; 4.0 is one, true is none."""
    values = (counts.get(name) for name in names)
    return next(
        (
            int(value)
            for value in values
            if isinstance(value, int | float)
            and not isinstance(value, bool)
            and value >= 0
            and value == value // 1
        ),
        None,
    )


def auth_headers(endpoint: Endpoint, key: str | None) -> dict[str, str]:
    """The headers that carry the API key, as this kind of endpoint expects it."""
    if key is None:
        return {}
    if endpoint.is_anthropic:
        return {"x-api-key": key, "anthropic-version": "2023-06-01"}
    return {"Authorization": f"Bearer {key}"}
