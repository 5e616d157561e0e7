"""Memory of a device: its size, what is free, and the peak of torch's allocator."""

import errno
from typing import Any

import psutil
import torch

from explorer.devices import backend, nvml

PEAK = ("reset_peak_memory_stats", "memory_allocated", "max_memory_allocated")
"""Functions of a device's module that together measure a peak."""
FULL = ("can't allocate memory", "(os error 12)")
"""How torch and safetensors call a machine without memory."""


def total_bytes(device: torch.device) -> int:
    """Memory of the accelerator; for the CPU, and for devices that do not say, the machine's."""
    told = _free_and_total(device)
    if told:
        return told[1]
    limit = backend.function(device, "recommended_max_memory")
    return int(limit() if limit else psutil.virtual_memory().total)


def free_bytes(device: torch.device) -> int | None:
    """Memory of the accelerator that no process holds now; None for the CPU or if unknown.

    NVIDIA's driver is asked first: torch's own question makes a context on the GPU, which holds
    some hundred MB until this process ends.
    """
    free = nvml.free_bytes(device)
    if free is not None:
        return free
    told = _free_and_total(device)
    return told[0] if told else None


def own_bytes(device: torch.device) -> int:
    """What this process's allocator has taken of the accelerator; 0 where it does not say."""
    reserved = backend.ask(device, "memory_reserved")
    return int(reserved) if reserved else 0


def counts_peak(device: torch.device) -> bool:
    """Whether the device's allocator counts the most that it ever held."""
    return all(backend.function(device, question) for question in PEAK)


def reset_peak(device: torch.device) -> None:
    """Let the peak begin at what is held now; for a device that `counts_peak`."""
    _asked(device, "reset_peak_memory_stats")


def held_bytes(device: torch.device) -> int:
    """What tensors hold now, in bytes; for a device that `counts_peak`."""
    return int(_asked(device, "memory_allocated"))


def peak_bytes(device: torch.device) -> int:
    """The most that tensors held since `reset_peak`, in bytes; for a device that `counts_peak`."""
    return int(_asked(device, "max_memory_allocated"))


def release_cached(device: torch.device) -> None:
    """Give back to the device what the allocator keeps for later."""
    empty_cache = backend.function(device, "empty_cache")
    if empty_cache:
        empty_cache()


def ran_out(error: BaseException) -> bool:
    """Whether an error means that memory is full: on a CPU only a library's message says so."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, Exception) and any(words in str(error) for words in FULL)


def _free_and_total(device: torch.device) -> tuple[int, int] | None:
    if not backend.is_accelerator(device):
        return None
    try:
        free, total = torch.accelerator.get_memory_info(device)
    # Older versions of torch and some back ends lack the question.
    except (AttributeError, RuntimeError, NotImplementedError):
        return None
    return int(free), int(total)


def _asked(device: torch.device, question: str) -> Any:
    function = backend.function(device, question)
    assert function is not None, "the caller asked counts_peak first"
    return function(device)
