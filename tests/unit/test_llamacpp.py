"""llama.cpp runs what torch runs: the same tokens, the same scores. Needs the extra `edge`."""

import numpy as np
import pytest
import torch

from explorer import pipeline as engine
from explorer.errors import BadInput, UnknownModel
from explorer.latency import timing
from explorer.latency.runtimes.pytorch import EagerRuntime
from explorer.models import loading
from explorer.models.gguf import convert, gguf_facts
from explorer.specs import LatencySpec, RunSpec
from explorer.store import disk, frames
from explorer.store.progress import Progress
from tests import merging
from tests.conftest import ROOT

llama_cpp = pytest.importorskip(
    "llama_cpp", reason="llama.cpp is not installed: pip install 'distill-explorer[edge]'"
)

TEXTS = [
    "Document 12 says that 345 is a number.",
    "Isn't it?\n\n  Two  spaces, 1,000 words;  naïve café, 東京.",
    "<|im_start|>user\nHi<|im_end|>",
]


@pytest.fixture
def model(tiny_llama):
    return merging.load(tiny_llama(num_layers=2))


@pytest.fixture
def gguf_file(model, tmp_path):
    path = tmp_path / "model.gguf"
    convert.to_gguf(model, "f16", path)
    return path


@pytest.fixture
def runtime(gguf_file):
    from explorer.latency.runtimes.llamacpp import LlamaCppRuntime

    made = LlamaCppRuntime(gguf_file, threads=1)
    yield made
    made.close()


def logits(runtime, tokens):
    """llama.cpp's logits at every position."""
    runtime.prepare(1, len(tokens))
    runtime.clear_cache()
    rows = [(token, i, (0,), True) for i, token in enumerate(tokens)]
    return np.stack([row.copy() for row in runtime.decode(rows)])


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_and_logits_are_those_of_torch(model, runtime, text):
    """The converted model reads a text as the same tokens and expects the same ones next."""
    tokens = model.tokenizer.encode(text)
    assert runtime.tokenize(text) == tokens

    found = logits(runtime, tokens)

    with torch.inference_mode():
        wanted = model.model(torch.tensor([tokens])).logits[0].numpy()
    assert np.abs(found - wanted).max() < 0.01
    assert (found.argmax(-1) == wanted.argmax(-1)).mean() > 0.95


def test_two_sequences_answer_as_each_alone(model, runtime):
    """A batch in one context: no sequence sees the other; the tokens are torch's."""
    prompt_BT = timing.random_prompt([runtime], LatencySpec(prompt_tokens=9), 2)
    runtime.prepare(2, 14)

    together = list(runtime.stream(prompt_BT, 5))

    for row in range(2):
        alone = list(runtime.stream(prompt_BT[row : row + 1], 5))
        assert [step[row] for step in together] == [step[0] for step in alone]
    assert together == list(EagerRuntime(model).stream(prompt_BT, 5))


def test_a_gguf_is_timed_in_turns_with_its_teacher(model, runtime, store_root):
    """One protocol for both runtimes; the record names each."""
    spec = LatencySpec(
        prompt_tokens=8, output_tokens=3, warmup=1, repeats=2, concurrency=[1, 2], seed=3
    )

    found = timing.time_in_turns(runtime, EagerRuntime(model), spec, Progress(store_root, "run-1"))

    assert found.own.runtime.name == "llama.cpp"
    assert found.own.runtime.disk_bytes == runtime.path.stat().st_size
    assert found.teacher.runtime.name == "transformers eager"
    assert [point.kind for point in found.own.curve][:1] == ["batch"]
    assert found.own.energy.joules_per_token is not None or found.own.energy.reason


def test_q4_k_m_is_smaller_and_close(tiny_llama, tmp_path):
    """llama.cpp's own quantiser over our F16 file."""
    from explorer.latency.runtimes.llamacpp import LlamaCppRuntime

    model = merging.load(tiny_llama(num_layers=2, hidden_size=256))
    sizes, found = {}, {}
    for kind in ("f16", "q8_0", "q4_k_m"):
        path = tmp_path / f"{kind}.gguf"
        convert.to_gguf(model, kind, path)
        assert gguf_facts.gguf_facts("m", path).dtype == kind
        sizes[kind] = path.stat().st_size
        made = LlamaCppRuntime(path, threads=1)
        found[kind] = logits(made, list(range(40)))
        made.close()

    assert sizes["q4_k_m"] < 0.65 * sizes["q8_0"] < 0.65 * sizes["f16"]
    off = {kind: np.abs(rows - found["f16"]).mean() for kind, rows in found.items()}
    assert off["q8_0"] < off["q4_k_m"] < found["f16"].std()


def test_a_run_as_gguf_is_a_row_of_its_own(tiny_llama, store_root, tmp_path):
    """Tested and timed in llama.cpp, compared with its teacher, on the same documents."""
    folder = merging.save(tiny_llama(num_layers=2), tmp_path / "merging")
    spec = RunSpec.parse(
        {
            "name": "tiny-f16",
            "teacher": str(folder),
            "gguf": "f16",
            "capability": {"tasks": ["tiny_pairs"], "include_path": str(ROOT / "tests" / "tasks")},
            "latency": {"prompt_tokens": 8, "output_tokens": 3, "warmup": 0, "repeats": 2},
            "device": "cpu",
            "threads": 1,
        }
    )

    record = engine.run(spec, store_root)

    teacher = disk.load(store_root, record.teacher_run_id)
    assert record.model.dtype == "f16"
    assert record.latency.teacher is not None
    assert record.latency.own.peak_memory_bytes > 0
    scores = {
        run: [(s.metric, s.score) for s in part.capability.scores]
        for run, part in (("gguf", record), ("torch", teacher))
    }
    assert scores["gguf"] == scores["torch"], "F16 of this model chooses the same answers"
    assert frames.label(record) == "teacher f16"
    assert frames.row(record)["role"] == "student"


@pytest.mark.parametrize("group", ["pairs", "texts", "free"])
def test_scores_are_the_stock_back_ends(model, runtime, group):
    """Log-probabilities of answers and of whole texts, and greedy text, as lm-eval's own."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from explorer.evaluate.backends.llama_lm import LlamaLM

    stock = HFLM(pretrained=model.model, tokenizer=model.tokenizer, batch_size=1)
    ours = LlamaLM(runtime, model.tokenizer)

    def requests(kind, arguments):
        return [Instance(kind, {}, pair, i) for i, pair in enumerate(arguments)]

    if group == "pairs":
        asked = [(a, b) for a in ("", *TEXTS) for b in (" yes", " no, never", "!")]
        wanted, found = (lm.loglikelihood(requests("loglikelihood", asked)) for lm in (stock, ours))
        assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]
        wanted, found = ([score for score, _ in part] for part in (wanted, found))
    elif group == "texts":
        asked = requests("loglikelihood_rolling", [(text,) for text in (*TEXTS, TEXTS[0] * 20)])
        wanted, found = stock.loglikelihood_rolling(asked), ours.loglikelihood_rolling(asked)
    else:
        options = {"until": ["Q"], "max_gen_toks": 8, "do_sample": False}
        asked = requests("generate_until", [(text, options) for text in TEXTS])
        assert ours.generate_until(asked) == stock.generate_until(asked)
        return
    assert np.allclose(wanted, found, atol=2e-3, rtol=1e-4)


def test_answers_of_before_are_not_asked_again(model, runtime, tmp_path, monkeypatch):
    """A task that was cut off goes on: what its log holds is read, and progress counts it."""
    from lm_eval.api.instance import Instance

    from explorer.evaluate.backends.llama_lm import LlamaLM
    from explorer.evaluate.response_cache import ResponseCache

    greedy = {"until": ["Q"], "max_gen_toks": 4, "do_sample": False}
    asked = {
        "loglikelihood": [(text, end) for text in TEXTS for end in (" yes", " no")],
        "loglikelihood_rolling": [(text,) for text in TEXTS],
        "generate_until": [(text, greedy) for text in TEXTS],
    }

    def ask():
        done, answered = [], []
        lm = LlamaLM(runtime, model.tokenizer, on_progress=done.append)
        lm.set_cache_hook(ResponseCache(tmp_path / "asked", "key", lambda: answered.append(1)))
        found = [
            getattr(lm, kind)([Instance(kind, {}, one, i) for i, one in enumerate(arguments)])
            for kind, arguments in asked.items()
        ]
        assert len(answered) == 6 + 3 + 3
        assert [work.requests for work in done if work.requests == work.total_requests] == [6, 3, 3]
        return found

    first = ask()
    monkeypatch.setattr(runtime, "decode", lambda rows: pytest.fail("asked again"))

    assert ask() == first


def test_a_damaged_or_missing_file_is_one_sentence(tmp_path):
    """Neither is a crash of the process."""
    from explorer.latency.runtimes.llamacpp import LlamaCppRuntime

    with pytest.raises(UnknownModel, match="No GGUF file at"):
        LlamaCppRuntime(tmp_path / "none.gguf")
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(UnknownModel, match="is not a GGUF file"):
        LlamaCppRuntime(path)


def test_sampling_is_refused(tiny_llama):
    """A task that wants sampled answers is told so in words."""
    from explorer.evaluate.backends.llama_lm import LlamaLM

    class Free:
        args = ("Hi", {"until": [], "do_sample": True, "temperature": 1.0})

    tokenizer = loading.load_tokenizer(str(tiny_llama(num_layers=2)))

    class Runtime:
        context_tokens = 100

    with pytest.raises(BadInput, match="answer greedily"):
        LlamaLM(Runtime(), tokenizer).generate_until([Free()])
