"""Was the device otherwise idle, before and while it was timed? The record holds the shares."""

import time
from collections.abc import Callable

import psutil
import torch

from explorer.latency import nvml
from explorer.records import Interference

BUSY_SHARE = 0.2
"""Share of all processors' time that others may take before the machine counts as busy."""
BUSY_GPU_SHARE = 0.05
"""Share of the time in which a GPU may compute before we begin."""
WATCH_BEFORE_S = 0.5
"""How long we look before we begin."""


def busy_and_total_s() -> tuple[float, float]:
    """Seconds that others kept all processors busy, and all seconds there were."""
    times = psutil.cpu_times()._asdict()
    # Linux counts a guest's seconds in user and nice already.
    total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
    own = psutil.Process().cpu_times()
    busy = total - times["idle"] - times.get("iowait", 0.0) - own.user - own.system
    return busy, total


class InterferenceWatch:
    """What other processes and guests take of the device, before and during a timing."""

    def __init__(
        self,
        device: torch.device,
        *,
        only_before: bool = False,
        counter: Callable[[], tuple[float, float]] = busy_and_total_s,
    ) -> None:
        """Look for half a second, then watch until `interference` is called.

        Args:
            device: The one that computes.
            only_before: For a server on this machine, whose own work would look like others'.
            counter: Seconds that others were busy, and all seconds, as `busy_and_total_s`.
        """
        self._device, self._only_before, self._counter = device, only_before, counter
        first = counter()
        time.sleep(WATCH_BEFORE_S)
        self._began = counter()
        is_gpu = device.type == "cuda"
        self.before = Interference(
            cpu_threshold=BUSY_SHARE,
            cpu_share_before=_share(first, self._began),
            gpu_threshold=BUSY_GPU_SHARE if is_gpu else None,
            gpu_share_before=nvml.busy_share(device) if is_gpu else None,
            num_other_gpu_processes=nvml.num_other_processes(device) if is_gpu else None,
        )
        """What others took just before the timing."""

    def interference(self) -> Interference:
        """What others took before the timing and since it began."""
        seen: dict[str, float | int | None] = {}
        if not self._only_before:
            seen["cpu_share_during"] = _share(self._began, self._counter())
        if self._device.type == "cuda":
            seen["num_other_gpu_processes"] = nvml.num_other_processes(self._device)
        return self.before.model_copy(update=seen)


def _share(then: tuple[float, float], now: tuple[float, float]) -> float | None:
    busy_s, total_s = (after - before for after, before in zip(now, then, strict=True))
    return min(max(busy_s / total_s, 0.0), 1.0) if total_s > 0 else None
