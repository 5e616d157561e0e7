"""Energy per token: the counter's difference, idle subtracted, a reason where there is none."""

import pytest
import torch

from explorer.latency import energy

CPU = torch.device("cpu")


@pytest.fixture
def powercap(tmp_path, monkeypatch):
    """One package of RAPL whose counter starts anew at 10 J, with a part that is not counted."""
    monkeypatch.setattr(energy, "IDLE_S", 0.0)
    for name in ("intel-rapl:0", "intel-rapl:0:0"):
        zone = tmp_path / "powercap" / name
        zone.mkdir(parents=True)
        (zone / "energy_uj").write_text("9000000\n")
        (zone / "max_energy_range_uj").write_text("10000000\n")
    return tmp_path / "powercap"


def test_joules_are_the_counters_also_over_its_end(powercap):
    """From 9 J to 3 J of a counter that starts anew at 10 J are 4 J; parts are in their package."""
    meter = energy.EnergyMeter(CPU, powercap)
    meter.start()
    (powercap / "intel-rapl:0" / "energy_uj").write_text("3000000\n")

    joules, seconds = meter.stop()

    assert joules == pytest.approx(4.0)
    assert 0 < seconds < 1


def test_idle_power_is_subtracted(powercap):
    """30 J in 2 s on a machine that takes 5 W when idle, for 40 tokens: 0.5 J a token."""
    meter = energy.EnergyMeter(CPU, powercap)
    meter._idle_watts = 5.0

    found = meter.energy([(20.0, 1.0), (10.0, 1.0)], 40)

    assert (found.source, found.idle_watts) == ("RAPL", 5.0)
    assert found.joules_per_token == pytest.approx(0.5)


def test_without_a_counter_there_is_a_reason_and_no_number(tmp_path):
    """Most virtual machines show none: null, never 0."""
    meter = energy.EnergyMeter(CPU, tmp_path)
    meter.start()

    found = meter.energy([meter.stop()], 10)

    assert found.joules_per_token is None
    assert "no RAPL counter" in found.reason


def test_a_counter_that_may_not_be_read_is_said(powercap):
    """Root alone may read it on most systems: that is the reason that is kept."""
    (powercap / "intel-rapl:0" / "energy_uj").unlink()

    found = energy.EnergyMeter(CPU, powercap).energy([], 1)

    assert found.joules_per_token is None
    assert "cannot be read" in found.reason
