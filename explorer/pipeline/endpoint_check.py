"""One tiny request to an endpoint before a run: is it there, and does it take what will be sent?

check_endpoint(RunSpec(teacher="endpoint:http://127.0.0.1:8000/v1#m"))
"""

import asyncio
from typing import Any

from explorer.errors import RunFailed
from explorer.evaluate.backends import api_lm
from explorer.latency.load_test import check_endpoint_timing
from explorer.latency.runtimes import endpoint_client
from explorer.latency.runtimes.endpoint_client import EndpointClient, RequestFailed
from explorer.latency.runtimes.endpoint_stream import StreamingClient
from explorer.models import endpoint
from explorer.models.endpoint import PREFIX, Endpoint
from explorer.pipeline import endpoint_teacher
from explorer.specs import RunSpec

PROMPT = "Two and two is"
NUM_TOKENS = 16
"""Enough for a model that reasons first, and the fewest that some servers allow."""
LONGEST_WAIT_S = 120.0
NUM_ATTEMPTS = 2


def check_endpoint(spec: RunSpec) -> None:
    """Send the smallest request of each kind that the run will send.

    Fields that the server refuses are renamed or left out, here and in the run. A run whose
    teacher is not behind an endpoint, or that will send nothing, passes.

    Raises:
        BadInput: The address, the key, the proxy or the certificates are unusable.
        RunFailed: The server does not answer as required; the message says what it said and what
            to do.
    """
    if not spec.teacher.startswith(PREFIX):
        return
    where, api = endpoint.parse_endpoint(spec.teacher), endpoint_teacher.api_settings(spec)
    endpoint_teacher.check_can_teach(spec)
    key = endpoint.key_for(where, api.key_variable)
    if spec.student is None and spec.latency:
        check_endpoint_timing(where, spec.latency)
        timeout_s = min(spec.latency.timeout_s, LONGEST_WAIT_S)
        asyncio.run(_check_stream(where, timeout_s, api.key_variable))
    if spec.student is not None and endpoint_teacher.wants_targets(spec):
        assert spec.distill is not None, "it has targets"
        body = _scoring_body(where) | {"logprobs": spec.distill.top_k}
    elif spec.student is None and spec.capability:
        body = _chat_body(where) if where.is_chat else _completion_body(where, api.tokenizer)
    else:
        return
    asyncio.run(_check_reply(where, body, min(api.timeout_s, LONGEST_WAIT_S), key))


def _chat_body(where: Endpoint) -> dict[str, Any]:
    """A chat as lm-eval sends it."""
    body: dict[str, Any] = {
        "model": where.model,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": NUM_TOKENS,
        "temperature": 0,
    }
    stop = ["Question:"]
    return body | ({"stop_sequences": stop} if where.is_anthropic else {"stop": stop, "seed": 1234})


def _completion_body(where: Endpoint, tokenizer: str | None) -> dict[str, Any]:
    """A completion as lm-eval sends it; with a tokenizer, given answers may be scored."""
    if tokenizer is not None:
        return _scoring_body(where) | {"seed": 1234}
    body = {"model": where.model, "prompt": PROMPT, "max_tokens": NUM_TOKENS, "temperature": 0}
    return body | {"stop": ["Question:"], "seed": 1234}


def _scoring_body(where: Endpoint) -> dict[str, Any]:
    """A text whose log-probabilities are wanted."""
    return {
        "model": where.model,
        "prompt": PROMPT,
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 1,
        "echo": True,
    }


async def _check_stream(where: Endpoint, timeout_s: float, key_variable: str | None) -> None:
    async with StreamingClient(where, timeout_s=timeout_s, key_variable=key_variable) as client:
        await client.negotiate(PROMPT, NUM_TOKENS)


async def _check_reply(
    where: Endpoint, body: dict[str, Any], timeout_s: float, key: str | None
) -> None:
    def read(reply: dict[str, Any]) -> None:
        if body.get("echo"):
            _read_logprobs(reply)
        else:
            api_lm.read_text(reply)

    try:
        async with EndpointClient(where, timeout_s=timeout_s, key=key) as client:
            await client.complete(body, read, NUM_ATTEMPTS)
    except RequestFailed as failed:
        hint = endpoint_client.advice(where, failed)
        raise RunFailed(f"The endpoint {where.url} cannot be used: {failed}. {hint}") from failed


def _read_logprobs(reply: dict[str, Any]) -> None:
    try:
        logprobs = reply["choices"][0]["logprobs"]["token_logprobs"]
        if len(logprobs) < 2:
            raise ValueError("only the new token")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RequestFailed(
            "garbage", "a reply without log-probabilities of the prompt (echo, logprobs)"
        ) from error
