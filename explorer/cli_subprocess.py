"""A command of ours in a process of its own: model libraries stay out of the dashboard's.

aside.output(["tasks", "preview", "--json", "piqa"], "The prompts of piqa", timeout_s=300)
"""

import subprocess
import sys
from collections.abc import Sequence

from explorer.errors import BadInput, ExplorerError


def output(arguments: Sequence[str], what: str, *, timeout_s: float) -> str:
    """What `explorer ARGUMENTS` writes to its standard output.

    Args:
        arguments: The command and its options.
        what: What is wanted, in the plural, for a sentence about its absence.
        timeout_s: Seconds until it is given up.

    Raises:
        BadInput: The command refused something, with its own sentence.
        ExplorerError: It failed otherwise, or took too long.
    """
    command = [sys.executable, "-m", "explorer", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ExplorerError(
            f"{what} were not there after {timeout_s:g} s. In a shell it may take longer: explorer "
            + " ".join(arguments)
        ) from error
    if done.returncode == 0:
        return done.stdout
    said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    kind = BadInput if said.startswith("error: ") else ExplorerError
    raise kind(said.removeprefix("error: "))
