"""Two settings that make a training step on a CPU faster; neither changes what is computed.

Freed memory is kept for the next step (glibc). A step allocates the same hundreds of megabytes as
the step before. glibc returns such blocks to the kernel, which clears every page of the next ones:
100,000 to 200,000 page faults a step. Keeping the memory avoids nearly all of them: a step of the
starter's 10-layer student ran 1.25 times as fast on a quiet host, and 1.1 times on a busier one.

Float32 products run in oneDNN (AMD CPUs). torch hands them to MKL, which is slower there: oneDNN
takes 11 % less processor time for a step of the starter's 10-layer student, and 9 % less for the
teacher's pass. torch has no switch for it, so inside `onednn_matmul` every `linear` goes to the
operator that torch's own compiler uses (docs/decisions/0018). docs/log.md has both measurements.

Evaluation and timing stay as torch ships.
"""

import ctypes
import functools
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

# Shape letters: P positions (one or more dimensions), I inputs and O outputs of a layer.

# mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
KEEP = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}
RETURN = {M_MMAP_MAX: 65_536, M_MMAP_THRESHOLD: 32 * 2**20, M_TRIM_THRESHOLD: 64 * 2**20}
"""Where glibc's own thresholds end up in a process that has freed large blocks."""


@contextmanager
def tuned() -> Iterator[None]:
    """Both settings, where they apply."""
    with kept_memory(), onednn_matmul():
        yield


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory until the block ends, then return all of it; no effect without glibc."""
    libc = _glibc()
    if libc is None:
        yield
        return
    for name, value in KEEP.items():
        libc.mallopt(name, value)
    try:
        yield
    finally:
        for name, value in RETURN.items():
            libc.mallopt(name, value)
        libc.malloc_trim(0)


@functools.cache
def _glibc() -> Any:
    """The C library; None where it is not glibc."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


@contextmanager
def onednn_matmul() -> Iterator[None]:
    """Run float32 products in oneDNN on an AMD CPU; no effect elsewhere."""
    if not _prefers_onednn():
        yield
        return
    with _LinearMode():
        yield


@contextmanager
def torch_matmul() -> Iterator[None]:
    """Within `onednn_matmul`, run products as torch ships: its compiler cannot replace ours."""
    with torch._C.DisableTorchFunction() if _prefers_onednn() else nullcontext():
        yield


def checkpoint_options(*, compiles: bool = False) -> dict[str, Any]:
    """Options of activation checkpointing.

    The recomputation runs outside of any mode, so it has to enter ours again. There is no
    `context_fn` where there is none, nor for layers that torch may compile, which it could not.

    Args:
        compiles: Whether the layers may run compiled; they must then run in `torch_matmul`.
    """
    options: dict[str, Any] = {"use_reentrant": False}
    if _prefers_onednn() and not compiles:
        options["context_fn"] = lambda: (onednn_matmul(), onednn_matmul())
    return options


@functools.cache
def _prefers_onednn() -> bool:
    """Whether torch has both libraries and an AMD CPU does the work.

    Beside an accelerator the CPU only issues the work, and the mode would slow every call.
    """
    cpuinfo = Path("/proc/cpuinfo")
    return (
        torch.backends.mkl.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and not torch.accelerator.is_available()
        and cpuinfo.exists()
        and "AuthenticAMD" in cpuinfo.read_text(encoding="utf-8", errors="replace")
    )


class _LinearMode(TorchFunctionMode):
    """Replaces `linear` on plain float32 tensors of the CPU."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is linear and _is_plain_float32(*args, **kwargs):
            return _onednn_linear(*args, **kwargs)
        return func(*args, **kwargs)


def _is_plain_float32(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """False for narrower types, autocast, other devices and sharded tensors."""
    tensors = (input, weight, *([] if bias is None else [bias]))
    return (
        input.dim() > 1
        and input.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and all(
            type(tensor) in (Tensor, torch.nn.Parameter)
            and tensor.dtype is torch.float32
            and tensor.device.type == "cpu"
            for tensor in tensors
        )
    )


def _onednn_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    # `apply` takes no keyword arguments, which `linear` may get.
    out: Tensor = _OneDnnLinear.apply(input, weight, bias)  # type: ignore[no-untyped-call]  # torch
    return out


class _OneDnnLinear(torch.autograd.Function):
    """`linear` and its gradients."""

    @staticmethod
    def forward(ctx: Any, in_PI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(in_PI, weight_OI)
        return _matmul(in_PI, weight_OI, bias_O)

    @staticmethod
    def backward(ctx: Any, grad_PO: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        in_PI, weight_OI = ctx.saved_tensors
        needs_input, needs_weight, needs_bias = ctx.needs_input_grad
        flat_PO = grad_PO.flatten(0, -2)
        return (
            _matmul(grad_PO, weight_OI.t()) if needs_input else None,
            # MKL is as fast for this shape, which sums over positions.
            flat_PO.t() @ in_PI.flatten(0, -2) if needs_weight else None,
            flat_PO.sum(0) if needs_bias else None,
        )


def _matmul(a_PI: Tensor, b_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Product a b^T + bias; autograd does not see it."""
    out_PO: Tensor = torch.ops.mkldnn._linear_pointwise(a_PI, b_OI, bias_O, "none", [], "")
    return out_PO
