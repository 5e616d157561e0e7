"""Energy, utilisation and processes of an NVIDIA GPU, from the driver's NVML library.

Every function returns None where there is no driver, or where this GPU has no such counter.

Source: docs.nvidia.com/deploy/nvml-api, "Device Queries".
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import pynvml
import torch


def energy_joules(device: torch.device) -> float | None:
    """Energy in joules that the whole GPU has used since its driver was loaded.

    Volta and newer GPUs count it.
    """
    millijoules = _query(device, pynvml.nvmlDeviceGetTotalEnergyConsumption)
    return None if millijoules is None else float(millijoules) / 1e3


def busy_share(device: torch.device) -> float | None:
    """Share of the last sampling period in which a kernel ran, in [0, 1]."""
    utilisation = _query(device, pynvml.nvmlDeviceGetUtilizationRates)
    return None if utilisation is None else float(utilisation.gpu) / 100


def num_other_processes(device: torch.device) -> int | None:
    """Number of processes that compute on the GPU, without this one."""
    processes = _query(device, pynvml.nvmlDeviceGetComputeRunningProcesses)
    if processes is None:
        return None
    other_pids = {process.pid for process in processes} - {os.getpid()}
    # In a container the pids are the host's and ours is not among them, yet one of them is us.
    own_is_listed = len(other_pids) < len(processes)
    return len(other_pids) if own_is_listed else max(len(other_pids) - 1, 0)


def _query(device: torch.device, function: Callable[[Any], Any]) -> Any:
    """What one NVML function returns for this device; None where NVML cannot answer."""
    try:
        return function(_handle(str(torch.cuda.get_device_properties(device).uuid)))
    except pynvml.NVMLError:
        return None


@functools.cache
def _handle(uuid: str) -> Any:
    """NVML's handle of a GPU, by UUID: CUDA_VISIBLE_DEVICES renumbers torch's devices only."""
    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
