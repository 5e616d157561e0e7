"""What the check before a run accepts runs to its end; the rest is refused before any compute.

Each kind of file, model and server from outside that once failed in the middle of a run.
"""

import json
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from explorer import pipeline
from explorer.pipeline import preflight
from explorer.specs import RunSpec
from tests.families import tiny
from tests.scripted_server import chat, error, event, scripted, stream, whole_stream

NOTES = [f"Note {i}. The weather in town {i % 7} was fine on day {i}." for i in range(120)]


def said(order, root):
    """Why the check refuses an order; empty if it accepts it and the run then finishes."""
    spec = RunSpec.parse(order)
    errors = [finding.message for finding in preflight.findings([spec], root) if finding.error]
    if not errors:
        pipeline.run(spec, root)
    return " ".join(errors)


def lines(texts):
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)


def cells(folder, column):
    pq.write_table(pa.table({"text": column}), folder / "corpus.parquet")
    return folder / "corpus.parquet"


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


CORPORA = {
    "line separators": (
        lambda folder: written(folder, "odd.jsonl", lines(f"{n}\u2028{n}\u0085" for n in NOTES)),
        "",
    ),
    "byte order mark": (
        lambda folder: written(folder, "mark.txt", b"\xef\xbb\xbf" + "\n\n".join(NOTES).encode()),
        "",
    ),
    "UTF-16": (lambda folder: written(folder, "wide.jsonl", lines(NOTES).encode("utf-16")), ""),
    "bytes": (lambda folder: cells(folder, pa.array([note.encode() for note in NOTES])), ""),
    "dictionary": (lambda folder: cells(folder, pa.array(NOTES).dictionary_encode()), ""),
    "chats": (
        lambda folder: cells(folder, pa.array([[{"role": "user", "content": "x"}]] * 9)),
        "found list<.*apply_chat_template",
    ),
    "half a character": (
        lambda folder: written(folder, "half.jsonl", lines(NOTES) + '{"text": "a \\ud83d b"}\n'),
        "line 121: expected whole characters",
    ),
    "Latin-1": (
        lambda folder: written(folder, "old.txt", ("caf\xe9 " * 999).encode("latin-1")),
        "line 1: expected UTF-8.*iconv",
    ),
    "too short": (lambda folder: written(folder, "short.txt", "Short."), "needs at least 5"),
}


@pytest.mark.parametrize("kind", CORPORA)
def test_a_corpus_trains_or_is_refused(kind, tiny_run, store_root, tmp_path):
    """As its bytes, its cells and its characters are."""
    make, expected = CORPORA[kind]
    distill = tiny_run["distill"] | {"corpus": str(make(tmp_path))}
    answer = said(tiny_run | {"distill": distill, "capability": None}, store_root)

    assert re.search(expected, answer) if expected else answer == ""


def _holes(folder):
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layers.2." not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def _marked_as_tied(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))


def _without_end(folder):
    for name in ("config.json", "tokenizer_config.json"):
        settings = json.loads((folder / name).read_text())
        settings |= {"eos_token": None, "eos_token_id": None, "pad_token_id": None}
        (folder / name).write_text(json.dumps(settings))
    (folder / "generation_config.json").unlink(missing_ok=True)


def _own_code(folder):
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    config |= {"model_type": "own_kind", "auto_map": own}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('code of the folder ran')\n")


MODELS = {
    "dense, then experts": ("deepseek_v3", None, {}, ""),
    "sizes in text_config": ("gemma3", None, {}, ""),
    "attention by the layer's number": ("gpt2_scaled", None, {}, ""),
    "a head of its own": ("llama", _marked_as_tied, {}, ""),
    "no end-of-text token": ("llama", _without_end, {}, ""),
    "missing weights": ("llama", _holes, {}, r"9 weights missing: model\.layers\.2"),
    "positions": ("llama", None, {"block_tokens": 1024}, "block_tokens is 1,024, but .* 512 pos"),
    "own code": ("llama", _own_code, {}, "write trust_remote_code: true"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_teaches_or_is_refused(kind, tiny_run, store_root, tmp_path):
    """As its files are, whatever its configuration says of them."""
    name, spoil, distill, expected = MODELS[kind]
    folder = tiny.save(name, tmp_path / "model")
    if spoil:
        spoil(folder)
    order = tiny_run | {"teacher": str(folder), "distill": tiny_run["distill"] | distill}
    answer = said(order, store_root)

    assert re.search(expected, answer) if expected else answer == ""
    shutil.rmtree(folder)


def answered_in_one_piece(asked):
    num_tokens = asked.get("max_tokens", 4)
    usage = {"prompt_tokens": 7, "completion_tokens": num_tokens}
    return stream(event({"content": "all of it"}) + "\n\n", event(usage=usage) + "\n\n")


def strict(asked):
    """Takes neither max_tokens nor a temperature, nor ignore_eos."""
    for field in ("max_tokens", "temperature", "ignore_eos"):
        if field in asked:
            return error(400, f"{field} is not taken here", param=field)
    return whole_stream(asked["max_completion_tokens"]) if asked.get("stream") else chat()


SERVERS = {
    "thoughts": (lambda asked: whole_stream(asked["max_tokens"], "reasoning"), ""),
    "other fields": (strict, ""),
    "one piece": (answered_in_one_piece, "16 tokens came in one piece"),
    "no model": (lambda asked: error(404, "no such model"), "Check the model's name, m,"),
    "no stream": (lambda asked: chat(), "not a stream"),
}


@pytest.mark.parametrize("kind", SERVERS)
def test_an_endpoint_is_timed_or_refused(kind, store_root):
    """As it streams, and as it takes the request's fields."""
    answer, expected = SERVERS[kind]
    timed = {"prompt_tokens": 8, "output_tokens": 4, "warmup": 0, "repeats": 2, "timeout_s": 10}
    with scripted(answer) as server:
        order = {"teacher": server.name(), "capability": None, "latency": timed}
        found = said(order, store_root)

    assert re.search(expected, found) if expected else found == ""
