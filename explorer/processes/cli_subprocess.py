"""Runs a command of ours in a process of its own, so that the dashboard loads no model library.

cli_subprocess.output(["tasks", "preview", "--json", "piqa"], "The prompts of piqa", timeout_s=300)
cli_subprocess.Worker("explorer.pipeline.preflight_server").ask(request, timeout_s=60)
"""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from explorer.errors import BadInput, ExplorerError
from explorer.processes import child_process


def output(arguments: Sequence[str], what: str, *, timeout_s: float) -> str:
    """The standard output of `explorer ARGUMENTS`.

    Args:
        arguments: The command and its options.
        what: What the command is to find out, in the plural, for the error message.
        timeout_s: Seconds after which the command is stopped.

    Raises:
        BadInput: The command refused its input; the message is the command's own.
        ExplorerError: The command failed otherwise, or took too long.
    """
    command = [sys.executable, "-m", "explorer", *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            timeout=timeout_s,
            check=False,
            env=child_process.environment(),
        )
    except subprocess.TimeoutExpired as error:
        raise ExplorerError(
            f"{what} did not arrive within {timeout_s:g} s. A shell has no such limit: explorer "
            + " ".join(arguments)
        ) from error
    if done.returncode == 0:
        return done.stdout
    last_line = (done.stderr.strip().splitlines() or [f"{what} failed without a message."])[-1]
    kind = BadInput if last_line.startswith("error: ") else ExplorerError
    raise kind(last_line.removeprefix("error: "))


class Worker:
    """A process that answers JSON lines, started by the first request and kept for the next.

    Loading the libraries takes it seconds. `start` begins that before anybody asks.
    """

    def __init__(self, module: str, **environment: str) -> None:
        """Nothing is started yet.

        Args:
            module: What the process runs, as `python -m MODULE`.
            environment: Variables that it gets besides ours.
        """
        self._module, self._environment = module, environment
        self._process: subprocess.Popen[str] | None = None
        self._one_at_a_time = threading.Lock()

    def start(self) -> None:
        """Start the process unless it runs; the first answer then comes sooner."""
        with self._one_at_a_time:
            self._running()

    def ask(self, request: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """The answer to a request; requests of several threads wait for each other.

        Raises:
            ExplorerError: The process ended, or took too long and was ended.
        """
        with self._one_at_a_time:
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            too_late = threading.Timer(timeout_s, process.kill)
            too_late.start()
            try:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except OSError:
                line = ""
            finally:
                too_late.cancel()
        if not line:
            self.close()
            raise ExplorerError(
                "The process that checks orders ended without an answer, or took longer than "
                f"{timeout_s:g} s. The dashboard's own output has its last words."
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process; the next request starts another."""
        if self._process:
            with self._process as process, contextlib.suppress(OSError):
                assert process.stdin is not None
                process.stdin.close()
            self._process = None

    def _running(self) -> "subprocess.Popen[str]":
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                env={**child_process.environment(), **self._environment},
            )
        return self._process
