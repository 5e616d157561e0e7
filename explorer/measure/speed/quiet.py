"""Was the device otherwise idle, before and while it was timed? Said in the record if not."""

import time

import psutil
import torch

from explorer.measure.speed import nvml

BUSY_SHARE = 0.2
"""Share of the processor's time that others may take before the record says so."""
BUSY_GPU_SHARE = 0.05
"""Share of the time in which a GPU may compute before we begin."""
LOOK_S = 0.5
"""How long we look before we begin."""


class Watch:
    """What other processes and guests take of the device, before and during a timing."""

    def __init__(self, device: torch.device, *, only_before: bool = False) -> None:
        """Look for half a second, then watch until `warning` is asked for.

        Args:
            device: The one that computes.
            only_before: For a server on this machine, whose own work would look like others'.
        """
        self._device, self._only_before = device, only_before
        first = _busy_and_total_s()
        time.sleep(LOOK_S)
        self._began = _busy_and_total_s()
        self._before = _share(first, self._began)
        self._gpu_before = nvml.busy_share(device) if device.type == "cuda" else None

    def during(self) -> float | None:
        """Between 0 and 1 of all processors since the look; None where nobody counts."""
        return _share(self._began, _busy_and_total_s())

    def warning(self) -> str | None:
        """A sentence for the record when others took more than they may."""
        before = self._before
        during = None if self._only_before else self.during()
        found = []
        if before is not None and before > BUSY_SHARE:
            found.append(f"{before:.0%} of the processor just before this was timed")
        if during is not None and during > BUSY_SHARE:
            found.append(f"{during:.0%} of it while this was timed")
        if self._gpu_before is not None and self._gpu_before > BUSY_GPU_SHARE:
            found.append(f"{self._gpu_before:.0%} of the GPU just before")
        num_others = nvml.num_other_processes(self._device) if self._device.type == "cuda" else 0
        if num_others:
            found.append(f"the same GPU ({num_others} of them)")
        if not found:
            return None
        return (
            f"Other processes used {' and '.join(found)}; the times are longer and noisier than "
            "on an idle machine."
        )


def _share(then: tuple[float, float], now: tuple[float, float]) -> float | None:
    busy_s, total_s = (after - before for after, before in zip(now, then, strict=True))
    return min(max(busy_s / total_s, 0.0), 1.0) if total_s > 0 else None


def _busy_and_total_s() -> tuple[float, float]:
    """Seconds that others kept all processors busy, and all seconds there were."""
    times = psutil.cpu_times()._asdict()
    # Linux counts a guest's seconds in user and nice already.
    total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
    own = psutil.Process().cpu_times()
    busy = total - times["idle"] - times.get("iowait", 0.0) - own.user - own.system
    return busy, total
