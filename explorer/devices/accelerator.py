"""Which accelerators torch finds, which one a spec means, and what each can do.

A device is the CPU or an accelerator: whatever else torch computes on, under the name that torch
gives it. No code outside torch knows these names. What a device can do is asked by doing it once
on a few numbers, or of the module that torch keeps for its kind.

    python -c "from explorer.devices import accelerator; print(accelerator.pick_device())"

Source: docs.pytorch.org/docs/stable/accelerator.html.
"""

import functools
import os
import warnings
from pathlib import Path

import torch

from explorer.devices import backend, memory, nvml
from explorer.devices.backend import is_accelerator as is_accelerator
from explorer.errors import BadInput, NoRoom

VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
"""Variables that say which of the machine's devices torch may see, and so renumber them."""
LONGEST_ENTRY = 12
"""Characters of a device in such a variable, which may be a UUID: enough to tell them apart."""
AMD_DRIVER = Path("/sys/module/amdgpu/version")
CPU = torch.device("cpu")
AUTO = "auto"
KINDS_SHOWN = "auto, cpu, or an accelerator as torch names it, such as xpu or mps"


def found() -> list[torch.device]:
    """The accelerators that torch may use here, in torch's order; none on a machine without.

    Variables such as CUDA_VISIBLE_DEVICES hide devices from torch, and then from this list.
    """
    kind = torch.accelerator.current_accelerator(check_available=True)
    if kind is None:
        return []
    return [torch.device(kind.type, i) for i in range(torch.accelerator.device_count())]


def num_local_processes() -> int:
    """Processes of the launch that are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def pick_device(name: str = AUTO) -> torch.device:
    """The torch device of a spec's `device`; `use` makes it the current one.

    `auto` is the accelerator with the most free memory, or the CPU where torch finds none. In a
    launch of several processes each has an accelerator of its own already.

    Raises:
        BadInput: torch knows no device of that name.
        NoRoom: This machine has no such device.
    """
    if name == CPU.type:
        return CPU
    devices = found()
    launched = torch.distributed.is_initialized()
    if launched and devices:
        check_enough(num_local_processes())
    if name == AUTO:
        if not devices:
            return CPU
        return torch.device(devices[0].type) if launched else _freest(devices)
    device = _parse(name)
    if not devices:
        from explorer.devices import torch_build  # asks this module, too

        cause = torch_build.mismatch()
        advice = f"{cause} To run without it: device: cpu." if cause else "Set cpu or auto."
        raise NoRoom(f"The spec has device {name}, but torch finds no GPU. {advice}")
    if device.type != devices[0].type:
        raise NoRoom(
            f"The spec has device {name}, but the accelerators that torch finds here are "
            f"{_listed(devices)}. Choose one of them, cpu or auto."
        )
    if ":" not in name:
        return device
    if device.index >= len(devices):
        raise NoRoom(
            f"The spec has device {name}, but torch finds {len(devices)} GPUs, the first of which "
            f"is {devices[0]}. Choose one of them, or {device.type}."
        )
    if launched:
        raise BadInput(
            f"The spec has device {name}, but this launch gives each of its processes a device of "
            f"its own. Write device: {device.type}."
        )
    return device


def check_enough(num_devices: int) -> None:
    """Refuse more processes than this machine has accelerators: no two compute on one.

    Raises:
        NoRoom: There are fewer.
    """
    devices = found()
    if num_devices > len(devices):
        raise NoRoom(
            f"{num_devices} devices are asked for, but torch finds {len(devices)} here"
            f"{f' ({_listed(devices)})' if devices else ''}. Write num_devices: "
            f"{max(len(devices), 1)}, or device: cpu."
        )


def _parse(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadInput(
            f"The spec has device {name}, which torch does not know. Write {KINDS_SHOWN}."
        ) from error
    if not is_accelerator(device):
        raise BadInput(f"The spec has device {name}, but there is one CPU. Write device: cpu.")
    return device


def use(device: torch.device) -> None:
    """Make a device torch's current one, which libraries take that are told none."""
    if is_accelerator(device) and device.index is not None:
        torch.accelerator.set_device_index(device.index)


def variables_of_child(device: torch.device) -> dict[str, str]:
    """The environment in which a program of others sees this device alone; none on the CPU.

    Empty for torch's current accelerator, which such a program takes anyway.
    """
    variables = {}
    for name in VISIBLE:
        if not is_accelerator(device):
            variables[name] = ""
        elif device.index is not None:
            visible = [part for part in os.environ.get(name, "").split(",") if part.strip()]
            known = device.index < len(visible)
            variables[name] = visible[device.index].strip() if known else str(device.index)
    return variables


def _freest(devices: list[torch.device]) -> torch.device:
    """The device with the most free memory; the first of equals."""
    if len(devices) == 1:
        return torch.device(devices[0].type)
    return max(devices, key=lambda device: memory.free_bytes(device) or 0)


def _listed(devices: list[torch.device]) -> str:
    return ", ".join(str(device) for device in devices)


def use_share_of_launch(local_rank: int) -> None:
    """Make the accelerator of a process of this machine's launch torch's current one."""
    torch.accelerator.set_device_index(local_rank % torch.accelerator.device_count())


def collective_backend() -> str:
    """torch.distributed's backends: gloo for objects and flags, the accelerator's for tensors.

    Objects and flags do not travel on the accelerator, which would spin while it waits for them.
    """
    kind = found()[0].type
    return f"cpu:gloo,{kind}:{torch.distributed.get_default_backend_for_device(kind)}"


def name(device: torch.device) -> str | None:
    """The accelerator's name from its driver; None for the CPU and where nobody knows one."""
    described = backend.ask(device, "get_device_name")
    return str(described) if described else None


def places(device: torch.device, num_devices: int) -> str | None:
    """Which of the machine's accelerators a run has, as in `GPU 2, NVIDIA L4` or `GPUs 0 and 1`.

    The machine's own numbers: in each job of the queue torch begins at 0. None for the CPU.

    Args:
        device: The first of them.
        num_devices: How many the run has.
    """
    if not is_accelerator(device):
        return None
    variables = (os.environ.get(variable, "") for variable in VISIBLE)
    entries = next(filter(None, variables), "").split(",")
    visible = [entry.strip()[:LONGEST_ENTRY] for entry in entries if entry.strip()]
    first = device.index or 0
    numbers = [str(number) for number in range(first, first + num_devices)]
    if first + num_devices <= len(visible):
        numbers = visible[first : first + num_devices]
    which = f"GPU {numbers[0]}" if num_devices == 1 else f"GPUs {' and '.join(numbers)}"
    called = name(device)
    return f"{which}, {called}" if called else which


def driver(device: torch.device) -> str | None:
    """Version of the accelerator's driver; None for the CPU and where nobody says."""
    if not is_accelerator(device):
        return None
    version = getattr(backend.properties(device), "driver_version", None)
    if version is not None:
        return str(version)
    own = nvml.driver()
    if own is None and AMD_DRIVER.exists():
        return AMD_DRIVER.read_text(encoding="ascii").strip()
    return own


def compute_capability(device: torch.device) -> tuple[int, int] | None:
    """Generation of a GPU's instructions, as in (8, 0); None for devices without such a number.

    Some vendors answer the same question with a table, which is not a generation.
    """
    answer = backend.ask(device, "get_device_capability")
    return answer if isinstance(answer, tuple) else None


@functools.cache
def multiplies_in_bfloat16(device: torch.device) -> bool:
    """Whether matrix products under autocast run in bfloat16 itself, on an accelerator.

    A GPU that only emulates it, at a fraction of the speed, does not count. On a CPU this is False:
    there bfloat16 is a choice of the spec.
    """
    if not is_accelerator(device):
        return False
    supports = backend.function(device, "is_bf16_supported")
    if supports and not supports(including_emulation=False):
        return False
    try:
        with torch.autocast(device.type, torch.bfloat16), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            factor = torch.ones(8, 8, device=device)
            product = factor @ factor
        return product.dtype == torch.bfloat16 and float(product[0, 0]) == 8
    except (RuntimeError, AssertionError):
        return False


@functools.cache
def has_fused_adamw(device: torch.device) -> bool:
    """Whether AdamW updates all parameters in one call on this device."""
    parameter = torch.nn.Parameter(torch.ones(1, device=device))
    parameter.grad = torch.ones_like(parameter)
    try:
        torch.optim.AdamW([parameter], lr=0.1, fused=True).step()
    except (RuntimeError, NotImplementedError):
        return False
    return True


@functools.cache
def pins_memory(device: torch.device) -> bool:
    """Whether this device copies from pinned memory of the machine while the CPU goes on."""
    if not is_accelerator(device):
        return False
    try:
        return torch.empty(1).pin_memory().is_pinned()
    except (RuntimeError, AssertionError):
        return False


def has_graphs(device: torch.device) -> bool:
    """Whether torch.compile can record a decoding step as one launch on this device."""
    return backend.function(device, "make_graphed_callables") is not None


def generator(device: torch.device, seed: int) -> torch.Generator:
    """Random numbers that start at a seed: the device's own, or the CPU's where it has none."""
    try:
        own = torch.Generator(device=device)
    except RuntimeError:
        own = torch.Generator()
    return own.manual_seed(seed)


def draw(probabilities_BV: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One index for each row, shape [B, 1], drawn where the random numbers are."""
    drawn_B1 = torch.multinomial(probabilities_BV.to(generator.device), 1, generator=generator)
    return drawn_B1.to(probabilities_BV.device)


def synchronize(device: torch.device) -> None:
    """Wait until the device, torch's current one of its kind, has done all that it was asked."""
    wait = backend.function(device, "synchronize")
    if wait:
        wait()
