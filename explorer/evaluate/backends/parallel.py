"""The other processes of a launch, each with the same model on a device of its own.

A call's batches are planned once, by the first process, and never depend on how many processes
there are; each round hands one batch to every process. So an answer is the same to the last bit
whoever computed it, as long as the devices are of the same kind.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch

from explorer.distill.distributed import Begin, Crew, crew
from explorer.errors import BadInput
from explorer.evaluate.backends.prefix_lm import PrefixLM
from explorer.models import loading
from explorer.models.facts import fingerprint
from explorer.models.loading import Loaded
from explorer.specs import Bits


@dataclasses.dataclass(frozen=True)
class _Same:
    """What makes another process's model that of the first one."""

    name: str
    dtype: str
    bits: Bits | None
    trust_remote_code: bool
    fingerprint: str
    batch_size: int
    threads: int

    def made(self) -> PrefixLM:
        torch.set_num_threads(self.threads)
        loaded = loading.load(
            self.name,
            device=crew().device,
            dtype=self.dtype,
            bits=self.bits,
            trust_remote_code=self.trust_remote_code,
        )
        if fingerprint(loaded) != self.fingerprint:
            raise BadInput(
                f"Process {crew().rank} has other weights under the name {self.name} than the "
                "first. Give all machines the same files."
            )
        return PrefixLM(loaded.model, tokenizer=loaded.tokenizer, batch_size=self.batch_size)


def share(loaded: Loaded, weights: str, batch_size: int) -> Crew | None:
    """Tell the other processes of a launch which model will be asked.

    Args:
        loaded: The model, under a name that they can load it by.
        weights: Its fingerprint.
        batch_size: As in `PrefixLM`.

    Returns:
        Who computes; None where this process is alone.
    """
    if crew().size == 1:
        return None
    same = _Same(
        loaded.name,
        str(loaded.model.dtype).removeprefix("torch."),
        loaded.bits,
        loaded.trust_remote_code,
        weights,
        batch_size,
        torch.get_num_threads(),
    )
    crew().order(Begin(helper, same))
    return crew()


def helper(same: _Same) -> Callable[[tuple[str, list[Any]]], None]:
    """What a process that only helps does in each round: its own part, if there is one for it."""
    # Loaded in the first round, whose result also says what went wrong.
    lm = functools.cache(same.made)

    def do(order: tuple[str, list[Any]]) -> None:
        attr, works = order
        rank = crew().rank
        crew().each(lambda: lm().compute(attr, works[rank]) if rank < len(works) else [])

    return do
