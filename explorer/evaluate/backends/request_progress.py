"""Progress of one lm-eval call, reported batch by batch."""

import dataclasses
import time
from collections.abc import Callable

from tqdm import tqdm


@dataclasses.dataclass(frozen=True)
class RequestProgress:
    """How far a call is, in requests and tokens."""

    requests: int
    total_requests: int
    tokens: int
    total_tokens: int
    seconds: float
    known_tokens: int = 0
    """Tokens that an earlier process computed; they took no time here."""

    @property
    def seconds_per_token(self) -> float | None:
        """Pace of the tokens computed by this process; None before the first batch."""
        computed = self.tokens - self.known_tokens
        return self.seconds / computed if computed else None

    @property
    def seconds_left(self) -> float | None:
        """Estimated from the remaining tokens; None before the first batch."""
        pace = self.seconds_per_token
        return None if pace is None else pace * (self.total_tokens - self.tokens)


class ProgressCounter:
    """Counts requests and tokens for a callback, or shows them as lm-eval's progress bar."""

    def __init__(
        self,
        num_requests: int,
        num_tokens: int,
        on_progress: Callable[[RequestProgress], None] | None,
        *,
        bar: str | None = None,
    ) -> None:
        """Start at zero.

        Args:
            num_requests: Requests of the call.
            num_tokens: Tokens that will be read or written for them.
            on_progress: Called after each batch.
            bar: Title of the progress bar; None shows no bar.
        """
        self._on_progress = on_progress
        self._progress = RequestProgress(0, num_requests, 0, num_tokens, 0.0)
        self._began = time.monotonic()
        self._bar = tqdm(total=num_tokens, unit="tok", desc=bar, disable=bar is None)

    def add(self, num_requests: int, num_tokens: int, *, known: bool = False) -> None:
        """Count a batch; `known` if an earlier process computed it."""
        self._progress = dataclasses.replace(
            self._progress,
            requests=self._progress.requests + num_requests,
            tokens=self._progress.tokens + num_tokens,
            seconds=time.monotonic() - self._began,
            known_tokens=self._progress.known_tokens + num_tokens * known,
        )
        self._bar.update(num_tokens)
        if self._on_progress:
            self._on_progress(self._progress)

    def close(self) -> None:
        """End the call."""
        self._bar.close()
