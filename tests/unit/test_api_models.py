"""Models behind an API, tested: a real model behind a real server on loopback, and bad servers."""

import contextlib
import json
import math
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer import cli
from explorer import pipeline as engine
from explorer.catalogue import api_prices
from explorer.consent import host_keys
from explorer.errors import BadInput, RunFailed
from explorer.evaluate import capability
from explorer.evaluate.backends import api_lm
from explorer.latency.runtimes import endpoint_client
from explorer.latency.runtimes.endpoint_client import RequestFailed
from explorer.models import endpoint, loading
from explorer.pipeline import endpoint_check
from explorer.records import Usage
from explorer.specs import ApiSpec, CapabilitySpec, RunSpec
from explorer.store import disk, frames
from explorer.store.progress import Progress
from tests.answering_server import THOUGHT, AnsweringServer, fresh
from tests.openai_server import SECRET, serving


@pytest.fixture(autouse=True)
def only_the_runs_requests(monkeypatch):
    """The check before a run sends requests of its own, which these tests do not count."""
    monkeypatch.setattr(endpoint_check, "check_endpoint", lambda spec: None)


pytest.importorskip("tenacity", reason="lm-eval's API models: pip install 'lm-eval[api]'")

COMPLETIONS = "/v1/completions"


@pytest.fixture(scope="module")
def folder(tiny_llama):
    return tiny_llama(num_layers=1)


@pytest.fixture(scope="module")
def server(folder):
    with serving(folder, AnsweringServer) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(server, monkeypatch):
    fresh(server, monkeypatch)


@pytest.fixture
def tasks(tmp_path) -> Path:
    """Two tasks of twelve documents: one to choose in, one to write in."""
    place = tmp_path / "tasks"
    place.mkdir()
    lines = [
        {"question": f"Is {i} a number?", "choices": ["yes", f"no, {i}"], "answer": i % 2}
        for i in range(12)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (place / "documents.jsonl").write_text(text, encoding="utf-8")
    shared = {
        "dataset_path": "json",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "dataset_kwargs": {"data_files": {"test": str(place / "documents.jsonl")}},
    }
    metric = {"aggregation": "mean", "higher_is_better": True}
    choose = {
        "task": "choose",
        "output_type": "multiple_choice",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", **metric}],
    }
    write = {
        "task": "write",
        "output_type": "generate_until",
        "doc_to_target": "{{choices[answer]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match", **metric}],
    }
    for task in (choose, write):
        path = place / f"{task['task']}.yaml"
        path.write_text(yaml.safe_dump(shared | task), encoding="utf-8")
    return place


@pytest.fixture
def spec(server, tasks):
    """The order of an evaluation behind the endpoint."""

    def make(*names, model="tiny", path="/v1", **api):
        return RunSpec(
            name="api",
            teacher=server.name(model, path),
            latency=None,
            device="cpu",
            threads=1,
            capability=CapabilitySpec(
                tasks=names,
                include_path=str(tasks),
                apply_chat_template="chat" in path or path == "/v1",
                api=ApiSpec(**{"timeout_s": 5.0, "max_retries": 3, **api}),
            ),
        )

    return make


def samples_of(root, run_id, task):
    (path,) = (root / run_id / "capability").glob(f"samples_{task}_*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_completions_give_the_scores_of_the_weights(server, spec, folder, tasks, store_root):
    """Echoed log-probabilities and greedy text: the same answers as the model in torch."""
    asked = spec("choose", "write", path=COMPLETIONS, tokenizer=str(folder))

    record = engine.run(asked, store_root)

    here = CapabilitySpec(tasks=("choose", "write"), include_path=str(tasks))
    loaded = loading.load(str(folder), dtype="float32")
    own, answers = capability.evaluate(
        loaded,
        here,
        store_root / "own",
        Progress(store_root, "own"),
        fingerprint="f",
        device=torch.device("cpu"),
    )
    assert [s.score for s in record.capability.scores] == [s.score for s in own.scores]
    columns = ["task", "metric", "doc_id", "doc_hash", "value"]
    assert disk.load_answers(store_root, record.run_id)[columns].equals(answers[columns])
    theirs = [s["filtered_resps"] for s in samples_of(store_root, record.run_id, "choose")]
    (path,) = (store_root / "own").glob("samples_choose_*.jsonl")
    ours = [json.loads(line)["filtered_resps"] for line in path.read_text().splitlines()]
    for sample, other in zip(theirs, ours, strict=True):
        for (a, greedy), (b, also) in zip(sample, other, strict=True):
            assert float(a) == pytest.approx(float(b), abs=1e-3)
            assert greedy == also
    assert record.capability.usage.num_replies == 12 * 2 + 12
    assert record.capability.usage.num_uncounted == 0


def test_a_chat_is_asked_and_its_tokens_are_counted(server, spec, store_root):
    """One request a document, in the form of lm-eval's own model; usage adds up."""
    record = engine.run(spec("write"), store_root)

    assert len(server.asked) == 12
    assert {tuple(one) for one in server.asked} == {
        ("messages", "model", "max_tokens", "temperature", "stop", "seed", "authorization")
    }
    assert record.capability.usage == Usage(
        num_replies=12,
        prompt_tokens=sum(len(_chat(one)) for one in server.asked),
        output_tokens=12 * 4,
    )
    assert frames.scores([record])["chat_template"].tolist() == ["on"]
    assert record.environment.device_name.startswith("endpoint 127.0.0.1")
    results = next((store_root / record.run_id / "capability").glob("results_*.json"))
    assert json.loads(results.read_text())["config"]["model"] == "local-chat-completions"


def _chat(asked):
    turns = "".join(f"{m['role']}\n{m['content']}" for m in asked["messages"])
    # A token a byte, and one for each mark of the template.
    return [*turns, *[0] * 3 * len(asked["messages"]), *"assistant\n", 0]


def test_a_task_that_a_chat_cannot_score_is_refused_before_anything_is_asked(
    server, spec, store_root
):
    """The reason, and what to do instead."""
    with pytest.raises(
        BadInput, match=r"choose is of the type multiple_choice.*no log-prob.*gsm8k"
    ):
        engine.run(spec("choose"), store_root)
    with pytest.raises(BadInput, match=r"capability\.api\.tokenizer"):
        engine.run(spec("choose", path=COMPLETIONS), store_root)
    assert not server.asked


def test_a_chat_without_its_template_is_refused(server, spec, store_root):
    """Shots and conditions would be another's than the record says."""
    asked = spec("write")
    plain = asked.capability.with_(apply_chat_template=False).model_dump()

    with pytest.raises(BadInput, match="apply_chat_template: true"):
        engine.run(asked.with_(capability=plain), store_root)


def test_reasoning_in_another_field_is_the_answer_where_nothing_else_is(server, spec, store_root):
    """A model that only thought has said its thoughts, and they are counted."""
    record = engine.run(spec("write", model="thinks"), store_root)

    said = {
        sample["filtered_resps"][0] for sample in samples_of(store_root, record.run_id, "write")
    }
    assert said == {THOUGHT}
    assert record.capability.usage.reasoning_tokens == 12 * 4


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ({"choices": [{"message": {"content": "a", "reasoning": "b"}}]}, "a"),
        ({"choices": [{"message": {"content": "", "reasoning": "b"}}]}, "b"),
        ({"choices": [{"message": {"content": [{"type": "text", "text": "c"}]}}]}, "c"),
        ({"choices": [{"message": {}}]}, ""),
    ],
)
def test_where_the_answer_of_a_reply_is(reply, answer):
    """Text, parts of text, or reasoning under one of its two names."""
    assert api_lm._with_plain_text(reply)["choices"][0]["message"]["content"] == answer


def test_anthropics_replies_are_text_without_the_thoughts():
    """Blocks of text count, blocks of thinking do not; their usage has other names."""
    reply = {
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "yes"}],
        "usage": {"input_tokens": 7, "output_tokens": 3},
    }
    where = endpoint.parse_endpoint("endpoint:https://api.anthropic.com/v1/messages#claude")

    assert api_lm._with_plain_text(reply)["content"] == [{"type": "text", "text": "yes"}]
    assert endpoint_client.reply_usage(reply) == Usage(
        num_replies=1, prompt_tokens=7, output_tokens=3
    )
    assert api_lm.lm_eval_model_name(where, ApiSpec()) == "anthropic-chat-completions"
    assert endpoint_client.auth_headers(where, "k")["x-api-key"] == "k"


def test_a_kind_that_speaks_otherwise_than_the_address_is_refused():
    """A class for plain text at a chat's address, and the other way round."""
    chat = endpoint.parse_endpoint("endpoint:http://host/v1#m")
    plain = endpoint.parse_endpoint("endpoint:http://host/v1/completions#m")

    with pytest.raises(BadInput, match="takes chats"):
        api_lm.lm_eval_model_name(chat, ApiSpec(kind="local-completions"))
    with pytest.raises(BadInput, match="takes plain text"):
        api_lm.lm_eval_model_name(plain, ApiSpec(kind="openai-chat-completions"))
    scored, why_not = api_lm.supported_output_types(
        endpoint.parse_endpoint("endpoint:https://api.openai.com/v1/completions#gpt-x"), ApiSpec()
    )
    assert scored == api_lm.GENERATE_ONLY
    assert "babbage-002" in why_not


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "message",
                    "content",
                    "text",
                    "index",
                    "usage",
                    "logprobs",
                    "prompt_tokens",
                    "completion_tokens",
                    "token_logprobs",
                    "top_logprobs",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(
    reply=st.dictionaries(st.sampled_from(["choices", "content", "usage"]), JSON),
    path=st.sampled_from(["/v1", COMPLETIONS, "/v1/messages"]),
    generate=st.booleans(),
)
def test_any_reply_is_an_answer_or_a_failure_that_is_counted(reply, path, generate):
    """Whatever JSON a server sends, nothing else comes out of it."""
    where = endpoint.parse_endpoint(f"endpoint:http://host{path}#m")
    counted = []
    lm = api_lm.make_api_lm(where, ApiSpec(), counted.append, lambda work: None)

    with contextlib.suppress(RequestFailed):
        answer = lm._read(reply, generate, [1, 2, 3], 1)
        assert isinstance(answer, str) if generate else math.isfinite(answer[0])
    assert counted[0].num_replies == 1


def test_a_busy_server_is_asked_again(server, spec, store_root):
    """429 twice, then answers: a whole record."""
    record = engine.run(spec("write", model="busy_twice", num_concurrent=1), store_root)

    assert record.status == "finished"
    assert len(server.asked) == 12 + 2


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("always_busy", "HTTP 503"),
        ("nonsense", "garbage.*hello"),
        ("empty", "garbage.*a reply without text"),
        ("hangs_up", "closed early"),
    ],
)
def test_a_server_that_stays_bad_is_said_in_a_sentence(server, spec, store_root, model, says):
    """After the attempts that were allowed; the run's record has the sentence, not a traceback."""
    asked = spec("write", model=model, num_concurrent=1)

    with pytest.raises(RunFailed, match=f"left a request unanswered: .*{says}"):
        engine.run(asked, store_root)

    assert len(server.asked) == 3
    assert disk.load(store_root, asked.run_id).error.traceback is None


def test_a_completions_server_without_log_probabilities_is_named(spec, folder, store_root):
    """What is missing from the reply is in the sentence."""
    asked = spec("choose", model="no_logprobs", path=COMPLETIONS, tokenizer=str(folder))

    with pytest.raises(RunFailed, match=r"without log-probabilities of the prompt \(echo"):
        engine.run(asked, store_root)


def test_what_came_before_the_server_died_is_kept(server, spec, store_root):
    """Five answers are on disk; the next run asks only the other seven, and counts all twelve."""
    asked = spec("write", model="dies", num_concurrent=1)
    with pytest.raises(RunFailed, match="answers received so far are kept"):
        engine.run(asked, store_root)
    assert len(server.asked) == 5 + 3

    server.asked.clear()
    engine_again = asked  # the same order: five requests are within what the server bears
    with pytest.raises(RunFailed):
        engine.run(engine_again, store_root)
    first = [one["messages"] for one in server.asked[:5]]
    server.asked.clear()
    record = engine.run(asked, store_root)

    assert len(server.asked) == 2
    assert not [one for one in server.asked if one["messages"] in first]
    assert record.capability.usage.num_replies == 12
    assert record.capability.scores[0].num_documents == 12


def test_a_key_is_sent_and_written_nowhere(server, spec, store_root, monkeypatch):
    """From the variable that the spec names; not in a record, log or message that quotes it."""
    monkeypatch.setenv("MY_KEY", SECRET)
    host_keys.allow("127.0.0.1", "MY_KEY")
    with pytest.raises(RunFailed, match=r"Incorrect API key \*\*\*"):
        engine.run(spec("write", model="echoes_key", key_variable="MY_KEY"), store_root)

    assert server.asked[0]["authorization"] == f"Bearer {SECRET}"
    assert len(server.asked) <= 4, "a refusal is not asked again"
    written = [path for path in store_root.rglob("*") if path.is_file()]
    assert not [path for path in written if SECRET in path.read_text(errors="replace")]


def test_a_key_in_place_of_its_variables_name_is_refused_and_not_repeated():
    """The message says what belongs there."""
    with pytest.raises(BadInput, match="key_variable is not possible.*NAME") as refused:
        CapabilitySpec.parse({"api": {"key_variable": SECRET}})
    assert SECRET not in str(refused.value)


def test_a_missing_key_is_said_before_anything_is_asked(monkeypatch):
    """Sellers want one, and get only their own."""
    seller = endpoint.parse_endpoint("endpoint:https://api.openai.com/v1#gpt-5-mini")
    with pytest.raises(BadInput, match="OPENAI_API_KEY is not set"):
        endpoint.key_for(seller)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)

    assert endpoint.key_for(seller) == SECRET
    assert endpoint.key_for(endpoint.parse_endpoint("endpoint:http://127.0.0.1:8000/v1#m")) is None
    assert api_lm.lm_eval_model_name(seller, ApiSpec()) == "openai-chat-completions"


def test_a_price_limit_stops_a_run_before_its_first_request(server, spec, store_root):
    """The estimate is in the sentence; below the limit it is in the log, and the count after."""
    host = f"127.0.0.1:{server.server_port}"
    price = {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 100.0}
    api_prices.own_prices_file().write_text(yaml.safe_dump({f"{host}/tiny": price}))

    with pytest.raises(BadInput, match=r"12 requests.*\$.*max_usd.*No request was sent"):
        engine.run(spec("write", max_usd=1e-4), store_root)
    assert not server.asked
    record = engine.run(spec("write", max_usd=1.0), store_root)

    log = (store_root / record.run_id / disk.LOG).read_text(encoding="utf-8")
    assert "answers of 48 tokens at most: $" in log
    assert record.capability.usage.output_tokens == 48


def test_a_price_limit_without_a_price_says_where_to_write_it(spec, store_root):
    """Nobody knows what the own server costs."""
    where = re.escape(str(api_prices.own_prices_file()))
    with pytest.raises(BadInput, match=rf"no price of tiny at 127\.0\.0\.1.*{where}"):
        engine.run(spec("write", max_usd=1.0), store_root)


@pytest.mark.parametrize("in_store", [0.0, 1000.0])
def test_a_store_cannot_lift_a_price_limit(server, spec, store_root, in_store):
    """Its price alone limits nothing; beside the user's or a looked-up one the dearer counts."""
    host = f"127.0.0.1:{server.server_port}"
    theirs = {"input_usd_per_mtok": in_store, "output_usd_per_mtok": in_store}
    (store_root / "api_prices.yaml").write_text(
        yaml.safe_dump({f"{host}/tiny": theirs, "openai/gpt-5": theirs})
    )

    with pytest.raises(BadInput, match="others may have written.*add it to .*or remove max_usd"):
        engine.run(spec("write", max_usd=1e-4), store_root)
    assert not server.asked

    seller = endpoint.parse_endpoint("endpoint:https://api.openai.com/v1#gpt-5")
    usage = Usage(prompt_tokens=1_000_000)
    looked_up = api_prices.look_up_price("openai/gpt-5").input_usd_per_mtok
    dearer = max(looked_up, in_store)
    api_prices.refuse_above_budget(usage, ApiSpec(max_usd=dearer + 0.01), seller, store_root)
    with pytest.raises(BadInput, match="No request was sent"):
        api_prices.refuse_above_budget(usage, ApiSpec(max_usd=dearer - 0.01), seller, store_root)

    api_prices.own_prices_file().write_text(
        "openai/gpt-5: {input_usd_per_mtok: 7, output_usd_per_mtok: 7}"
    )
    api_prices.refuse_above_budget(usage, ApiSpec(max_usd=7.01), seller, store_root)
    with pytest.raises(BadInput, match="your own price.*No request was sent"):
        api_prices.refuse_above_budget(usage, ApiSpec(max_usd=6.99), seller, store_root)


def test_a_dry_run_says_the_money_and_asks_nothing(
    server, spec, store_root, tmp_path, monkeypatch, capsys
):
    """`explorer run spec.yaml --dry-run`, which also misses the key; `show` has what it was."""
    host = f"127.0.0.1:{server.server_port}"
    price = {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 100.0}
    (store_root / "api_prices.yaml").write_text(yaml.safe_dump({f"{host}/tiny": price}))
    asked = spec("write", key_variable="THE_KEY")
    host_keys.allow(host, "THE_KEY")
    (tmp_path / "api.yaml").write_text(asked.to_yaml())

    def call(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["explorer", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == code
        said = capsys.readouterr()
        return " ".join((said.out if code == 0 else said.out + said.err).split())

    said = call("run", str(tmp_path / "api.yaml"), "--dry-run", code=2)
    assert "About 12 requests" in said
    assert "the environment variable THE_KEY is not set" in said
    said = call("run", str(tmp_path / "api.yaml"), "--dry-run", "--unchecked")

    assert "About 12 requests" in said
    assert said.endswith("Nothing was evaluated.")
    assert not server.asked
    monkeypatch.setenv("THE_KEY", SECRET)
    usage = engine.run(asked, store_root).capability.usage
    shown = call("show", asked.run_id)
    assert f"{usage.prompt_tokens:,} tokens read, 48 written: $" in shown


def test_prices_are_known_by_the_endpoints_address(store_root):
    """genai-prices knows sellers; a server of one's own has no price but one's own."""
    known = api_prices.endpoint_price(store_root, "https://api.openai.com/v1", "gpt-5-mini")

    assert known.provider == "openai"
    usage = Usage(prompt_tokens=2_000_000, output_tokens=1_000_000)
    expected = 2 * known.input_usd_per_mtok + known.output_usd_per_mtok
    assert known.of(usage) == pytest.approx(expected)
    assert api_prices.endpoint_price(store_root, "http://127.0.0.1:8000/v1", "gpt-5-mini") is None
    assert (
        api_prices.endpoint_price(store_root, "https://api.openai.com/v1", "no-such-model") is None
    )


@pytest.mark.long
def test_the_starter_behind_a_server_has_the_starters_scores(store_root):
    """The real teacher behind a real server: the same answers, log-likelihoods within 1e-3."""
    asked = {"tasks": ["starter_facts", "starter_last_word"], "limit": 5}
    here = RunSpec(
        name="here", latency=None, device="cpu", dtype="float32", capability=asked, threads=2
    )
    with serving("starter", AnsweringServer) as running:
        name = running.name("starter", COMPLETIONS)
        api = {**asked, "api": {"tokenizer": "starter", "max_retries": 2}}
        there = engine.run(here.with_(name="there", teacher=name, capability=api), store_root)
    own = engine.run(here, store_root)

    columns = ["task", "metric", "doc_id", "doc_hash", "value"]
    both = [disk.load_answers(store_root, one.run_id)[columns] for one in (there, own)]
    assert both[0].equals(both[1])
    for task in asked["tasks"]:
        pairs = zip(
            *(samples_of(store_root, one.run_id, task) for one in (there, own)), strict=True
        )
        for theirs, ours in pairs:
            values = [[float(a) for a, _ in one["filtered_resps"]] for one in (theirs, ours)]
            assert values[0] == pytest.approx(values[1], abs=1e-3)
    assert there.capability.usage.num_replies == 5 * 4 + 5
