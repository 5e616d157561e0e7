"""Which environment variable holds the API key of which host.

A spec may come from anybody and name any host, so it does not decide which key a host gets.
keys.yaml, beside the user's configuration, does:

    # HOST or HOST:PORT, to the NAME of a variable; the key itself is never written down
    api.example.com: EXAMPLE_KEY
    127.0.0.1:8000: VLLM_KEY

Providers with a variable of their own, and servers on this machine, need no line.
"""

import contextlib
import ipaddress
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from explorer.consent import user_config
from explorer.errors import BadInput
from explorer.files import durable_files, yaml_files

FILE = "keys.yaml"
KEY_VARIABLE = "EXPLORER_ENDPOINT_KEY"
"""The variable of the key of a server on this machine."""
PROVIDERS = {"api.openai.com": "OPENAI_API_KEY", "api.anthropic.com": "ANTHROPIC_API_KEY"}
"""Variables that the providers' own tools read; only that host gets them."""
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,60}")
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9._-]*[a-z0-9])?)(:[0-9]{1,5})?")
HEADER = "# Host: the environment variable with its API key. Written by explorer keys allow.\n"


def keys_file() -> Path:
    """Where the hosts and variables are.

    Raises:
        BadInput: The configuration lies in the store.
    """
    return user_config.beside_config(FILE)


def allowed_keys() -> dict[str, str]:
    """The user's own lines: host, with or without a port, to the name of a variable.

    Raises:
        BadInput: The file can't be read, or has something else than hosts and names.
    """
    path = keys_file()
    if not path.exists():
        return {}
    data = yaml_files.read(path, "the hosts and their keys").data
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise BadInput(f"{path} should have a line per host, as in api.example.com: EXAMPLE_KEY")
    for host, variable in data.items():
        # The value may be a key that somebody put here: it is not repeated.
        if not (isinstance(variable, str) and VARIABLE.fullmatch(variable)):
            raise BadInput(
                f"{path}: {host} should have the NAME of an environment variable, in capitals. If "
                "it is the key itself, remove it from this file."
            )
    return {_host(str(host)): variable for host, variable in data.items()}


def variable_of(url: str) -> str | None:
    """The name of the variable with the key of an address; None if its host gets no key.

    Raises:
        BadInput: As `allowed_keys`.
    """
    parts = urlsplit(url)
    with_port = parts.netloc.lower()
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    known = allowed_keys()
    default = PROVIDERS.get(host) or (KEY_VARIABLE if is_loopback(url) else None)
    return known.get(with_port) or known.get(host) or default


def is_loopback(url: str) -> bool:
    """Whether an address can only mean this machine."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def allow(host: str, variable: str) -> str:
    """Let a host have the key in a variable; returns the host as it is noted.

    Raises:
        BadInput: This is no host, or not the name of a variable.
        NoRoom: The file can't be written.
    """
    if not VARIABLE.fullmatch(variable):
        raise BadInput(
            "Expected the NAME of an environment variable: capitals, digits and underscores, as in "
            "EXAMPLE_KEY. The key itself is never written down."
        )
    name = _host(host)
    with _changing() as known:
        known[name] = variable
    return name


def remove(host: str) -> None:
    """Take a host's key away.

    Raises:
        BadInput: The file has no such host.
        NoRoom: The file can't be written.
    """
    name = _host(host)
    with _changing() as known:
        if name not in known:
            raise BadInput(f"{keys_file()} has no host {name}. explorer keys lists them.")
        del known[name]


def command(url: str, variable: str) -> str:
    """The command that lets an address's host have the key in a variable."""
    return f"explorer keys allow {shlex.quote(urlsplit(url).netloc.lower())} {variable}"


def _host(text: str) -> str:
    """A host, with or without a port, from what somebody wrote; an address counts by its host.

    Raises:
        BadInput: It is none.
    """
    name = text.strip().lower()
    name = (urlsplit(name).netloc if "://" in name else name.partition("/")[0]).rstrip(".")
    if not HOST.fullmatch(name):
        raise BadInput(
            f"Expected a host, as in api.example.com or 127.0.0.1:8000, got {text!r}."
            if "@" not in text
            else "Expected a host, as in api.example.com; an address may have no user or password."
        )
    return name


@contextlib.contextmanager
def _changing() -> Iterator[dict[str, str]]:
    """The lines to change, alone; written when the block ends well."""
    path = keys_file()
    with durable_files.locked(path.with_name(f".{FILE}.lock")):
        known = allowed_keys()
        yield known
        text = yaml_files.dump(dict(sorted(known.items()))) if known else ""
        durable_files.write_text(path, HEADER + text)
