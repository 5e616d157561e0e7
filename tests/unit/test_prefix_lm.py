"""The prefix-sharing back end against lm-eval's own, on tiny random models of several families."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from explorer.evaluate.backends import prefix_lm
from explorer.evaluate.backends.prefix_lm import PrefixLM
from explorer.evaluate.backends.request_progress import RequestProgress
from explorer.evaluate.response_cache import ResponseCache
from explorer.models import loading
from tests import killing

LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
BLOOM = {"hidden_size": 32, "n_layer": 2, "n_head": 4}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", LLAMA),
    "absolute positions": ("GPT2", {**GPT2, "architecture": "GPT2LMHeadModel"}),
    "sliding window": ("Mistral", {**LLAMA, "sliding_window": 8}),
    "mixed kinds, soft cap, eager": (
        "Gemma2",
        {**LLAMA, "head_dim": 8, "sliding_window": 8, "attn_implementation": "eager"},
    ),
    "position bias": ("Bloom", BLOOM),
}
OWN_CODE = {"position bias"}
"""Families that take no mask of four dimensions."""


@pytest.fixture(scope="module")
def tokenizer(tiny_llama):
    return loading.load_tokenizer(str(tiny_llama(num_layers=2)))


def make(family: str) -> Any:
    """A random model whose answers depend on all it reads, which small weights would not give."""
    name, fields = FAMILIES[family]
    fields = dict(fields)
    architecture = fields.pop("architecture", f"{name}ForCausalLM")
    special = {"vocab_size": 320, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    attention = {k: fields.pop(k) for k in ["attn_implementation"] if k in fields}
    config = getattr(transformers, f"{name}Config")(**fields, **special, initializer_range=0.3)
    if attention:
        config._attn_implementation = attention["attn_implementation"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(transformers, architecture)(config).eval()


def both(model: Any, tokenizer: Any, **options: Any) -> tuple[PrefixLM, HFLM]:
    ours = PrefixLM(model, tokenizer=tokenizer, batch_size=4, **options)
    return ours, HFLM(model, tokenizer=tokenizer, batch_size=4)


def instances(kind: str, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, one, i, ("task", 0, 1)) for i, one in enumerate(arguments)]


def questions(seed: int = 0) -> list[tuple[str, str]]:
    """Few-shot questions with a long header, questions without, and one that is too long."""
    draw = random.Random(seed)

    def text(n: int) -> str:
        return "".join(draw.choice(["ab", "abc ", " x", "yz ", " the", "dog "]) for _ in range(n))

    header = text(60)
    pairs = []
    for i in range(40):
        context = header + text(draw.randint(1, 9)) if i % 2 else text(draw.randint(0, 20))
        pairs += [(context, text(draw.randint(1, 4))) for _ in range(3)]
    return [*pairs, ("long " * 200, "end"), pairs[0]]


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_the_stock_back_end(family, tokenizer, caplog):
    """Log-likelihoods within 1e-3, the same first choices, the same texts; or the stock code."""
    ours, theirs = both(make(family), tokenizer)
    assert ours.shares_prefixes == (family not in OWN_CODE)
    assert ("lm-eval's own code" in caplog.text) == (family in OWN_CODE)

    asked = instances("loglikelihood", questions())
    mine = ours.loglikelihood(asked, disable_tqdm=True)
    expected = theirs.loglikelihood(asked, disable_tqdm=True)
    assert [value for value, _ in mine] == pytest.approx([v for v, _ in expected], abs=1e-3)
    assert [greedy for _, greedy in mine] == [greedy for _, greedy in expected]

    asked = instances("loglikelihood_rolling", [("ab c" * n,) for n in (1, 20, 200)])
    mine = ours.loglikelihood_rolling(asked, disable_tqdm=True)
    assert mine == pytest.approx(theirs.loglikelihood_rolling(asked, disable_tqdm=True), abs=1e-3)

    settings = {"until": ["a", "q!"], "max_gen_toks": 10}
    prompts = [(context or "x", settings) for context, _ in questions()[::3]]
    asked = instances("generate_until", prompts)
    assert ours.generate_until(asked, True) == theirs.generate_until(asked, True)


def test_nothing_asked_is_nothing_answered(tokenizer):
    """A task without requests of a kind costs nothing and fails nowhere."""
    ours, _ = both(make("llama"), tokenizer)

    assert ours.loglikelihood([]) == ours.loglikelihood_rolling([]) == ours.generate_until([]) == []


def test_first_choices_are_seen(tokenizer):
    """A continuation that the model would write itself is greedy, and the stock code agrees."""
    model = make("llama")
    ours, theirs = both(model, tokenizer)
    prompt = [5, 6, 7, 8]
    written = model.generate(torch.tensor([prompt]), max_new_tokens=3, do_sample=False)[0, 4:]
    other = [*written[:2].tolist(), (int(written[2]) + 1) % 320]
    asked = [(("", "w"), prompt, written.tolist()), (("", "o"), prompt, other)]

    mine = ours._loglikelihood_tokens(asked, disable_tqdm=True)

    assert [greedy for _, greedy in mine] == [True, False]
    stock = theirs._loglikelihood_tokens(asked, disable_tqdm=True)
    assert [greedy for _, greedy in stock] == [True, False]


def test_shared_tokens_are_computed_once(tokenizer):
    """A header of 100 questions and each question's choices pass through the layers once."""
    model = make("llama")
    ours, _ = both(model, tokenizer)
    header, widths = "an example. " * 20, []
    asked = instances(
        "loglikelihood", [(f"{header}{i} or", f" {c}") for i in range(100) for c in "abcd"]
    )
    model.model.layers[0].register_forward_hook(
        lambda module, args, output: widths.append(args[0].shape[:2].numel())
    )

    ours.loglikelihood(asked, disable_tqdm=True)

    whole = sum(len(tokenizer.encode(" ".join(one.args))) for one in asked)
    assert sum(widths) < whole / 40


def test_logits_exist_only_where_they_are_scored(tokenizer):
    """Of a prompt of 100 tokens with two targets, two positions reach the head."""
    model = make("llama")
    ours, _ = both(model, tokenizer)
    made: list[int] = []
    model.lm_head.register_forward_hook(lambda m, i, output: made.append(output.shape[0]))

    ours._loglikelihood_tokens([(("", ""), [5] * 100, [6, 7])], disable_tqdm=True)

    assert made == [2]


def test_logits_are_made_in_chunks(tokenizer, monkeypatch):
    """The memory for logits is bounded, and chunks change no answer."""
    ours, _ = both(make("llama"), tokenizer)
    asked = instances("loglikelihood", questions())
    whole = ours.loglikelihood(asked, disable_tqdm=True)
    monkeypatch.setattr("explorer.evaluate.backends.tree_model.CHUNK_BYTES", 3 * 320 * 4)

    assert [v for v, _ in ours.loglikelihood(asked, disable_tqdm=True)] == pytest.approx(
        [v for v, _ in whole], abs=1e-4
    )


def test_half_precision_is_near_the_stock_back_end(tokenizer):
    """In bfloat16 trees are in use, and most choices are the same."""
    ours, theirs = both(make("llama").bfloat16(), tokenizer)
    assert ours.shares_prefixes
    asked = instances("loglikelihood", questions())

    mine = ours.loglikelihood(asked, disable_tqdm=True)

    expected = theirs.loglikelihood(asked, disable_tqdm=True)
    off = [abs(a - b) / max(1, abs(b)) for (a, _), (b, _) in zip(mine, expected, strict=True)]
    assert sorted(off)[len(off) // 2] < 0.02


def test_progress_is_exact_and_knows_the_time_left(tokenizer):
    """The last report has every request and token, and no seconds left."""
    told: list[RequestProgress] = []
    ours, _ = both(make("llama"), tokenizer, on_progress=told.append)

    ours.loglikelihood(instances("loglikelihood", questions()))

    last = told[-1]
    assert (last.requests, last.tokens) == (last.total_requests, last.total_tokens)
    assert (last.total_requests, last.seconds_left) == (122, 0)
    assert len(told) > 3
    assert [one.tokens for one in told] == sorted(one.tokens for one in told)


def test_a_full_memory_halves_the_batch(tokenizer, monkeypatch):
    """What does not fit together is asked in parts, with the same answers."""
    ours, theirs = both(make("llama"), tokenizer)
    asked = instances("loglikelihood", questions())
    scores, full = ours._tree.scores, []

    def small(rows: list[Any], header: Any) -> Any:
        if len(rows) > 1:
            full.append(len(rows))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return scores(rows, header)

    monkeypatch.setattr(ours._tree, "scores", small)
    ours._budget = 4096
    mine = ours.loglikelihood(asked, disable_tqdm=True)

    assert full
    assert [v for v, _ in mine] == pytest.approx(
        [v for v, _ in theirs.loglikelihood(asked, disable_tqdm=True)], abs=1e-3
    )


@pytest.mark.parametrize(
    "settings", [{"do_sample": True, "temperature": 0.7}, {"num_beams": 2}, {"top_p": 0.5}]
)
def test_other_decoding_is_left_to_transformers(tokenizer, settings):
    """Sampling and beams give what the stock back end gives with the same seed."""
    ours, theirs = both(make("llama"), tokenizer)
    asked = instances(
        "generate_until", [("the dog", {"until": ["."], "max_gen_toks": 5, **settings})]
    )
    found = []
    for lm in (ours, theirs):
        torch.manual_seed(0)
        found.append(lm.generate_until(asked, True))

    assert found[0] == found[1]


def test_a_models_own_penalty_is_left_to_transformers(tokenizer):
    """A model whose settings change greedy decoding is decoded with them."""
    model = make("llama")
    model.generation_config.repetition_penalty = 5.0
    ours, theirs = both(model, tokenizer)
    asked = instances("generate_until", [("the dog", {"until": ["#"], "max_gen_toks": 12})])

    assert ours.generate_until(asked, True) == theirs.generate_until(asked, True)


def test_generation_keeps_the_header(tokenizer):
    """Prompts that begin alike read their examples once, also over several batches."""
    model = make("llama")
    ours, theirs = both(model, tokenizer)
    ours._budget = 64
    settings = {"until": ["#"], "max_gen_toks": 2}
    asked = instances(
        "generate_until", [("an example. " * 20 + f"number {i}", settings) for i in range(12)]
    )
    widths: list[int] = []
    hook = model.model.layers[0].register_forward_hook(
        lambda module, args, output: widths.append(args[0].shape[1])
    )

    mine = ours.generate_until(asked, True)

    hook.remove()
    assert sum(width > 200 for width in widths) == 1
    assert mine == theirs.generate_until(asked, True)


def test_a_log_of_another_key_is_not_read(tmp_path):
    """Answers of another model never come back, and a torn last line is dropped."""
    path = tmp_path / "asked.jsonl"
    log = ResponseCache(path, "one", lambda: None)
    log.store("loglikelihood", [("a", "b")], [(-1.25, True)])
    with path.open("a", encoding="utf-8") as file:
        file.write('{"key": "one", "answ')

    assert ResponseCache(path, "two", lambda: None).lookup("loglikelihood", [("a", "b")]) is None
    assert not path.read_text(encoding="utf-8")
    log.store("loglikelihood", [("c", "d")], [(-2.5, False)])
    with path.open("a", encoding="utf-8") as file:
        file.write('{"key": "one", "answ')
    again = ResponseCache(path, "one", lambda: None)
    assert again.lookup("loglikelihood", [("c", "d")]) == [[-2.5, False]]
    assert again.lookup("loglikelihood", [("c", "d"), ("e", "f")]) is None
    assert [json.loads(line)["key"] for line in path.read_text(encoding="utf-8").splitlines()] == [
        "one"
    ]


def test_a_kill_while_a_log_is_mended_loses_no_answer(tmp_path):
    """An API has been paid for them: killed at any change of the disk, all are still there."""

    def mended(kill):
        path = tmp_path / f"{kill.moment}.jsonl"
        kill.armed = False
        ResponseCache(path, "one", lambda: None).store(
            "loglikelihood", [("a", "b")], [(-1.25, True)]
        )
        with path.open("a", encoding="utf-8") as file:
            file.write('{"key": "one", "answ')
        kill.armed = True
        ResponseCache(path, "one", lambda: None)

    kills = 0
    for kill in killing.moments(mended):
        kills += 1
        again = ResponseCache(tmp_path / f"{kill.moment}.jsonl", "one", lambda: None)
        assert again.lookup("loglikelihood", [("a", "b")]) == [[-1.25, True]]
    assert kills > 1


@pytest.mark.parametrize("kind", ["loglikelihood", "loglikelihood_rolling", "generate_until"])
def test_a_killed_call_goes_on_to_the_same_bytes(tokenizer, tmp_path, kind, monkeypatch):
    """Stopped after any batch and asked again, every answer is the same to the last bit."""
    monkeypatch.setattr(prefix_lm, "ROLLING_BATCH", 2)
    arguments: dict[str, list[tuple[Any, ...]]] = {
        "loglikelihood": questions()[:60],
        "loglikelihood_rolling": [("ab c" * n,) for n in range(1, 10)],
        "generate_until": [
            (context or "x", {"until": ["q"], "max_gen_toks": 3}) for context, _ in questions()[:30]
        ],
    }
    asked = instances(kind, arguments[kind])
    ours, _ = both(make("llama"), tokenizer, on_progress=lambda work: None)
    ours._budget = 128

    def answers(path: Path, stop_after: int | None = None) -> tuple[Any, int]:
        committed = 0

        class Stops(ResponseCache):
            def store(self, *batch: Any) -> None:
                nonlocal committed
                super().store(*batch)
                committed += 1
                if committed == stop_after:
                    raise KeyboardInterrupt

        ours.set_cache_hook(Stops(path, "key", lambda: None))
        return getattr(ours, kind)(asked), committed

    whole, num_batches = answers(tmp_path / "whole")
    assert num_batches > 3
    for stop_after in (1, num_batches // 2, num_batches - 1):
        with pytest.raises(KeyboardInterrupt):
            answers(tmp_path / str(stop_after), stop_after)
        resumed, rest = answers(tmp_path / str(stop_after))
        assert rest == num_batches - stop_after
        assert json.dumps(resumed) == json.dumps(whole)
