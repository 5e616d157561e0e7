"""The child process of `peak_memory`: loads one model, answers once, prints its peak in bytes.

    python -m explorer.latency.peak_memory_child \
        '{"name": "starter", "spec": {}, "device": "cpu", "dtype": "float32", "threads": 2}'
"""

import gc
import json
import sys
from pathlib import Path
from typing import Any

import psutil
import torch

from explorer.errors import RunFailed
from explorer.latency import timing
from explorer.latency.runtimes import open_runtime
from explorer.processes import child_process
from explorer.specs import LatencySpec


def measure_peak_bytes(request: dict[str, Any]) -> int:
    """Peak memory of a model while it answers, in bytes; needs a fresh process."""
    torch.set_num_threads(request["threads"])
    spec = LatencySpec.parse(request["spec"])
    gc.collect()
    before: int = psutil.Process().memory_info().rss
    runtime = open_runtime.by_name(
        request["name"],
        spec,
        device=torch.device(request["device"]),
        dtype=request["dtype"],
        bits=request.get("bits"),
        trust_remote_code=request.get("trust_remote_code", False),
    )
    gc.collect()
    prompt_BT = timing.random_prompt([runtime], spec, spec.batch_size)
    with runtime.watch_memory() as peak:
        # Loading may need more memory than answering; writing 5 resets the peak (man 5 proc).
        if runtime.device.type == "cpu":
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        timing.time_request(runtime, prompt_BT, spec.output_tokens)
    if peak.num_bytes is not None:
        return peak.num_bytes
    return _highest_resident_bytes() - before


def _highest_resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RunFailed("/proc/self/status has no VmHWM: this system does not track peak memory.")


if __name__ == "__main__":
    child_process.end_with_parent()
    print(measure_peak_bytes(json.loads(sys.argv[1])))
