"""Names of models behind an OpenAI-compatible endpoint, and their API keys.

Requests for `endpoint:http://127.0.0.1:8000/v1#MODEL` go to `/v1/chat/completions`. An address that
ends in `/completions` itself, such as `endpoint:http://host/v1/completions#MODEL`, is used
unchanged, and so is Anthropic's `/v1/messages`.
"""

import dataclasses
import os
from urllib.parse import urlsplit

from explorer.errors import BadInput

PREFIX = "endpoint:"
KEY_VARIABLE = "EXPLORER_ENDPOINT_KEY"
"""The environment variable of the API key. It never reaches a record, log or command line."""
PROVIDER_KEYS = {"api.openai.com": "OPENAI_API_KEY", "api.anthropic.com": "ANTHROPIC_API_KEY"}
"""Variables that also hold the keys of these hosts; no other host receives them."""


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
        return urlsplit(self.url).hostname in {"127.0.0.1", "localhost", "::1"}


def parse_endpoint(name: str) -> Endpoint:
    """The endpoint that a name means.

    Raises:
        BadInput: The name has no address or no model, or contains a secret.
    """
    address, _, model = name.removeprefix(PREFIX).partition("#")
    try:
        parts = urlsplit(address)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        port_is_good = False
    if not port_is_good or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise BadInput(
            f"{name} is not an endpoint. Write endpoint:, an http address and the model, as in "
            "endpoint:http://127.0.0.1:8000/v1#my-model."
        )
    if parts.username or parts.password or parts.query:
        raise BadInput(
            f"The address of the endpoint at {parts.hostname} contains a user, a password or a "
            f"query. Records store names, so set the key in {KEY_VARIABLE} instead."
        )
    if not model:
        raise BadInput(f"{name} has no model. Add # and the model's name on that server.")
    path = parts.path.rstrip("/")
    if not path.endswith(("/completions", "/messages")):
        path += "/chat/completions"
    return Endpoint(f"{parts.scheme}://{parts.netloc}{path}", model)


def default_key() -> str | None:
    """The API key in EXPLORER_ENDPOINT_KEY; None if it is not set."""
    return os.environ.get(KEY_VARIABLE) or None


def key_for(where: Endpoint, variable: str | None = None) -> str | None:
    """The API key for an endpoint.

    Args:
        where: The endpoint.
        variable: The environment variable that holds the key; None tries EXPLORER_ENDPOINT_KEY,
            then the provider's own variable.

    Raises:
        BadInput: The named variable is not set, or the provider requires a key and none is set.
    """
    provider = PROVIDER_KEYS.get(urlsplit(where.url).hostname or "")
    names = [variable] if variable else [KEY_VARIABLE, *([provider] if provider else [])]
    key = next((os.environ[name] for name in names if os.environ.get(name)), None)
    if key is None and (variable or provider):
        raise BadInput(
            f"{where.host} requires an API key, and the environment variable {names[-1]} is not "
            "set. Set it where you start the run. The queue keeps the environment it was started "
            "with: stop it with `explorer jobs --stop` and submit the run again."
        )
    return key
