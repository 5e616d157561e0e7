"""What answers lm-eval's requests in an evaluation, and how it is opened."""

import dataclasses
from collections.abc import Callable

from explorer.evaluate.backends import api_lm, prefix_lm
from explorer.evaluate.backends.api_lm import ApiLM
from explorer.evaluate.backends.llama_lm import LlamaLM
from explorer.evaluate.backends.prefix_lm import PrefixLM
from explorer.evaluate.backends.request_progress import RequestProgress
from explorer.models.loading import Loaded
from explorer.records import Usage
from explorer.specs import CapabilitySpec

EvaluatedLM = PrefixLM | LlamaLM | ApiLM
"""The models of lm-eval that answer its requests."""


@dataclasses.dataclass(frozen=True)
class Backend:
    """Answers lm-eval's requests; opened only if a task is not finished yet."""

    name: str
    """The name in lm-eval's results files."""
    version: int
    """Bump it to invalidate cached answers."""
    open: Callable[[Callable[[RequestProgress], None]], EvaluatedLM]
    """Load the model; takes the callback for its progress."""
    output_types: frozenset[str] = api_lm.ALL_OUTPUT_TYPES
    """lm-eval's output types that it supports."""
    why_not: str = ""
    """Why it does not support the others, and what to do."""
    check_usage: Callable[[Usage], None] | None = None
    """Called with the most tokens an API can count, before the first request; may raise."""
    split: bool = False
    """Whether every rank of a launch evaluates its share of the batches; otherwise rank 0 does."""


def torch_backend(loaded: Loaded, spec: CapabilitySpec) -> Backend:
    """A model in torch, read as trees; the ranks of a launch share the batches."""

    def open_lm(on_progress: Callable[[RequestProgress], None]) -> PrefixLM:
        return PrefixLM(
            loaded.model,
            tokenizer=loaded.tokenizer,
            batch_size=spec.batch_size,
            on_progress=on_progress,
            split=True,
        )

    return Backend(prefix_lm.NAME, prefix_lm.VERSION, open_lm, split=True)
