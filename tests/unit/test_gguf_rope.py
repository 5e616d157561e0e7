"""Rotary scaling in GGUF files: restored in torch, or refused."""

import dataclasses

import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from explorer.errors import UnknownModel
from explorer.models.gguf import convert, gguf_files
from explorer.models.gguf.rope import restore_rope
from explorer.models.loading import load
from tests import merging

LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def test_llama_3s_scaling_is_restored(tiny_llama, tmp_path):
    """The model answers as the one that was written, and so does it saved as safetensors."""
    plain = merging.load(tiny_llama(num_layers=2))
    config = plain.model.config
    config.rope_parameters = LLAMA_3
    scaled = LlamaForCausalLM(config).eval()
    scaled.load_state_dict(plain.model.half().float().state_dict())
    convert.to_gguf(dataclasses.replace(plain, model=scaled), "f16", tmp_path / "scaled.gguf")

    again = load(f"gguf:{tmp_path / 'scaled.gguf'}")
    again.model.save_pretrained(tmp_path / "saved")
    saved = LlamaForCausalLM.from_pretrained(tmp_path / "saved")

    ids = torch.arange(400)[None] % 320
    for model in (again.model, saved.eval()):
        torch.testing.assert_close(model(ids).logits, scaled(ids).logits, rtol=1e-4, atol=1e-4)
        assert model.config.rope_parameters["rope_type"] == "llama3"


@pytest.mark.parametrize("kind", ["yarn", "table"])
def test_another_scaling_is_refused(kind, tiny_llama, tmp_path):
    """Without it the model would answer wrongly, with no word."""
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "llama")
    if kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_tensor("output_norm.weight", np.ones(4, np.float32))
    else:
        writer.add_tensor("rope_freqs.weight", np.array([1, 3, 2, 7], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = merging.load(tiny_llama(num_layers=2)).model

    with pytest.raises(UnknownModel, match="llamacpp: for gguf:"):
        restore_rope("other", model, gguf_files.read_files(tmp_path / "other.gguf"))
