"""Whether the installed torch fits this machine's driver, and the command that installs one.

explorer doctor
"""

import platform
from pathlib import Path

import torch

from explorer.devices import accelerator, nvml

AMD_DEVICE = Path("/dev/kfd")
"""What AMD's driver for computing makes."""
INTEL_DRIVER = Path("/sys/module/xe")
WHEELS = "https://download.pytorch.org/whl"


def built_for() -> str | None:
    """The kind of accelerator that the installed torch can use, and its version if it has one."""
    kind = torch.accelerator.current_accelerator(check_available=False)
    if kind is None:
        return None
    version = getattr(torch.version, kind.type, None)
    return f"{kind.type} {version}" if version else kind.type


def mismatch() -> str | None:
    """Why torch cannot use a GPU that this machine has a driver for; None if nothing is wrong."""
    if accelerator.found():
        return None
    vendor, driver = "NVIDIA", nvml.driver()
    if driver is None and AMD_DEVICE.exists():
        vendor, driver = "AMD", "amdgpu"
    if driver is None:
        return None
    built = built_for()
    if built is None:
        return (
            f"This machine has the {vendor} driver {driver}, but torch {torch.__version__} is a "
            f"build for CPUs. Install another one: {install_command()} --force-reinstall"
        )
    reaches = nvml.newest_toolkit()
    if reaches and _major(built) > _major(reaches):
        return (
            f"torch is built for {built}, but the {vendor} driver {driver} reaches only {reaches}. "
            "Update the driver, or install a torch for that version (docs/install.md)."
        )
    return (
        f"torch is built for {built} and the {vendor} driver {driver} is here, but torch finds no "
        "GPU. A variable such as CUDA_VISIBLE_DEVICES may hide it, or the driver needs a restart."
    )


def _major(version: str) -> int:
    """The 13 of `13.0`: within one major version, older drivers run newer builds."""
    number = version.rpartition(" ")[2].partition(".")[0]
    return int(number) if number.isdecimal() else 0


def install_command() -> str:
    """The command that installs torch for what this machine has a driver for (docs/install.md)."""
    if platform.system() == "Darwin" or nvml.driver() is not None:
        return "pip install torch"
    if AMD_DEVICE.exists():
        return f"pip install torch --index-url {WHEELS}/rocm7.0"
    if INTEL_DRIVER.exists():
        return f"pip install torch --index-url {WHEELS}/xpu"
    return f"pip install torch --index-url {WHEELS}/cpu"
