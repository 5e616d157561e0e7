"""The runtime that a model's name and a spec mean."""

from pathlib import Path

import torch

from explorer.latency.runtimes.protocol import Runtime
from explorer.latency.runtimes.pytorch import CompiledRuntime, EagerRuntime
from explorer.models.loading import Loaded, load
from explorer.specs import Bits, LatencySpec

LLAMA_CPP = "llamacpp:"


def by_name(
    name: str,
    spec: LatencySpec,
    *,
    device: torch.device,
    dtype: str,
    bits: Bits | None = None,
    trust_remote_code: bool = False,
) -> Runtime:
    """Load a model into its runtime: llamacpp:FILE, or any name that `models.loading` loads."""
    if name.startswith(LLAMA_CPP):
        from explorer.latency.runtimes.llamacpp import LlamaCppRuntime

        return LlamaCppRuntime(Path(name.removeprefix(LLAMA_CPP)))
    loaded = load(name, device=device, dtype=dtype, bits=bits, trust_remote_code=trust_remote_code)
    return from_loaded(loaded, spec, stored_as=name)


def from_loaded(loaded: Loaded, spec: LatencySpec, *, stored_as: str | None = None) -> Runtime:
    """The torch runtime, eager or compiled, that the spec names."""
    if spec.runtime == "compiled":
        return CompiledRuntime(loaded, stored_as=stored_as)
    return EagerRuntime(loaded, stored_as=stored_as)
