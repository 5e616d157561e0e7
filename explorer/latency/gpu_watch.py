"""What the driver says of a GPU while it is timed: its limits, its clocks and what lowers them.

A GPU that is hot, or whose memory fails, times another device than the same one in order. Some of
it marks the timing like a busy machine (`records.GpuState.warning`); all of it is in the record.
"""

import torch

from explorer.devices import nvml
from explorer.latency.interference import BUSY_GPU_SHARE
from explorer.records import GpuState


class GpuWatch:
    """Reads the driver before a timing and after each of its answers, which is never timed."""

    def __init__(self, device: torch.device) -> None:
        """Read what stays the same; nothing where no NVIDIA driver knows the device."""
        self._device = device
        self._errors_before = nvml.num_memory_errors(device)
        self._clocks_mhz: list[int] = []
        self._others_busy: list[int] = []
        self._slowdowns: dict[str, None] = {}
        self._knows = nvml.max_clock_mhz(device) is not None

    def sample(self) -> None:
        """Read the clock, what lowers it and the machine's other GPUs, right after an answer."""
        if not self._knows:
            return
        clock_mhz = nvml.clock_mhz(self._device)
        self._clocks_mhz += [] if clock_mhz is None else [clock_mhz]
        others_busy = nvml.num_other_busy(self._device, BUSY_GPU_SHARE)
        self._others_busy += [] if others_busy is None else [others_busy]
        self._slowdowns |= dict.fromkeys(nvml.slowdowns(self._device) or [])

    def state(self) -> GpuState | None:
        """The GPU since the watch began; None where nobody says."""
        if not self._knows:
            return None
        device = self._device
        before, now = self._errors_before, nvml.num_memory_errors(device)
        return GpuState(
            is_slice=nvml.is_slice(device),
            power_limit_watts=nvml.power_limit_watts(device),
            max_clock_mhz=nvml.max_clock_mhz(device),
            lowest_clock_mhz=min(self._clocks_mhz, default=None),
            highest_clock_mhz=max(self._clocks_mhz, default=None),
            slowed_by=list(self._slowdowns),
            drives_display=nvml.drives_display(device),
            num_other_gpus_busy=max(self._others_busy, default=None),
            num_memory_errors=None if before is None or now is None else now - before,
        )
