"""Float32 products by oneDNN while a student is taught, where MKL takes its slower road.

torch hands a float32 product on a processor to MKL, which on one of another maker does not reach
what it can do: oneDNN, which torch brings along, is a tenth faster there on the products of a
small model, in the same float32 (docs/log.md). torch has no switch for it, so inside `by_onednn`
every `linear` is done by the operator that torch's own compiler takes for it. What is tested and
timed stays as people get it from torch.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

# Shape letters: P positions (one or more dimensions), I inputs and O outputs of a layer.


@contextmanager
def by_onednn() -> Iterator[None]:
    """Products of float32 matrices on an AMD processor by oneDNN; elsewhere nothing changes."""
    if not _worth_it():
        yield
        return
    with _Linears():
        yield


def in_both_passes() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """`context_fn` of a checkpoint: a backward pass knows no mode, and makes the layers anew."""
    return by_onednn(), by_onednn()


@functools.cache
def _worth_it() -> bool:
    """Whether torch has both libraries and the processor, which does the work, is AMD's.

    Where there is an accelerator, every call of torch would only wait for being looked at.
    """
    about = Path("/proc/cpuinfo")
    return (
        torch.backends.mkl.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and not torch.accelerator.is_available()
        and about.exists()
        and "AuthenticAMD" in about.read_text(encoding="utf-8", errors="replace")
    )


class _Linears(TorchFunctionMode):
    """Takes every call of `linear` on plain float32 tensors of the processor."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is linear and _taken(*args, **kwargs):
            return _by_onednn(*args, **kwargs)
        return func(*args, **kwargs)


def _taken(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Not those of a narrower type, on a GPU, or spread over processes."""
    return (
        input.dim() > 1
        and input.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and all(
            type(one) in (Tensor, torch.nn.Parameter)
            and one.dtype is torch.float32
            and one.device.type == "cpu"
            for one in (input, weight, *([] if bias is None else [bias]))
        )
    )


def _by_onednn(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    # A function's gradient takes its arguments by place.
    out: Tensor = _Linear.apply(input, weight, bias)  # type: ignore[no-untyped-call]
    return out


class _Linear(torch.autograd.Function):
    """`linear` and its gradients."""

    @staticmethod
    def forward(ctx: Any, in_PI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(in_PI, weight_OI)
        return _product(in_PI, weight_OI, bias_O)

    @staticmethod
    def backward(ctx: Any, grad_PO: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        in_PI, weight_OI = ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad
        flat_PO = grad_PO.flatten(0, -2)
        return (
            _product(grad_PO, weight_OI.t()) if of_input else None,
            # The positions are summed over: of this shape MKL is as fast.
            flat_PO.t() @ in_PI.flatten(0, -2) if of_weight else None,
            flat_PO.sum(0) if of_bias else None,
        )


def _product(a_PI: Tensor, b_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Product a b^T + bias, without a gradient of its own."""
    out_PO: Tensor = torch.ops.mkldnn._linear_pointwise(a_PI, b_OI, bias_O, "none", [], "")
    return out_PO
