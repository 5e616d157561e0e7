"""A teacher behind an endpoint: a real model behind a real server on loopback, and bad servers."""

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from explorer import cli
from explorer import pipeline as engine
from explorer.catalogue import api_prices
from explorer.distill.endpoint_topk import top_k_from_endpoint
from explorer.distill.packed_topk import PackedTopK
from explorer.distill.teacher_cache import TeacherCache
from explorer.errors import BadInput, RunFailed
from explorer.latency.runtimes import endpoint_logprobs
from explorer.models import endpoint
from explorer.models.loading import load, load_tokenizer
from explorer.pipeline import endpoint_check, endpoint_teacher
from explorer.pipeline.context import RunContext
from explorer.records import Usage
from explorer.specs import ApiSpec, RunSpec, SweepSpec
from explorer.store import disk, frames
from explorer.store.progress import Progress
from tests.answering_server import AnsweringServer, fresh
from tests.openai_server import SECRET, serving


@pytest.fixture(autouse=True)
def only_the_runs_requests(monkeypatch):
    """The check before a run sends requests of its own, which these tests do not count."""
    monkeypatch.setattr(endpoint_check, "check_endpoint", lambda spec: None)


ROOT = Path(__file__).parents[2]
COMPLETIONS = "/v1/completions"
VOCABULARY = 259
"""No rows without a token, so that the server can name whatever the weights find likely."""


@pytest.fixture(scope="module")
def folder(tiny_llama, tmp_path_factory):
    """A teacher with opinions: the random one's are so flat that all students agree with it."""
    place = tmp_path_factory.mktemp("teacher")
    loaded = load(str(tiny_llama(num_layers=2, vocab_size=VOCABULARY)), dtype="float32")
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight.mul_(10)
    loaded.model.save_pretrained(place)
    loaded.tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def sibling(tiny_llama):
    return str(tiny_llama(num_layers=2, vocab_size=VOCABULARY, seed=3))


@pytest.fixture(scope="module")
def server(folder):
    with serving(folder, AnsweringServer) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(server, monkeypatch):
    fresh(server, monkeypatch)


@pytest.fixture
def asked(server, sibling, corpus_file):
    """Makes a spec of a student: a few steps from a teacher behind the server."""

    def make(model="tiny", path=COMPLETIONS, distill=(), **changes):
        return RunSpec.parse(
            {
                "name": "served",
                "teacher": server.name(model, path),
                "student": {"kind": "checkpoint", "model": sibling},
                "distill": {
                    "corpus": str(corpus_file),
                    "max_tokens": 300,
                    "block_tokens": 16,
                    "heldout_blocks": 4,
                    "top_k": 8,
                    "eval_every_steps": 2,
                    **dict(distill),
                },
                "capability": None,
                "latency": None,
                "device": "cpu",
                "threads": 1,
                **changes,
            }
        )

    return make


@pytest.fixture
def call(monkeypatch, capsys):
    """A command, as a person types it; its output in one line."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["explorer", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr()
        assert stopped.value.code == 0, said.err
        return " ".join(said.out.split())

    return run


@pytest.fixture
def texts():
    """Six texts of twelve tokens."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, VOCABULARY, (6, 12), generator=generator)


def scorer(server, folder, spent=None, model="tiny", **api):
    """Asks the server for scores, as patiently as a test can wait."""
    where = endpoint.parse_endpoint(server.name(model, COMPLETIONS))
    # A busy machine must not look like a silent server.
    spec = ApiSpec(**{"num_concurrent": 2, "timeout_s": 60.0, "max_retries": 3, **api})
    counted = [] if spent is None else spent
    return endpoint_logprobs.PromptScorer(
        where, load_tokenizer(str(folder)), spec, None, counted.append
    )


def log_p_of(server, texts):
    """The log-probabilities that the server's own weights give."""
    with torch.inference_mode():
        return torch.log_softmax(server.loaded.model(texts).logits.float(), dim=-1)


def test_what_a_server_says_is_what_its_weights_say(server, folder, texts):
    """At every position, the last one too: ids, log-probabilities, and what was counted."""
    spent = []

    answers = dict(scorer(server, folder, spent).score(texts.tolist(), 8))

    assert sorted(answers) == list(range(6))
    expected = log_p_of(server, texts)
    for number, answer in answers.items():
        ids, log_p = top_k_from_endpoint(answer.likely, 8, VOCABULARY)
        best = expected[number].topk(8)
        torch.testing.assert_close(log_p[:, :8], best.values, rtol=0, atol=1e-4)
        torch.testing.assert_close(expected[number].gather(-1, ids), best.values)
        torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(12))
        assert answer.num_unknown == 0
    # The first text twice: once in words, to see that the tokenizer is the same.
    assert sum(spent, Usage()) == Usage(num_replies=7, prompt_tokens=7 * 12, output_tokens=7)
    first, second = server.asked[:2]
    assert (first["prompt"], first["echo"], first["logprobs"]) == (texts[0].tolist(), True, 8)
    assert "return_tokens_as_token_ids" not in first
    assert second["return_tokens_as_token_ids"] is True


def test_words_that_are_no_token_go_into_the_tail(server, folder):
    """A server that names tokens in words only: halves of characters are counted, not guessed."""
    text = load_tokenizer(str(folder))("plain words, and a few more of them").input_ids

    ((_, answer),) = scorer(server, folder, model="words_only").score([text], 200)

    expected = log_p_of(server, torch.tensor([text]))[0]
    words = endpoint_logprobs.token_spellings(load_tokenizer(str(folder)))[0]
    assert answer.num_unknown > 0
    for place, likely in enumerate(answer.likely):
        assert all(endpoint_logprobs.REPLACEMENT_CHARACTER not in words[token] for token in likely)
        for token, value in likely.items():
            assert value == pytest.approx(float(expected[place, token]), abs=1e-4)
    ids, log_p = top_k_from_endpoint(answer.likely, 200, VOCABULARY)
    assert all(len(set(row.tolist())) == 200 for row in ids)
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(len(text)))
    named = torch.tensor([sum(map(math.exp, likely.values())) for likely in answer.likely])
    # What was not named is shared evenly by all tokens that were not.
    share = (1 - named) / torch.tensor([VOCABULARY - len(each) for each in answer.likely])
    torch.testing.assert_close(log_p[:, -2].exp(), share, rtol=1e-4, atol=1e-7)


def test_kept_tokens_by_hand():
    """The two likeliest of three named ones, and the rest; one named, and one that is not."""
    half, quarter, eighth = (math.log(p) for p in (0.5, 0.25, 0.125))

    ids, log_p = top_k_from_endpoint([{7: quarter, 0: half, 3: eighth}, {0: half}, {}], 2, 6)

    assert ids.tolist() == [[0, 7], [0, 1], [0, 1]]
    expected = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.1, 0.4], [1 / 6, 1 / 6, 4 / 6]])
    torch.testing.assert_close(log_p.exp(), expected)


def rows_of(root, record):
    """By block, the kept ids and log-probabilities that a run left on disk."""
    facts = record.distillation.targets
    folder = root / ".work" / "targets" / facts.key
    identity = json.loads((folder / "meta.json").read_text())["identity"]
    row, found = PackedTopK(facts.top_k, identity["vocab_size"]), {}
    for shard in map(json.loads, (folder / "index.jsonl").read_text().split("\n")[:-1]):
        rows = np.fromfile(folder / shard["name"], np.uint8).reshape(-1, 16, row.num_bytes)
        ids, log_p = map(torch.from_numpy, row.unpack(rows))
        found |= {n: (ids[i], log_p[i].float()) for i, n in enumerate(shard["blocks"])}
    return found


@pytest.mark.parametrize("model", ["busy_twice", "forgets_twice"])
def test_a_server_that_recovers_is_survived(server, folder, texts, model):
    """429 with Retry-After, or log-probabilities left out: asked again, and all is there."""
    answers = dict(scorer(server, folder, model=model).score(texts.tolist(), 8))

    assert len(answers) == 6
    assert len(server.asked) == 6 + 1 + 2


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("no_logprobs", r"without log-probabilities of the prompt .*distill\.method: text"),
        ("only_written", r"log-probabilities of 1 of 12 tokens.*distill\.method: text"),
        ("drops_some", r"no log-probabilities at 1 of 11 positions"),
        ("no_echo", r"HTTP 400: .*Only no echo is supported.*distill\.method: text"),
        ("always_busy", r"HTTP 503"),
        ("hangs_up", r"closed early"),
        ("nonsense", r"garbage"),
        ("stalls", r"stalled .*timeout_s"),
        ("names_three", r"reports 3 tokens a position, .*Set distill\.top_k: 3"),
        ("adds_a_token", r"12 tokens came back with 13.*adds? tokens of its own"),
        ("other_tokens", r"another tokenizer than the student.*distill\.method: text"),
    ],
)
def test_a_server_that_stays_bad_is_said_in_a_sentence(server, folder, texts, model, says):
    """After the attempts that were allowed: what is wrong, and what to do."""
    text = load_tokenizer(str(folder))("Plain words.").input_ids
    timeout_s = 0.2 if model == "stalls" else 60.0

    with pytest.raises((RunFailed, BadInput), match=says) as failure:
        list(scorer(server, folder, model=model, timeout_s=timeout_s).score([text], 8))

    assert "\n" not in str(failure.value)


def test_targets_of_a_server_are_those_of_its_weights(asked, server, folder, store_root):
    """Ids, log-probabilities within half precision; the loss curves of both runs agree."""
    spec = asked()
    here = spec.with_(teacher=str(folder))

    record, own = engine.run(spec, store_root), engine.run(here, store_root)

    theirs, ours = (rows_of(store_root, each) for each in (record, own))
    assert sorted(theirs) == sorted(ours)
    for number in ours:
        assert (theirs[number][0] == ours[number][0]).float().mean() > 0.99
        torch.testing.assert_close(theirs[number][1], ours[number][1], rtol=2e-3, atol=2e-3)
    curves = [[(p.step, p.loss, p.heldout_kl) for p in r.distillation.curve] for r in (record, own)]
    assert len(curves[0]) > 2
    assert curves[0][0][2] > 0.1, "there is something to learn"
    for served, local in zip(*curves, strict=True):
        assert served == pytest.approx(local, rel=1e-3)
    targets = record.distillation.targets
    num_blocks = targets.num_positions // 16
    assert targets.usage == Usage(
        num_replies=num_blocks + 1,
        prompt_tokens=16 * (num_blocks + 1),
        output_tokens=num_blocks + 1,
    )
    assert (targets.num_unknown, targets.truncation_kl) == (0, None)
    assert own.distillation.targets.usage is None
    assert targets.mean_mass == pytest.approx(own.distillation.targets.mean_mass, rel=1e-3)


def test_blocks_that_a_filter_refuses_are_replaced_and_reported(asked, server, store_root, caplog):
    """As many steps as without a filter, on other blocks; no run asks for a refused block again."""
    spec = asked(model="filters")

    record = engine.run(spec, store_root)
    first = [request["prompt"] for request in server.asked]
    other_seed = engine.run(asked(model="filters", distill={"seed": 1}), store_root)
    later = [request["prompt"] for request in server.asked[len(first) :]]
    unfiltered = engine.run(asked(), store_root)

    facts = record.distillation.targets
    refused = [prompt for prompt in first if sum(prompt) % 4 == 0]
    assert len(refused) >= facts.num_refused > 0
    assert not [prompt for prompt in later if prompt in refused]
    assert other_seed.distillation.targets.num_refused >= facts.num_refused
    assert record.distillation.steps == unfiltered.distillation.steps
    assert f"refused {facts.num_refused} blocks of the corpus for good" in caplog.text
    assert "content management policy" in caplog.text


def test_a_server_that_refuses_every_block_fails_the_run(asked, store_root):
    """In its own words; nothing is trained."""
    with pytest.raises(RunFailed, match=r"refus.*flagged"):
        engine.run(asked(model="filters_all"), store_root)


def test_what_was_captured_before_the_server_died_is_kept(asked, server, store_root, monkeypatch):
    """The run fails in a sentence; run again, it asks only for the rest, and counts all."""
    spec = asked(model="dies")
    with pytest.raises(RunFailed, match=r"HTTP 503.*kept; run again to continue"):
        engine.run(spec, store_root)
    assert disk.load(store_root, spec.run_id).status == "failed"

    server.asked.clear()
    monkeypatch.setattr(server, "dies_after", 1000)
    record = engine.run(spec, store_root)

    num_blocks = record.distillation.targets.num_positions // 16
    # The server answered five times before: the first block in words, and four blocks.
    assert len(server.asked) == 1 + num_blocks - 4
    assert record.distillation.targets.usage.num_replies == num_blocks + 2


def test_every_student_of_an_endpoint_has_a_model_of_its_own(asked, sibling, store_root):
    """Cut from one that can be loaded, or random in its architecture: one capture for all."""
    cut = asked(student={"num_layers": 1, "sample_blocks": 1, "start_from": sibling})
    fresh = asked(
        student={"kind": "fresh", "num_layers": 1, "hidden_size": 16, "start_from": sibling},
        distill={"train_embeddings": True},
    )

    records = [engine.run(spec, store_root) for spec in (cut, fresh)]

    assert [record.model.num_layers for record in records] == [1, 1]
    assert [record.model.kept_layers is None for record in records] == [False, True]
    assert len({record.distillation.targets.key for record in records}) == 1
    assert len({record.distillation.targets.usage.num_replies for record in records}) == 1
    for record in records:
        assert record.distillation.kl_after != record.distillation.kl_before


def test_a_chat_is_refused_for_targets_and_text_teaches(asked, server, store_root):
    """Nothing is asked of it; the sentence names both ways out, and the second one works."""
    spec = asked(path="/v1")
    with pytest.raises(BadInput, match=r"does not score given text.*/v1/completions.*method: text"):
        engine.run(spec, store_root)

    record = engine.run(asked(path="/v1", distill={"method": "text"}), store_root)

    assert not server.asked
    assert record.distillation.targets is None
    assert record.distillation.curve[-1].heldout_label_loss is not None


def test_a_tokenizer_that_is_named_has_to_be_the_students(asked, tiny_llama, tmp_path, store_root):
    """The tasks' tokenizer is the teacher's, so another student is refused before any request."""
    other = tmp_path / "other"
    tokenizer = load_tokenizer(str(tiny_llama(num_layers=2)))
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(other)
    (other / "config.json").write_text("{}")
    spec = asked()
    tested = {"tasks": ["tiny_pairs"], "api": {"tokenizer": str(other)}}
    run = RunContext(spec.with_(capability=tested), store_root, Progress(store_root, spec.run_id))
    run.choose_device()

    with pytest.raises(BadInput, match=r"different vocabularies: 1 of .*<extra>.*method: text"):
        endpoint_teacher.uses_targets(run)


def test_a_price_limit_stops_the_capture_before_its_first_request(
    asked, server, sibling, store_root
):
    """The price is the endpoint's; the estimate is in the sentence."""
    where = endpoint.parse_endpoint(server.name("tiny", COMPLETIONS))
    api_prices.own_prices_file().write_text(
        f"{where.host}/tiny: {{input_usd_per_mtok: 100, output_usd_per_mtok: 200}}\n"
    )
    spec = asked().with_(capability={"api": {"max_usd": 1e-4}})
    run = RunContext(spec, store_root, Progress(store_root, spec.run_id))
    run.choose_device()
    identity = {"top_k": 8, "temperature": 1.0, "vocab_size": VOCABULARY}
    blocks = torch.zeros(9, 16, dtype=torch.long)
    targets = TeacherCache(store_root / "targets", blocks, identity)

    with pytest.raises(BadInput, match=r"9 requests with 144 tokens.*\$.*No request was sent"):
        targets.fill(
            lambda: endpoint_teacher.scorer(run, run.teacher_endpoint, targets),
            list(range(9)),
            lambda *told: None,
        )
    assert not server.asked


def test_a_dry_run_says_tokens_and_room_and_asks_nothing(asked, server, tmp_path, call):
    """The targets in tokens, the student in memory; the teacher takes none of this machine."""
    path = tmp_path / "served.yaml"
    path.write_text(asked().to_yaml())

    said = call("run", str(path), "--dry-run")

    # 4 held-out blocks and 5 steps of 4.
    assert "No tasks to evaluate" in said
    assert "Targets of all students: About 24 requests with 384 tokens" in said
    assert "no price is known. Nothing was evaluated." in said
    assert re.search(r"served-\w+ .*MB", said)
    assert not server.asked


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"student": {"num_layers": 1}}, r"student\.start_from"),
        ({"student": {"kind": "fresh", "num_layers": 1}}, r"student\.start_from"),
        (
            {"student": {"num_layers": 1, "choice": "greedy", "start_from": "x"}},
            "block_influence or uniform",
        ),
        ({"student": None, "gguf": "f16", "distill": None}, "not cut or converted"),
        ({"distill": {"method": "live"}}, "write method: cached"),
        ({"distill": {"teacher_bits": 8}}, "remove it"),
        ({"distill": {"corpus": "teacher"}}, "name its file"),
        ({"distill": {"temperature": 2.0}}, r"temperature must be 1 .*got 2"),
    ],
)
def test_what_needs_the_weights_is_refused_with_the_alternative(changes, says):
    """Before anything is loaded or asked."""
    plain = {
        "teacher": "endpoint:http://h/v1/completions#m",
        "student": {"kind": "checkpoint", "model": "x"},
    }
    with pytest.raises(BadInput, match=says):
        RunSpec.parse({**plain, **changes})


def test_a_sweep_of_an_endpoint_measures_the_endpoint_once():
    """Its own run first, then the students, each with the same teacher's run."""
    sweep = SweepSpec.parse(
        {
            "teacher": "endpoint:http://h/v1/completions#m",
            "students": [{"num_layers": n, "start_from": "x"} for n in (1, 2)],
            "distill": {},
            "control": True,
        }
    )

    teacher, *students = sweep.runs()

    assert teacher.is_teacher
    assert len(students) == 4
    assert {one.teacher_run().run_id for one in students} == {teacher.run_id}


def test_a_student_is_held_against_its_served_teacher(asked, server, folder, store_root, call):
    """The same documents, the endpoint's answers; what the targets took is shown and priced."""
    tested = {
        "tasks": ["tiny_pairs"],
        "include_path": str(ROOT / "tests" / "tasks"),
        "api": {"tokenizer": str(folder), "num_concurrent": 2},
    }
    where = endpoint.parse_endpoint(server.name("tiny", COMPLETIONS))
    (store_root / api_prices.OVERRIDES).write_text(
        f"{where.host}/tiny: {{input_usd_per_mtok: 100, output_usd_per_mtok: 200}}\n"
    )

    record = engine.run(asked(capability=tested), store_root)

    usage = record.distillation.targets.usage
    assert api_prices.run_usage_message(record, store_root).startswith(
        f"{usage.num_replies} replies, "
    )
    teacher = disk.load(store_root, record.teacher_run_id)
    pairs = frames.scores([teacher, record]).query("headline")
    assert pairs["num_documents"].nunique() == 1
    shown = call("show", record.run_id)
    assert f"API usage: {usage.num_replies} replies" in shown
    assert "the store's price" in shown
    assert "served" in call("ls")
    assert "num_unknown" in call("targets", "info", record.distillation.targets.key)


def test_a_key_is_sent_and_written_nowhere(asked, server, store_root, monkeypatch):
    """A server that quotes it is quoted without it."""
    monkeypatch.setenv(endpoint.KEY_VARIABLE, SECRET)
    spec = asked(model="echoes_key")

    with pytest.raises(RunFailed, match=r"HTTP 401.*Incorrect API key \*\*\*") as failure:
        engine.run(spec, store_root)

    assert "top_k" not in str(failure.value), "the key is what is wrong"

    assert server.asked[0]["authorization"] == f"Bearer {SECRET}"
    for path in store_root.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
