"""Energy, utilisation, clocks and processes of an NVIDIA GPU, from the driver's NVML library.

Every function returns None where there is no driver, where this GPU or slice of a GPU has no such
counter, or where the driver lets only an administrator read it.

Source: docs.nvidia.com/deploy/nvml-api, "Device Queries".
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import pynvml
import torch

from explorer.devices import backend

SLOWDOWNS = {
    pynvml.nvmlClocksEventReasonSwPowerCap: "its power limit",
    pynvml.nvmlClocksEventReasonHwSlowdown: "its hardware's protection",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "heat",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "heat",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "its power supply",
}
"""NVML's bits for what lowers the clocks below the load's own, and the words for them."""


def driver() -> str | None:
    """The driver's version, as in `570.133.20`."""
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None


def newest_toolkit() -> str | None:
    """The newest version of NVIDIA's toolkit that the driver runs, as in `12.4`."""
    try:
        pynvml.nvmlInit()
        version = int(pynvml.nvmlSystemGetCudaDriverVersion())
    except pynvml.NVMLError:
        return None
    return f"{version // 1000}.{version % 1000 // 10}"


def energy_joules(device: torch.device) -> float | None:
    """Energy in joules that the whole GPU has used since its driver was loaded.

    Volta and newer GPUs count it; slices of a GPU do not.
    """
    millijoules = _query(device, pynvml.nvmlDeviceGetTotalEnergyConsumption)
    return None if millijoules is None else float(millijoules) / 1e3


def energy_problem(device: torch.device) -> str:
    """Why `energy_joules` is None, as a sentence."""
    try:
        handle = _handle_of(device)
        if handle is None:
            return "Only NVIDIA GPUs have an energy counter that is read here."
        if pynvml.nvmlDeviceIsMigDeviceHandle(handle):
            return "This is a MIG slice, and the driver counts the energy of whole GPUs only."
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            return "NVML is missing, which comes with NVIDIA's driver."
        if error.value == pynvml.NVML_ERROR_NOT_SUPPORTED:
            return "This GPU has no energy counter."
        return f"NVML did not give the energy: {error}."
    return "NVML gave the energy only now."


def is_slice(device: torch.device) -> bool | None:
    """Whether the device is a MIG slice rather than a whole GPU."""
    slice_or_not = _query(device, pynvml.nvmlDeviceIsMigDeviceHandle)
    return None if slice_or_not is None else bool(slice_or_not)


def free_bytes(device: torch.device) -> int | None:
    """Memory of the GPU or slice that no process holds now."""
    memory = _query(device, pynvml.nvmlDeviceGetMemoryInfo)
    return None if memory is None else int(memory.free)


def busy_share(device: torch.device) -> float | None:
    """Share of the last sampling period in which a kernel ran, in [0, 1]."""
    utilisation = _query(device, pynvml.nvmlDeviceGetUtilizationRates)
    return None if utilisation is None else float(utilisation.gpu) / 100


def num_other_busy(device: torch.device, threshold: float) -> int | None:
    """Number of the machine's other GPUs that compute for more than a share of the time.

    A GPU whose use the driver does not say, as one that is cut into MIG slices, does not count.
    """
    own = _query(device, pynvml.nvmlDeviceGetUUID)
    if own is None:
        return None
    try:
        gpus = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return sum(_is_busy(gpu, threshold) for gpu in gpus if pynvml.nvmlDeviceGetUUID(gpu) != own)
    except pynvml.NVMLError:
        return None


def _is_busy(gpu: Any, threshold: float) -> bool:
    try:
        return float(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu) / 100 > threshold
    except pynvml.NVMLError:
        return False


def power_limit_watts(device: torch.device) -> float | None:
    """What the GPU may draw at most, as set now."""
    milliwatts = _query(device, pynvml.nvmlDeviceGetEnforcedPowerLimit)
    return None if milliwatts is None else float(milliwatts) / 1e3


def clock_mhz(device: torch.device) -> int | None:
    """The clock of the multiprocessors at this moment."""
    return _number(
        device, lambda handle: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)
    )


def max_clock_mhz(device: torch.device) -> int | None:
    """The highest clock that the multiprocessors can have."""
    return _number(
        device, lambda handle: pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM)
    )


def slowdowns(device: torch.device) -> list[str] | None:
    """What lowers the clocks at this moment, as in `heat`; empty if nothing does."""
    bits = _query(device, pynvml.nvmlDeviceGetCurrentClocksThrottleReasons)
    if bits is None:
        return None
    return list(dict.fromkeys(words for bit, words in SLOWDOWNS.items() if bits & bit))


def drives_display(device: torch.device) -> bool | None:
    """Whether the GPU also draws the picture of a display."""
    active = _query(device, pynvml.nvmlDeviceGetDisplayActive)
    return None if active is None else bool(active)


def num_memory_errors(device: torch.device) -> int | None:
    """Errors of its memory that ECC could not correct since the driver was loaded."""
    return _number(
        device,
        lambda handle: pynvml.nvmlDeviceGetTotalEccErrors(
            handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
        ),
    )


def num_other_processes(device: torch.device) -> int | None:
    """Number of processes that compute on the GPU, without this one."""
    processes = _query(device, pynvml.nvmlDeviceGetComputeRunningProcesses)
    if processes is None:
        return None
    other_pids = {process.pid for process in processes} - {os.getpid()}
    # In a container the pids are the host's and ours is not among them, yet one of them is us.
    own_is_listed = len(other_pids) < len(processes)
    return len(other_pids) if own_is_listed else max(len(other_pids) - 1, 0)


def _number(device: torch.device, function: Callable[[Any], Any]) -> int | None:
    value = _query(device, function)
    return None if value is None else int(value)


def _query(device: torch.device, function: Callable[[Any], Any]) -> Any:
    """What one NVML function returns for this device; None where NVML cannot answer."""
    try:
        handle = _handle_of(device)
        return None if handle is None else function(handle)
    except pynvml.NVMLError:
        return None


def _handle_of(device: torch.device) -> Any:
    """NVML's handle of the device; None if torch knows no UUID of it, as of other vendors' cards.

    Raises:
        NVMLError: NVML is missing or does not know the UUID.
    """
    uuid = getattr(backend.properties(device), "uuid", None)
    return None if uuid is None else _handle(str(uuid))


@functools.cache
def _handle(uuid: str) -> Any:
    """NVML's handle of a GPU or slice, by UUID.

    CUDA_VISIBLE_DEVICES renumbers torch's devices only. torch leaves out whether it is the UUID of
    a GPU or of a slice.
    """
    pynvml.nvmlInit()
    if uuid.startswith(("GPU-", "MIG-")):
        return pynvml.nvmlDeviceGetHandleByUUID(uuid)
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError_NotFound:
        return pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")
