"""Runs a command of ours in a process of its own, so that the dashboard loads no model library.

cli_subprocess.output(["tasks", "preview", "--json", "piqa"], "The prompts of piqa", timeout_s=300)
"""

import subprocess
import sys
from collections.abc import Sequence

from explorer import child_process
from explorer.errors import BadInput, ExplorerError


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
