"""Width students: every layer stays, with fewer MLP channels, heads and hidden dimensions.

The least important ones on a sample of text are cut: an MLP channel by its activation, a head by
the norm of its output, a hidden dimension by its value after the norms. Activations are averaged
over a block's tokens; over blocks, the root of the sum of squares is taken, the aggregation that
the source found best.

Source: Muralidharan et al. 2024 (Minitron), arXiv:2407.14679, section 2.2; used again by
Sreenivas et al. 2024, arXiv:2408.11796.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from explorer.models import families
from explorer.models.families import ModelShape, family_of, shape_of
from explorer.models.layers import body_of, layer_list
from explorer.students.depth import load_student_weights

# Shape letters: B blocks, T tokens of a block, L layers, H hidden size, F channels of the MLP,
# Q query heads, D size of a head.


@dataclasses.dataclass(frozen=True)
class WidthImportance:
    """Importance of each hidden dimension, channel and head on a sample; larger is more."""

    hidden_H: Tensor
    channels_LF: Tensor
    heads_LQ: Tensor
    squares: dict[str, Tensor]
    """Mean square of each hidden dimension at the input of every norm, by the norm's name; [H]."""


@dataclasses.dataclass(frozen=True)
class KeptWidths:
    """Indices to keep along each width, ascending, counted from 0."""

    hidden: list[int]
    channels: list[list[int]]
    """One list per layer."""
    heads: list[list[int]]
    """Query heads, one list per layer."""
    groups: list[list[int]]
    """Key-value heads, one list per layer."""


@torch.inference_mode()
def width_importance(
    model: PreTrainedModel, blocks_BT: Tensor, on_block: Callable[[int], None] = lambda n: None
) -> WidthImportance:
    """Measure importance from the model's activations on a sample.

    Args:
        model: A model of a supported family.
        blocks_BT: Token ids of the sample.
        on_block: Called with the number of blocks done.
    """
    family, whole = family_of(model), shape_of(model)
    prefix, layers = layer_list(model)
    num_layers, heads, size = whole.num_layers, whole.num_attention_heads, whole.head_dim
    sums = {
        "hidden": torch.zeros(whole.hidden_size, dtype=torch.float64),
        "channels": torch.zeros(num_layers, whole.intermediate_size, dtype=torch.float64),
        "heads": torch.zeros(num_layers, heads, dtype=torch.float64),
    }
    squares: dict[str, Tensor] = {}

    def add_channels(index: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            mean_F = args[0].float().abs().flatten(0, -2).mean(0)
            sums["channels"][index] += mean_F.double().cpu() ** 2

        return hook

    def add_heads(index: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            length_TQ = args[0].float().unflatten(-1, (heads, size)).norm(dim=-1).flatten(0, -2)
            sums["heads"][index] += length_TQ.mean(0).double().cpu() ** 2

        return hook

    def add_hidden(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
            sums["hidden"] += out.float().abs().flatten(0, -2).mean(0).double().cpu() ** 2
            square_H = (args[0].float() ** 2).flatten(0, -2).mean(0).double().cpu()
            squares[name] = squares.get(name, torch.zeros_like(square_H)) + square_H

        return hook

    hooks = []
    for index, layer in enumerate(layers):
        channels_in = layer.get_submodule(family.channels_in)
        heads_in = layer.get_submodule(family.heads_in)
        hooks.append(channels_in.register_forward_pre_hook(add_channels(index)))
        hooks.append(heads_in.register_forward_pre_hook(add_heads(index)))
        for norm in family.norms:
            hook = add_hidden(f"{prefix}.{index}.{norm}")
            hooks.append(layer.get_submodule(norm).register_forward_hook(hook))
    last = _last_norm(model)
    hooks.append(model.get_submodule(last).register_forward_hook(add_hidden(last)))
    try:
        for done, block_T in enumerate(blocks_BT, start=1):
            body_of(model)(block_T[None].to(model.device), use_cache=False)
            on_block(done)
    finally:
        for handle in hooks:
            handle.remove()
    return WidthImportance(
        sums["hidden"].sqrt(),
        sums["channels"].sqrt(),
        sums["heads"].sqrt(),
        {name: square_H / len(blocks_BT) for name, square_H in squares.items()},
    )


def _last_norm(model: PreTrainedModel) -> str:
    """The name of the norm after the last layer."""
    names = [
        name.removesuffix(".weight")
        for name, (layer, letters) in families.weight_axes(model).items()
        if layer is None and letters == "H" and name.endswith(".weight")
    ]
    assert len(names) == 1, "a family has one norm after its layers"
    return names[0]


def select_widths(shape: ModelShape, whole: ModelShape, importance: WidthImportance) -> KeptWidths:
    """The widths to keep: the most important; heads evenly in the most important groups."""
    groups, heads = _heads(shape, whole, importance.heads_LQ)
    return KeptWidths(
        hidden=_largest(importance.hidden_H, shape.hidden_size),
        channels=[_largest(row_F, shape.intermediate_size) for row_F in importance.channels_LF],
        heads=heads,
        groups=groups,
    )


def _heads(
    shape: ModelShape, whole: ModelShape, heads_LQ: Tensor
) -> tuple[list[list[int]], list[list[int]]]:
    """Key-value heads and query heads to keep in each layer."""
    per_group = whole.num_attention_heads // whole.num_key_value_heads
    heads_per_group = shape.num_attention_heads // shape.num_key_value_heads
    groups, heads = [], []
    for heads_Q in heads_LQ:
        by_group = heads_Q.view(whole.num_key_value_heads, per_group)
        best = [_largest(row, heads_per_group) for row in by_group]
        weights = torch.stack([row[i].sum() for row, i in zip(by_group, best, strict=True)])
        kept_groups = _largest(weights, shape.num_key_value_heads)
        groups.append(kept_groups)
        heads.append([group * per_group + head for group in kept_groups for head in best[group]])
    return groups, heads


def _largest(values: Tensor, number: int) -> list[int]:
    """Indices of the largest values, ascending; of equal ones the first."""
    order = torch.argsort(values, descending=True, stable=True)
    return sorted(order[:number].tolist())


def keep_widths(
    model: PreTrainedModel, kept: KeptWidths, squares: dict[str, Tensor]
) -> PreTrainedModel:
    """A new model of the same class with only these widths, its weights copied.

    A norm over fewer dimensions divides by another number. Its weight is therefore scaled by the
    change of its input's root mean square, so that the kept dimensions keep their size.

    Args:
        model: A model of a supported family.
        kept: The indices to keep.
        squares: `WidthImportance.squares`; empty leaves the norms' weights as they are.
    """
    whole = shape_of(model)
    shape = dataclasses.replace(
        whole,
        hidden_size=len(kept.hidden),
        intermediate_size=len(kept.channels[0]),
        num_attention_heads=len(kept.heads[0]),
        num_key_value_heads=len(kept.groups[0]),
    )
    config = families.resized_config(model, shape)
    student: PreTrainedModel = type(model)._from_config(config, dtype=model.dtype)
    state = {}
    weights = model.state_dict()
    for name, (layer, letters) in families.weight_axes(model).items():
        weight = weights[name]
        for axis, letter in enumerate(letters):
            if letter != "-":
                indices = torch.tensor(_indices(letter, layer, kept, whole), device=weight.device)
                weight = weight.index_select(axis, indices)
        module = name.removesuffix(".weight")
        if module in squares and len(kept.hidden) < whole.hidden_size:
            square_H = squares[module]
            ratio = (square_H[kept.hidden].mean() / square_H.mean()).sqrt()
            weight = weight * ratio.to(weight)
        state[name] = weight
    load_student_weights(student, state, model)
    return student


def _indices(letter: str, layer: int | None, kept: KeptWidths, whole: ModelShape) -> list[int]:
    """The indices to keep along one axis of a weight."""
    if letter == "H":
        return kept.hidden
    assert layer is not None, "outside the layers only the hidden size is cut"
    if letter == "F":
        return kept.channels[layer]
    heads = kept.groups[layer] if letter == "K" else kept.heads[layer]
    size = whole.head_dim
    rows = [head * size + row for head in heads for row in range(size)]
    if letter == "C":
        all_rows = whole.num_attention_heads * size
        return [part * all_rows + row for part in range(3) for row in rows]
    return rows
