"""The token in the dashboard's address: whoever lacks it sees nothing, as in Jupyter.

`EXPLORER_TOKEN` decides: `on`, `off`, or a token of your own. By default there is one where
somebody else could reach the page: another person has an account on this machine, or the page
listens beyond it.
"""

import functools
import ipaddress
import os
import pwd
import secrets
import sys

import psutil
from streamlit import config

VARIABLE = "EXPLORER_TOKEN"
SHORTEST = 16
"""Characters of a token of one's own."""
FIRST_PERSON = 501 if sys.platform == "darwin" else 1000
"""User ids below belong to the system's services."""
NOBODY = 65_534
NO_LOGIN = ("nologin", "false", "sync")


def check_variable() -> None:
    """End the process with a sentence if the variable holds a token that is easy to guess."""
    stated = _stated()
    if stated not in ("", "on", "off") and len(stated) < SHORTEST:
        raise SystemExit(
            f"error: {VARIABLE} must be on, off, or a token of at least {SHORTEST} characters, "
            f"got {len(stated)}. Leave it out, and the dashboard makes one where it needs one."
        )


def _stated() -> str:
    return os.environ.get(VARIABLE, "").strip()


@functools.cache
def token() -> str:
    """The token that visitors need, the same for as long as this process runs; empty for none."""
    stated = _stated()
    if stated == "off":
        return ""
    if stated not in ("", "on"):
        return stated
    if stated or not is_loopback(config.get_option("server.address")) or others_have_accounts():
        return secrets.token_urlsafe(24)
    return ""


def is_loopback(host: str | None) -> bool:
    """Whether a host can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def others_have_accounts() -> bool:
    """Whether another person can log in here, or runs something now.

    Accounts of a directory service need not be listed; their processes are.
    """
    people = {
        entry.pw_uid
        for entry in pwd.getpwall()
        if not entry.pw_shell.endswith(NO_LOGIN)  # a service
    }
    for process in psutil.process_iter():
        try:
            people.add(process.uids().real)
        except psutil.Error:
            continue
    return any(FIRST_PERSON <= uid < NOBODY for uid in people - {os.getuid()})
