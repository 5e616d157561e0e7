"""How far a call of lm-eval's is, told batch by batch."""

import dataclasses
import time
from collections.abc import Callable

from tqdm import tqdm


@dataclasses.dataclass(frozen=True)
class Work:
    """How far a call is."""

    requests: int
    total_requests: int
    tokens: int
    total_tokens: int
    seconds: float

    @property
    def seconds_left(self) -> float | None:
        """By the tokens that are left, since requests differ in length; None at the beginning."""
        if not self.tokens:
            return None
        return self.seconds * (self.total_tokens - self.tokens) / self.tokens


class Count:
    """Requests and tokens done, told to who asked for it, or shown as lm-eval's bar."""

    def __init__(
        self,
        num_requests: int,
        num_tokens: int,
        tell: Callable[[Work], None] | None,
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
        self._work = Work(0, num_requests, 0, num_tokens, 0.0)
        self._began = time.monotonic()
        self._bar = tqdm(total=num_tokens, unit="tok", desc=bar, disable=bar is None)

    def add(self, num_requests: int, num_tokens: int) -> None:
        """A batch is done."""
        self._work = dataclasses.replace(
            self._work,
            requests=self._work.requests + num_requests,
            tokens=self._work.tokens + num_tokens,
            seconds=time.monotonic() - self._began,
        )
        self._bar.update(num_tokens)
        if self._tell:
            self._tell(self._work)

    def close(self) -> None:
        """The call is done."""
        self._bar.close()
