"""Peak memory of one model while it answers.

On an accelerator it is the peak of torch's allocator during an answer minus what other models held,
read in the process that times the model. On a CPU a process cannot tell two models apart, so
a fresh child process (`peak_memory_child`) loads the model alone and answers once. The result
is its highest resident memory while answering minus its resident memory before loading: it
includes the weights, the KV cache and the activations, but not Python and torch.
"""

import json
import os
import subprocess
import sys

import torch

from explorer.errors import NoRoom, RunFailed
from explorer.processes import child_process
from explorer.specs import Bits, LatencySpec

CHILD = "explorer.latency.peak_memory_child"
"""A name, not an import: the child imports `timing`, which imports this module."""


def peak_memory_bytes(
    name: str,
    spec: LatencySpec,
    device: torch.device,
    dtype: torch.dtype | None,
    bits: Bits | None = None,
    *,
    trust_remote_code: bool = False,
) -> int | None:
    """Peak memory in bytes of a model that loads and answers once in a child process.

    Args:
        name: Any name that `open_runtime.by_name` loads.
        spec: Prompt and answer length, batch size and runtime of the request.
        device: The CPU or an accelerator.
        dtype: The weights' dtype in torch.
        bits: Bits of the quantised linear weights.
        trust_remote_code: Whether the model's own code may run.

    Returns:
        Bytes; None on a CPU where the system cannot reset a process's peak (only Linux can).

    Raises:
        NoRoom: The child was killed, as systems do when memory is full.
        RunFailed: The child failed; the message has its last line.
    """
    if device.type == "cpu" and not _can_reset_peak():
        return None
    request = {
        "name": name,
        "spec": spec.model_dump(),
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch.") if dtype else "auto",
        "bits": bits,
        "trust_remote_code": trust_remote_code,
        "threads": torch.get_num_threads(),
    }
    command = [sys.executable, "-m", CHILD, json.dumps(request)]
    child = subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        check=False,
        env=child_process.environment(),
    )
    if child.returncode < 0:
        raise NoRoom(
            f"The process that measures the memory of {name} was killed by signal "
            f"{-child.returncode}, probably because memory was full. Choose a smaller model or "
            "batch_size."
        )
    if child.returncode:
        reason = (child.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise RunFailed(f"Could not measure the peak memory of {name}: {reason}")
    return int(child.stdout.split()[-1])


def _can_reset_peak() -> bool:
    return os.access("/proc/self/clear_refs", os.W_OK)
