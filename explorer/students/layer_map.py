"""The map of what was cut, in the student's config, always in the original teacher's numbers."""

from typing import Any

from transformers import PreTrainedModel

from explorer.models.families import ModelShape, shape_of
from explorer.models.layers import KEPT_LAYERS, KEPT_WIDTHS, kept_indices, kept_mask
from explorer.students.width import KeptWidths

Masks = dict[str, Any]
"""What a config holds under `KEPT_WIDTHS`: by width, a mask or one mask per layer."""


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
        student: The cut model.
        start: The model it was cut from.
        layers: Layers of `start` that were kept.
        widths: Widths of `start` that were kept in each of these layers; None if all were.
        second_step: Whether `start` was itself cut from the teacher. The student's map then
            leads through `start`'s map to the teacher.
    """
    earlier = start.config if second_step else None
    before = getattr(earlier, KEPT_LAYERS, None)
    setattr(student.config, KEPT_LAYERS, [before[i] for i in layers] if before else layers)
    masks = _masks(widths, shape_of(start)) if widths else None
    first: Masks | None = getattr(earlier, KEPT_WIDTHS, None)
    if first:
        first = {name: _select_layers(mask, layers) for name, mask in first.items()}
        masks = {name: _compose(m, first[name]) for name, m in masks.items()} if masks else first
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
        name: [kept_mask(indices, size) for indices in getattr(kept, name)]
        for name, size in sizes.items()
    }
    return {"hidden": kept_mask(kept.hidden, whole.hidden_size), **per_layer}


def _select_layers(masks: str | list[str], layers: list[int]) -> str | list[str]:
    return masks if isinstance(masks, str) else [masks[i] for i in layers]


def _compose(second: str | list[str], first: str | list[str]) -> str | list[str]:
    """The mask of a second cut, in the numbers of the first cut's teacher."""
    if isinstance(second, str):
        assert isinstance(first, str), "both cuts keep one hidden size for all layers"
        indices = kept_indices(first)
        total = int(first.partition(":")[0])
        return kept_mask((indices[i] for i in kept_indices(second)), total)
    return [str(_compose(*masks)) for masks in zip(second, first, strict=True)]
