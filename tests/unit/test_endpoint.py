"""Endpoints: a real model behind a real server on loopback, and every way to go wrong."""

import asyncio

import pytest

from explorer import pipeline as engine
from explorer.errors import BadInput, RunFailed
from explorer.latency import interference
from explorer.latency.load_test import time_endpoint
from explorer.latency.runtimes.endpoint_client import RequestFailed
from explorer.latency.runtimes.endpoint_stream import StreamingClient
from explorer.models import endpoint
from explorer.specs import LatencySpec, RunSpec
from explorer.store import disk
from explorer.store.progress import Progress
from tests.openai_server import SECRET, serving

SPEC = LatencySpec(
    prompt_tokens=24, output_tokens=4, warmup=1, repeats=4, requests=6, timeout_s=0.3
)


@pytest.fixture(scope="module")
def server(tiny_llama):
    with serving(tiny_llama(num_layers=1)) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(server, monkeypatch):
    server.asked.clear()
    monkeypatch.delenv(endpoint.KEY_VARIABLE, raising=False)


@pytest.fixture
def progress(store_root):
    return Progress(store_root, "run-1")


def ask(name, num_tokens=4):
    """One request to the model of this name."""

    async def one():
        async with StreamingClient(endpoint.parse_endpoint(name), timeout_s=0.3) as client:
            return await client.time_request("time year people", num_tokens)

    return asyncio.run(one())


@pytest.mark.parametrize("path", ["/v1", "/v1/completions", "/v1/chat/completions"])
def test_a_request_is_timed_and_counted_by_the_server(server, path):
    """Chats and plain completions: tokens are the server's count, times those of the stream."""
    turn = ask(server.name(path=path))

    assert turn.num_output_tokens == 4
    assert turn.num_prompt_tokens == len("time year people"), "a token a byte in this model"
    assert 0 < turn.ttft_ms < turn.latency_ms
    assert ("messages" in server.asked[0]) == (path != "/v1/completions")
    assert server.asked[0]["stream_options"] == {"include_usage": True}
    assert server.asked[0]["authorization"] is None


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("stalls", "stalled"),
        ("stays_alive", "stalled"),
        ("never_ends", "too long"),
        ("counts_more", "too long"),
        ("garbage", "garbage"),
        ("not_an_object", "garbage"),
        ("closes", "closed early"),
        ("error", "error in the stream"),
        ("no_usage", "no usage"),
        ("no_stream", "not a stream"),
        ("status", "refused"),
        ("miscounts", "miscounted"),
        ("empty", "no text"),
    ],
)
def test_every_way_to_go_wrong_has_its_name(server, model, kind):
    """A request that fails says what happened, and what was seen."""
    with pytest.raises(RequestFailed) as failed:
        ask(server.name(model))

    assert failed.value.kind == kind
    assert len(str(failed.value)) > len(kind) + 20


def test_an_unreachable_server_is_one_sentence(progress):
    """Nobody listens: the run fails with the address and a hint."""
    name = "endpoint:http://127.0.0.1:9/v1#tiny"

    with pytest.raises(RunFailed, match=r"127\.0\.0\.1:9.*unreachable.*Is the server running"):
        time_endpoint(endpoint.parse_endpoint(name), SPEC, progress)


def test_the_key_comes_from_the_environment_and_stays_secret(server, monkeypatch, store_root):
    """It is sent, and no record, log or message has it, not even one that quotes the server."""
    monkeypatch.setenv(endpoint.KEY_VARIABLE, SECRET)
    ask(server.name())
    assert server.asked[0]["authorization"] == f"Bearer {SECRET}"
    spec = RunSpec(teacher=server.name("echoes_key"), capability=None, latency=SPEC, device="cpu")

    with pytest.raises(RunFailed, match=r"Incorrect API key \*\*\*.*EXPLORER_ENDPOINT_KEY"):
        engine.run(spec, store_root)

    written = [path for path in store_root.rglob("*") if path.is_file()]
    assert any(path.name == disk.RECORD for path in written)
    assert not [path for path in written if SECRET in path.read_text(errors="replace")]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("endpoint:127.0.0.1:8000#m", "is not an endpoint"),
        ("endpoint:ftp://host/v1#m", "is not an endpoint"),
        ("endpoint:http://host:99999/v1#m", "is not an endpoint"),
        ("endpoint:http://host/v1", "has no model"),
        ("endpoint:http://me:pw@host/v1#m", "EXPLORER_ENDPOINT_KEY"),
        ("endpoint:http://host/v1?api_key=1#m", "EXPLORER_ENDPOINT_KEY"),
    ],
)
def test_a_wrong_name_says_what_to_write(name, says):
    """No address, no model, or a secret in the name."""
    with pytest.raises(BadInput, match=says) as refused:
        endpoint.parse_endpoint(name)
    assert "pw" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"student": {"num_layers": 2}}, "gives no weights to cut"),
        ({"gguf": "q8_0"}, "timed, but not cut"),
        ({"teacher": "endpoint:http://me:pw@host/v1#m"}, "carries a user"),
    ],
)
def test_a_spec_asks_an_endpoint_for_no_weights(changes, says):
    """What an endpoint cannot do is refused before anything is written or sent."""
    asked = {"teacher": "endpoint:http://host/v1#m", "capability": None, **changes}
    with pytest.raises(BadInput, match=says) as refused:
        RunSpec.parse(asked)
    assert "pw" not in str(refused.value)


def test_a_run_of_an_endpoint_leaves_its_times_and_curve(server, store_root):
    """Turns alone, a closed loop and an open one; the prompt has the length that was asked for."""
    spec = RunSpec(
        name="served",
        teacher=server.name(),
        capability=None,
        device="cpu",
        threads=1,
        latency=SPEC.with_(concurrency=[1, 2], request_rates=[50.0]),
    )

    record = engine.run(spec, store_root)

    timing = record.latency.own
    assert len(timing.turns) == 4
    assert {turn.num_output_tokens for turn in timing.turns} == {4}
    assert abs(timing.prompt_tokens - 24) <= 8
    assert (timing.num_failed, timing.runtime.name) == (0, "endpoint")
    assert record.environment.device_name.startswith("endpoint 127.0.0.1:")
    kinds = [(point.kind, point.level) for point in timing.curve]
    assert kinds[0] == ("clients", 1)
    assert all(len(point.turns) >= 6 for point in timing.curve)
    assert all(point.output_tokens_per_s > 0 for point in timing.curve)
    prompts = [asked["messages"][0]["content"] for asked in server.asked]
    assert len(set(prompts)) == len(prompts), "a prompt that comes again may be cached"
    assert disk.load(store_root, spec.run_id) == record


def test_a_server_on_this_machine_is_watched_only_before(server, store_root):
    """Its own work would look like others'; what they took before is in the record."""
    spec = RunSpec(
        name="served", teacher=server.name(), capability=None, device="cpu", threads=1, latency=SPEC
    )

    others = engine.run(spec, store_root).latency.interference

    assert others.cpu_share_before is not None
    assert others.cpu_share_during is None
    assert others.cpu_threshold == interference.BUSY_SHARE


def test_failed_requests_are_counted_and_in_no_average(server, progress):
    """Every third request fails: the others are kept, the failed ones have their number."""
    found = time_endpoint(
        endpoint.parse_endpoint(server.name("every_third_fails")), SPEC, progress
    ).own

    assert found.num_failed >= 1
    assert found.failures == {"refused": found.num_failed}
    assert len(found.turns) + found.num_failed == 4


def test_a_server_that_knows_no_extras_is_asked_without(server, progress):
    """ignore_eos is no part of the official interface: it is left away where it is refused."""
    found = time_endpoint(
        endpoint.parse_endpoint(server.name("refuses_extras")), SPEC, progress
    ).own

    assert len(found.turns) == 4
    assert "ignore_eos" not in server.asked[-1]


def test_a_level_that_fails_ends_the_sweep_and_keeps_the_rest(server, progress):
    """The server stops answering in the middle: what was measured before stays."""
    name = server.name("every_third_fails")
    real = server.asked
    spec = SPEC.with_(concurrency=[1, 2, 4])

    class Broken(list):
        """After 12 requests every one is a third one."""

        def __len__(self):
            return 3 if list.__len__(self) > 12 else 1

    server.asked = Broken()
    try:
        found = time_endpoint(endpoint.parse_endpoint(name), spec, progress).own
    finally:
        server.asked = real

    assert len(found.turns) == 4
    assert "failed: refused" in found.curve_note
    assert len(found.curve) < 3


def test_a_server_that_goes_away_leaves_what_was_measured(tiny_llama, store_root):
    """It ends in the middle of the sweep: the turns stay, and the note says what happened."""
    with serving(tiny_llama(num_layers=1)) as own:

        def end_it(status):
            if status["done"] >= 8:
                own.shutdown()
                own.server_close()

        spec = SPEC.with_(concurrency=[1, 2], requests=60)
        progress = Progress(store_root, "run-1", end_it)

        found = time_endpoint(endpoint.parse_endpoint(own.name()), spec, progress).own

    assert len(found.turns) == 4
    assert "requests failed: " in found.curve_note
    assert "unreachable" in found.curve_note
    assert 0 < sum(len(point.turns) for point in found.curve) < 2 * 60


def test_batches_are_the_servers_business(server, progress):
    """batch_size means nothing for an endpoint."""
    with pytest.raises(BadInput, match="batch_size has to be 1"):
        time_endpoint(endpoint.parse_endpoint(server.name()), SPEC.with_(batch_size=2), progress)
