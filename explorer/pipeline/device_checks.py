"""The checks of a run's device before it starts: that it is there, free, and can do the work.

NVIDIA's driver is asked through its own library, so that a check takes nothing of the device.
"""

from collections.abc import Iterator
from pathlib import Path

import torch

from explorer.analysis import numbers
from explorer.devices import accelerator, memory, nvml, torch_build
from explorer.devices.accelerator import AUTO, pick_device
from explorer.errors import BadInput
from explorer.latency.runtimes.llamacpp import load_llama_cpp
from explorer.models import quantize
from explorer.models.loading import pick_dtype
from explorer.specs import RunSpec


def check_device(spec: RunSpec, root: Path) -> Iterator[str]:
    """The device exists, and what is to run on it can."""
    device = pick_device(spec.device)
    if device.type == "cpu" and spec.device == AUTO and (cause := torch_build.mismatch()):
        yield f"This run takes the CPU. {cause}"
    if others := nvml.num_other_processes(device):
        yield (
            f"{_programs(others)} on {accelerator.name(device) or device} ({device}) already: "
            "training there is slower, and a timing beside them is marked as one on a busy "
            "machine. End them, or write another device."
        )
    if spec.num_devices > 1 and accelerator.is_accelerator(device):
        accelerator.check_enough(spec.num_devices)
    _refuse_absent_bfloat16(spec, device)
    if spec.reads_gguf:
        if spec.capability or not spec.server:
            load_llama_cpp()
        if device.type != "cpu":
            raise BadInput(
                f"llama.cpp is measured on the CPU, and this run's device is {device}. Write "
                "device: cpu, so that the teacher is timed there too."
            )
    for bits in (spec.torch_bits, spec.distill.teacher_bits if spec.distill else None):
        if bits:
            quantize.check_quantization(bits, device, pick_dtype(spec.dtype, device))


def _programs(number: int) -> str:
    return "Another program computes" if number == 1 else f"{number} other programs compute"


def _refuse_absent_bfloat16(spec: RunSpec, device: torch.device) -> None:
    """A GPU that only emulates bfloat16 would be slower in it than in float32."""
    if not accelerator.is_accelerator(device) or accelerator.multiplies_in_bfloat16(device):
        return
    asked = {"dtype": spec.dtype, "distill.precision": spec.distill and spec.distill.precision}
    for key, value in asked.items():
        if value == "bfloat16":
            raise BadInput(
                f"The spec has {key} bfloat16, which {accelerator.name(device) or device} does not "
                f"compute in. Write {key}: auto or float32."
            )


def taken(spec: RunSpec, need: float) -> str | None:
    """Why a run that an idle device has room for does not fit now; None if it does."""
    device = pick_device(spec.device)
    free = memory.free_bytes(device)
    if free is None or need <= free + memory.own_bytes(device):
        return None
    return (
        f"{spec.name} needs about {numbers.size(need)} of memory, but only {numbers.size(free)} of "
        f"the {numbers.size(memory.total_bytes(device))} of {device} are free: other programs hold "
        "the rest. End them or wait for them, or write another device."
    )
