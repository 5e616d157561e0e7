"""Energy per output token from the device's own counter, minus what the device uses when idle.

On a GPU the counter is NVML's and covers the whole GPU. On a CPU it is RAPL's and covers the
processor packages; the kernel must show it and let us read it. Elsewhere there is no number, and
the record says why.

Source: kernel.org/doc/html/latest/power/powercap/powercap.html.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from explorer.devices import accelerator, nvml
from explorer.records import Energy

POWERCAP = Path("/sys/class/powercap")
IDLE_S = 2.0
"""How long the idle power is measured, in seconds."""

EnergyUse = tuple[float, float]
"""Joules and seconds of one request."""
Counter = Callable[[], float | None]
"""Returns joules since a fixed moment; None when the counter cannot be read."""


class EnergyMeter:
    """Measures the energy of one device: idle first, then request by request."""

    def __init__(self, device: torch.device, powercap: Path = POWERCAP) -> None:
        """Find the counter and measure idle power; returns at once where there is no counter."""
        self.source, self.reason, self._counter = _find_counter(device, powercap)
        self._idle_watts: float | None = None
        self._started: EnergyUse | None = None
        began_j, began_s = self._joules(), time.monotonic()
        if began_j is not None:
            time.sleep(IDLE_S)
            ended_j = self._joules()
            if ended_j is not None:
                self._idle_watts = (ended_j - began_j) / (time.monotonic() - began_s)

    def start(self) -> None:
        """Read the counter before a request."""
        joules = self._joules()
        self._started = None if joules is None else (joules, time.monotonic())

    def stop(self) -> EnergyUse | None:
        """Joules and seconds since `start`; None where the counter cannot be read."""
        joules = self._joules()
        if joules is None or self._started is None:
            return None
        began_j, began_s = self._started
        return joules - began_j, time.monotonic() - began_s

    def energy(self, spent: list[EnergyUse | None], num_tokens: int) -> Energy:
        """Joules per output token above idle, over all counted requests.

        Args:
            spent: What `stop` returned for each request.
            num_tokens: Output tokens of all requests and sequences together.
        """
        known = [each for each in spent if each is not None]
        if self._idle_watts is None or not num_tokens:
            return Energy(source=self.source, reason=self.reason)
        if len(known) < len(spent):
            return Energy(source=self.source, reason="The counter could not be read every time.")
        above = sum(joules - self._idle_watts * seconds for joules, seconds in known)
        return Energy(
            source=self.source,
            joules_per_token=max(above, 0.0) / num_tokens,
            idle_watts=self._idle_watts,
        )

    def _joules(self) -> float | None:
        return None if self._counter is None else self._counter()


def _find_counter(
    device: torch.device, powercap: Path
) -> tuple[str | None, str | None, Counter | None]:
    """The counter's name, why there is none, and the function that reads it."""
    if accelerator.is_accelerator(device):
        if nvml.energy_joules(device) is None:
            return None, nvml.energy_problem(device), None
        return "NVML", None, lambda: nvml.energy_joules(device)
    zones = sorted(powercap.glob("intel-rapl:[0-9]*"))
    # intel-rapl:0 is a package; intel-rapl:0:0 is a part of it, already counted there.
    packages = [zone for zone in zones if zone.name.count(":") == 1]
    if not packages:
        return None, "This machine shows no RAPL counter (as in most virtual machines).", None
    try:
        rapl = _Rapl(packages)
    except (OSError, ValueError) as error:
        return None, f"RAPL is there, but cannot be read: {error}.", None
    return "RAPL", None, rapl.joules


class _Rapl:
    """The packages' counters added up; each wraps to zero when it is full, the sum does not."""

    def __init__(self, packages: list[Path]) -> None:
        self._files = [zone / "energy_uj" for zone in packages]
        self._ranges = [_read_int(zone / "max_energy_range_uj") for zone in packages]
        self._last = [_read_int(path) for path in self._files]
        self._total_uj = 0

    def joules(self) -> float:
        now = [_read_int(path) for path in self._files]
        for new, old, size in zip(now, self._last, self._ranges, strict=True):
            self._total_uj += new - old if new >= old else new - old + size
        self._last = now
        return self._total_uj / 1e6


def _read_int(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))
