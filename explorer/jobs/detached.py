"""Start a process that outlives this one and inherits nothing of it but its environment.

A web server's listening socket may be inheritable, and whoever inherits it keeps the port.
So the process is started by a small Python process of its own, which gets the standard
streams only and ends at once. The new process leads its own session: a Ctrl-C in our
terminal does not reach it, and it is never a zombie under the page.
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
"""Its own standard output carries the process id, its standard error is the log."""


def start(
    command: Sequence[str], environment: Mapping[str, str], *, folder: Path, log: Path
) -> int:
    """Start a command in a session of its own and return its process id.

    Args:
        command: The program's absolute path and its arguments.
        environment: All of its environment.
        folder: Its working directory: ours may be deleted while it runs.
        log: Gets what it prints; readable by this user only.

    Raises:
        JobError: The process could not be started.
    """
    with log.open("wb") as out:
        log.chmod(0o600)
        # -I and -S: neither our folder nor our variables change what the small process does.
        try:
            done = subprocess.run(
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
    if done.returncode or not done.stdout.strip().isdecimal():
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise JobError(f"Could not start {command[0]}: {lines[-1] if lines else 'no reason given'}")
    return int(done.stdout)
