"""Write a torch model as a GGUF file for llama.cpp: F16, Q8_0 or Q4_K_M.

Supports Llama-like models (Llama, Mistral, Qwen 2) with a byte-level BPE tokenizer. F16 and Q8_0
are written here; for Q4_K_M llama.cpp quantises the F16 file.

    explorer convert starter --to q8_0 starter.gguf

Sources: github.com/ggml-org/llama.cpp, `docs/gguf` for the keys and tensor names (both are in
the package `gguf`), `src/llama-vocab.cpp` for the meaning of a pre-tokenizer's name.
"""

import ctypes
import importlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import MODEL_ARCH, GGMLQuantizationType, LlamaFileType, TokenType
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from explorer.errors import BadInput, NoRoom
from explorer.models.layers import KEPT_LAYERS
from explorer.models.loading import Loaded
from explorer.specs import GgufType

ARCHITECTURES = {
    "LlamaForCausalLM": MODEL_ARCH.LLAMA,
    "MistralForCausalLM": MODEL_ARCH.LLAMA,
    "Qwen2ForCausalLM": MODEL_ARCH.QWEN2,
}
"""Classes of transformers and their names in llama.cpp."""
LLAMA_3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {LLAMA_3_SPLIT: "llama-bpe", LLAMA_3_SPLIT.replace("{1,3}", ""): "qwen2"}
"""Regular expressions that split a text before BPE, and llama.cpp's names for them."""
KEPT_KEY = "explorer.kept_layers"
"""Our own key for the teacher's layers that a student keeps."""


def to_gguf(loaded: Loaded, kind: GgufType, path: Path) -> None:
    """Write a model as one GGUF file; a failure leaves no file behind.

    Raises:
        BadInput: The architecture, tokenizer or rotary scaling is not supported, or q4_k_m is
            requested without llama.cpp.
        NoRoom: llama.cpp could not quantise.
    """
    if kind == "q4_k_m":
        library = _llama_cpp()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        plain, whole = Path(folder) / "plain.gguf", Path(folder) / "whole.gguf"
        if kind == "q4_k_m":
            _write(loaded, "f16", plain)
            options = library.llama_model_quantize_default_params()
            options.ftype = int(LlamaFileType.MOSTLY_Q4_K_M)
            options.nthread = torch.get_num_threads()
            status = library.llama_model_quantize(
                os.fsencode(plain), os.fsencode(whole), ctypes.byref(options)
            )
            if status:
                raise NoRoom(f"llama.cpp could not quantise {loaded.name} (status {status}).")
        else:
            _write(loaded, kind, whole)
        whole.replace(path)


def _llama_cpp() -> Any:
    try:
        return importlib.import_module("llama_cpp")
    except ImportError as error:
        raise BadInput(
            "q4_k_m needs llama.cpp, which is not installed: "
            "pip install 'distill-explorer[edge]' compiles it. f16 and q8_0 work without it."
        ) from error


def architecture_of(name: str, model: PreTrainedModel) -> MODEL_ARCH:
    """llama.cpp's architecture of a model.

    Raises:
        BadInput: It cannot be written as GGUF.
    """
    architecture = ARCHITECTURES.get(type(model).__name__)
    if architecture is None:
        raise BadInput(
            f"{name} is a {type(model).__name__}, which cannot be written as GGUF; "
            f"supported are {', '.join(ARCHITECTURES)}."
        )
    return architecture


def _write(loaded: Loaded, kind: str, path: Path) -> None:
    model = loaded.model
    architecture = architecture_of(loaded.name, model)
    names = gguf.get_tensor_name_map(architecture, int(model.config.num_hidden_layers))
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture], use_temp_file=True)
    try:
        _add_shape(writer, loaded)
        _add_tokenizer(writer, loaded.tokenizer, int(model.config.vocab_size), loaded.name)
        file_type = LlamaFileType.MOSTLY_Q8_0 if kind == "q8_0" else LlamaFileType.MOSTLY_F16
        writer.add_file_type(file_type)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for name, tensor, wanted in _tensors(model, architecture, names, kind):
            writer.add_tensor(name, gguf.quants.quantize(tensor, wanted), raw_dtype=wanted)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
        if writer.temp_file is not None:
            writer.temp_file.close()


def _tensors(
    model: PreTrainedModel, architecture: MODEL_ARCH, names: gguf.TensorNameMap, kind: str
) -> Any:
    """Name, float32 values and GGUF type of each tensor; tied ones once."""
    config = model.config
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, parameter in model.state_dict().items():
        if name == "lm_head.weight" and tied:
            continue
        values: Any = parameter.detach().to("cpu", torch.float32).numpy()
        if architecture == MODEL_ARCH.LLAMA and ".self_attn.q_proj." in name:
            values = _interleave(values, int(config.num_attention_heads))
        if architecture == MODEL_ARCH.LLAMA and ".self_attn.k_proj." in name:
            values = _interleave(values, int(config.num_key_value_heads))
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert known is not None, f"GGUF has no name for {name}"
        wanted = GGMLQuantizationType.F32
        if values.ndim > 1:
            wanted = GGMLQuantizationType.F16
            if kind == "q8_0" and values.shape[-1] % 32 == 0:
                wanted = GGMLQuantizationType.Q8_0
        yield known, values, wanted
    factors = _rope_factors(config)
    if factors is not None:
        yield "rope_freqs.weight", factors, GGMLQuantizationType.F32


def _interleave(values: Any, num_heads: int) -> Any:
    """Reorder the rows of each head from transformers' halves to llama.cpp's pairs."""
    rows, *rest = values.shape
    halves = values.reshape(num_heads, 2, rows // num_heads // 2, *rest)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))


def _add_shape(writer: gguf.GGUFWriter, loaded: Loaded) -> None:
    config = loaded.model.config
    num_heads = int(config.num_attention_heads)
    head_size = int(getattr(config, "head_dim", None) or config.hidden_size // num_heads)
    writer.add_name(loaded.name)
    writer.add_context_length(int(config.max_position_embeddings))
    writer.add_embedding_length(int(config.hidden_size))
    writer.add_block_count(int(config.num_hidden_layers))
    writer.add_feed_forward_length(int(config.intermediate_size))
    writer.add_head_count(num_heads)
    writer.add_head_count_kv(int(config.num_key_value_heads))
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(float(_rope(config).get("rope_theta", 10_000.0)))
    writer.add_layer_norm_rms_eps(float(config.rms_norm_eps))
    writer.add_vocab_size(int(config.vocab_size))
    kept_layers = getattr(config, KEPT_LAYERS, None)
    if kept_layers:
        writer.add_array(KEPT_KEY, [int(layer) for layer in kept_layers])


def _rope(config: Any) -> dict[str, Any]:
    return getattr(config, "rope_parameters", None) or {}


def _rope_factors(config: Any) -> Any:
    """The divisor of each rotary frequency in llama.cpp; None without scaling.

    Raises:
        BadInput: The scaling is not Llama 3's.
    """
    rope = _rope(config)
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return None
    if kind != "llama3":
        raise BadInput(
            f"The rotary scaling {kind!r} cannot be written as GGUF; only none and llama3 can."
        )
    head_size = int(getattr(config, "head_dim", config.hidden_size // config.num_attention_heads))
    inverse = rope["rope_theta"] ** -(np.arange(0, head_size, 2) / head_size)
    wavelength = 2 * np.pi / inverse
    length = rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = np.clip((length / wavelength - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32)


def _add_tokenizer(
    writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, vocab_size: int, name: str
) -> None:
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    data = json.loads(backend.to_str()) if backend is not None else {}
    if data.get("model", {}).get("type") != "BPE" or data["model"].get("byte_fallback"):
        raise BadInput(
            f"The tokenizer of {name} is not a byte-level BPE; only those can be written as GGUF "
            "(GPT-2, SmolLM, Llama 3, Qwen)."
        )
    added = {token["content"]: token for token in data["added_tokens"]}
    by_id = {index: token for token, index in tokenizer.get_vocab().items()}
    tokens, types = [], []
    for index in range(vocab_size):
        token = by_id.get(index)
        tokens.append(f"[PAD{index}]" if token is None else token)
        if token is None:
            types.append(TokenType.UNUSED)
        elif token in added:
            special = added[token]["special"]
            types.append(TokenType.CONTROL if special else TokenType.USER_DEFINED)
        else:
            types.append(TokenType.NORMAL)
    merges = [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer(data["pre_tokenizer"], name))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    for add, token_id in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
    ):
        # A token that was added without a row of the embedding is not in the file.
        if token_id is not None and token_id < vocab_size:
            add(token_id)
    first = tokenizer("a")["input_ids"][0]
    writer.add_add_bos_token(first == tokenizer.bos_token_id)
    writer.add_add_space_prefix(False)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def pre_tokenizer(data: dict[str, Any], name: str) -> str:
    """llama.cpp's name for the way a tokenizer splits a text before BPE.

    Raises:
        BadInput: The way is unknown; a wrong name would silently give other tokens.
    """
    parts = data["pretokenizers"] if data["type"] == "Sequence" else [data]
    kinds = [part["type"] for part in parts]
    last = parts[-1]
    if kinds[-1] == "ByteLevel" and not last["add_prefix_space"]:
        if kinds == ["ByteLevel"] and last["use_regex"]:
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and parts[0]["individual_digits"] and last["use_regex"]:
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and not last["use_regex"]:
            known = SPLITS.get(parts[0]["pattern"].get("Regex", ""))
            if known:
                return known
    raise BadInput(
        f"The tokenizer of {name} splits texts in a way that llama.cpp may not know ({kinds}), so "
        "no file is written: llama.cpp would read other tokens."
    )
