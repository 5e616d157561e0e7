"""What NVIDIA's driver counts, through a fake of its library."""

import os
import types

import pynvml
import pytest
import torch

from explorer.latency import energy, nvml
from explorer.latency.interference import InterferenceWatch

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _gpu(monkeypatch):
    """A GPU as torch names it; NVML's handles are looked up anew."""
    properties = types.SimpleNamespace(uuid="1234")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    nvml._handle.cache_clear()
    yield
    nvml._handle.cache_clear()


@pytest.fixture
def driver(monkeypatch):
    """A fake driver: 9 J so far, a kernel in 30 % of the time, this process and another one."""
    counts = types.SimpleNamespace(
        millijoules=9000,
        utilisation=30,
        processes=[types.SimpleNamespace(pid=pid) for pid in (os.getpid(), os.getpid() + 1)],
    )

    def by_uuid(uuid):
        assert uuid == "GPU-1234", "NVML's form of the UUID"
        return "handle"

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", by_uuid)
    answers = {
        "nvmlDeviceGetTotalEnergyConsumption": lambda handle: counts.millijoules,
        "nvmlDeviceGetUtilizationRates": lambda handle: types.SimpleNamespace(
            gpu=counts.utilisation
        ),
        "nvmlDeviceGetComputeRunningProcesses": lambda handle: counts.processes,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    return counts


def test_energy_utilisation_and_processes_come_from_the_driver(driver):
    """Joules, a share in [0, 1], and the processes beside ours."""
    assert nvml.energy_joules(CUDA) == 9.0
    assert nvml.busy_share(CUDA) == 0.3
    assert nvml.num_other_processes(CUDA) == 1


def test_in_a_container_one_of_the_processes_is_ours(driver):
    """There the pids are the host's, so ours is not among them, yet it is counted."""
    driver.processes = [types.SimpleNamespace(pid=os.getpid() + 1)]

    assert nvml.num_other_processes(CUDA) == 0


def test_without_a_driver_nothing_is_known(monkeypatch):
    """No number, never 0: the energy has a reason, and the interference stays open."""

    def missing():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)

    assert nvml.energy_joules(CUDA) is None
    assert nvml.busy_share(CUDA) is None
    assert nvml.num_other_processes(CUDA) is None
    found = energy.EnergyMeter(CUDA).energy([None], 10)
    assert found.joules_per_token is None
    assert "NVML is missing" in found.reason


def test_the_meter_reads_the_gpus_counter(driver, monkeypatch):
    """From 9 J to 13 J are 4 J."""
    monkeypatch.setattr(energy, "IDLE_S", 0.0)
    meter = energy.EnergyMeter(CUDA)
    meter.start()
    driver.millijoules = 13000

    joules, _ = meter.stop()

    assert meter.source == "NVML"
    assert joules == pytest.approx(4.0)


def test_a_counter_that_goes_silent_gives_no_energy(driver, monkeypatch):
    """A request whose energy could not be read is not counted as 0 J."""
    monkeypatch.setattr(energy, "IDLE_S", 0.0)
    meter = energy.EnergyMeter(CUDA)
    meter.start()

    def lost(handle):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lost)
    found = meter.energy([(4.0, 1.0), meter.stop()], 10)

    assert found.joules_per_token is None
    assert "could not be read" in found.reason


def test_a_busy_gpu_is_interference(driver, monkeypatch):
    """The shares and the number of other processes reach the record."""
    monkeypatch.setattr("explorer.latency.interference.WATCH_BEFORE_S", 0.0)

    found = InterferenceWatch(CUDA, counter=lambda: (0.0, 1.0)).interference()

    assert (found.gpu_share_before, found.num_other_gpu_processes) == (0.3, 1)
    assert "30% of the GPU" in found.warning
