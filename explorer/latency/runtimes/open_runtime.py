"""Which runtime a name and a spec mean."""

from pathlib import Path

import torch

from explorer.latency.runtimes.in_torch import Compiled, Eager
from explorer.latency.runtimes.protocol import Runtime
from explorer.models.loading import Loaded, load
from explorer.specs import Bits, LatencySpec

LLAMA_CPP = "llamacpp:"


def by_name(
    name: str, spec: LatencySpec, *, device: torch.device, dtype: str, bits: Bits | None = None
) -> Runtime:
    """Load a model into its runtime: llamacpp:FILE, or any name that `models.loading` knows."""
    if name.startswith(LLAMA_CPP):
        from explorer.latency.runtimes.llamacpp import LlamaCpp

        return LlamaCpp(Path(name.removeprefix(LLAMA_CPP)))
    return of_loaded(load(name, device=device, dtype=dtype, bits=bits), spec, stored_as=name)


def of_loaded(loaded: Loaded, spec: LatencySpec, *, stored_as: str | None = None) -> Runtime:
    """The runtime in torch that the spec asks for."""
    if spec.runtime == "compiled":
        return Compiled(loaded, stored_as=stored_as)
    return Eager(loaded, stored_as=stored_as)
