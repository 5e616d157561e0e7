"""Linear weights in 8 and 4 bits, by torchao: less memory, slightly different answers.

Only the weights of linear layers are quantised: to 8 bits with one scale per row, to 4 bits in
groups of 32 with a scale and an offset each. Activations, norms, the embedding and the output head
keep their dtype. The head often is the embedding, and the training loop applies it separately.

    python -c "from explorer.models import loading; print(loading.load('starter', bits=8).model)"

Needs the extra `quant`. Source: docs.pytorch.org/ao, "Quantized Inference".
"""

import importlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import PreTrainedModel

from explorer.devices import accelerator
from explorer.errors import BadInput
from explorer.specs import Bits

GROUP_SIZE = 32
"""Weights of a row that share a scale in 4 bits, as in GGUF."""
MIN_COMPUTE_CAPABILITY = (8, 0)
"""Lowest compute capability for torch's product with 4-bit weights."""


def check_quantization(bits: Bits, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse what cannot be quantised here, before anything is loaded.

    Raises:
        BadInput: torchao is not installed, or the device or dtype has no matching product.
    """
    if bits == 4:
        capability = accelerator.compute_capability(device)
        if capability is None or capability < MIN_COMPUTE_CAPABILITY:
            raise BadInput(
                "4-bit weights need an NVIDIA GPU of compute capability 8.0 or newer, and this "
                f"run's device is {device}. Use 8 bits, or gguf: q4_k_m on a CPU."
            )
        if dtype != torch.bfloat16:
            raise BadInput(
                f"4-bit weights compute in bfloat16, but the spec has dtype {dtype_name(dtype)}. "
                "Set dtype: auto or bfloat16."
            )
    _torchao()


def quantize_weights(model: PreTrainedModel, bits: Bits, device: torch.device) -> None:
    """Quantise a model's linear weights in place, layer by layer on `device`.

    Args:
        model: In the dtype that it will compute in; it cannot be trained afterwards.
        bits: 8 or 4, accepted by `check_quantization`.
        device: Where the quantised weights stay. The rest of the model is not moved.
    """
    torchao = _torchao()
    head = model.get_output_embeddings()
    # torch.compile's settings are global to the process, and the teacher is timed in it too.
    if bits == 8:
        config = torchao.Int8WeightOnlyConfig(set_inductor_config=False)
    else:
        config = torchao.Int4WeightOnlyConfig(
            group_size=GROUP_SIZE,
            int4_packing_format="tile_packed_to_4d",
            set_inductor_config=False,
        )

    def is_quantized(module: torch.nn.Module, name: str) -> bool:
        return isinstance(module, torch.nn.Linear) and module is not head

    torchao.quantize_(model, config, is_quantized, device=device)


def stored_tensors(name: str, tensor: Any) -> Iterator[tuple[str, Any]]:
    """The tensors in which a weight is stored: itself, or quantised values, scales and offsets."""
    if not is_traceable_wrapper_subclass(tensor):
        yield name, tensor
        return
    parts, _ = tensor.__tensor_flatten__()
    for part in parts:
        yield from stored_tensors(f"{name}.{part}", getattr(tensor, part))


def dtype_name(dtype: torch.dtype, bits: Bits | None = None) -> str:
    """`float32`, or `int8 + float32` where the linear weights are quantised."""
    plain = str(dtype).removeprefix("torch.")
    return f"int{bits} + {plain}" if bits else plain


def _torchao() -> Any:
    try:
        return importlib.import_module("torchao.quantization")
    except ImportError as error:
        raise BadInput(
            "8- and 4-bit weights need torchao, which is not installed: "
            "pip install 'distill-explorer[quant]'."
        ) from error
