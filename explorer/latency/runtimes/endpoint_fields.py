"""The fields of a request that an endpoint refuses, and what is sent in their place.

OpenAI's interface has dialects: reasoning models take `max_completion_tokens` but no `max_tokens`,
and only the default temperature; some servers know no `seed`, `stop` or `stream_options`. What an
endpoint refused once is not sent to it again, and the record says so.

    fields = fields_of(endpoint)
    fields.adapted({"model": "m", "max_tokens": 16})
"""

import functools
import logging
from collections.abc import Mapping
from typing import Any

from explorer.latency.runtimes.endpoint_errors import ServerMessage
from explorer.models.endpoint import Endpoint

log = logging.getLogger("explorer")

OTHER_NAMES = {
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_tokens",
}
"""Fields, and the name that other servers have for them."""
STOP_FIELDS = ("stop", "stop_sequences")
EXTENSIONS = ("ignore_eos", "generation_config", "return_tokens_as_token_ids")
"""Fields that are not part of OpenAI's interface: left out first where a server does not say
which one it refuses."""
WITHOUT = {
    "temperature": "answers are sampled at its own temperature and differ between runs",
    "seed": "answers may differ between runs",
    "stop": "answers are cut at the stop texts here",
    "stop_sequences": "answers are cut at the stop texts here",
    "stream_options": "tokens are counted only if it counts them unasked",
    "ignore_eos": "answers may be shorter than requested",
    "generation_config": "answers may be shorter than requested",
    "return_tokens_as_token_ids": "tokens are matched by their spelling",
}
"""Fields that a request can do without, and what follows."""
ADAPTABLE_STATUSES = frozenset({400, 422})


class RequestFields:
    """What one endpoint has refused, and what its requests carry instead."""

    def __init__(self) -> None:
        """Nothing is refused yet."""
        self._renamed: dict[str, str] = {}
        self._dropped: set[str] = set()

    def adapted(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The request without the fields that the endpoint refuses."""
        return {
            self._renamed.get(field, field): value
            for field, value in body.items()
            if field not in self._dropped
        }

    def learn(self, sent: Mapping[str, Any], status: int, message: ServerMessage) -> bool:
        """Find what to change after a refusal; False if no change can help.

        Args:
            sent: The request as it was sent.
            status: The HTTP status of the refusal.
            message: What the server said.
        """
        if status not in ADAPTABLE_STATUSES or message.is_about_prompt:
            return False
        named = [field for field in sent if message.names(field)]
        if message.is_about_number:
            named = [field for field in named if field not in OTHER_NAMES]
        new = [field for field in named if self._change(field)]
        if not new and not any(field in (*OTHER_NAMES, *WITHOUT) for field in named):
            new = [field for field in EXTENSIONS if field in sent and self._change(field)]
        # Another request may have been refused for the same field while this one was on its way.
        return bool(new) or self.adapted(sent) != dict(sent)

    def _change(self, field: str) -> bool:
        """Rename or drop a field from now on; False if that is impossible."""
        if field in OTHER_NAMES and field not in (*self._renamed, *self._renamed.values()):
            self._renamed[field] = OTHER_NAMES[field]
        elif field in WITHOUT and field not in self._dropped:
            self._dropped.add(field)
        else:
            return False
        log.info("%s", self._sentence(field))
        return True

    def sentences(self) -> list[str]:
        """What was changed, one sentence per field, for the record."""
        return [self._sentence(field) for field in sorted({*self._renamed, *self._dropped})]

    def _sentence(self, field: str) -> str:
        if field in self._renamed:
            return f"The server takes no {field}; {self._renamed[field]} is sent instead."
        return f"The server takes no {field}; it is left out, and {WITHOUT[field]}."

    def stop_texts(self, body: Mapping[str, Any]) -> list[str]:
        """The texts at which the answer to this request has to be cut here."""
        dropped = [body[name] for name in STOP_FIELDS if name in body and name in self._dropped]
        texts = [[value] if isinstance(value, str) else value or [] for value in dropped]
        return [text for several in texts for text in several if text]


@functools.cache
def fields_of(endpoint: Endpoint) -> RequestFields:
    """What an endpoint's requests carry; remembered while this process lives."""
    return RequestFields()
