"""Peak memory of one model while it answers.

On CUDA: what torch's allocator held at most during an answer, less what other models held,
read in the process that times the model. On a CPU no process can tell two models apart, so
a fresh child process loads the model alone and answers once: the number is its highest
resident memory while answering less its resident memory before the model was loaded, and
so holds the weights, the KV cache and the activations, but not Python and torch.

    python -m explorer.measure.speed.memory \
        '{"name": "starter", "spec": {}, "device": "cpu", "dtype": "float32", "threads": 2}'
"""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import torch
from transformers import PreTrainedModel

from explorer.errors import NoRoom, RunFailed
from explorer.measure.runtimes.base import Peak
from explorer.models.rounding import plain_tensors
from explorer.specs import Bits, LatencySpec


class CudaPeak(Peak):
    """Watches the allocator of a model's device; `num_bytes` stays None on a CPU."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Watch for `model`; what else lies on the device is not counted."""
        self._model = model

    def __enter__(self) -> Self:
        """Forget older peaks."""
        device = self._model.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._others = torch.cuda.memory_allocated(device) - num_weight_bytes(self._model)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Read the peak."""
        device = self._model.device
        if device.type == "cuda":
            self.num_bytes = torch.cuda.max_memory_allocated(device) - self._others


def num_weight_bytes(model: PreTrainedModel) -> int:
    """Bytes of all parameters and buffers, shared ones once."""
    storages = {
        stored.untyped_storage().data_ptr(): stored.untyped_storage().nbytes()
        for tensor in (*model.parameters(), *model.buffers())
        for _, stored in plain_tensors("", tensor)
    }
    return sum(storages.values())


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
    command = [sys.executable, "-m", "explorer.measure.speed.memory", json.dumps(asked)]
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


def _measure(asked: dict[str, Any]) -> int:
    """What the child does; the process must be fresh."""
    # These import this module.
    from explorer.measure.runtimes import opened
    from explorer.measure.speed import latency

    torch.set_num_threads(asked["threads"])
    spec = LatencySpec.parse(asked["spec"])
    gc.collect()
    before: int = psutil.Process().memory_info().rss
    runtime = opened.by_name(
        asked["name"],
        spec,
        device=torch.device(asked["device"]),
        dtype=asked["dtype"],
        bits=asked.get("bits"),
    )
    gc.collect()
    prompt_BT = latency.random_prompt([runtime], spec, spec.batch_size)
    with runtime.watch_memory() as peak:
        # Loading can take more than answering: 5 forgets the peak so far (man 5 proc).
        if runtime.device.type == "cpu":
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        latency.answer(runtime, prompt_BT, spec.output_tokens)
    if peak.num_bytes is not None:
        return peak.num_bytes
    return _highest_resident_bytes() - before


def _highest_resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RunFailed("/proc/self/status has no VmHWM, so this system keeps no memory peak.")


if __name__ == "__main__":
    print(_measure(json.loads(sys.argv[1])))
