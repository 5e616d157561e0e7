"""The protocol of a runtime on this machine. It computes; the caller reads the clock.

A runtime loads its model when it is created. It answers with a stream of steps, so the caller
can read the clock at each step and time every runtime in the same way.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

import torch

from explorer.records import RuntimeFacts

# Shape letters: B sequences answered together, T prompt tokens.


class PeakMemory:
    """The peak memory of a model within a `with` block; None where it cannot be measured.

    This class measures nothing: it is for CPUs, where a process cannot tell its models apart.
    """

    num_bytes: int | None = None

    def __enter__(self) -> Self:
        """Start measuring."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop measuring; subclasses set `num_bytes`."""


class Runtime(Protocol):
    """A loaded model that answers prompts of token ids by greedy decoding."""

    name: str
    """The model's name in messages."""
    facts: RuntimeFacts
    device: torch.device
    """Where prompts have to be placed."""
    vocab_size: int
    context_tokens: int | None
    """Maximum tokens of one sequence; None if the model states no limit."""

    def prepare(self, num_sequences: int, num_tokens: int) -> None:
        """Allocate memory for sequences of at most `num_tokens` tokens each; not timed."""

    def stream(self, prompt_BT: torch.Tensor, num_tokens: int) -> Iterator[list[int]]:
        """Answer in exactly `num_tokens` steps, even past end-of-text.

        Each step yields one token per sequence, which reaches the host before the next one is
        computed, as in a server that streams. The first step includes the prefill.
        """

    def watch_memory(self) -> AbstractContextManager[PeakMemory]:
        """Measure the peak of the device's allocator; None on a CPU (see `peak_memory`)."""

    def close(self) -> None:
        """Free the memory; the runtime cannot be used afterwards."""
