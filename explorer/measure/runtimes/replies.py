"""Whole answers of an endpoint, asked again where that may help.

Times do not matter here, so nothing is streamed. A server that is busy (429, 5xx), silent, gone
or talks nonsense is asked again, later each time and as late as it says itself.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx2

from explorer.measure.runtimes.endpoint import Client, Failed
from explorer.models.endpoint import Endpoint

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

    def __init__(
        self, endpoint: Endpoint, *, timeout_s: float, key: str | None, headers: Mapping[str, str]
    ) -> None:
        """Nothing is sent yet.

        Args:
            endpoint: Where, and which model.
            timeout_s: For which a server may be silent.
            key: Hidden in whatever the server says.
            headers: Of every request, the key among them.
        """
        super().__init__(endpoint, timeout_s=timeout_s)
        self._key = key
        self._http.headers.pop("Authorization", None)
        self._http.headers.update(headers)

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
