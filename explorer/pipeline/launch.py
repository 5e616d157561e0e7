"""Starts the other processes of a run that asks for several devices (`num_devices`).

The command itself is rank 0. Each further rank is this module as a process: it gets the runs as
JSON, meets rank 0 on loopback and does the same work (`distill.distributed`). It ends with rank 0.
`torchrun` and other launchers start every rank themselves; then nothing is started here.

    explorer run spec.yaml  # with num_devices: 2
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch.distributed as dist

from explorer.distill import distributed
from explorer.errors import ExplorerError, RunCancelled
from explorer.pipeline import stages
from explorer.processes import child_process
from explorer.specs import RunSpec

END_WAIT_S = 60.0
"""Time that the other ranks have to end after rank 0 has left the run."""
LOOK_EVERY_S = 0.2


@contextlib.contextmanager
def all_ranks(specs: Sequence[RunSpec], root: Path, *, checked: bool) -> Iterator[None]:
    """Share these runs with as many processes as they have devices, until the block ends.

    Args:
        specs: The runs, which rank 0 does inside the block, in this order.
        root: The store.
        checked: As in `stages.run`.
    """
    num_processes = max(spec.num_devices for spec in specs)
    if num_processes == 1 or distributed.num_launched() > 1:
        with distributed.joined():
            yield
        return
    shared = {
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(child_process.free_port()),
    }
    if all(spec.device == "cpu" for spec in specs):
        shared["ACCELERATE_USE_CPU"] = "true"
    order = {
        "runs": [spec.model_dump(mode="json") for spec in specs],
        "root": str(root.resolve()),
        "checked": checked,
    }
    before = {name: os.environ.get(name) for name in (*shared, "RANK", "LOCAL_RANK")}
    ranks = [_start(rank, shared, order) for rank in range(1, num_processes)]
    os.environ.update(shared, RANK="0", LOCAL_RANK="0")
    try:
        with _all_meet(ranks), distributed.joined():
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        _end(ranks)


def _start(rank: int, shared: dict[str, str], order: dict[str, object]) -> subprocess.Popen[str]:
    """Another rank. What it prints stands beside what we print."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__],
        stdin=subprocess.PIPE,
        encoding="utf-8",
        env={**child_process.environment(), **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:
        json.dump(order, process.stdin)
    return process


@contextlib.contextmanager
def _all_meet(ranks: Sequence[subprocess.Popen[str]]) -> Iterator[None]:
    """End this process with a sentence if another rank ends before all have met.

    Torch would wait for it in a call that no exception leaves. Once they have met, a broken
    connection says that one has ended.
    """
    left = threading.Event()

    def watch() -> None:
        while not (left.wait(LOOK_EVERY_S) or dist.is_initialized()):
            if codes := [process.returncode for process in ranks if process.poll()]:
                print(
                    f"error: Another process of this run ended before the work began (exit code "
                    f"{codes[0]}); its own message says why. The same command starts it again.",
                    file=sys.stderr,
                    flush=True,
                )
                child_process.end_now(1)

    thread = threading.Thread(target=watch, name="ranks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def _end(ranks: Sequence[subprocess.Popen[str]]) -> None:
    """Wait until the other ranks have ended; they notice that rank 0 has left."""
    deadline = time.monotonic() + END_WAIT_S
    for process in ranks:
        try:
            process.wait(max(deadline - time.monotonic(), LOOK_EVERY_S))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> None:
    """Be one of the other ranks."""
    child_process.end_with_parent()
    # Ctrl-C reaches every process of a shell's command. Rank 0 decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = json.load(sys.stdin)
    try:
        with distributed.joined():
            for data in order["runs"]:
                stages.run(RunSpec.parse(data), Path(order["root"]), checked=order["checked"])
    except RunCancelled:
        sys.exit(1)  # rank 0 says why
    except ExplorerError as error:
        sys.exit(f"Process {os.environ['RANK']}: {error}")


if __name__ == "__main__":
    main()
