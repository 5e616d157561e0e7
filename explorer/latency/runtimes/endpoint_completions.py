"""Whole answers of an endpoint, asked again where that may help.

Times do not matter here, so nothing is streamed. A server that is busy (429, 5xx), silent, gone
or talks nonsense is asked again, later each time and as late as it says itself.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx2

from explorer.latency.runtimes.endpoint import Client, Failed
from explorer.models.endpoint import Endpoint
from explorer.records import Usage

Answer = TypeVar("Answer")
BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may work later."""
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0


class Refused(Failed):
    """The server answered with an error status."""

    def __init__(self, status: int, detail: str, wait_s: float | None) -> None:
        """What it said, and how long it asks to be left alone."""
        super().__init__("refused", f"HTTP {status}: {detail}")
        self.status, self.wait_s = status, wait_s


class Asker(Client):
    """Asks one model of one endpoint for whole answers."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float, key: str | None) -> None:
        """Nothing is sent yet.

        Args:
            endpoint: Where, and which model.
            timeout_s: For which a server may be silent.
            key: Sent with every request, and hidden in whatever the server says.
        """
        super().__init__(endpoint, timeout_s=timeout_s)
        self._key = key
        self._http.headers.pop("Authorization", None)
        self._http.headers.update(headers(endpoint, key))

    async def insist(
        self, body: Mapping[str, Any], read: Callable[[dict[str, Any]], Answer], attempts: int
    ) -> Answer:
        """Ask until an answer can be read.

        Args:
            body: The request.
            read: Makes an answer of a reply; may raise `Failed` with the kind garbage.
            attempts: At most so many.

        Raises:
            Failed: What was wrong with the last one.
        """
        for attempt in range(1, attempts + 1):
            try:
                return read(await self._reply(body))
            except Failed as failed:
                told = failed.wait_s if isinstance(failed, Refused) else None
                if attempt == attempts or (
                    isinstance(failed, Refused) and failed.status not in BUSY
                ):
                    raise
            # Not all at once, or the server is as busy as before.
            grown = FIRST_WAIT_S * 2 ** (attempt - 1) * random.uniform(1, 1.5)
            await asyncio.sleep(min(LONGEST_WAIT_S, max(grown, told or 0.0)))
        raise AssertionError("attempts is at least 1")

    async def _reply(self, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            response = await self._http.post(self.endpoint.url, json=dict(body))
        except httpx2.TimeoutException as error:
            raise Failed("stalled", f"after {self._timeout_s:g} s") from error
        except (httpx2.RemoteProtocolError, httpx2.ReadError) as error:
            raise Failed("closed early", self._safe(str(error) or "connection lost")) from error
        except httpx2.HTTPError as error:
            detail = self._safe(str(error)) or type(error).__name__
            raise Failed("unreachable", f"{self.endpoint.host}: {detail}") from error
        said = self._safe(response.text[:300])
        if response.status_code != 200:
            raise Refused(response.status_code, said, _wait(response.headers.get("Retry-After")))
        try:
            reply = response.json()
        except ValueError as error:
            raise Failed("garbage", repr(said[:80])) from error
        if not isinstance(reply, dict) or reply.get("error"):
            raise Failed("garbage", repr(said[:80]))
        return reply


def _wait(said: str | None) -> float | None:
    """Seconds of a Retry-After; a date, or anything else, is left to our own pace."""
    try:
        return float(said) if said is not None else None
    except ValueError:
        return None


def usage(reply: dict[str, Any]) -> Usage:
    """The tokens that a reply says it cost, as OpenAI or as Anthropic names them."""
    said = reply.get("usage")
    said = said if isinstance(said, dict) else {}
    read = _count(said, "prompt_tokens", "input_tokens")
    wrote = _count(said, "completion_tokens", "output_tokens")
    details = said.get("completion_tokens_details")
    thought = _count(details if isinstance(details, dict) else {}, "reasoning_tokens")
    if read is None or wrote is None:
        return Usage(num_replies=1, num_uncounted=1)
    return Usage(num_replies=1, prompt_tokens=read, output_tokens=wrote, reasoning_tokens=thought)


def _count(said: dict[str, Any], *names: str) -> int | None:
    counts = [said[name] for name in names if isinstance(said.get(name), int) and said[name] >= 0]
    return counts[0] if counts else None


def headers(where: Endpoint, key: str | None) -> dict[str, str]:
    """How the key is sent."""
    if key is None:
        return {}
    if where.speaks_anthropic:
        return {"x-api-key": key, "anthropic-version": "2023-06-01"}
    return {"Authorization": f"Bearer {key}"}


def in_words(where: Endpoint, failed: Failed) -> str:
    """What became of a request that stayed unanswered, and what to do."""
    hint = {
        "unreachable": "Is the server running, and the address right?",
        "refused": "Check the model's name, its limits and the key.",
        "stalled": "Raise capability.api.timeout_s, or ask fewer at once (num_concurrent).",
    }.get(failed.kind, "Look at the server's log.")
    return (
        f"The endpoint {where.url} left a request unanswered: {failed}. {hint} The answers that "
        "came are kept: run again to go on from there."
    )
