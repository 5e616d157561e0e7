"""A tiny model in `transformers serve`, for real."""

import json
import shutil

import psutil
import pytest
import transformers
from transformers import AutoTokenizer

from explorer import pipeline as engine
from explorer.specs import RunSpec
from explorer.store import disk, frames

for package in ("fastapi", "openai"):
    pytest.importorskip(
        package, reason="transformers serve needs it: pip install 'transformers[serving]'"
    )


@pytest.fixture
def spec(tiny_llama, tmp_path, monkeypatch):
    """A model that would end its answers at once, on a machine without a hub's cache.

    Its path has a sign by which the server tells a revision.
    """
    monkeypatch.setenv("EXPLORER_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no-cache"))
    folder = tmp_path / "somebody@example.org" / "model"
    shutil.copytree(tiny_llama(num_layers=2), folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    letters = set(tokenizer("abc", add_special_tokens=False)["input_ids"])
    num_tokens = json.loads((folder / "config.json").read_text())["vocab_size"]
    ends = [token for token in range(num_tokens) if token not in letters]
    generation = folder / "generation_config.json"
    generation.write_text(json.dumps(json.loads(generation.read_text()) | {"eos_token_id": ends}))
    return RunSpec(
        teacher=str(folder),
        capability=None,
        device="cpu",
        threads=1,
        latency={
            "prompt_tokens": 64,
            "output_tokens": 8,
            "warmup": 1,
            "repeats": 3,
            "concurrency": [1, 2],
            "requests": 4,
            "serve": {"engine": "transformers", "wait_s": 240},
        },
    )


@pytest.mark.slow
def test_a_folder_is_timed_in_transformers_serve(spec, store_root):
    """Its answers have the requested length, at every level, and no process of it is left."""
    before = set(psutil.Process().children(recursive=True))

    record = engine.run(spec, store_root)

    own = record.latency.own
    assert own.runtime.name == "transformers server"
    assert own.runtime.version == transformers.__version__
    assert own.runtime.load_s > 0
    assert spec.teacher in own.runtime.command
    assert own.num_failed == 0
    assert not own.request_changes, "it takes every field that we send"
    assert [turn.num_output_tokens for turn in own.turns] == [8, 8, 8]
    assert own.prompt_tokens == pytest.approx(64, abs=20)
    assert [point.level for point in own.curve][:1] == [1]
    assert frames.row(record)["label"] == "teacher, transformers server"
    log = disk.run_folder(store_root, spec.run_id) / disk.SERVER_LOG
    assert "Finished server process" in log.read_text()
    assert set(psutil.Process().children(recursive=True)) <= before
