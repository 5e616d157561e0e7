"""Names of models behind an OpenAI-compatible endpoint, and their API keys.

Requests for `endpoint:http://127.0.0.1:8000/v1#MODEL` go to `/v1/chat/completions`, and so do those
for `http://127.0.0.1:8000`, as servers have their API under /v1. An address that ends in
`/completions` itself, such as `endpoint:http://host/v1/completions#MODEL`, is used unchanged, and
so is Anthropic's `/v1/messages`.
"""

import dataclasses
import ipaddress
import os
import re
import socket
from urllib.parse import urlsplit

from explorer.consent import host_keys
from explorer.errors import BadInput

PREFIX = "endpoint:"
KEY_VARIABLE, PROVIDER_KEYS = host_keys.KEY_VARIABLE, host_keys.PROVIDERS
OTHER_ROUTES = ("/models", "/responses", "/embeddings", "/generate")
"""Routes of such servers that give no completions."""
SECRET = re.compile(r"(key|token|secret)=|\bsk-[\w-]{16,}", re.IGNORECASE)
"""What looks like an API key in a name."""


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """The address of an endpoint, and the model to request."""

    url: str
    """The full address of the completions."""
    model: str

    @property
    def is_chat(self) -> bool:
        """Whether prompts are chat messages rather than plain text."""
        return self.url.endswith("/chat/completions") or self.is_anthropic

    @property
    def is_anthropic(self) -> bool:
        """Whether it speaks Anthropic's messages API rather than OpenAI's."""
        return self.url.endswith("/messages")

    @property
    def host(self) -> str:
        """Host and port: the device's name in a record."""
        return urlsplit(self.url).netloc

    @property
    def is_local(self) -> bool:
        """Whether the server runs on this machine, and so uses its CPU."""
        host = urlsplit(self.url).hostname or ""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            names = {"localhost", socket.gethostname().lower()}
            return host in names or host.endswith(".localhost")
        return address.is_loopback or address.is_unspecified


def parse_endpoint(name: str) -> Endpoint:
    """The endpoint that a name means.

    Raises:
        BadInput: The name has no address or no model, or contains a secret.
    """
    address, _, model = (part.strip() for part in name.removeprefix(PREFIX).partition("#"))
    if "@" in address or "?" in address or SECRET.search(name):
        host = re.split(r"[/?#]", address.rpartition("@")[2].rpartition("://")[2])[0]
        raise BadInput(
            f"The address of the endpoint at {host} contains a user, a password, a key or a query. "
            "Records store names, so put the key into an environment variable, such as "
            f"{KEY_VARIABLE}, and let the host have it with `explorer keys allow HOST VARIABLE`."
        )
    try:
        parts = urlsplit(address)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        port_is_good = False
    if (
        not port_is_good
        or re.search(r"\s", address)
        or parts.scheme not in {"http", "https"}
        or not parts.hostname
    ):
        raise BadInput(
            f"{name} is not an endpoint. Write endpoint:, an http address and the model, as in "
            "endpoint:http://127.0.0.1:8000/v1#my-model (an IPv6 address in brackets: [::1])."
        )
    if not model:
        raise BadInput(f"{name} has no model. Add # and the model's name on that server.")
    path = re.sub("/+", "/", parts.path).rstrip("/")
    if path.endswith(OTHER_ROUTES):
        raise BadInput(
            f"{address} is not an address for completions. Write the part before "
            f"/{path.rpartition('/')[2]}, which usually ends in /v1."
        )
    if path.endswith("/chat"):
        path += "/completions"
    elif not path.endswith(("/completions", "/messages")):
        path = f"{path or '/v1'}/chat/completions"
    return Endpoint(f"{parts.scheme}://{parts.netloc}{path}", model)


def key_variable_for(where: Endpoint, variable: str | None = None) -> str | None:
    """The environment variable with an endpoint's API key; None if its host gets none.

    Args:
        where: The endpoint.
        variable: The variable that a spec names. It counts only where the user's configuration
            gives it to this host (`consent.host_keys`).

    Raises:
        BadInput: The host may not have that variable; the message has the command that lets it.
    """
    name = host_keys.variable_of(where.url)
    if variable and variable != name:
        instead = f"gets the key in {name}" if name else "gets no key"
        raise BadInput(
            f"The spec names the key in {variable} (key_variable), but on this machine "
            f"{where.host} {instead}. If that server should get it, run "
            f"`{host_keys.command(where.url, variable)}`."
        )
    return name


def key_for(where: Endpoint, variable: str | None = None) -> str | None:
    """The API key for an endpoint: the same for its tasks, its targets and its timing.

    Args:
        where: The endpoint.
        variable: The environment variable that a spec names.

    Raises:
        BadInput: As `key_variable_for`; or the variable is not set although the host requires a
            key, the key cannot be sent, or it would be sent in plain text.
    """
    name = key_variable_for(where, variable)
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        if variable is None and host_keys.is_loopback(where.url):
            return None
        raise BadInput(
            f"{where.host} requires an API key, and the environment variable {name} is not "
            "set. Set it where you start the run. The queue keeps the environment it was started "
            "with: stop it with `explorer jobs --stop` and submit the run again."
        )
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise BadInput(
            f"The API key in {name} has characters that no key has, such as a space or a line "
            "break in the middle. Set the key alone."
        )
    if not where.url.startswith("https:") and not host_keys.is_loopback(where.url):
        raise BadInput(
            f"The key in {name} is not sent to {where.host} over plain http, where others can read "
            "it. Write https://, or reach the server through a tunnel to 127.0.0.1."
        )
    return key
