"""Several processes that share one run, started as a launcher starts them.

As a script it is `explorer run` on a rank that kills itself:

    torchrun --nproc-per-node 2 -m tests.launching spec.yaml 1 3  # rank 1, in its third step
"""

import multiprocessing
import os
import signal
import socket
import sys
import types
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from explorer import cli
from explorer.distill import train
from explorer.evaluate.backends.prefix_lm import PrefixLM

# Loaded once, by the process that all others are forks of.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["explorer.pipeline", "explorer.cli.progress_bar"])


class Launch:
    """Processes under way; each writes what it says into a file of its own."""

    def __init__(
        self,
        order: Path,
        root: Path,
        num_processes: int,
        dies: Mapping[int, int] | None = None,
        *,
        sharded: bool = False,
    ) -> None:
        """Start `explorer run` with them; they meet on a free port.

        Args:
            order: A file with a spec.
            root: The store.
            num_processes: Of the launch.
            dies: Ranks that kill themselves in this step, or round of an evaluation.
            sharded: Whether under FSDP.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.said = [order.parent / f"said-{port}-{rank}" for rank in range(num_processes)]
        self.processes: list[BaseProcess] = []
        with pytest.MonkeyPatch.context() as patch:
            # A process begins with the main module of its parent. Here that is pytest, or the
            # script of the last page that a test drew: neither belongs to a launch.
            patch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
            # What is read when libraries are loaded, by the first launch of a session.
            patch.setenv("OMP_NUM_THREADS", "1")
            patch.setenv("TOKENIZERS_PARALLELISM", "false")
            for rank, said in enumerate(self.said):
                meeting = {
                    "WORLD_SIZE": num_processes,
                    "RANK": rank,
                    "LOCAL_RANK": rank,
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": port,
                    "EXPLORER_RESULTS": root,
                    "ACCELERATE_USE_FSDP": str(sharded).lower(),
                }
                process = _FORKS.Process(
                    target=_run, args=(order, said, meeting, (dies or {}).get(rank))
                )
                process.start()
                self.processes.append(process)

    def end(self) -> list[int | None]:
        """Wait for all; their exit codes."""
        for process in self.processes:
            process.join(timeout=200)
        return [process.exitcode for process in self.processes]

    def words(self) -> str:
        """What all of them said."""
        return "\n".join(path.read_text() for path in self.said if path.exists())


def _run(order: Path, said: Path, meeting: dict[str, object], dies_in: int | None) -> None:
    os.environ.update({name: str(value) for name, value in meeting.items()})
    with said.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if dies_in is not None:
        _die_in_round(dies_in)
    sys.argv = ["explorer", "run", str(order)]
    cli.main()


def _die_in_round(number: int) -> None:
    """Let this process end without a word, as by `kill -9`, in this step or round."""

    def dying(work: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            nonlocal number
            number -= 1
            if not number:
                os.kill(os.getpid(), signal.SIGKILL)
            return work(*args, **options)

        return counted

    for owner, name in ((PrefixLM, "_computed"), (train, "step")):
        setattr(owner, name, dying(getattr(owner, name)))


if __name__ == "__main__":
    if os.environ["RANK"] == sys.argv[2]:
        _die_in_round(int(sys.argv[3]))
    sys.argv = ["explorer", "run", sys.argv[1]]
    cli.main()
