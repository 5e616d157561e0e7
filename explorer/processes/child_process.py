"""Processes of ours that end with the process that started them, and speak UTF-8 with it.

A killed page or command cannot end what it started. So each such process looks once a second
whether its parent is still there; `subprocess` alone would leave it running, with the device and
the memory that the next run needs.

    subprocess.run([sys.executable, "-m", "explorer", "ls"], env=child_process.environment())
"""

import os
import socket
import threading
import time

import psutil

PARENT = "EXPLORER_PARENT_PID"
"""Tells a process of ours who started it. Removed when read: its own children have another."""
EVERY_S = 1.0


def environment() -> dict[str, str]:
    """Our environment for a Python process that calls `end_with_parent`."""
    return {**os.environ, PARENT: str(os.getpid()), "PYTHONIOENCODING": "utf-8"}


def free_port() -> int:
    """A port of 127.0.0.1 for a process of ours, which nobody has right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_with_parent() -> None:
    """End this process and its children when the process that started it is gone.

    Does nothing in a process that was not started with `environment()`.
    """
    parent = os.environ.pop(PARENT, "")
    if parent.isdecimal():
        threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(EVERY_S)
    end_now(1)


def end_now(code: int) -> None:
    """Kill all children of this process, and end it without clearing up."""
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.Error:
            continue
    os._exit(code)
