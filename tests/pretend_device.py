"""A pretend accelerator: another device of torch, whose tensors hold tensors of the CPU.

Torch reaches it through its entry point for back ends, as it would a vendor's package, so the
product runs on it without knowing it. An operation that mixes its tensors with the CPU's raises, as
on a real device: a tensor that was left behind cannot hide.

    python -m pytest tests/pretend

What it lacks: several devices, autocast, an allocator that counts memory, random numbers of its
own, and everything that is fast.
"""

from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
DEVICE = f"{NAME}:0"
aten = torch.ops.aten

BETWEEN_DEVICES = {aten._to_copy.default, aten.copy_.default, aten._copy_from.default}
"""The only operations whose arguments may lie on two devices."""
FACTORIES = (
    "empty.memory_format",
    "empty_strided",
    "arange",
    "arange.start",
    "arange.start_step",
)
"""What makes a tensor of the device from none; all others begin with `empty`."""


class PretendTensor(torch.Tensor):
    """A tensor of the pretend device; `inner` holds its numbers on the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "PretendTensor":
        """The tensor of the device that holds a tensor of the CPU."""
        # Views of ordinary tensors may be taken in inference mode, and want an ordinary tensor.
        with torch.inference_mode(False):
            made: Any = torch.Tensor._make_wrapper_subclass(
                cls,
                inner.shape,
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                device=DEVICE,
            )
        assert type(inner) is torch.Tensor, "one device beside the CPU"
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"PretendTensor({self.inner})"

    def untyped_storage(self) -> torch.UntypedStorage:
        """Where its numbers are, by which savers tell tied weights."""
        return self.inner.untyped_storage()

    def tolist(self) -> Any:
        """Its numbers, as from any device; `numpy` and `data_ptr` stay impossible."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._can_decompose():
            # Inference mode asks for whole functions, some of which choose by the device.
            parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        return on_the_cpu(func, args, kwargs)


def on_the_cpu(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute an operation on the CPU and say that its results are on the pretend device."""
    target = kwargs.get("device")
    if func not in BETWEEN_DEVICES:
        refuse_strays(func, (args, kwargs))
    if target is not None:
        kwargs = {**kwargs, "device": "cpu"}
    inner_args, inner_kwargs = pytree.tree_map_only(
        PretendTensor, lambda t: t.inner, (args, kwargs)
    )
    result = func(*inner_args, **inner_kwargs)
    written = [
        argument.alias_info is not None and argument.alias_info.is_write
        for argument in func._schema.returns
    ]
    if any(written):
        return written_arguments(func, args, kwargs, result)
    if target is not None and torch.device(target).type == "cpu":
        return result
    return pytree.tree_map_only(torch.Tensor, PretendTensor, result)


def written_arguments(func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> Any:
    """The arguments that an in-place operation wrote, in place of their inner tensors."""
    named = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    owners = [
        named[a.name]
        for a in func._schema.arguments
        if a.alias_info is not None and a.alias_info.is_write
    ]
    for owner in owners:
        if isinstance(owner, PretendTensor) and owner.shape != owner.inner.shape:
            raise NotImplementedError(f"{func} changes a shape in place")
    return owners[0] if len(func._schema.returns) == 1 else tuple(owners)


def refuse_strays(func: Any, arguments: Any) -> None:
    """Raise where a tensor was left on the CPU; single numbers may be, as on other devices."""
    tensors = [t for t in pytree.tree_leaves(arguments) if isinstance(t, torch.Tensor)]
    strays = [t for t in tensors if not isinstance(t, PretendTensor) and t.dim() > 0]
    if strays:
        raise RuntimeError(
            f"{func}: expected all tensors to be on {DEVICE}, but found one on {strays[0].device} "
            f"of shape {tuple(strays[0].shape)}"
        )


class _Module:
    """What torch calls the module of a kind of device."""

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """It has no random numbers of its own."""

    def synchronize(self, device: Any = None) -> None:
        """It has always done all that it was asked."""

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        """The CPU's state, which the caller sets as well."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_device_name(self, device: Any = None) -> str:
        return "Pretend Accelerator"

    class device:  # noqa: N801  # torch's name for it
        def __init__(self, device: Any) -> None: ...

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...


_libraries: list[Any] = []
"""Registrations end with the objects that made them."""


def register() -> None:
    """Make torch know the device; torch calls this when it is imported."""
    if _libraries:
        return
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    # A parameter that moves to the device stays the same object, as on devices in C++.
    torch.__future__.set_swap_module_params_on_conversion(True)
    library = torch.library.Library("aten", "IMPL")
    for name in FACTORIES:
        packet, _, overload = name.partition(".")
        function = getattr(getattr(aten, packet), overload or "default")
        library.impl(name, _factory(function), "PrivateUse1")
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    _libraries.append(library)


def _factory(function: Any) -> Any:
    def make(*args: Any, device: Any = None, **options: Any) -> torch.Tensor:
        return PretendTensor(function(*args, device="cpu", **options))

    return make


def _copy_from(source: Any, target: Any, non_blocking: bool = False) -> torch.Tensor:
    """torch.tensor(..., device=...) calls this directly."""
    inner = [t.inner if isinstance(t, PretendTensor) else t for t in (source, target)]
    inner[1].copy_(inner[0])
    return target


def install(folder: Path) -> None:
    """Write a distribution whose entry point registers the device, for a child's PYTHONPATH."""
    info = folder / "pretend_device-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pretend-device\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[torch.backends]\n{NAME} = tests.pretend_device:register\n"
    )
