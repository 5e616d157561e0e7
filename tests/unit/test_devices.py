"""No code of ours knows a device by its name."""

import ast
import re
import types
from pathlib import Path

import pytest
import torch

import explorer
from explorer.devices import accelerator, backend, failures, memory, nvml, torch_build
from explorer.errors import BadInput, NoRoom, RunFailed
from explorer.latency import timing
from explorer.pipeline import run_guard
from tests.conftest import ROOT

FILES = sorted(Path(explorer.__file__).parent.rglob("*.py"))
NAMES = ("cuda", "mps", "xpu", "hip", "rocm", "npu", "hpu", "mtia")
"""Kinds of device as torch and its builds name them."""
MODULES = {f"torch.{place}{name}" for name in NAMES for place in ("", "backends.", "version.")}


def named_devices(tree):
    """Where code names a kind of device: a text that begins with it, or torch's module of it."""
    documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value.startswith(NAMES) and id(node) not in documented:
                yield node.lineno
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in MODULES:
            yield node.lineno


@pytest.mark.parametrize("code", ['f("cuda:0")', "torch.cuda.synchronize()", 'x == "mps"'])
def test_the_walk_finds_a_device_that_code_names(code):
    """As it did in 20 files."""
    assert list(named_devices(ast.parse(code)))


def test_no_module_knows_a_device_by_name():
    """What a device can do is asked, so a new kind works without a change."""
    assert len(FILES) > 100
    found = {
        str(path): lines
        for path in FILES
        if (lines := list(named_devices(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert not found


@pytest.fixture
def accelerators(monkeypatch):
    """Makes torch find accelerators; their free bytes are given."""

    def find(*free_bytes, kind="cuda"):
        devices = [torch.device(kind, i) for i in range(len(free_bytes))]
        monkeypatch.setattr(accelerator, "found", lambda: devices)
        free = dict(zip(devices, free_bytes, strict=True))
        monkeypatch.setattr(memory, "free_bytes", free.get)

    return find


@pytest.mark.parametrize(
    ("free_bytes", "taken"),
    [((), "cpu"), ((5,), "cuda"), ((5, 9, 7), "cuda:1"), ((5, 5), "cuda:0"), ((None, 3), "cuda:1")],
)
def test_auto_takes_the_accelerator_with_the_most_free_memory(accelerators, free_bytes, taken):
    """The first of equals, the CPU where there is none; an only one needs no number."""
    accelerators(*free_bytes)

    assert str(accelerator.pick_device()) == taken


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("cuda:2", NoRoom, "torch finds 2 GPUs, the first of which is cuda:0"),
        ("xpu", NoRoom, "the accelerators that torch finds here are cuda:0, cuda:1"),
        ("tpu", BadInput, "which torch does not know"),
        ("cpu:1", BadInput, "there is one CPU"),
        ("auto:1", BadInput, "which torch does not know"),
    ],
)
def test_a_device_that_is_not_there_is_one_sentence(accelerators, name, error, says):
    """What was asked, what is there, what to write."""
    accelerators(1, 1)

    with pytest.raises(error, match=says):
        accelerator.pick_device(name)
    assert str(accelerator.pick_device("cuda:1")) == "cuda:1"
    assert str(accelerator.pick_device("cpu")) == "cpu"


def test_in_a_launch_each_process_has_its_own_device(accelerators, monkeypatch):
    """No process takes the freest one, and none may be told a number."""
    accelerators(1, 9)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)

    assert str(accelerator.pick_device()) == "cuda"
    with pytest.raises(BadInput, match="Write device: cuda"):
        accelerator.pick_device("cuda:1")


def test_torch_is_asked_for_memory_only_where_the_driver_does_not_say(monkeypatch):
    """Its own question leaves a context on the GPU."""
    told = {"driver": 7}
    monkeypatch.setattr(nvml, "free_bytes", lambda device: told["driver"])
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda device: (3, 10))
    device = torch.device("xpu")

    assert memory.free_bytes(device) == 7
    told["driver"] = None
    assert memory.free_bytes(device) == 3
    assert memory.total_bytes(device) == 10


def test_a_device_that_cannot_say_its_memory_has_the_machines(monkeypatch):
    """As Apple's chips, whose memory is the machine's; the CPU has no free bytes of its own."""

    def refuse(device):
        raise RuntimeError("no such question")

    monkeypatch.setattr(torch.accelerator, "get_memory_info", refuse)
    monkeypatch.setattr(nvml, "free_bytes", lambda device: None)
    device = torch.device("xpu")

    assert memory.free_bytes(device) is None
    assert memory.total_bytes(device) == memory.total_bytes(torch.device("cpu")) > 2**28
    assert memory.free_bytes(torch.device("cpu")) is None


def test_the_cpu_is_asked_nothing_of_an_accelerator():
    """No bfloat16 by default, no graphs, no pinned memory, no counted peak; fused AdamW it has."""
    cpu = torch.device("cpu")

    assert not accelerator.is_accelerator(cpu)
    assert not accelerator.multiplies_in_bfloat16(cpu)
    assert not accelerator.has_graphs(cpu)
    assert not accelerator.pins_memory(cpu)
    assert not memory.counts_peak(cpu)
    assert accelerator.has_fused_adamw(cpu)
    assert accelerator.name(cpu) is accelerator.driver(cpu) is None
    accelerator.synchronize(cpu)


def test_the_same_seed_draws_the_same_tokens():
    """On a device with random numbers of its own, each draw is torch's."""
    probabilities_BV = torch.rand(3, 7, generator=torch.Generator().manual_seed(0))
    drawn = [
        accelerator.draw(probabilities_BV, accelerator.generator(torch.device("cpu"), 5))
        for _ in range(2)
    ]
    wanted = torch.multinomial(probabilities_BV, 1, generator=torch.Generator().manual_seed(5))

    assert torch.equal(drawn[0], wanted)
    assert torch.equal(drawn[1], wanted)


def test_a_gpu_that_only_emulates_bfloat16_does_not_count(monkeypatch):
    """It would be slower than float32; its models load in float32 and train in it."""
    from explorer.distill import train
    from explorer.models import loading
    from explorer.specs import DistillSpec

    device = torch.device("cuda", 5)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)

    assert not accelerator.multiplies_in_bfloat16(device)
    assert loading.pick_dtype("auto", device) is torch.float32
    assert not train.in_bfloat16(DistillSpec(), device)
    accelerator.multiplies_in_bfloat16.cache_clear()


def test_the_clock_waits_for_the_device(monkeypatch, tiny_llama):
    """A request begins when all earlier work is done, on whichever device."""
    from explorer.latency.runtimes.pytorch import EagerRuntime
    from explorer.models.loading import load

    waited = []
    monkeypatch.setattr(accelerator, "synchronize", waited.append)

    timing.time_request(EagerRuntime(load(str(tiny_llama()))), torch.ones(1, 4, dtype=int), 2)

    assert waited == [torch.device("cpu")]


@pytest.mark.parametrize(
    ("driver", "built", "reaches", "says"),
    [
        (None, None, None, None),
        (None, "cuda 13.0", None, None),
        ("570.1", None, "12.8", "NVIDIA driver 570.1, but torch .* is a build for CPUs"),
        ("470.1", "cuda 13.0", "11.4", "built for cuda 13.0, but .* reaches only 11.4. Update"),
        ("570.1", "cuda 12.9", "12.8", "the NVIDIA driver 570.1 is here, but torch finds no"),
    ],
)
def test_the_doctor_names_a_torch_that_does_not_fit_the_driver(
    monkeypatch, driver, built, reaches, says
):
    """A build for CPUs beside a driver, a driver too old, a hidden GPU; else nothing."""
    monkeypatch.setattr(nvml, "driver", lambda: driver)
    monkeypatch.setattr(nvml, "newest_toolkit", lambda: reaches)
    monkeypatch.setattr(torch_build, "built_for", lambda: built)

    found = torch_build.mismatch()

    assert found is None if says is None else re.search(says, found)


def test_every_platforms_command_is_in_the_documentation_and_marked(monkeypatch):
    """Five commands, tried or not; the doctor prints one of them."""
    table = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| .+ \| `(pip install torch[^`]*)` \| (yes.*|\*\*no\*\*) \|$", table, re.MULTILINE
    )

    assert len(rows) == 5
    assert torch_build.install_command() in [command for command, _ in rows]
    monkeypatch.setattr(nvml, "driver", lambda: "570.1")
    assert torch_build.install_command() in [command for command, _ in rows]


def test_the_lock_of_a_device_has_the_number_that_is_its_own(monkeypatch):
    """By its UUID where it has one; CUDA_VISIBLE_DEVICES may number it otherwise."""
    from explorer.latency import device_lock

    told = {"properties": types.SimpleNamespace(uuid="1234")}
    monkeypatch.setattr(backend, "properties", lambda device: told["properties"])
    assert device_lock.name_of(torch.device("cpu")) == "cpu"
    assert device_lock.name_of(torch.device("cuda", 1)) == "cuda-1234"
    told["properties"] = None
    assert device_lock.name_of(torch.device("xpu", 1)) == "xpu-1"
    assert device_lock.name_of(torch.device("mps")) == "mps-0"


@pytest.mark.parametrize(
    ("environment", "device", "num_devices", "says"),
    [
        ({}, "cpu", 1, None),
        ({}, "cuda", 1, "GPU 0, NVIDIA L4"),
        ({}, "cuda:1", 1, "GPU 1, NVIDIA L4"),
        ({"CUDA_VISIBLE_DEVICES": "3"}, "cuda", 1, "GPU 3, NVIDIA L4"),
        ({"CUDA_VISIBLE_DEVICES": "2,5"}, "cuda:1", 1, "GPU 5, NVIDIA L4"),
        ({"CUDA_VISIBLE_DEVICES": "2,5"}, "cuda", 2, "GPUs 2 and 5, NVIDIA L4"),
        ({"HIP_VISIBLE_DEVICES": "7"}, "cuda", 1, "GPU 7, NVIDIA L4"),
        ({"CUDA_VISIBLE_DEVICES": "MIG-41b36fe0-4a1f"}, "cuda", 1, "GPU MIG-41b36fe0, NVIDIA L4"),
    ],
)
def test_a_run_says_which_of_the_machines_devices_it_has(
    monkeypatch, environment, device, num_devices, says
):
    """By the machine's own numbers: every job of the queue has a device 0."""
    for variable in accelerator.VISIBLE:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(accelerator, "name", lambda device: "NVIDIA L4")

    assert accelerator.places(torch.device(device), num_devices) == says


def test_more_processes_than_devices_are_refused(accelerators, monkeypatch):
    """No two processes of a run compute on one device, whoever launched them."""
    accelerators(1, 1)

    accelerator.check_enough(2)
    with pytest.raises(NoRoom, match=r"torch finds 2 here .*Write num_devices: 2, or device: cpu"):
        accelerator.check_enough(3)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(NoRoom, match="4 devices are asked for"):
        accelerator.pick_device()
    assert str(accelerator.pick_device("cpu")) == "cpu"


def test_a_driver_too_old_for_this_torch_is_the_reason_that_there_is_no_gpu(monkeypatch):
    """Not only that torch finds none: what to update."""
    monkeypatch.setattr(accelerator, "found", list)
    monkeypatch.setattr(nvml, "driver", lambda: "470.1")
    monkeypatch.setattr(nvml, "newest_toolkit", lambda: "11.4")
    monkeypatch.setattr(torch_build, "built_for", lambda: "cuda 13.0")

    with pytest.raises(NoRoom, match=r"driver 470.1 reaches only 11.4. Update the driver"):
        accelerator.pick_device("cuda")


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: unspecified launch failure\nSearch for `cudaErrorLaunchFailure'",
        "CUDA error: uncorrectable ECC error encountered",
        "CUDA error: the launch timed out and was terminated",
        "HIP error: unspecified launch failure",
        "level_zero backend failed with error: 20 (UR_RESULT_ERROR_DEVICE_LOST)",
        "GPU is lost",
        "NVRM: Xid (PCI:0000:03:00): 79, GPU has fallen off the bus.",
    ],
)
def test_a_lost_device_is_one_sentence(message):
    """What is kept, and how to go on elsewhere."""
    error = torch.AcceleratorError(message)

    assert failures.was_lost(error)
    said = run_guard.as_explorer_error(error)
    assert isinstance(said, RunFailed)
    assert "The device was lost" in str(said)
    assert "continues from the same checkpoint" in str(said)
    assert "\n" not in str(said)


def test_other_errors_of_a_device_are_told_apart():
    """A device in exclusive use is waited for; a wrong index in a kernel is a bug."""
    taken = torch.AcceleratorError("CUDA error: CUDA-capable device(s) is/are busy or unavailable")
    assert "Another program has this device to itself" in str(run_guard.as_explorer_error(taken))
    wrong = torch.AcceleratorError("CUDA error: device-side assert triggered")
    assert run_guard.as_explorer_error(wrong) is None
    full = torch.OutOfMemoryError("CUDA out of memory")
    assert "ran out of memory" in str(run_guard.as_explorer_error(full))
