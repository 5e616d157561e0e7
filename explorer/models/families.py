"""The axes of each family's weights: all that is needed to cut a model's widths.

One letter per axis, as in `QH`: H hidden size, F channels of the MLP, Q query heads x head size,
K key-value heads x head size, C the three parts of a fused projection one after another, and a
dash for an axis that is never cut, such as the vocabulary.
"""

import copy
import dataclasses
import functools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from explorer.errors import BadInput

_IN_A_LAYER = re.compile(r"(?P<layers>.+?)\.(?P<number>\d+)\.(?P<rest>.+)")
"""The name of a weight in a list of layers."""


class ModelOutline(Protocol):
    """What counting and cutting need to know of a model.

    A PreTrainedModel has it, and so has an outline read from a model's files.
    """

    @property
    def config(self) -> Any:
        """Its configuration, as transformers has it."""

    def named_parameters(self) -> Iterable[tuple[str, Any]]:
        """Each weight's name and the weight, tied weights once."""

    def state_dict(self) -> Mapping[str, Any]:
        """All weights by name."""


@dataclasses.dataclass(frozen=True)
class ModelShape:
    """The sizes in which a student may be smaller than its teacher."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int

    def along(self, axis: str, whole: int) -> int:
        """Length of an axis in this shape; `whole`, the teacher's, for axes that are never cut."""
        lengths = {
            "H": self.hidden_size,
            "F": self.intermediate_size,
            "Q": self.num_attention_heads * self.head_dim,
            "K": self.num_key_value_heads * self.head_dim,
            "C": 3 * self.num_attention_heads * self.head_dim,
        }
        return lengths.get(axis, whole)


@dataclasses.dataclass(frozen=True)
class Family:
    """Where a family of models stores its widths."""

    outer: Mapping[str, str]
    """Axes of the weights outside the layers, by the last two parts of their names."""
    layer: Mapping[str, str]
    """Axes of a layer's weights, by their names within the layer."""
    channels_in: str
    """The module of a layer whose input is the MLP's channels."""
    heads_in: str
    """The module of a layer whose input is the concatenated outputs of the heads."""
    norms: tuple[str, ...]
    """The modules of a layer that normalise the hidden state."""
    fixed_head_dim: bool = False
    """Whether the head size is always hidden size / heads."""


_LLAMA = Family(
    outer={"embed_tokens.weight": "-H", "norm.weight": "H", "lm_head.weight": "-H"},
    layer={
        "self_attn.q_proj.weight": "QH",
        "self_attn.q_proj.bias": "Q",
        "self_attn.k_proj.weight": "KH",
        "self_attn.k_proj.bias": "K",
        "self_attn.v_proj.weight": "KH",
        "self_attn.v_proj.bias": "K",
        "self_attn.o_proj.weight": "HQ",
        "self_attn.o_proj.bias": "H",
        # Qwen3 normalises each head separately, with one weight for all heads.
        "self_attn.q_norm.weight": "-",
        "self_attn.k_norm.weight": "-",
        "mlp.gate_proj.weight": "FH",
        "mlp.gate_proj.bias": "F",
        "mlp.up_proj.weight": "FH",
        "mlp.up_proj.bias": "F",
        "mlp.down_proj.weight": "HF",
        "mlp.down_proj.bias": "H",
        "input_layernorm.weight": "H",
        "post_attention_layernorm.weight": "H",
    },
    channels_in="mlp.down_proj",
    heads_in="self_attn.o_proj",
    norms=("input_layernorm", "post_attention_layernorm"),
)
_GPT2 = Family(
    outer={
        "wte.weight": "-H",
        "wpe.weight": "-H",
        "lm_head.weight": "-H",
        "ln_f.weight": "H",
        "ln_f.bias": "H",
    },
    # GPT-2's projections have their input on the first axis.
    layer={
        "attn.c_attn.weight": "HC",
        "attn.c_attn.bias": "C",
        "attn.c_proj.weight": "QH",
        "attn.c_proj.bias": "H",
        "mlp.c_fc.weight": "HF",
        "mlp.c_fc.bias": "F",
        "mlp.c_proj.weight": "FH",
        "mlp.c_proj.bias": "H",
        "ln_1.weight": "H",
        "ln_1.bias": "H",
        "ln_2.weight": "H",
        "ln_2.bias": "H",
    },
    channels_in="mlp.c_proj",
    heads_in="attn.c_proj",
    norms=("ln_1", "ln_2"),
    fixed_head_dim=True,
)

FAMILIES: Mapping[str, Family] = {
    "gpt2": _GPT2,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "smollm3": _LLAMA,
}
"""Families by `model_type` in the configuration; each one is tested."""


def family_of(model: ModelOutline) -> Family:
    """The family of a model.

    Raises:
        BadInput: The family is not supported.
    """
    kind = str(model.config.model_type)
    if kind not in FAMILIES:
        raise BadInput(
            f"The widths of {type(model).__name__} (model type {kind}) cannot be cut; supported "
            f"types are {', '.join(FAMILIES)}. Choose a depth student, or kind: checkpoint."
        )
    return FAMILIES[kind]


def shape_of(model: ModelOutline) -> ModelShape:
    """A model's sizes, from its configuration; one head for a model without attention."""
    config = text_config(model.config)
    hidden, heads = int(config.hidden_size), int(getattr(config, "num_attention_heads", None) or 1)
    return ModelShape(
        num_layers=int(config.num_hidden_layers),
        hidden_size=hidden,
        intermediate_size=_largest(
            getattr(config, "intermediate_size", None)
            or getattr(config, "n_inner", None)
            or getattr(config, "ffn_dim", None)
            or 4 * hidden
        ),
        num_attention_heads=heads,
        num_key_value_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(config, "head_dim", None) or hidden // heads),
    )


def text_config(config: Any) -> Any:
    """The part of a configuration with the sizes of the language model.

    A model that also sees keeps them in a part of its own; others have one part.
    """
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _largest(size: Any) -> int:
    """A size, or the largest of a size for each layer."""
    return int(size if isinstance(size, (int, float)) else max(size))


def resized_config(model: ModelOutline, shape: ModelShape) -> Any:
    """The model's configuration with other widths and the same number of layers."""
    config = copy.deepcopy(model.config)
    sizes = text_config(config)
    sizes.hidden_size = shape.hidden_size
    sizes.num_attention_heads = shape.num_attention_heads
    if family_of(model).fixed_head_dim:
        sizes.n_inner = shape.intermediate_size
        return config
    sizes.intermediate_size = shape.intermediate_size
    sizes.num_key_value_heads = shape.num_key_value_heads
    sizes.head_dim = shape.head_dim
    return config


def check_shape(model: ModelOutline, shape: ModelShape) -> None:
    """Refuse a shape that the family's attention does not allow.

    Raises:
        BadInput: Heads, groups and hidden size do not fit together.
    """
    heads, groups = shape.num_attention_heads, shape.num_key_value_heads
    if heads % groups:
        raise BadInput(
            f"student.num_attention_heads must be a multiple of the {groups} key-value heads, "
            f"got {heads}."
        )
    if family_of(model).fixed_head_dim:
        if shape.hidden_size != heads * shape.head_dim:
            raise BadInput(
                f"In {type(model).__name__} the hidden size is heads x {shape.head_dim}, so both "
                f"are cut together: {heads} heads require hidden_size "
                f"{heads * shape.head_dim}, got {shape.hidden_size}."
            )
        if groups != heads:
            raise BadInput(f"{type(model).__name__} has no separate key-value heads.")
    elif shape.hidden_size % heads:
        raise BadInput(
            f"student.hidden_size must be a multiple of the {heads} attention heads, as "
            f"{type(model).__name__} requires, got {shape.hidden_size}."
        )


def weight_axes(model: ModelOutline) -> dict[str, tuple[int | None, str]]:
    """Each weight's layer (None outside the layers) and axes, by its name in the state dict.

    Raises:
        BadInput: The model has a weight that its family does not have.
    """
    family = family_of(model)
    axes_of: dict[str, tuple[int | None, str]] = {}
    for name in model.state_dict():
        layer: int | None = None
        if in_layer := _IN_A_LAYER.fullmatch(name):
            layer, letters = int(in_layer["number"]), family.layer.get(in_layer["rest"])
        else:
            letters = family.outer.get(".".join(name.split(".")[-2:]))
        if letters is None:
            raise BadInput(
                f"{type(model).__name__} has a weight {name} with unknown axes. Choose a "
                "depth student, or kind: checkpoint."
            )
        axes_of[name] = (layer, letters)
    return axes_of


def count_parameters(model: ModelOutline, shapes: Iterable[ModelShape]) -> list[int]:
    """Number of parameters in each of these shapes; tied weights count once."""
    axes_of = weight_axes(model)
    # named_parameters lists a tied weight once.
    outer: list[tuple[str, tuple[int, ...]]] = []
    layer: list[tuple[str, tuple[int, ...]]] = []
    for name, weight in model.named_parameters():
        number, letters = axes_of[name]
        if number in (None, 0):
            (outer if number is None else layer).append((letters, tuple(weight.shape)))

    def count(weights: list[tuple[str, tuple[int, ...]]], shape: ModelShape) -> int:
        return sum(
            math.prod(shape.along(axis, whole) for axis, whole in zip(letters, sizes, strict=True))
            for letters, sizes in weights
        )

    @functools.cache  # a search tries each pair of widths with every number of layers
    def outside_and_in_a_layer(one_layer: ModelShape) -> tuple[int, int]:
        return count(outer, one_layer), count(layer, one_layer)

    totals = []
    for shape in shapes:
        outside, in_a_layer = outside_and_in_a_layer(dataclasses.replace(shape, num_layers=1))
        totals.append(outside + shape.num_layers * in_a_layer)
    return totals
