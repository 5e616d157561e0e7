"""The rotary scaling that a GGUF file states and transformers does not read from it.

Without it a model answers, a little worse with every position. Llama 3's scaling is restored from
the file's table of factors; another one is refused.
"""

from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from explorer.errors import UnknownModel
from explorer.models.gguf.gguf_files import GgufFiles

TABLE = "rope_freqs.weight"
F32 = 0
"""GGUF's number of that format."""
LLAMA_3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""What all models of Llama 3 have in common; they differ in the factor."""
TOLERANCE = 1e-3
"""Largest relative difference of a restored frequency from the file's."""


def restore_rope(name: str, model: PreTrainedModel, files: GgufFiles) -> None:
    """Give a model that transformers read from a GGUF file the rotary scaling of the file.

    Raises:
        UnknownModel: The file states a scaling other than Llama 3's, and the model has none.
    """
    config = model.config.get_text_config()
    rope = dict(getattr(config, "rope_parameters", None) or {})
    factors = _stated(files)
    if factors is None or rope.get("rope_type", "default") != "default":
        return
    plain = {key: module for key, module in model.named_modules() if hasattr(module, "inv_freq")}
    if len(factors) and plain:
        config.rope_parameters = rope | LLAMA_3 | {"factor": float(factors.max())}
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
        stated = next(iter(plain.values())).inv_freq.cpu().float() / torch.from_numpy(factors)
        if scaled.shape == stated.shape and torch.allclose(scaled, stated, rtol=TOLERANCE, atol=0):
            for module in plain.values():
                module.inv_freq, module.original_inv_freq = scaled.clone(), scaled.clone()
            return
    raise UnknownModel(
        f"{name} scales its rotary positions in a way that torch cannot read from GGUF, so its "
        "answers would be wrong. Name the model's safetensors instead, or write llamacpp: for "
        "gguf: to run the file in llama.cpp."
    )


def _stated(files: GgufFiles) -> Any:
    """The file's factors; None without scaling, empty for a scaling that is not a table."""
    header = files.headers[0]
    architecture = bytes(header.values.get("general.architecture", b"")).decode()
    kind = header.values.get(f"{architecture}.rope.scaling.type")
    if kind not in (None, b"none"):
        return np.empty(0, np.float32)
    tables = [table for table in files.shapes if table.startswith("rope")]
    if not tables:
        return None
    if tables != [TABLE] or header.places[TABLE][0] != F32:
        return np.empty(0, np.float32)
    length = files.shapes[TABLE][0]
    factors = np.fromfile(files.paths[0], np.float32, length, offset=header.places[TABLE][1])
    return None if (factors == 1).all() else factors
