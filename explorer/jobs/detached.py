"""Starts a process that outlives this one and inherits nothing from it but its environment.

A web server's listening socket may be inheritable, and a child that inherits it keeps the port
busy. So a small Python process, which gets only the standard streams and ends at once, starts the
new process. That one leads its own session: a Ctrl-C in our terminal does not reach it, and it
never becomes a zombie of the page.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from explorer.errors import JobError

START_TIMEOUT_S = 60.0
STARTER = """
import subprocess, sys
process = subprocess.Popen(
    sys.argv[1:], stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
)
print(process.pid)
"""
"""Prints the process id to standard output; standard error is the log."""


def start(
    command: Sequence[str], environment: Mapping[str, str], *, folder: Path, log: Path
) -> int:
    """Start a command in a session of its own and return its process id.

    Args:
        command: The program's absolute path and its arguments.
        environment: Its whole environment.
        folder: Its working directory; ours may be deleted while it runs.
        log: The file for its output; only this user can read it.

    Raises:
        JobError: The process could not be started.
    """
    with log.open("wb") as out:
        log.chmod(0o600)
        # -I and -S: our folder and our variables do not affect the small process.
        try:
            finished = subprocess.run(
                [sys.executable, "-I", "-S", "-c", STARTER, *command],
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=out,
                timeout=START_TIMEOUT_S,
                check=False,
                text=True,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise JobError(f"Could not start {command[0]}: {error}") from error
    if finished.returncode or not finished.stdout.strip().isdecimal():
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise JobError(f"Could not start {command[0]}: {lines[-1] if lines else 'no reason given'}")
    return int(finished.stdout)
