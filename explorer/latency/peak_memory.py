"""Peak memory of one model while it answers.

On CUDA: what torch's allocator held at most during an answer, less what other models held,
read in the process that times the model. On a CPU no process can tell two models apart, so
a fresh child process (`memory_child`) loads the model alone and answers once: the number is
its highest resident memory while answering less its resident memory before the model was
loaded, and so holds the weights, the KV cache and the activations, but not Python and torch.
"""

import json
import os
import subprocess
import sys

import torch

from explorer.errors import NoRoom, RunFailed
from explorer.specs import Bits, LatencySpec

CHILD = "explorer.latency.peak_memory_child"
"""Named, not imported: it times with `latency`, which asks this module."""


def peak_memory_bytes(
    name: str,
    spec: LatencySpec,
    device: torch.device,
    dtype: torch.dtype | None,
    bits: Bits | None = None,
) -> int | None:
    """Load the model alone in a child process, let it answer once, and say what it took.

    Args:
        name: As `models.loading.load` knows it, or llamacpp:FILE.
        spec: The request: prompt, answer, batch size and runtime.
        device: CPU or CUDA.
        dtype: Of the weights in torch.
        bits: To which linear weights are rounded.

    Returns:
        Bytes; None on a CPU whose system cannot reset a process's peak (only Linux can).

    Raises:
        NoRoom: The child was killed, which is what systems do when memory is full.
        RunFailed: The child failed; the message has its last line.
    """
    if device.type == "cpu" and not _can_reset_peak():
        return None
    asked = {
        "name": name,
        "spec": spec.model_dump(),
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch.") if dtype else "auto",
        "bits": bits,
        "threads": torch.get_num_threads(),
    }
    command = [sys.executable, "-m", CHILD, json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode < 0:
        raise NoRoom(
            f"The process that measures the memory of {name} was ended by signal "
            f"{-done.returncode}, likely for lack of memory. Choose a smaller model or batch_size."
        )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise RunFailed(f"Could not measure the peak memory of {name}: {reason}")
    return int(done.stdout.split()[-1])


def _can_reset_peak() -> bool:
    return os.access("/proc/self/clear_refs", os.W_OK)
