"""The protocol of a runtime that computes on this machine: the clock is the caller's.

A runtime is loaded when it is made. It answers with a stream of steps, so whoever times it
reads the clock when a step arrives, and times every runtime in the same way.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

import torch

from explorer.records import RuntimeFacts

# Shape letters: B sequences answered together, T prompt tokens.


class PeakMemory:
    """The most memory that a model took while it was watched; None where nobody can tell.

    This one watches nothing: for devices where a process cannot tell its models apart.
    """

    num_bytes: int | None = None

    def __enter__(self) -> Self:
        """Watch nothing."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing was watched."""


class Runtime(Protocol):
    """A model in memory that answers prompts of token ids greedily."""

    name: str
    """What the model is called in messages."""
    facts: RuntimeFacts
    device: torch.device
    """Where prompts have to be."""
    vocab_size: int
    context_tokens: int | None
    """Tokens of one sequence; None where the model names no limit."""

    def prepare(self, num_sequences: int, num_tokens: int) -> None:
        """Make room for so many sequences of at most so many tokens; not timed."""

    def stream(self, prompt_BT: torch.Tensor, num_tokens: int) -> Iterator[list[int]]:
        """Answer with exactly `num_tokens` steps, end-of-text or not.

        Each step is one token a sequence, on the host before the next one is computed, as in
        a server that streams. The first step is the prompt's pass (prefill).
        """

    def watch_memory(self) -> AbstractContextManager[PeakMemory]:
        """Watch the device's allocator; on a CPU only a process of its own can tell."""

    def close(self) -> None:
        """Free the memory; the runtime is of no use afterwards."""
