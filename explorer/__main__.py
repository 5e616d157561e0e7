"""The command `explorer`, also as `python -m explorer`; the queue starts its runs this way.

An old Python has to be able to read this file and explorer/__init__.py, so that it gets a sentence
instead of a traceback.
"""

import os
import sys

OLDEST_PYTHON = (3, 11)
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def unsupported(platform: str, python: "tuple[int, ...]") -> "str | None":
    """Why the explorer cannot run here, and what to do; None where it can.

    Args:
        platform: As `sys.platform`.
        python: As `sys.version_info`.
    """
    if tuple(python[:2]) < OLDEST_PYTHON:
        version = ".".join(map(str, python[:2]))
        return f"Python 3.11 or newer is required, and this is {version}. Install a newer Python."
    if not platform.startswith(("linux", "darwin")):
        return (
            f"Linux or macOS is required, and this is {platform}. "
            "On Windows, install and run the explorer inside WSL 2."
        )
    return None


def keep_loopback_direct(environment: "os._Environ[str] | dict[str, str]") -> None:
    """Keep proxies away from this machine's own addresses, here and in all child processes.

    The queue, the dashboard and servers on this machine listen on loopback; a proxy elsewhere
    cannot reach them.

    Args:
        environment: The variables; NO_PROXY is completed where a proxy is set.
    """
    if not any(name.lower().endswith("_proxy") for name in environment):
        return
    for variable in ("no_proxy", "NO_PROXY"):
        hosts = [host for host in environment.get(variable, "").split(",") if host]
        missing = [host for host in LOOPBACK if host not in hosts]
        if "*" not in hosts:
            environment[variable] = ",".join([*hosts, *missing])


def main() -> None:
    """Run the command line, or say why it cannot run here."""
    reason = unsupported(sys.platform, sys.version_info[:3])
    if reason:
        print(f"error: {reason}", file=sys.stderr)
        sys.exit(1)
    keep_loopback_direct(os.environ)
    from explorer.processes import child_process

    child_process.end_with_parent()
    from explorer.cli import main as run_command_line

    run_command_line()


if __name__ == "__main__":
    main()
