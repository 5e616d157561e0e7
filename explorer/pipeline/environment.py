"""Where a run happens: the machine, the library versions and the commit of the explorer."""

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
import torch

import explorer
from explorer.devices import accelerator, memory
from explorer.distill import distributed
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
"""Libraries whose version can change a result."""
BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""CPU flags for bfloat16 matrix products: two of x86, one of ARM."""


def environment(device: torch.device, threads: int) -> Environment:
    """Describe this machine and its software for a record.

    Args:
        device: The device the run computes on.
        threads: CPU threads torch uses.
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
        memory_bytes=memory.total_bytes(device),
        driver=accelerator.driver(device),
        versions=versions,
        commit=commit(),
        num_processes=distributed.world_size(),
    )


def num_cpus() -> int:
    """CPUs this process may use; a container may have fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def shared_threads() -> int:
    """CPU threads of this process where the launch has several on this machine.

    Each takes its share of the CPUs, or what OMP_NUM_THREADS says.
    """
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    if chosen.isdecimal() and int(chosen):
        return int(chosen)
    return max(1, num_cpus() // accelerator.num_local_processes())


def device_name(device: torch.device) -> str:
    """Name of an accelerator from its driver, or of the CPU as in `AMD EPYC 7B13 (2 cores)`.

    A part of the processor that computes has its brand, as in `Apple M2 Max (mps)`.
    """
    named = accelerator.name(device)
    if named:
        return named
    brand = _cpu_brand() or platform.processor() or platform.machine() or "CPU"
    return f"{brand} ({device.type if accelerator.is_accelerator(device) else _cores()})"


@functools.cache
def _cpu_info() -> dict[str, Any]:
    """What py-cpuinfo knows, or nothing; cached because it takes a second."""
    with contextlib.suppress(Exception):
        # It reads the system in a dozen ways and has failed on new ones.
        return dict(cpuinfo.get_cpu_info())
    return {}


def _cpu_brand() -> str:
    """The CPU's brand; empty if unknown."""
    return " ".join(str(_cpu_info().get("brand_raw", "")).split())


def computes_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16 matrix products."""
    return not BFLOAT16.isdisjoint(_cpu_info().get("flags", ()))


def _cores() -> str:
    return "1 core" if num_cpus() == 1 else f"{num_cpus()} cores"


def commit() -> str | None:
    """Commit of the checkout, with `+changes` if files differ; None outside a checkout."""
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
            ["git", "-C", str(root), *arguments],  # noqa: S607 - the git that the user has
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
