"""Write a torch model as a GGUF file for llama.cpp: F16, Q8_0 or Q4_K_M.

Supports the architectures in `layouts` with a tokenizer that `vocabulary` knows. F16 and Q8_0 are
written here; for Q4_K_M llama.cpp quantises the F16 file.

    explorer convert starter --to q8_0 starter.gguf

Source: github.com/ggml-org/llama.cpp, `docs/gguf` for the keys and tensor names; both are in the
package `gguf`.
"""

import ctypes
import importlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import torch
from gguf import GGMLQuantizationType, LlamaFileType
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from explorer.errors import BadInput, NoRoom
from explorer.files import durable_files
from explorer.models.gguf import layouts, vocabulary
from explorer.models.gguf.layouts import Layout
from explorer.models.layers import layer_list
from explorer.models.loading import Loaded
from explorer.specs import GgufType


def to_gguf(loaded: Loaded, kind: GgufType, path: Path) -> None:
    """Write a model as one GGUF file; a failure leaves no file behind.

    Raises:
        BadInput: The architecture, tokenizer or rotary scaling is not supported, or q4_k_m is
            requested without llama.cpp.
        NoRoom: llama.cpp could not quantise.
    """
    if kind == "q4_k_m":
        library = _llama_cpp()
    with (
        durable_files.new_file(path) as whole,
        tempfile.TemporaryDirectory(dir=path.parent) as folder,
    ):
        plain = Path(folder) / "plain.gguf"
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


def check_model(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a model that cannot be written as GGUF; its weights are not read.

    Args:
        name: The model's, for messages.
        model: The model; it may be on torch's meta device.
        tokenizer: Its tokenizer.

    Raises:
        BadInput: The architecture, tokenizer or rotary scaling is not supported.
    """
    layout = layouts.layout_of(name, model)
    layouts.rope_factors(model.config)
    names = _tensor_names(model, layout)
    for weight_name, _ in model.named_parameters():
        _name_in_gguf(name, weight_name, names)
    writer = gguf.GGUFWriter(None, gguf.MODEL_ARCH_NAMES[layout.architecture])
    vocabulary.add_tokenizer(writer, tokenizer, int(model.config.vocab_size), name)


def _llama_cpp() -> Any:
    try:
        return importlib.import_module("llama_cpp")
    except ImportError as error:
        raise BadInput(
            "q4_k_m needs llama.cpp, which is not installed: "
            "pip install 'distill-explorer[edge]' compiles it. f16 and q8_0 work without it."
        ) from error


def _write(loaded: Loaded, kind: str, path: Path) -> None:
    name, model = loaded.name, loaded.model
    layout = layouts.layout_of(name, model)
    tensors = _tensors(name, model, layout, kind)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[layout.architecture], use_temp_file=True)
    try:
        layouts.add_shape(writer, name, model, layout)
        vocabulary.add_tokenizer(writer, loaded.tokenizer, int(model.config.vocab_size), name)
        file_type = LlamaFileType.MOSTLY_Q8_0 if kind == "q8_0" else LlamaFileType.MOSTLY_F16
        writer.add_file_type(file_type)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for tensor_name, values, wanted in tensors:
            writer.add_tensor(tensor_name, gguf.quants.quantize(values, wanted), raw_dtype=wanted)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
        if writer.temp_file is not None:
            writer.temp_file.close()


def _tensors(name: str, model: PreTrainedModel, layout: Layout, kind: str) -> Iterator[Any]:
    """Name, float32 values and GGUF type of each tensor; tied ones once."""
    prefix, _ = layer_list(model)
    names = _tensor_names(model, layout)
    factors = layouts.query_factors(model, layout)
    # named_parameters lists a tied weight once, under the embedding's name.
    for weight_name, parameter in model.named_parameters():
        known = _name_in_gguf(name, weight_name, names)
        number = weight_name.removeprefix(f"{prefix}.").partition(".")[0]
        factor = factors[int(number)] if number.isdecimal() else 1.0
        values: Any = parameter.detach().to("cpu", torch.float32).numpy()
        values = layouts.as_llama_cpp(weight_name, values, model, layout, factor)
        wanted = GGMLQuantizationType.F32
        if values.ndim > 1:
            wanted = GGMLQuantizationType.F16
            if kind == "q8_0" and values.shape[-1] % 32 == 0:
                wanted = GGMLQuantizationType.Q8_0
        yield known, values, wanted
    rope_factors = layouts.rope_factors(model.config)
    if rope_factors is not None:
        yield "rope_freqs.weight", rope_factors, GGMLQuantizationType.F32


def _tensor_names(model: PreTrainedModel, layout: Layout) -> gguf.TensorNameMap:
    return gguf.get_tensor_name_map(layout.architecture, len(layer_list(model)[1]))


def _name_in_gguf(name: str, weight_name: str, names: gguf.TensorNameMap) -> str:
    known = names.get_name(weight_name, try_suffixes=(".weight", ".bias"))
    if known is None:
        raise BadInput(
            f"{name} cannot be written as GGUF: llama.cpp has no place for its {weight_name}."
        )
    return str(known)
