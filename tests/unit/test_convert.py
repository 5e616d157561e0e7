"""GGUF files: what is written is the model, in torch and in llama.cpp."""

import json

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, quants
from transformers import AutoModelForCausalLM

from explorer.errors import BadInput, UnknownModel
from explorer.models.gguf import convert, gguf_facts, layouts, vocabulary
from tests import merging


@pytest.fixture
def model(tiny_llama):
    return merging.load(tiny_llama(num_layers=2))


def test_transformers_reads_back_the_model_that_was_written(model, tmp_path):
    """F16 to GGUF and back gives the same logits as halving the weights does."""
    path = tmp_path / "model.gguf"
    convert.to_gguf(model, "f16", path)

    again = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype="float32")

    ids = torch.arange(40)[None]
    halved = model.model.half().float()
    assert torch.allclose(again(ids).logits, halved(ids).logits, atol=1e-5)
    assert {p.name for p in tmp_path.iterdir()} == {path.name, "results"}, "nothing is left behind"


def test_q8_0_holds_each_weight_within_half_a_step(model, tmp_path):
    """A block of 32 weights shares a scale; each is off by half of it at most."""
    path = tmp_path / "model.gguf"
    convert.to_gguf(model, "q8_0", path)

    tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    found = tensors["blk.1.ffn_up.weight"]
    assert found.tensor_type == GGMLQuantizationType.Q8_0
    read = quants.dequantize(found.data, found.tensor_type)
    wanted = model.model.model.layers[1].mlp.up_proj.weight.detach().numpy()
    step = np.abs(wanted).reshape(-1, 32).max(1) / 127
    off = np.abs(read - wanted).reshape(-1, 32).max(1)
    assert (off <= 0.51 * step + 1e-3 * np.abs(wanted).max()).all()
    assert "output.weight" not in tensors, "a tied embedding is written once"


def test_facts_are_in_the_header(model, tmp_path):
    """Layers, size, number format and the layers that a student kept."""
    model.model.config.explorer_kept_layers = [0, 3]
    path = tmp_path / "model.gguf"
    convert.to_gguf(model, "q8_0", path)

    facts = gguf_facts.gguf_facts("student", path)

    assert (facts.num_layers, facts.hidden_size, facts.vocab_size) == (2, 32, 320)
    assert facts.num_parameters == model.model.num_parameters()
    assert (facts.dtype, facts.context_tokens, facts.kept_layers) == ("q8_0", 512, [0, 3])
    assert facts.weight_bytes < facts.num_parameters * 1.2
    assert facts.fingerprint == gguf_facts.fingerprint(path)


def test_llama_3_scaling_is_that_of_transformers(model):
    """The factors by which llama.cpp divides the frequencies give transformers' own ones."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = LlamaConfig(hidden_size=256, num_attention_heads=4, rope_parameters=rope)

    wanted, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")

    plain = 500_000.0 ** -(np.arange(0, 64, 2) / 64)
    assert np.allclose(plain / layouts.rope_factors(config), wanted.numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    ("pre", "name"),
    [
        ([{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}], "gpt-2"),
        (
            [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
            ],
            "smollm",
        ),
        (
            [
                {"type": "Split", "pattern": {"Regex": vocabulary.LLAMA_3_SPLIT}},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
            "llama-bpe",
        ),
    ],
)
def test_a_tokenizers_cuts_have_llama_cpps_name(pre, name):
    """GPT-2, SmolLM and Llama 3 are told apart by how they cut a text."""
    assert vocabulary.pre_tokenizer({"type": "Sequence", "pretokenizers": pre}, "m") == name


@pytest.mark.parametrize(
    "pre",
    [
        {"type": "Metaspace"},
        {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True},
        {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
    ],
)
def test_an_unknown_cut_is_refused(pre):
    """A wrong name would give other tokens without a word."""
    with pytest.raises(BadInput, match="other tokens"):
        vocabulary.pre_tokenizer(pre, "m")


def test_what_cannot_be_written_is_refused_and_leaves_nothing(model, tmp_path, monkeypatch):
    """Another architecture, another rotary scaling; no half file stays."""
    path = tmp_path / "model.gguf"
    model.model.config.rope_parameters = {"rope_type": "yarn", "rope_theta": 1e4}
    with pytest.raises(BadInput, match="scaling 'yarn'"):
        convert.to_gguf(model, "f16", path)
    monkeypatch.setattr(layouts, "LAYOUTS", {})
    with pytest.raises(BadInput, match="is a LlamaForCausalLM"):
        convert.to_gguf(model, "f16", path)
    assert [p.name for p in tmp_path.iterdir()] == ["results"]


def test_a_file_that_is_no_gguf_says_so(tmp_path):
    """Other bytes under the name are one sentence."""
    path = tmp_path / "model.gguf"
    path.write_text(json.dumps({}))
    with pytest.raises(UnknownModel, match="not a GGUF file"):
        gguf_facts.gguf_facts("m", path)
