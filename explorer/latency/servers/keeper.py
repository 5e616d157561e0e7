"""The process between a run and its server: it ends the server when the run ends, however it ends.

A server is a program of others, which does not know whose child it is. So it runs in a session of
its own under this process, which waits for it, ends it and all that it started when told to, and
does the same when the run is gone.

    python -m explorer.latency.servers.keeper vllm serve FOLDER --port 8000
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil

from explorer.processes import arrived_signals, child_process

STOP_S = 10.0
"""Seconds from the request to end to the end by force."""
LOOK_EVERY_S = 0.05


def end_group(process: "subprocess.Popen[bytes]", patience_s: float = STOP_S) -> None:
    """End a process that leads a session, and all that it started; by force after a while."""
    members = family(process.pid)
    _signal(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and (process.poll() is None or _any_alive(members)):
        time.sleep(LOOK_EVERY_S)
    for member in members + family(process.pid):
        with contextlib.suppress(psutil.Error):
            member.kill()
    _signal(process.pid, signal.SIGKILL)
    process.wait()


def family(pid: int) -> list[psutil.Process]:
    """The processes that a process started, and those that these started; empty if it is gone."""
    found: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        found = psutil.Process(pid).children(recursive=True)
    return found


def _any_alive(members: list[psutil.Process]) -> bool:
    return any(_is_alive(member) for member in members)


def _is_alive(member: psutil.Process) -> bool:
    try:
        return bool(member.is_running() and member.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def main() -> None:
    """Run the command of the arguments until it ends, or until this process is to end."""
    child_process.end_with_parent()
    with arrived_signals.pipe() as arrived:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda number, frame: None)
        server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
        os.read(arrived, 1)
    code = server.poll()
    end_group(server)
    # A shell says 128 + the signal, too.
    sys.exit(0 if code is None else code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
