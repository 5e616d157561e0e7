"""Facts about this installation for a bug report, without anything that identifies its user."""

import getpass
import importlib.metadata
import os
import re
import shutil
import socket
from collections import Counter
from pathlib import Path

from explorer import paths
from explorer.consent import user_config
from explorer.errors import BadInput
from explorer.index import index_of

VARIABLES = re.compile(r"(EXPLORER|STREAMLIT|RAY|HF|CUDA|OMP|TORCH)_\w+|HTTPS?_PROXY|CHROME_PATH")
"""Environment variables that change what the explorer does; the report names those that are set."""


def report(root: Path) -> str:
    """The facts as a Markdown list, ready to paste.

    Args:
        root: The store; the report counts its runs by status and names none.
    """
    import torch

    from explorer.charts import export
    from explorer.devices import accelerator
    from explorer.models import starter
    from explorer.pipeline import environment

    machine = environment.environment(accelerator.pick_device(), torch.get_num_threads())
    versions = dict(machine.versions)
    for package in ("streamlit", "ray", "plotly", "llama-cpp-python"):
        versions[package] = _version(package)
    commit = f"checkout at {machine.commit}" if machine.commit else "installed package"
    lines = {
        "explorer": f"{versions.pop('explorer')}, {commit}",
        "Python": f"{machine.python} on {machine.platform}",
        "device": f"{machine.device_name}"
        + (f", driver {machine.driver}" if machine.driver else ""),
        "memory": f"{machine.memory_bytes / 1e9:.0f} GB",
        "CPUs": f"{machine.num_cpus}, torch uses {machine.threads}",
        "libraries": ", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
        "free disk": f"{shutil.disk_usage(nearest_folder(root)).free / 1e9:.0f} GB",
        "store": _store(root),
        "configuration": _configuration(),
        "starter teacher": "present" if starter.starter_path().exists() else "missing",
        "browser for PNG and SVG": "present" if export.find_browser() else "missing",
        "variables set (values left out)": ", ".join(
            sorted(name for name in os.environ if VARIABLES.fullmatch(name))
        )
        or "none",
    }
    return redact("\n".join(f"- {name}: {value}" for name, value in lines.items()))


def redact(text: str) -> str:
    """The text with the user's home folder, user name and host name replaced.

    The report is built without them; this catches one that a driver or a library puts in.
    """
    for secret, shown in (
        (str(Path.home()), "~"),
        (socket.gethostname(), "HOST"),
        (_user(), "USER"),
    ):
        if len(secret) > 1:
            text = re.sub(rf"(?<![\w-]){re.escape(secret)}(?![\w-])", shown, text)
    return text


def nearest_folder(path: Path) -> Path:
    """The path if it exists, else its nearest parent that does."""
    return next(p for p in (path.resolve(), *path.resolve().parents) if p.exists())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _store(root: Path) -> str:
    index = index_of(root)
    index.update()
    counts = Counter(index.runs()["status"])
    runs = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    return f"{runs or 'no runs'}; {len(index.problems())} unreadable"


def _configuration() -> str:
    try:
        user_config.read_config()
    except BadInput:
        return "unreadable"
    return "present" if paths.config_file().exists() else "none"
