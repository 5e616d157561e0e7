"""How many bytes do several processes send for one training step?

Two trainings of the starter's 6-layer student that differ only in their number of steps, each in a
network of its own (`unshare`, Linux): the difference of the bytes that its loopback device has
sent, divided by the steps, is what one step sends, headers and acknowledgements included.

    python benchmarks/bytes_per_step.py --processes 2 4
"""

import argparse
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

STEPS = (2, 6)
SPEC = """
name: bytes
teacher: starter
student: {{num_layers: 6, choice: uniform}}
distill:
  {{max_tokens: {tokens}, block_tokens: 32, blocks_per_step: 4, heldout_blocks: 2}}
capability: null
latency: null
device: cpu
threads: 1
"""
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40


def bytes_of_launch(num_processes: int, num_steps: int, folder: Path) -> int:
    """Bytes on the wire of one launch; this function runs in a network of its own."""
    with socket.socket() as loopback:
        fcntl.ioctl(loopback, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP | IFF_RUNNING))
    spec = folder / "spec.yaml"
    spec.write_text(SPEC.format(tokens=num_steps * 4 * 31), encoding="utf-8")
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(num_processes)]
    subprocess.run(
        [sys.executable, *launch, "-m", "explorer", "run", str(spec)],
        check=True,
        stdout=sys.stderr,
        env=os.environ
        | {"EXPLORER_RESULTS": str(folder / "results"), "ACCELERATE_USE_CPU": "true"},
    )
    rows = Path("/proc/net/dev").read_text(encoding="ascii").splitlines()
    (loopback_row,) = [row for row in rows if row.strip().startswith("lo:")]
    return int(loopback_row.split(":")[1].split()[8])


def main() -> None:
    """Print the bytes of a step for each number of processes; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--launch", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.launch:
        with tempfile.TemporaryDirectory() as folder:
            print(bytes_of_launch(*arguments.launch, Path(folder)))
        return
    per_step = {}
    for num_processes in arguments.processes:
        few, many = (
            int(
                subprocess.check_output(
                    ["unshare", "--net", "--map-root-user", sys.executable, __file__]
                    + ["--launch", str(num_processes), str(num_steps)],
                    text=True,
                )
            )
            for num_steps in STEPS
        )
        per_step[num_processes] = (many - few) / (STEPS[1] - STEPS[0])
        print(f"{num_processes} processes: {per_step[num_processes] / 1e6:,.1f} MB a step")
    print(json.dumps({"bytes_per_step": per_step}))


if __name__ == "__main__":
    main()
