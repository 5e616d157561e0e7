"""The command `explorer`, also as `python -m explorer`; the queue starts its runs this way.

An old Python has to be able to read this file and explorer/__init__.py, so that it gets a sentence
instead of a traceback.
"""

import sys

OLDEST_PYTHON = (3, 11)


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


def main() -> None:
    """Run the command line, or say why it cannot run here."""
    reason = unsupported(sys.platform, sys.version_info[:3])
    if reason:
        print(f"error: {reason}", file=sys.stderr)
        sys.exit(1)
    from explorer import child_process

    child_process.end_with_parent()
    from explorer.cli import main as run_command_line

    run_command_line()


if __name__ == "__main__":
    main()
