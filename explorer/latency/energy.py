"""Energy per output token from the device's own counter, above what it takes when idle.

On CUDA the counter is NVML's, of the whole GPU. On a CPU it is RAPL's, of the processor's
packages, where the kernel shows it and lets us read it. Elsewhere there is no number, and
the record says why.

Source: kernel.org/doc/html/latest/power/powercap/powercap.html.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from explorer.latency import nvml
from explorer.records import Energy

POWERCAP = Path("/sys/class/powercap")
IDLE_S = 2.0
"""How long the idle power is watched."""


class Meter:
    """Watches one device: idle first, then each answer of each model."""

    def __init__(self, device: torch.device, powercap: Path = POWERCAP) -> None:
        """Find the counter and watch the idle device; takes no time where there is none."""
        self.source, self.reason, self._read = _counter(device, powercap)
        self._idle_watts: float | None = None
        if self._read is not None:
            began_j, began_s = self._read(), time.monotonic()
            time.sleep(IDLE_S)
            self._idle_watts = (self._read() - began_j) / (time.monotonic() - began_s)
        self._at_start = (0.0, 0.0)

    def start(self) -> None:
        """An answer begins."""
        if self._read is not None:
            self._at_start = (self._read(), time.monotonic())

    def stop(self) -> tuple[float, float]:
        """Joules and seconds since `start`; zeros where there is no counter."""
        if self._read is None:
            return 0.0, 0.0
        joules, seconds = self._at_start
        return self._read() - joules, time.monotonic() - seconds

    def energy(self, spent: list[tuple[float, float]], num_tokens: int) -> Energy:
        """What the counted answers took, each as `stop` gave it.

        Args:
            spent: Joules and seconds of the answers.
            num_tokens: All output tokens of all sequences.
        """
        if self._idle_watts is None or not num_tokens:
            return Energy(source=self.source, reason=self.reason)
        above = sum(joules - self._idle_watts * seconds for joules, seconds in spent)
        return Energy(
            source=self.source,
            joules_per_token=max(above, 0.0) / num_tokens,
            idle_watts=self._idle_watts,
        )


Found = tuple[str | None, str | None, Callable[[], float] | None]
"""The counter's name, why there is none, and how to read it in joules."""


def _counter(device: torch.device, powercap: Path) -> Found:
    if device.type == "cuda":
        if nvml.energy_joules(device) is None:
            return None, "NVML is missing, or this GPU has no energy counter.", None
        return "NVML", None, lambda: nvml.energy_joules(device) or 0.0
    packages = sorted(powercap.glob("intel-rapl:[0-9]*"))
    packages = [zone for zone in packages if zone.name.count(":") == 1]
    if not packages:
        return None, "This machine shows no RAPL counter (as in most virtual machines).", None
    try:
        counter = _Rapl(packages)
    except (OSError, ValueError) as error:
        return None, f"RAPL is there, but cannot be read: {error}.", None
    return "RAPL", None, counter.joules


class _Rapl:
    """The packages' counters as one that never falls; each of theirs starts anew when full."""

    def __init__(self, packages: list[Path]) -> None:
        self._files = [zone / "energy_uj" for zone in packages]
        self._ranges = [_number(zone / "max_energy_range_uj") for zone in packages]
        self._last = [_number(path) for path in self._files]
        self._total = 0

    def joules(self) -> float:
        now = [_number(path) for path in self._files]
        for new, old, size in zip(now, self._last, self._ranges, strict=True):
            self._total += new - old if new >= old else new - old + size
        self._last = now
        return self._total / 1e6


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))
