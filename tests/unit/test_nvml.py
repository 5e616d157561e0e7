"""What NVIDIA's driver counts, through a library that answers as the driver's own does."""

import os
import types

import pynvml
import pytest
import torch

from explorer.devices import memory, nvml
from explorer.latency import energy
from explorer.latency.gpu_watch import GpuWatch
from explorer.latency.interference import InterferenceWatch
from explorer.records import GpuState
from tests import mock_nvml

GPU = torch.device("cuda")  # its module is in every build of torch
NOT_SUPPORTED, NO_PERMISSION = -pynvml.NVML_ERROR_NOT_SUPPORTED, -pynvml.NVML_ERROR_NO_PERMISSION


@pytest.fixture(autouse=True)
def _gpu(monkeypatch):
    """A GPU as torch names it; NVML's handles are looked up anew."""
    properties = types.SimpleNamespace(uuid="1234")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    nvml._handle.cache_clear()
    yield
    nvml._handle.cache_clear()


@pytest.fixture
def loaded(monkeypatch, tmp_path):
    """Loads a driver: 9 J so far, a kernel in 30 % of the time, this process and another one."""

    def load(**options):
        driver = mock_nvml.build(tmp_path, **options)
        monkeypatch.setattr(pynvml, "nvmlLib", driver.library)
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        driver.set_pids(os.getpid(), os.getpid() + 1)
        return driver

    return load


@pytest.fixture
def driver(loaded):
    """A driver of today."""
    return loaded()


def test_energy_utilisation_and_processes_come_from_the_driver(driver):
    """Joules, a share in [0, 1], free bytes, and the processes beside ours."""
    assert (nvml.driver(), nvml.newest_toolkit()) == ("570.133.20", "12.8")
    assert nvml.energy_joules(GPU) == 9.0
    assert nvml.busy_share(GPU) == 0.3
    assert nvml.num_other_processes(GPU) == 1
    assert nvml.free_bytes(GPU) == memory.free_bytes(GPU) == 40_000
    assert nvml.is_slice(GPU) is False


def test_clocks_limits_and_their_reasons_come_from_the_driver(driver):
    """Watts, MHz of the multiprocessors, and what lowers them in words, each once."""
    driver.set(slowdowns=0x4 | 0x20 | 0x40, display=1, errors=3)

    assert nvml.power_limit_watts(GPU) == 700.0
    assert (nvml.clock_mhz(GPU), nvml.max_clock_mhz(GPU)) == (1200, 1980)
    assert nvml.slowdowns(GPU) == ["its power limit", "heat"]
    assert nvml.drives_display(GPU) is True
    assert nvml.num_memory_errors(GPU) == 3


def test_in_a_container_one_of_the_processes_is_ours(driver):
    """There the pids are the host's, so ours is not among them, yet it is counted."""
    driver.set_pids(os.getpid() + 1)

    assert nvml.num_other_processes(GPU) == 0


def test_more_processes_than_fit_at_first_are_all_counted(driver):
    """The library is asked twice: how many, then which."""
    driver.set_pids(*range(100_000, 100_008))

    assert nvml.num_other_processes(GPU) == 7
    driver.set_pids()
    assert nvml.num_other_processes(GPU) == 0


def test_a_slice_of_a_gpu_is_found_and_has_no_energy_of_its_own(driver):
    """Torch gives a slice's UUID without its kind; the reason names the slice."""
    driver.set_uuid("MIG-1234")
    driver.set(is_slice=1, energy=NOT_SUPPORTED, busy=NOT_SUPPORTED)

    assert nvml.is_slice(GPU) is True
    assert nvml.free_bytes(GPU) == 40_000
    assert nvml.busy_share(GPU) is None
    assert "MIG slice" in energy.EnergyMeter(GPU).energy([None], 10).reason


def test_a_gpu_that_the_driver_does_not_know_answers_nothing(driver):
    """As after a card was unplugged."""
    driver.set_uuid("GPU-another")

    assert nvml.free_bytes(GPU) is None
    assert nvml.energy_joules(GPU) is None


@pytest.mark.parametrize(
    ("error", "says"),
    [(NOT_SUPPORTED, "has no energy counter"), (NO_PERMISSION, "Insufficient Permissions")],
)
def test_a_counter_that_may_not_be_read_has_its_reason(driver, error, says):
    """Not supported, or for administrators only; the other numbers stay."""
    driver.set(energy=error)

    assert says in energy.EnergyMeter(GPU).energy([None], 10).reason
    assert nvml.busy_share(GPU) == 0.3


def test_an_old_driver_lacks_functions_and_answers_the_rest(loaded):
    """Drivers from before Volta count no energy and know no slices."""
    loaded(old_driver=True)

    assert nvml.energy_joules(GPU) is None
    assert nvml.is_slice(GPU) is None
    assert nvml.busy_share(GPU) == 0.3
    assert "Function Not Found" in energy.EnergyMeter(GPU).energy([None], 10).reason


def test_without_a_driver_nothing_is_known(monkeypatch):
    """No number, never 0: the energy has a reason, and the interference stays open."""

    def missing(flags):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInitWithFlags", missing)

    assert nvml.driver() is None
    assert nvml.energy_joules(GPU) is None
    assert nvml.busy_share(GPU) is None
    assert nvml.num_other_processes(GPU) is None
    assert GpuWatch(GPU).state() is None
    found = energy.EnergyMeter(GPU).energy([None], 10)
    assert found.joules_per_token is None
    assert "NVML is missing" in found.reason


def test_the_meter_reads_the_gpus_counter(driver, monkeypatch):
    """From 9 J to 13 J are 4 J."""
    monkeypatch.setattr(energy, "IDLE_S", 0.0)
    meter = energy.EnergyMeter(GPU)
    meter.start()
    driver.set(energy=13_000)

    joules, _ = meter.stop()

    assert meter.source == "NVML"
    assert joules == pytest.approx(4.0)


def test_a_counter_that_goes_silent_gives_no_energy(driver, monkeypatch):
    """A request whose energy could not be read is not counted as 0 J."""
    monkeypatch.setattr(energy, "IDLE_S", 0.0)
    meter = energy.EnergyMeter(GPU)
    meter.start()
    driver.set(energy=-pynvml.NVML_ERROR_GPU_IS_LOST)

    found = meter.energy([(4.0, 1.0), meter.stop()], 10)

    assert found.joules_per_token is None
    assert "could not be read" in found.reason


def test_a_busy_gpu_is_interference(driver, monkeypatch):
    """The shares and the number of other processes reach the record."""
    monkeypatch.setattr("explorer.latency.interference.WATCH_BEFORE_S", 0.0)

    found = InterferenceWatch(GPU, counter=lambda: (0.0, 1.0)).interference()

    assert (found.gpu_share_before, found.num_other_gpu_processes) == (0.3, 1)
    assert "30% of the GPU" in found.warning


def test_the_clocks_of_a_timing_are_in_its_record(driver):
    """The lowest and the highest after an answer; the power limit alone is no disturbance."""
    watch = GpuWatch(GPU)
    for clock, slowdowns in ((1980, 0), (1410, 0x4)):
        driver.set(clock=clock, slowdowns=slowdowns)
        watch.sample()

    assert watch.state() == GpuState(
        is_slice=False,
        power_limit_watts=700.0,
        max_clock_mhz=1980,
        lowest_clock_mhz=1410,
        highest_clock_mhz=1980,
        slowed_by=["its power limit"],
        drives_display=False,
        num_other_gpus_busy=0,
        num_memory_errors=0,
    )
    assert watch.state().warning is None


def test_a_gpu_that_is_hot_or_whose_memory_fails_marks_the_timing(driver):
    """Its times are kept, and count like those of a busy machine."""
    driver.set(errors=5)
    watch = GpuWatch(GPU)
    driver.set(errors=7, slowdowns=0x40)
    watch.sample()

    assert watch.state().warning == (
        "The GPU was slowed down by heat and had 2 memory errors during the timing, so its times "
        "are unreliable."
    )


def test_runs_on_other_gpus_are_in_the_record_and_mark_no_timing(driver):
    """Four GPUs of which this one is timed: the most of the others that computed at once."""
    driver.set(num_gpus=4, others_busy=60, busy=0)
    watch = GpuWatch(GPU)
    watch.sample()
    driver.set(others_busy=3)
    watch.sample()

    state = watch.state()

    assert state.num_other_gpus_busy == 3
    assert state.warning is None
    assert nvml.num_other_busy(GPU, 0.05) == 0
    driver.set(busy=NOT_SUPPORTED)
    assert nvml.num_other_busy(GPU, 0.01) == 0
