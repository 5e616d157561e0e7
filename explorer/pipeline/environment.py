"""Where and with what a run is made: the machine, the libraries, our own commit."""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import socket
import subprocess
from pathlib import Path
from typing import Any

import cpuinfo
import psutil
import torch

import explorer
from explorer.records import Environment

LIBRARIES = (
    "torch",
    "transformers",
    "lm-eval",
    "accelerate",
    "tokenizers",
    "datasets",
    "numpy",
    "torchao",
)
"""The ones that decide numbers."""
BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Flags of processors that multiply in bfloat16: two of x86, one of ARM."""


def environment(device: torch.device, threads: int) -> Environment:
    """Describe this machine and its software for a record.

    Args:
        device: The one that the run computes on.
        threads: CPU threads that torch uses.
    """
    versions = {"explorer": explorer.__version__}
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    host = hashlib.sha256(socket.gethostname().encode()).hexdigest()
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        hostname_hash=host[:8],
        device=device.type,
        device_name=device_name(device),
        num_cpus=num_cpus(),
        threads=threads,
        memory_bytes=memory_bytes(device),
        driver=_driver() if device.type == "cuda" else None,
        versions=versions,
        commit=commit(),
    )


def num_cpus() -> int:
    """Processors that this process may use, which containers make fewer than the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device_name(device: torch.device) -> str:
    """A GPU's name as its driver says it, or as in `AMD EPYC 7B13 (2 cores)`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor() or platform.processor() or platform.machine() or 'CPU'} ({_cores()})"


@functools.cache
def _about_processor() -> dict[str, Any]:
    """What the system says of it, or nothing; cached, since asking takes a second."""
    with contextlib.suppress(Exception):
        # cpuinfo asks the system in a dozen ways, and has failed on new ones.
        return dict(cpuinfo.get_cpu_info())
    return {}


def _processor() -> str:
    """The processor's brand, or nothing."""
    return " ".join(str(_about_processor().get("brand_raw", "")).split())


def computes_bfloat16() -> bool:
    """Whether the processor says that it has instructions for products in bfloat16."""
    return not BFLOAT16.isdisjoint(_about_processor().get("flags", ()))


def _cores() -> str:
    return "1 core" if num_cpus() == 1 else f"{num_cpus()} cores"


def memory_bytes(device: torch.device) -> int:
    """All memory of the GPU, or of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def commit() -> str | None:
    """The checkout's commit, with `+changes` when files differ; None outside a checkout."""
    root = Path(explorer.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    head = _git(root, "rev-parse", "--short", "HEAD")
    if head is None:
        return None
    return f"{head}+changes" if _git(root, "status", "--porcelain", "explorer") else head


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _driver() -> str | None:
    """NVIDIA's driver version, which torch does not tell."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    versions = done.stdout.split()
    return versions[0] if versions else None
