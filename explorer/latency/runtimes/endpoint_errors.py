"""What a server says when it refuses a request, and what to do about it.

Servers write errors as `{"error": {"message", "param", "code"}}` (OpenAI, vLLM), as a text, as
FastAPI's `{"detail": [{"loc", "msg"}]}`, or as a page of HTML. `read_message` finds the sentence
and the fields that it is about; `advice` is the next step for the user.
"""

import dataclasses
import html
import json
import re
from typing import Any

from explorer.consent import host_keys
from explorer.models.endpoint import Endpoint

MAX_CHARACTERS = 300
"""Longest excerpt of a server's answer in a message."""
FILTERED = re.compile(
    r"content[ _-]?(management )?(filter|policy)|responsible ?ai ?policy|moderation|flagged|safety",
    re.IGNORECASE,
)
"""How servers say that a prompt's content is not allowed."""
TOO_LONG = re.compile(
    r"context[ _-]?(length|window|size)|(prompt|input|request)\b.{0,60}\b(too (long|large)|exceed)"
    r"|maximum (input|prompt|model) length|string_above_max_length|max_model_len",
    re.IGNORECASE | re.DOTALL,
)
"""How servers say that a prompt has too many tokens."""
OUT_OF_RANGE = re.compile(
    r"too (large|small|big|high|low)|at (most|least)|max(imum)?\b|min(imum)?\b|(less|greater) than"
    r"|_(above|below)_|between|exceed|>",
    re.IGNORECASE,
)
"""How servers say that a field is known but its number is not allowed."""
QUOTA = re.compile(r"insufficient_quota|exceeded your current quota|billing|credit", re.IGNORECASE)
"""How servers say that waiting does not help."""


@dataclasses.dataclass(frozen=True)
class ServerMessage:
    """An error as a server describes it."""

    text: str
    """On one line."""
    code: str = ""
    """Its machine-readable kind, such as `unsupported_parameter`."""
    fields: tuple[str, ...] = ()
    """The request's fields that it is about, if the server names them apart from the text."""

    @property
    def is_about_prompt(self) -> bool:
        """Whether this prompt is refused for good, and another one may be answered."""
        said = f"{self.code} {self.text}"
        return bool(FILTERED.search(said) or TOO_LONG.search(said))

    @property
    def is_about_number(self) -> bool:
        """Whether a field is known, but the number in it is too large or too small."""
        return bool(OUT_OF_RANGE.search(f"{self.code} {self.text}"))

    @property
    def is_about_quota(self) -> bool:
        """Whether an account has nothing left, so that waiting does not help."""
        return bool(QUOTA.search(f"{self.code} {self.text}"))

    def names(self, field: str) -> bool:
        """Whether the error is about this field of the request."""
        if self.fields:
            return field in self.fields
        return re.search(rf"(?<![\w.]){re.escape(field)}(?!\w)", self.text) is not None


def read_message(body: str) -> ServerMessage:
    """The error in the body of a server's answer; never fails."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return ServerMessage(_one_line(_page_text(body)) or "the answer is empty")
    return message_in(answer)


def message_in(answer: Any) -> ServerMessage:
    """The error in an answer's JSON."""
    if isinstance(answer, list) and answer:
        return message_in(answer[0])  # Google's servers wrap the error in a list
    outer = answer if isinstance(answer, dict) else {}
    error = outer.get("error") or outer.get("detail") or outer
    if isinstance(error, list):
        return _fastapi_message(error)
    if not isinstance(error, dict):
        return ServerMessage(_one_line(str(error)))
    text = next(
        (
            part[key]
            for part in (error, outer)
            for key in ("message", "detail", "msg", "error")
            if isinstance(part.get(key), str)
        ),
        json.dumps(answer),
    )
    param = error.get("param")
    fields = (_top_level(param),) if isinstance(param, str) and param else ()
    return ServerMessage(_one_line(text), str(error.get("code") or error.get("type") or ""), fields)


def _fastapi_message(errors: list[Any]) -> ServerMessage:
    """FastAPI's list of errors, each with the place of a field."""
    places, texts = [], []
    for error in (error for error in errors if isinstance(error, dict)):
        place = [str(part) for part in error.get("loc") or () if part != "body"]
        places += place[:1]
        texts.append(": ".join([*place[:1], str(error.get("msg", ""))]))
    return ServerMessage(_one_line("; ".join(texts) or str(errors)), fields=tuple(places))


def _top_level(param: str) -> str:
    return re.split(r"[.\[]", param.removeprefix("body."))[0]


def _page_text(body: str) -> str:
    """A page of HTML as its title, or else its text; other text unchanged."""
    if not re.search(r"<(!doctype|html|head|body)\b", body, re.IGNORECASE):
        return body
    title = re.search(r"<title[^>]*>(.*?)</title>", body, re.IGNORECASE | re.DOTALL)
    text = title[1] if title and title[1].strip() else re.sub(r"<[^>]*>", " ", body)
    return f"a page of HTML: {html.unescape(text)}"


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"


def advice(endpoint: Endpoint, status: int, message: ServerMessage) -> str:
    """What to do about an error status, in a sentence."""
    if 300 <= status < 400:
        return (
            "Write that address in the endpoint's name; it is not followed, to keep the key here."
        )
    variable = host_keys.variable_of(endpoint.url)
    if status == 401:
        if variable:
            return f"Set the API key of {endpoint.host} in {variable}, or correct it there."
        variable = host_keys.KEY_VARIABLE
        return (
            f"If it requires an API key, set that in {variable}, and let the server have it with "
            f"`{host_keys.command(endpoint.url, variable)}`."
        )
    if status == 407:
        return "The proxy wants a login: put it into HTTPS_PROXY, or list the host in NO_PROXY."
    if message.is_about_prompt:
        return (
            "Shorten the prompt, lower capability.api.max_gen_toks, or leave the prompt out; the "
            "server refuses it for good."
        )
    if status in (402, 429) and message.is_about_quota:
        return "The account behind the key has nothing left; add credit, or use another key."
    if status == 403:
        return (
            f"{f'The key in {variable}, or this machine,' if variable else 'This machine'} may not "
            f"use {endpoint.model}. Ask the provider for access, or use another key."
        )
    if status in (404, 405):
        return (
            f"Check the model's name, {endpoint.model}, and the address: requests go to "
            f"{endpoint.url}. A server's own address usually ends in /v1."
        )
    if status == 429:
        return "It allows fewer requests: lower capability.api.num_concurrent, or wait."
    if status >= 500:
        return "The server failed; look at its log."
    return _field_advice(message)


FIELD_ADVICE = {
    "model": "Write a model that the server has after the # of the endpoint's name.",
    "max_tokens": "Lower capability.api.max_gen_toks and latency.output_tokens.",
    "max_completion_tokens": "Lower capability.api.max_gen_toks and latency.output_tokens.",
    "messages": "If the server takes no chats, name its /v1/completions.",
    "prompt": "If the server takes only chats, name its /v1/chat/completions.",
    "echo": "Scoring given answers needs it: choose tasks that generate text.",
    "logprobs": "Scoring given answers needs it: choose tasks that generate text.",
    "top_p": "Set generation_kwargs of the task so that it is not sent.",
}


def _field_advice(message: ServerMessage) -> str:
    named = next((advice for field, advice in FIELD_ADVICE.items() if message.names(field)), None)
    return named or "The server's message says which part of the request it does not take."
