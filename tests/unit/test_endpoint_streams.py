"""Streams as servers really send them: reasoning in many fields, ends of many kinds."""

import asyncio
import json

import pytest

from explorer.latency.runtimes.endpoint_client import RequestFailed
from explorer.latency.runtimes.endpoint_stream import StreamingClient
from explorer.models import endpoint
from tests.scripted_server import USAGE, event, scripted, stream, whole_stream

TEXTS = [event({"content": f"w{n}"}) + "\n\n" for n in range(4)]
FINISH = event({}, finish_reason="stop") + "\n\n"
COUNT = event(usage=USAGE) + "\n\n"
DONE = "data: [DONE]\n\n"


def timed(*parts, num_tokens=4):
    """The timing of a request that is answered by this stream."""
    return timed_answer(stream(*parts), num_tokens)


def timed_answer(answer, num_tokens=4):
    async def one(name):
        async with StreamingClient(endpoint.parse_endpoint(name), timeout_s=2) as client:
            return await client.time_request("time year", num_tokens)

    with scripted(lambda asked: answer) as server:
        return asyncio.run(one(server.name()))


@pytest.mark.parametrize(
    "thought",
    [
        {"reasoning": "hm"},
        {"reasoning_content": "hm"},
        {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {"content": "", "reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
        {"content": [{"type": "text", "text": "hm"}]},
        {"thinking": "hm"},
        {"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": ""}]},
        {"a_field_of_tomorrow": "hm"},
        {"refusal": "hm"},
        {"tool_calls": [{"index": 0, "function": {"arguments": "hm"}}]},
    ],
)
def test_every_kind_of_text_is_timed_from_its_first_token(thought):
    """An answer that is all of one kind has as many pieces as tokens, none is overlooked."""
    events = [event(thought) + "\n\n" for _ in range(4)]

    turn = timed(*events, COUNT, DONE)
    with pytest.raises(RequestFailed, match="miscounted"):
        timed(*events, *events, COUNT, DONE, num_tokens=8)

    assert turn.num_output_tokens == 4
    assert 0 < turn.ttft_ms <= turn.latency_ms


@pytest.mark.parametrize(
    "nothing",
    [
        {"role": "assistant", "content": ""},
        {"content": None, "reasoning_details": []},
        {"content": [{"type": "text", "text": ""}]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "AbC", "id": "r1"}]},
    ],
)
def test_what_is_no_text_is_not_timed(nothing):
    """Roles, empty parts and encrypted blobs are no tokens."""
    with pytest.raises(RequestFailed, match="no text"):
        timed(event(nothing) + "\n\n", COUNT, DONE)


@pytest.mark.parametrize(
    "parts",
    [
        (*TEXTS, FINISH, COUNT, DONE),
        (*TEXTS, COUNT, DONE),
        (*TEXTS, FINISH, COUNT),
        (*TEXTS, COUNT),
        (*TEXTS, FINISH, COUNT.strip()),
        (*TEXTS, FINISH, COUNT, "data: [DONE]"),
        (*TEXTS, event({}, finish_reason="stop", usage=None) + "\n\n", COUNT, DONE),
        (*TEXTS, event({}, usage=USAGE, finish_reason="length") + "\n\n"),
        (*TEXTS, f'data: {{"usage": {json.dumps(USAGE)}}}\n\n', DONE),
        (*TEXTS, 'data: {"choices": null, "usage": null}\n\n', COUNT, DONE),
        (*TEXTS, "event: ping\ndata: {}\n\n", 'data: {"type": "ping"}\n\n', COUNT, DONE),
        (*TEXTS, "data:\n\n", ": still here\n\n", "id: 7\n\n", "retry: 10\n\n", COUNT, DONE),
        ("\ufeff", *TEXTS, COUNT, DONE),
        tuple(part.replace("\n", "\r\n") for part in (*TEXTS, COUNT, DONE)),
        tuple(part.replace("\n", "\r") for part in (*TEXTS, COUNT, DONE)),
        tuple(part.replace(", ", ",\ndata: ") for part in (*TEXTS, COUNT, DONE)),
        tuple(part.replace("data: ", "data:") for part in (*TEXTS, COUNT, DONE)),
    ],
)
def test_a_stream_may_end_and_be_written_in_many_ways(parts):
    """With or without [DONE], finish_reason, last empty line, pings and comments."""
    assert timed(*parts).num_output_tokens == 4


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ((*TEXTS[:2],), "closed early"),
        ((*TEXTS[:1], event({"content": "x"}, usage=USAGE) + "\n\n"), "closed early"),
        ((*TEXTS, FINISH), "no usage"),
        ((*TEXTS[:2], 'data: {"error": {"message": "out of memory"}}\n\n'), "out of memory"),
        ((*TEXTS[:2], "event: error\ndata: overloaded\n\n"), "overloaded"),
        ((*TEXTS[:2], 'data: {"object": "error", "message": "broken"}\n\n'), "stream.*broken"),
        ((*TEXTS[:2], 'data: {"type": "error", "error": {"message": "busy"}}\n\n'), "busy"),
        (("data: [1]\n\n",), "garbage"),
        (('data: {"choices": 3}\n\n',), "garbage"),
        (('data: {"choices": [{"delta": {"content": ' + "[" * 90_000 + "\n\n",), "garbage"),
    ],
)
def test_a_stream_that_breaks_off_says_how(parts, says):
    """An error in mid-stream has the server's words; an end without an end is no answer."""
    with pytest.raises(RequestFailed, match=says):
        timed(*parts)


def test_text_under_another_content_type_is_still_a_stream():
    """Some proxies drop the type; a whole answer in place of a stream is refused in its words."""
    _, _, body = whole_stream()

    assert timed_answer((200, "", body)).num_output_tokens == 4
    assert timed_answer((200, "text/event-stream; charset=utf-8", body)).num_output_tokens == 4
    with pytest.raises(RequestFailed, match=r"not a stream.*no streaming here"):
        timed_answer((200, "application/json", b'{"error": "no streaming here"}'))


def test_an_answer_in_one_piece_is_not_timed():
    """A proxy that collects the stream: time per token would be 0, and TTFT the whole latency."""
    with pytest.raises(RequestFailed, match="not a stream.*4 tokens came in one piece"):
        timed(event({"content": "w0 w1 w2 w3"}) + "\n\n", FINISH, COUNT, DONE)

    one = event(usage=USAGE | {"completion_tokens": 1}) + "\n\n"
    assert timed(TEXTS[0], FINISH, one, DONE).num_output_tokens == 1


def test_a_count_of_tokens_is_a_whole_number():
    """Also 4.0, as servers whose language has only one kind of number write it."""
    written = {name: float(count) for name, count in USAGE.items()}
    assert timed(*TEXTS, FINISH, event(usage=written) + "\n\n").num_output_tokens == 4
    for count in (True, -4, "4", 3.5, None):
        with pytest.raises(RequestFailed, match="no usage"):
            timed(*TEXTS, FINISH, event(usage=USAGE | {"completion_tokens": count}) + "\n\n")


def test_a_count_before_the_text_does_not_end_the_answer():
    """Some servers tell the prompt's tokens first."""
    first = event(usage=USAGE | {"completion_tokens": 0}) + "\n\n"

    assert timed(first, *TEXTS, FINISH, COUNT, DONE).num_output_tokens == 4


def test_reasoning_that_is_counted_but_not_sent_is_not_timed():
    """Its time would be the first token's, and the time per token far too small."""
    hidden = USAGE | {"completion_tokens_details": {"reasoning_tokens": 3}}

    with pytest.raises(RequestFailed, match="hidden reasoning"):
        timed(TEXTS[0], event(usage=hidden) + "\n\n", DONE)
    shown = timed(event({"reasoning": "a"}) + "\n\n", TEXTS[0], event(usage=hidden), "\n\n", DONE)
    assert shown.num_output_tokens == 4
    within = timed(*TEXTS, event(usage=hidden), "\n\n", DONE)
    assert within.num_output_tokens == 4, "reasoning inside the text has pieces of its own"


def test_reasoning_counted_beside_the_answer_is_added():
    """Only the total says that the answer's tokens leave the reasoning out."""
    beside = {
        "prompt_tokens": 7,
        "completion_tokens": 1,
        "total_tokens": 11,
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    events = [event({"reasoning_content": "a"}) + "\n\n" for _ in range(3)]

    assert timed(*events, TEXTS[0], event(usage=beside), "\n\n", DONE).num_output_tokens == 4
