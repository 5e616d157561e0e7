"""The shape that a spec asks for: the widths it names, or those closest to a parameter count.

For a parameter count, all shapes on a grid are counted: every number of layers, hidden sizes in
steps of about a thirty-second (whole multiples of the number of heads, which stays), MLP channels
in steps of a power of two. Of the shapes within 1 % of the target, the one is chosen whose shares
of layers, hidden size and channels differ least; if there is none, the closest shape. The number
of heads stays because Minitron's own students keep it (arXiv:2408.11796).
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator

from explorer.errors import BadInput
from explorer.models.families import (
    ModelOutline,
    ModelShape,
    check_shape,
    count_parameters,
    family_of,
    shape_of,
)
from explorer.specs import Widths

TOLERANCE = 0.01
"""Shapes within this share of the target are compared by their proportions."""
NUM_STEPS = 32
"""Sizes tried between nothing and the teacher's."""
MIN_SHARE = 0.1
"""Smallest share of the teacher's layers and widths that a fresh student has."""


def shape_for_size(
    model: ModelOutline, num_parameters: int, *, min_depth: float, min_width: float
) -> ModelShape:
    """The shape that comes close to a number of parameters; deterministic.

    Args:
        model: The model to cut; an outline is enough.
        num_parameters: The target.
        min_depth: Smallest share of the layers; 1 keeps all.
        min_width: Smallest share of the hidden size and of the MLP channels; 1 keeps all.

    Raises:
        BadInput: The target is out of range; the message has the range.
    """
    whole = shape_of(model)
    shapes = list(_grid(model, whole, min_depth, min_width))
    sizes = count_parameters(model, shapes)
    low, high = min(sizes), max(sizes)
    if not low <= num_parameters <= high:
        raise BadInput(
            f"student.num_parameters must be between {low:,} and {high:,} here (at least "
            f"{min_depth:.0%} of the layers and {min_width:.0%} of the widths stay), got "
            f"{num_parameters:,}. Lower min_depth or min_width to go below."
        )
    misses = [abs(size - num_parameters) / num_parameters for size in sizes]
    bound = max(TOLERANCE, min(misses))
    close = [shape for shape, miss in zip(shapes, misses, strict=True) if miss <= bound]
    return min(close, key=lambda shape: _unevenness(shape, whole))


def _grid(
    model: ModelOutline, whole: ModelShape, min_depth: float, min_width: float
) -> Iterator[ModelShape]:
    """Every shape that is tried, largest first."""
    heads_follow = family_of(model).fixed_head_dim
    # GPT-2's hidden size is made of whole heads; elsewhere it is a multiple of their number.
    unit = whole.head_dim if heads_follow else whole.num_attention_heads
    hidden_step = unit * max(1, round(whole.hidden_size / NUM_STEPS / unit))
    channel_step = 2 ** max(0, int(math.log2(whole.intermediate_size / NUM_STEPS)))
    for num_layers, hidden, channels in itertools.product(
        _sizes(whole.num_layers, min_depth, 1),
        _sizes(whole.hidden_size, min_width, hidden_step),
        _sizes(whole.intermediate_size, min_width, channel_step),
    ):
        heads = hidden // whole.head_dim if heads_follow else whole.num_attention_heads
        yield dataclasses.replace(
            whole,
            num_layers=num_layers,
            hidden_size=hidden,
            intermediate_size=channels,
            num_attention_heads=heads,
            num_key_value_heads=heads if heads_follow else whole.num_key_value_heads,
        )


def _sizes(whole: int, least: float, step: int) -> list[int]:
    """From the whole size down to its smallest share: the whole and all multiples of the step."""
    lowest = max(1, math.ceil(least * whole))
    return [whole, *(size for size in range(whole - 1, lowest - 1, -1) if size % step == 0)]


def _unevenness(shape: ModelShape, whole: ModelShape) -> tuple[float, int]:
    """Sum of squared deviations of the shares' logarithms; ties go to more layers."""
    logs = [
        math.log(getattr(shape, name) / getattr(whole, name))
        for name in ("num_layers", "hidden_size", "intermediate_size")
    ]
    mean = sum(logs) / len(logs)
    return sum((log - mean) ** 2 for log in logs), -shape.num_layers


def requested_shape(model: ModelOutline, sizes: Widths) -> ModelShape:
    """The model's shape with the sizes that a spec names.

    Raises:
        BadInput: A size is larger than the model's, or the heads do not fit together.
    """
    whole, given = shape_of(model), sizes.given_widths()
    for name, size in given.items():
        if size > getattr(whole, name):
            raise BadInput(
                f"student.{name} must be between 1 and the teacher's {getattr(whole, name)}, "
                f"got {size}."
            )
    heads = given.get("num_attention_heads", whole.num_attention_heads)
    if "num_key_value_heads" not in given:
        given["num_key_value_heads"] = _groups_for(whole, heads)
    shape = dataclasses.replace(whole, **given)
    check_shape(model, shape)
    per_group = whole.num_attention_heads // whole.num_key_value_heads
    if shape.num_attention_heads // shape.num_key_value_heads > per_group:
        raise BadInput(
            f"student.num_attention_heads must be at most {per_group} for each of the "
            f"{shape.num_key_value_heads} key-value heads, got {shape.num_attention_heads}."
        )
    return shape


def _groups_for(whole: ModelShape, heads: int) -> int:
    """Key-value heads for a number of query heads: whole groups, else as many heads per group."""
    per_group = whole.num_attention_heads // whole.num_key_value_heads
    if heads % per_group == 0:
        return heads // per_group
    if heads % whole.num_key_value_heads == 0:
        return whole.num_key_value_heads
    possible = [
        number
        for number in range(1, whole.num_attention_heads + 1)
        if number % per_group == 0 or number % whole.num_key_value_heads == 0
    ]
    raise BadInput(
        f"student.num_attention_heads must be a multiple of {per_group} (whole groups) or of "
        f"{whole.num_key_value_heads} (as many heads in every group): "
        f"{', '.join(map(str, possible))}; got {heads}."
    )
