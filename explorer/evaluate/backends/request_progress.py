"""How far a call of lm-eval's is, told batch by batch."""

import dataclasses
import time
from collections.abc import Callable

from tqdm import tqdm


@dataclasses.dataclass(frozen=True)
class RequestProgress:
    """How far a call is."""

    requests: int
    total_requests: int
    tokens: int
    total_tokens: int
    seconds: float
    known_tokens: int = 0
    """Of those done, what an earlier process did: they took no time."""

    @property
    def seconds_per_token(self) -> float | None:
        """Requests differ in length, so their number says little; None at the beginning."""
        read = self.tokens - self.known_tokens
        return self.seconds / read if read else None

    @property
    def seconds_left(self) -> float | None:
        """By the tokens that are left; None at the beginning."""
        pace = self.seconds_per_token
        return None if pace is None else pace * (self.total_tokens - self.tokens)


class ProgressCounter:
    """Requests and tokens done, told to who asked for it, or shown as lm-eval's bar."""

    def __init__(
        self,
        num_requests: int,
        num_tokens: int,
        tell: Callable[[RequestProgress], None] | None,
        *,
        bar: str | None = None,
    ) -> None:
        """Nothing is done yet.

        Args:
            num_requests: All that will be answered.
            num_tokens: All that will be read or written for them.
            tell: Told after each batch.
            bar: What the bar is called; None shows none.
        """
        self._tell = tell
        self._work = RequestProgress(0, num_requests, 0, num_tokens, 0.0)
        self._began = time.monotonic()
        self._bar = tqdm(total=num_tokens, unit="tok", desc=bar, disable=bar is None)

    def add(self, num_requests: int, num_tokens: int, *, known: bool = False) -> None:
        """A batch is done, now or by an earlier process."""
        self._work = dataclasses.replace(
            self._work,
            requests=self._work.requests + num_requests,
            tokens=self._work.tokens + num_tokens,
            seconds=time.monotonic() - self._began,
            known_tokens=self._work.known_tokens + num_tokens * known,
        )
        self._bar.update(num_tokens)
        if self._tell:
            self._tell(self._work)

    def close(self) -> None:
        """The call is done."""
        self._bar.close()
