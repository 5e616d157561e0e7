"""The name of a model behind an OpenAI-compatible endpoint, and the key that opens it.

`endpoint:http://127.0.0.1:8000/v1#MODEL` is asked at `/v1/chat/completions`. A path that
ends in `/completions` itself is asked as it is: `endpoint:http://host/v1/completions#MODEL`; so is
Anthropic's `/v1/messages`.
"""

import dataclasses
import os
from urllib.parse import urlsplit

from explorer.errors import BadInput

PREFIX = "endpoint:"
KEY_VARIABLE = "EXPLORER_ENDPOINT_KEY"
"""Where the key comes from; it never reaches a record, a log or a command line."""
PROVIDER_KEYS = {"api.openai.com": "OPENAI_API_KEY", "api.anthropic.com": "ANTHROPIC_API_KEY"}
"""Where the keys of these hosts are as well; no other host gets them."""


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where to ask, and which model."""

    url: str
    """The whole address of the completions."""
    model: str

    @property
    def is_chat(self) -> bool:
        """Whether prompts are messages of a chat, or plain text."""
        return self.url.endswith("/chat/completions") or self.is_anthropic

    @property
    def is_anthropic(self) -> bool:
        """Whether it takes Anthropic's messages rather than OpenAI's."""
        return self.url.endswith("/messages")

    @property
    def host(self) -> str:
        """Name and port, as they stand for the device in a record."""
        return urlsplit(self.url).netloc

    @property
    def is_local(self) -> bool:
        """Whether the server runs on this machine, and so takes its processor."""
        return urlsplit(self.url).hostname in {"127.0.0.1", "localhost", "::1"}


def parse_endpoint(name: str) -> Endpoint:
    """The endpoint that a name means.

    Raises:
        BadInput: No address or no model in it, or something secret, which belongs into the
            environment.
    """
    address, _, model = name.removeprefix(PREFIX).partition("#")
    try:
        parts = urlsplit(address)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        port_is_good = False
    if not port_is_good or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise BadInput(
            f"{name} names no endpoint. Write endpoint:, an http address and the model, as in "
            "endpoint:http://127.0.0.1:8000/v1#my-model."
        )
    if parts.username or parts.password or parts.query:
        raise BadInput(
            f"The address of the endpoint at {parts.hostname} carries a user, a password or a "
            f"query. Names are kept in records: put the key into {KEY_VARIABLE} instead."
        )
    if not model:
        raise BadInput(f"{name} names no model. Add # and the model's name on that server.")
    path = parts.path.rstrip("/")
    if not path.endswith(("/completions", "/messages")):
        path += "/chat/completions"
    return Endpoint(f"{parts.scheme}://{parts.netloc}{path}", model)


def default_key() -> str | None:
    """The key for the endpoint, from the environment; None where there is none."""
    return os.environ.get(KEY_VARIABLE) or None


def key_for(where: Endpoint, variable: str | None = None) -> str | None:
    """The key for this endpoint, from the environment variable of that name or the usual ones.

    Raises:
        BadInput: The variable that was named is not set, or a seller wants a key and none is.
    """
    seller = PROVIDER_KEYS.get(urlsplit(where.url).hostname or "")
    names = [variable] if variable else [KEY_VARIABLE, *([seller] if seller else [])]
    found = next((os.environ[name] for name in names if os.environ.get(name)), None)
    if found is None and (variable or seller):
        raise BadInput(
            f"{where.host} wants a key, and the environment variable {names[-1]} is not set. Set "
            "it where the run is started; the queue knows what was set when it began, so end it "
            "with `explorer jobs --stop` and queue the run again."
        )
    return found
