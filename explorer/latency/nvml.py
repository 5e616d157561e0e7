"""The few questions that we ask NVIDIA's management library, by ctypes; None where it is not.

Source: docs.nvidia.com/deploy/nvml-api, "Device Queries".
"""

import ctypes
import functools
import os
from typing import Any

import torch


class _Utilisation(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class _Process(ctypes.Structure):
    """nvmlProcessInfo_t of the calls that end in _v3."""

    _fields_ = [
        ("pid", ctypes.c_uint),
        ("used_bytes", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    ]


def energy_joules(device: torch.device) -> float | None:
    """Energy of the whole GPU since its driver was loaded; Volta and later know it."""
    millijoules = ctypes.c_ulonglong()
    if not _ask(device, "nvmlDeviceGetTotalEnergyConsumption", ctypes.byref(millijoules)):
        return None
    return millijoules.value / 1e3


def busy_share(device: torch.device) -> float | None:
    """Share of the last sampling period in which a kernel ran."""
    found = _Utilisation()
    if not _ask(device, "nvmlDeviceGetUtilizationRates", ctypes.byref(found)):
        return None
    return float(found.gpu) / 100


def num_other_processes(device: torch.device) -> int:
    """Processes beside this one that compute on the GPU; 0 where nobody tells."""
    room = 64
    count, found = ctypes.c_uint(room), (_Process * room)()
    if not _ask(device, "nvmlDeviceGetComputeRunningProcesses_v3", ctypes.byref(count), found):
        return 0
    # In a container the pids are the host's, and ours is not among them: one of them is us.
    pids = {found[i].pid for i in range(count.value)} - {os.getpid()}
    ours_is_named = len(pids) < count.value
    return len(pids) if ours_is_named else max(len(pids) - 1, 0)


def _ask(device: torch.device, function: str, *arguments: Any) -> bool:
    library, handle = _library(), None
    if library is not None:
        handle = _handle(str(torch.cuda.get_device_properties(device).uuid))
    if library is None or handle is None or not hasattr(library, function):
        return False
    return bool(getattr(library, function)(handle, *arguments) == 0)


@functools.cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    return library if library.nvmlInit_v2() == 0 else None


@functools.cache
def _handle(uuid: str) -> ctypes.c_void_p | None:
    """By UUID, since CUDA_VISIBLE_DEVICES renumbers torch's devices but not NVML's."""
    library, handle = _library(), ctypes.c_void_p()
    name = (uuid if uuid.startswith("GPU-") else f"GPU-{uuid}").encode()
    if library is None or library.nvmlDeviceGetHandleByUUID(name, ctypes.byref(handle)):
        return None
    return handle
