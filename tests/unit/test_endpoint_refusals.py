"""What servers refuse: fields, keys, addresses, prompts; adapted to, or said in a sentence."""

import asyncio
import json
import logging

import pytest
import yaml

from explorer import pipeline as engine
from explorer.errors import BadInput, RunFailed
from explorer.latency.load_test import time_endpoint
from explorer.latency.runtimes import endpoint_client, endpoint_errors
from explorer.latency.runtimes.endpoint_client import EndpointClient, RequestFailed
from explorer.models import endpoint
from explorer.pipeline import endpoint_check
from explorer.pipeline.endpoint_check import check_endpoint
from explorer.specs import ApiSpec, CapabilitySpec, LatencySpec, RunSpec
from explorer.store.progress import Progress
from tests.scripted_server import JSON, chat, error, scripted, whole_stream


@pytest.fixture(autouse=True)
def only_the_runs_requests(monkeypatch):
    """The check before a run sends requests of its own, which these tests do not count."""
    monkeypatch.setattr(endpoint_check, "check_endpoint", lambda spec: None)


LATENCY = LatencySpec(prompt_tokens=24, output_tokens=4, warmup=0, repeats=2, timeout_s=2)


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    monkeypatch.setattr(endpoint_client, "FIRST_WAIT_S", 0.001)
    for name in (endpoint.KEY_VARIABLE, *endpoint.PROVIDER_KEYS.values()):
        monkeypatch.delenv(name, raising=False)


def refusing(*fields, refuse=None, answer=chat):
    """A server that takes requests without these fields only."""
    refuse = refuse or (
        lambda field: error(400, "not here", param=field, code="unsupported_parameter")
    )

    def reply(asked):
        wrong = [field for field in fields if field in asked]
        if wrong:
            return refuse(wrong[0])
        num_tokens = asked.get("max_tokens") or asked.get("max_completion_tokens")
        return whole_stream(num_tokens) if asked.get("stream") else answer()

    return reply


def fastapi(field):
    detail = [{"loc": ["body", field], "msg": "Extra inputs are not permitted"}]
    return 422, JSON, json.dumps({"detail": detail}).encode()


REFUSALS = {
    "param": None,
    "message": lambda field: error(400, f"Unsupported parameter: '{field}' is not supported."),
    "text": lambda field: (422, "text/plain", f"unknown field `{field}`".encode()),
    "detail": fastapi,
    "array": lambda field: (
        400,
        JSON,
        json.dumps([{"error": {"message": f"Unknown name {field}"}}]).encode(),
    ),
}


@pytest.mark.parametrize("refuse", REFUSALS.values(), ids=REFUSALS)
def test_a_field_that_is_refused_is_replaced_or_left_out_when_timed(refuse, store_root):
    """Each server's way to say it; the record names what was changed, and nothing else is."""
    fields = ("max_tokens", "temperature", "ignore_eos")
    with scripted(refusing(*fields, refuse=refuse)) as server:
        where = endpoint.parse_endpoint(server.name())
        timing = time_endpoint(where, LATENCY, Progress(store_root, "r")).own

    assert (len(timing.turns), timing.num_failed) == (2, 0)
    assert set(server.asked[-1]) == {
        *("model", "messages", "stream", "stream_options", "max_completion_tokens")
    }
    changes = " ".join(timing.request_changes)
    assert "no max_tokens; max_completion_tokens is sent instead" in changes
    assert "no temperature; it is left out" in changes
    assert "seed" not in changes


async def _complete(where, body):
    async with EndpointClient(where, timeout_s=2, key=None) as client:
        reply = await client.complete(body, lambda reply: reply, 2)
        return reply, client.fields


@pytest.mark.parametrize("field", ["seed", "stop", "temperature", "stream_options", "max_tokens"])
def test_each_field_alone_is_adapted_and_remembered(field, caplog):
    """One refusal, then never again; the log says it once."""
    body = {"model": "m", "messages": [], "max_tokens": 4, "temperature": 0, "stop": ["\n"]}
    body |= {"seed": 1, "stream_options": {}}
    caplog.set_level(logging.INFO, logger="explorer")
    with scripted(refusing(field, refuse=fastapi)) as server:
        where = endpoint.parse_endpoint(server.name())
        for _ in range(2):
            _, fields = asyncio.run(_complete(where, body))

    assert len(server.asked) == 3
    assert field not in server.asked[-1]
    assert len(fields.sentences()) == 1
    assert caplog.text.count(f"The server takes no {field};") == 1
    assert fields.stop_texts(body) == (["\n"] if field == "stop" else [])


def test_a_number_out_of_range_is_not_sent_under_another_name(monkeypatch):
    """The field is known: the sentence says which setting to lower."""
    refusal = error(400, "max_tokens is too large: at most 2 are allowed", param="max_tokens")
    with scripted(lambda asked: refusal) as server:
        where = endpoint.parse_endpoint(server.name())
        with pytest.raises(RequestFailed, match="too large") as failed:
            asyncio.run(_complete(where, {"model": "m", "max_tokens": 4}))

    assert len(server.asked) == 1
    assert "Lower capability.api.max_gen_toks" in endpoint_client.advice(where, failed.value)


@pytest.mark.parametrize("field", ["model", "messages", "echo", "top_p"])
def test_a_field_without_a_substitute_is_named(field):
    """No hint at name and key where the server says what it does not take."""
    body = {"model": "m", "messages": [], "echo": True, "top_p": 1, "max_tokens": 4}
    with scripted(refusing(field)) as server:
        where = endpoint.parse_endpoint(server.name())
        with pytest.raises(RequestFailed, match="HTTP 400: not here") as failed:
            asyncio.run(_complete(where, body))

    assert len(server.asked) == 1
    assert "key" not in endpoint_client.advice(where, failed.value)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (error(401, "no"), r"HTTP 401: no\. Set the API key of 127.*EXPLORER_ENDPOINT_KEY"),
        (error(402, "Insufficient credits"), "add credit"),
        (error(403, "no"), "may not use m"),
        (error(404, "The model m does not exist"), "does not exist.*requests go to http"),
        ((404, "text/html", b"<html><title>Not&nbsp;Found</title><body>x"), "HTML: Not Found"),
        ((405, "", b""), "HTTP 405: the answer is empty.*/v1"),
        ((307, "", b"https://other/v1"), "redirect to https://other/v1.*Write that address"),
        (error(400, "model is not a thing", param="model"), "after the #"),
        (error(429, "slow down"), "num_concurrent"),
        (error(429, "x", code="insufficient_quota"), "add credit"),
        (error(500, "CUDA out of memory"), "CUDA out of memory.*look at its log"),
        ((503, "text/html", b"<!doctype html><title>Busy</title>"), "HTTP 503.*Busy"),
        ((400, JSON, b'{"message": "plain"}'), "HTTP 400: plain"),
        ((400, JSON, b'{"detail": "plain"}'), "HTTP 400: plain"),
        ((200, "text/html", b"<html><head><title>Hello</title>"), "HTML: Hello.*ends in /v1"),
        ((200, JSON, b'{"error": {"message": "cold"}}'), "cold"),
        ((200, JSON, b'{"choices": []}'), "without text"),
    ],
)
def test_every_refusal_is_one_sentence_with_the_next_step(answer, says):
    """The check before a run says what the server said, and what to do."""
    with scripted(lambda asked: answer) as server:
        spec = RunSpec(
            teacher=server.name(),
            latency=None,
            capability=CapabilitySpec(tasks=("x",), apply_chat_template=True),
        )
        with pytest.raises(RunFailed, match=says) as failed:
            check_endpoint(spec)

    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("body", [b"", b"[]", b"3", b'"x"', b"[" * 90_000, b'{"error": [[]]}'])
def test_any_answer_of_a_server_has_a_message(body):
    """Whatever it sends, something is said about it."""
    assert endpoint_errors.read_message(body.decode()).text


def test_the_check_sends_what_the_run_will_send():
    """A stream for the timing, a chat for the tasks, a scored text for targets; no more."""
    with scripted(refusing("max_tokens", "seed")) as server:
        timed = RunSpec(teacher=server.name(), capability=None, latency=LATENCY)
        evaluated = timed.with_(
            latency=None, capability={"tasks": ["x"], "apply_chat_template": True}
        )
        check_endpoint(timed)
        num_timed = len(server.asked)
        check_endpoint(evaluated)
        check_endpoint(timed.with_(teacher="starter"))

    assert num_timed == 2, "max_tokens is refused once"
    assert server.asked[1]["stream"] is True
    assert [set(asked) >= {"messages", "seed"} for asked in server.asked[2:]] == [True, False]
    assert all("max_completion_tokens" in asked for asked in server.asked[1:])


def test_a_server_that_scores_no_text_is_refused_by_the_check():
    """Plain completions without log-probabilities cannot answer multiple choice."""
    with scripted(lambda asked: (200, JSON, b'{"choices": [{"text": "a"}]}')) as server:
        spec = RunSpec(
            teacher=server.name("/v1/completions"),
            latency=None,
            capability=CapabilitySpec(tasks=("x",), api=ApiSpec(tokenizer="starter")),
        )
        with pytest.raises(RunFailed, match=r"without log-probabilities of the prompt \(echo"):
            check_endpoint(spec)


@pytest.fixture
def questions(tmp_path):
    """A task of six documents, of which lm-eval asks the longest first."""
    lines = [{"question": f"Question {n}: {'x' * n}", "answer": "four"} for n in range(6)]
    documents = tmp_path / "documents.jsonl"
    documents.write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = {
        "task": "kitchen",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(documents)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    (tmp_path / "kitchen.yaml").write_text(yaml.safe_dump(task))
    return tmp_path


def evaluated(server, questions, root):
    spec = RunSpec(
        name="kitchen",
        teacher=server.name(),
        latency=None,
        device="cpu",
        threads=1,
        capability=CapabilitySpec(
            tasks=("kitchen",),
            include_path=str(questions),
            apply_chat_template=True,
            api=ApiSpec(num_concurrent=1, max_retries=2),
        ),
    )
    return engine.run(spec, root).capability


@pytest.mark.parametrize(
    "refusal",
    [
        error(400, "This model's maximum context length is 8 tokens"),
        error(400, "The response was filtered", code="content_filter"),
        error(413, "Payload Too Large"),
        error(422, "no idea"),
        chat(None, "content_filter"),
    ],
)
def test_a_refused_prompt_is_in_no_score_and_in_the_record(refusal, questions, store_root):
    """The first and the last request are refused: four of four are right, not four of six."""

    def answer(asked):
        text = str(asked["messages"])
        return refusal if "Question 5" in text or "Question 0" in text else chat("four")

    with scripted(answer) as server:
        capability = evaluated(server, questions, store_root)
        again = evaluated(server, questions, store_root)

    (score,) = capability.scores
    assert (score.score, score.num_documents, score.num_documents_total) == (1.0, 4, 6)
    assert sorted(refused.doc_id for refused in capability.refused) == [0, 5]
    assert all("HTTP" in refused.reason for refused in capability.refused)
    assert again.refused == capability.refused
    (sentence,) = capability.refused_in_words()
    assert "refused 2 of 6 prompts of kitchen; they are in no score. Its first reason: " in sentence


def test_answers_that_end_in_their_reasoning_are_reported(questions, store_root):
    """They have no text, so they count as wrong; the record says how many, and what to raise."""

    def answer(asked):
        cut = "Question 2" in str(asked["messages"])
        return chat(None, "length") if cut else chat("four")

    with scripted(answer) as server:
        capability = evaluated(server, questions, store_root)

    assert capability.scores[0].num_documents == 6
    (sentence,) = capability.request_changes
    assert sentence.startswith("1 answers used all their tokens before any text")


def test_a_server_that_refuses_every_prompt_fails_the_run(questions, store_root):
    """Nothing is scored, and the sentence has the server's reason."""
    with (
        scripted(lambda asked: error(400, "your content is flagged")) as server,
        pytest.raises(RunFailed, match="refused all 6 prompts of the task kitchen.*flagged"),
    ):
        evaluated(server, questions, store_root)


def test_a_server_that_takes_no_request_is_given_up_early(questions, store_root, monkeypatch):
    """An error that may be about all requests is not repeated for each document."""
    with (
        scripted(lambda asked: error(400, "nonsense")) as server,
        pytest.raises(RunFailed, match="HTTP 400: nonsense"),
    ):
        evaluated(server, questions, store_root)

    assert len(server.asked) < 6


def test_answers_are_cut_here_where_a_server_knows_no_stop(questions, store_root):
    """The score is that of a server which stops, and the record says what was left out."""
    with scripted(refusing("stop", "seed", answer=lambda: chat("four\nand more"))) as server:
        capability = evaluated(server, questions, store_root)

    assert capability.scores[0].score == 1.0
    assert len(capability.request_changes) == 2
    assert "stop; it is left out, and answers are cut" in " ".join(capability.request_changes)


@pytest.mark.parametrize("key", ["two words", "ключ", "line\nbreak"])
def test_a_key_that_cannot_be_sent_is_refused(key, monkeypatch):
    """Before any request, and without showing it; blanks around a key are no part of it."""
    where = endpoint.parse_endpoint("endpoint:http://127.0.0.1/v1#m")
    monkeypatch.setenv(endpoint.KEY_VARIABLE, key)

    with pytest.raises(BadInput, match="EXPLORER_ENDPOINT_KEY has characters") as refused:
        endpoint.key_for(where)
    assert key not in str(refused.value)
    monkeypatch.setenv(endpoint.KEY_VARIABLE, " a-key\r\n")
    assert endpoint.key_for(where) == "a-key"
