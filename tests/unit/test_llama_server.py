"""A tiny model in llama.cpp's own HTTP server, for real (`tests.llama_server`)."""

import json

import pytest

from explorer import pipeline as engine
from explorer.errors import RunFailed
from explorer.models.gguf import convert
from explorer.specs import RunSpec
from explorer.store import disk, frames
from tests import llama_server, merging

pytest.importorskip("xllamacpp", reason="it has llama.cpp's server: pip install xllamacpp")


@pytest.fixture
def spec(tiny_llama, tmp_path, monkeypatch):
    """A spec that times a tiny GGUF file in the server, whose program the configuration names."""
    program = llama_server.install(tmp_path / "bin")
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"servers": {"llama.cpp": str(program)}}))
    monkeypatch.setenv("EXPLORER_CONFIG", str(config))
    path = tmp_path / "model.gguf"
    convert.to_gguf(merging.load(tiny_llama(num_layers=2)), "f16", path)
    return RunSpec(
        teacher=f"llamacpp:{path}",
        capability=None,
        device="cpu",
        threads=1,
        latency={
            "prompt_tokens": 64,
            "output_tokens": 8,
            "warmup": 1,
            "repeats": 3,
            "concurrency": [1, 2],
            "requests": 6,
            "serve": {"engine": "llama.cpp", "arguments": ["--no-warmup"]},
        },
    )


def test_a_gguf_file_is_timed_in_llama_cpps_server(spec, store_root):
    """Its answers have the requested length, at every level; the record says what served them."""
    record = engine.run(spec, store_root)

    own = record.latency.own
    assert own.runtime.name == "llama.cpp server"
    assert own.runtime.version
    assert own.runtime.load_s > 0
    assert own.runtime.disk_bytes > 0
    assert "--no-warmup" in own.runtime.command
    assert own.num_failed == 0
    assert not own.request_changes, "it takes every field that we send"
    assert [turn.num_output_tokens for turn in own.turns] == [8, 8, 8]
    assert own.prompt_tokens == pytest.approx(64, abs=16)
    assert [point.level for point in own.curve][:1] == [1]
    assert frames.row(record)["label"] == "teacher, llama.cpp server"
    log = disk.run_folder(store_root, spec.run_id) / disk.SERVER_LOG
    assert "listening on http://127.0.0.1" in log.read_text()


def test_a_model_that_it_cannot_read_fails_with_its_own_words(spec, store_root, monkeypatch):
    """A file that llama.cpp refuses ends the server, whose last lines are in the sentence."""
    monkeypatch.setattr(engine.stages.served_stage.Path, "absolute", lambda path: path.parent)

    with pytest.raises(RunFailed, match=r"llama\.cpp server ended by itself.*server\.log"):
        engine.run(spec, store_root)
