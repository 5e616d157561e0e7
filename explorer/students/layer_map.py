"""The map of what was cut: kept in the student's config, told in the teacher's numbers."""

from typing import Any

from transformers import PreTrainedModel

from explorer.models.families import ModelShape, shape_of
from explorer.models.layers import KEPT_LAYERS, KEPT_WIDTHS, kept_indices, kept_mask
from explorer.students.width import KeptWidths

Masks = dict[str, Any]
"""As a config holds it under `KEPT_WIDTHS`: a mask, or one for each layer."""


def write_kept_map(
    student: PreTrainedModel,
    start: PreTrainedModel,
    layers: list[int],
    widths: KeptWidths | None = None,
    *,
    second_step: bool = False,
) -> None:
    """Write the map into the student's config.

    Args:
        student: What was cut.
        start: What it was cut from.
        layers: The layers of `start` that stay.
        widths: The widths of `start` that stay in each of these layers; None keeps all.
        second_step: Whether `start` was itself cut from the teacher, so that its own map
            leads there.
    """
    earlier = start.config if second_step else None
    before = getattr(earlier, KEPT_LAYERS, None)
    setattr(student.config, KEPT_LAYERS, [before[i] for i in layers] if before else layers)
    masks = _masks(widths, shape_of(start)) if widths else None
    first: Masks | None = getattr(earlier, KEPT_WIDTHS, None)
    if first:
        first = {name: _of_layers(one, layers) for name, one in first.items()}
        masks = {name: _over(one, first[name]) for name, one in masks.items()} if masks else first
    if masks:
        setattr(student.config, KEPT_WIDTHS, masks)
    elif hasattr(student.config, KEPT_WIDTHS):
        delattr(student.config, KEPT_WIDTHS)


def _masks(kept: KeptWidths, whole: ModelShape) -> Masks:
    sizes = {
        "channels": whole.intermediate_size,
        "heads": whole.num_attention_heads,
        "groups": whole.num_key_value_heads,
    }
    per_layer = {
        name: [kept_mask(one, of) for one in getattr(kept, name)] for name, of in sizes.items()
    }
    return {"hidden": kept_mask(kept.hidden, whole.hidden_size), **per_layer}


def _of_layers(masks: str | list[str], layers: list[int]) -> str | list[str]:
    return masks if isinstance(masks, str) else [masks[i] for i in layers]


def _over(own: str | list[str], first: str | list[str]) -> str | list[str]:
    """The mask of a second step in the numbers of the first step's teacher."""
    if isinstance(own, str):
        assert isinstance(first, str), "both steps keep one hidden size for all layers"
        stayed = kept_indices(first)
        return kept_mask((stayed[i] for i in kept_indices(own)), int(first.partition(":")[0]))
    return [str(_over(one, other)) for one, other in zip(own, first, strict=True)]
