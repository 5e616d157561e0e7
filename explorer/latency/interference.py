"""How busy other processes kept the machine before and during a timing."""

import time
from collections.abc import Callable

import psutil
import torch

from explorer.devices import accelerator, nvml
from explorer.records import Interference

BUSY_SHARE = 0.2
"""Share of all CPU time above which other processes make the machine busy."""
BUSY_GPU_SHARE = 0.05
"""Share of the time above which a GPU that computes before the timing is busy."""
WATCH_BEFORE_S = 0.5
"""How long the machine is watched before the timing, in seconds."""


def busy_and_total_s() -> tuple[float, float]:
    """CPU seconds that other processes used since boot, and all CPU seconds since boot."""
    times = psutil.cpu_times()._asdict()
    # Linux already counts a virtual guest's seconds in user and nice.
    total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
    own = psutil.Process().cpu_times()
    busy = total - times["idle"] - times.get("iowait", 0.0) - own.user - own.system
    return busy, total


class InterferenceWatch:
    """Measures what other processes and guests take of the machine, before and during a timing."""

    def __init__(
        self,
        device: torch.device,
        *,
        only_before: bool = False,
        counter: Callable[[], tuple[float, float]] = busy_and_total_s,
    ) -> None:
        """Watch for half a second, then until `interference` is called.

        Args:
            device: The device that will be timed.
            only_before: Ignore the time during the timing: for a server on this machine, whose
                own work would count as another process's.
            counter: Replaces `busy_and_total_s`.
        """
        self._device, self._only_before, self._counter = device, only_before, counter
        first = counter()
        time.sleep(WATCH_BEFORE_S)
        self._began = counter()
        is_gpu = accelerator.is_accelerator(device)
        self.before = Interference(
            cpu_threshold=BUSY_SHARE,
            cpu_share_before=_share(first, self._began),
            gpu_threshold=BUSY_GPU_SHARE if is_gpu else None,
            gpu_share_before=nvml.busy_share(device) if is_gpu else None,
            num_other_gpu_processes=nvml.num_other_processes(device) if is_gpu else None,
        )
        """What other processes took just before the timing."""

    def interference(self) -> Interference:
        """What other processes took before the timing and since it began."""
        during: dict[str, float | int | None] = {}
        if not self._only_before:
            during["cpu_share_during"] = _share(self._began, self._counter())
        if accelerator.is_accelerator(self._device) and not self._only_before:
            during["num_other_gpu_processes"] = nvml.num_other_processes(self._device)
        return self.before.model_copy(update=during)


def _share(before: tuple[float, float], after: tuple[float, float]) -> float | None:
    busy_s, total_s = (end - start for end, start in zip(after, before, strict=True))
    return min(max(busy_s / total_s, 0.0), 1.0) if total_s > 0 else None
