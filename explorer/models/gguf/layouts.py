"""What llama.cpp computes for each architecture, and whether a model is that.

llama.cpp has one graph per architecture; a header's keys change only some of it. A model that
differs in anything else is refused, as the file would silently be another model. Where weights can
absorb a difference, such as another scale of the attention, they do.

Source: github.com/ggml-org/llama.cpp, `src/models/`.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import gguf
import numpy as np
from gguf import MODEL_ARCH
from transformers import PreTrainedModel

from explorer.errors import BadInput
from explorer.models.families import shape_of
from explorer.models.layers import KEPT_LAYERS, layer_list
from explorer.models.output_head import OutputHead

KEPT_KEY = "explorer.kept_layers"
"""Our own key for the teacher's layers that a student keeps."""
SILU = frozenset({"silu", "swish"})
TANH_GELU = frozenset({"gelu_new", "gelu_pytorch_tanh", "gelu_fast"})
"""Names of the one approximation of GELU that llama.cpp computes."""
GEMMA_27B_LAYERS = 46
"""llama.cpp takes a Gemma 2 with so many layers for the 27B model, which scales otherwise."""
NO_CAP = 1e6
"""llama.cpp always caps a Gemma 2; so large a cap changes nothing."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How llama.cpp reads the weights of one architecture."""

    architecture: MODEL_ARCH
    activations: frozenset[str] = SILU
    interleaved: bool = False
    """Whether the two halves of a rotary pair lie side by side in a head, not half a head apart."""
    unit_offset: bool = False
    """Whether transformers adds one to each norm's weight, which the file has to contain."""
    input_first: bool = False
    """Whether transformers' projections have their input on the first axis."""
    can_untie: bool = True
    """Whether the output layer may differ from the embedding."""


LAYOUTS = {
    "LlamaForCausalLM": Layout(MODEL_ARCH.LLAMA, interleaved=True),
    "MistralForCausalLM": Layout(MODEL_ARCH.LLAMA, interleaved=True),
    "Qwen2ForCausalLM": Layout(MODEL_ARCH.QWEN2),
    "Qwen3ForCausalLM": Layout(MODEL_ARCH.QWEN3),
    "Gemma2ForCausalLM": Layout(
        MODEL_ARCH.GEMMA2, activations=TANH_GELU, unit_offset=True, can_untie=False
    ),
    "Phi3ForCausalLM": Layout(MODEL_ARCH.PHI3),
    "GPT2LMHeadModel": Layout(MODEL_ARCH.GPT2, activations=TANH_GELU, input_first=True),
}
"""Classes of transformers, and what llama.cpp makes of them."""


def layout_of(name: str, model: PreTrainedModel) -> Layout:
    """The layout of a model's class, if llama.cpp computes what this model computes.

    Raises:
        BadInput: It cannot be written as GGUF; the message says why.
    """
    layout = LAYOUTS.get(type(model).__name__)
    if layout is None:
        raise BadInput(
            f"{name} is a {type(model).__name__}, which cannot be written as GGUF; "
            f"supported are {', '.join(LAYOUTS)}."
        )
    for reason in _differences(model, layout):
        raise BadInput(f"{name} cannot be written as GGUF: {reason}.")
    return layout


def _differences(model: PreTrainedModel, layout: Layout) -> Iterator[str]:
    """What llama.cpp would compute otherwise."""
    config: Any = model.config
    keys = ("hidden_act", "hidden_activation", "activation_function")
    activation = next(value for key in keys if (value := getattr(config, key, None)))
    if activation not in layout.activations:
        yield f"llama.cpp has no {activation} in this architecture"
    head = OutputHead.of(model)
    is_gemma = layout.architecture == MODEL_ARCH.GEMMA2
    if head.scale != 1 or (head.cap and not is_gemma):
        yield "llama.cpp neither scales nor caps the logits of this architecture"
    if head.projection.weight is not model.get_input_embeddings().weight and not layout.can_untie:
        yield "llama.cpp has no output layer of its own in this architecture"
    shape = shape_of(model)
    query_rows = shape.num_attention_heads * shape.head_dim
    if layout.architecture == MODEL_ARCH.PHI3 and query_rows != shape.hidden_size:
        yield "llama.cpp needs heads x head size to be the hidden size in this architecture"
    if layout.architecture == MODEL_ARCH.GPT2 and getattr(config, "add_cross_attention", False):
        yield "llama.cpp has no cross-attention in this architecture"


def add_shape(writer: gguf.GGUFWriter, name: str, model: PreTrainedModel, layout: Layout) -> None:
    """Write the sizes and all that the graph reads from the header."""
    config: Any = model.config
    shape = shape_of(model)
    writer.add_name(_harmless(name))
    writer.add_context_length(context_tokens(model, layout))
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_vocab_size(int(config.vocab_size))
    kept_layers = getattr(config, KEPT_LAYERS, None)
    if kept_layers:
        writer.add_array(KEPT_KEY, [int(layer) for layer in kept_layers])
    if layout.architecture == MODEL_ARCH.GPT2:
        writer.add_layer_norm_eps(float(config.layer_norm_epsilon))
        return
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    rotary = float(rope_of(config).get("partial_rotary_factor") or 1.0)
    writer.add_rope_dimension_count(int(shape.head_dim * rotary))
    writer.add_rope_freq_base(float(rope_of(config).get("rope_theta", 10_000.0)))
    writer.add_layer_norm_rms_eps(float(config.rms_norm_eps))
    if layout.architecture == MODEL_ARCH.GEMMA2:
        writer.add_attn_logit_softcapping(float(config.attn_logit_softcapping or NO_CAP))
        writer.add_final_logit_softcapping(float(config.final_logit_softcapping or NO_CAP))
        writer.add_sliding_window(int(config.sliding_window or config.max_position_embeddings))
        slides = [kind == "sliding_attention" for kind in config.layer_types]
        writer.add_sliding_window_pattern(slides)


def _harmless(name: str) -> str:
    """The model's name without the words by which llama.cpp changes how special tokens are read."""
    for word, other in (("phi-3", "phi 3"), ("phi3", "phi 3"), ("modern-bert", "modern bert")):
        name = re.sub(word, other, name, flags=re.IGNORECASE)
    return name


def context_tokens(model: PreTrainedModel, layout: Layout) -> int:
    """The longest text that llama.cpp reads as transformers does.

    Except in Gemma 2, llama.cpp lets all layers see everything. Up to the length of the window
    that is the same.
    """
    config: Any = model.config
    most = int(config.max_position_embeddings)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
    window = getattr(config, "sliding_window", None)
    if layout.architecture == MODEL_ARCH.GEMMA2 or not window or "sliding_attention" not in kinds:
        return most
    return min(most, int(window))


def rope_of(config: Any) -> dict[str, Any]:
    """The rotary settings; empty for a model without."""
    return getattr(config, "rope_parameters", None) or {}


def rope_factors(config: Any) -> Any:
    """The divisor of each rotary frequency in llama.cpp; None without scaling.

    Raises:
        BadInput: The scaling is not Llama 3's.
    """
    rope = rope_of(config)
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return None
    if kind != "llama3":
        raise BadInput(
            f"The rotary scaling {kind!r} cannot be written as GGUF; only none and llama3 can."
        )
    head_size = int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    inverse = rope["rope_theta"] ** -(np.arange(0, head_size, 2) / head_size)
    wavelength = 2 * np.pi / inverse
    length = rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = np.clip((length / wavelength - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32)


def query_factors(model: PreTrainedModel, layout: Layout) -> list[float]:
    """For each layer, by how much its queries are too small for llama.cpp's attention scale."""
    shape = shape_of(model)
    size = shape.head_dim
    if layout.architecture == MODEL_ARCH.GEMMA2 and shape.num_layers == GEMMA_27B_LAYERS:
        size = shape.hidden_size // shape.num_attention_heads
    factors = []
    for layer in layer_list(model)[1]:
        attention: Any = getattr(layer, "self_attn", None) or layer.attn
        factors.append(float(attention.scaling) * size**0.5)
    return factors


def as_llama_cpp(
    name: str, values: Any, model: PreTrainedModel, layout: Layout, factor: float
) -> Any:
    """A weight of a layer, or of the rest, in llama.cpp's order and scale.

    Args:
        name: The weight's name in transformers.
        values: Its numbers.
        model: The model.
        layout: Its layout.
        factor: Of the queries of this layer.
    """
    shape = shape_of(model)
    *_, module, part = ["", *name.split(".")]
    if layout.input_first and module.startswith("c_") and part == "weight":
        values = np.ascontiguousarray(values.T)
    num_query_rows = shape.num_attention_heads * shape.head_dim
    # Where queries are normalised, what scales them is the norm.
    scaled = "q_norm" if layout.architecture == MODEL_ARCH.QWEN3 else "q_proj"
    if module == scaled:
        values = values * factor
    if module in ("qkv_proj", "c_attn"):
        values = values.copy()
        values[:num_query_rows] *= factor
    if layout.interleaved and module == "q_proj":
        values = _interleave(values, shape.num_attention_heads)
    if layout.interleaved and module == "k_proj":
        values = _interleave(values, shape.num_key_value_heads)
    if layout.unit_offset and module.endswith("norm"):
        values = values + 1
    return values


def _interleave(values: Any, num_heads: int) -> Any:
    """Reorder the rows of each head from transformers' halves to llama.cpp's pairs."""
    rows, *rest = values.shape
    halves = values.reshape(num_heads, 2, rows // num_heads // 2, *rest)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
