"""Where a model keeps its layers, and where a student keeps the map of what was cut."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from explorer.errors import BadInput

KEPT_LAYERS = "explorer_kept_layers"
"""Key in a student's config that maps its layers to the teacher's, counted from 0."""
KEPT_WIDTHS = "explorer_kept_widths"
"""Key in a student's config with what it keeps of the teacher's widths: `hidden`, and for each
layer `channels`, `heads` and `groups`, each as `kept_mask`."""


def kept_mask(indices: Iterable[int], of: int) -> str:
    """What is kept of so many, as `OF:HEX`: the first is the highest bit, 1 where it is kept."""
    kept = set(indices)
    bits = "".join("1" if index in kept else "0" for index in range(of))
    return f"{of}:{int(bits, 2):x}"


def kept_indices(mask: str) -> list[int]:
    """The inverse of `kept_mask`, counted from 0."""
    of, _, digits = mask.partition(":")
    bits = f"{int(digits, 16):0{of}b}"
    return [index for index, bit in enumerate(bits) if bit == "1"]


def kept_widths(config: Any) -> dict[str, tuple[int, int]] | None:
    """How much a student keeps of each width, and of how many; None where nothing was cut.

    Of the widths that differ from layer to layer in what they keep, the number is the same.
    """
    found = getattr(config, KEPT_WIDTHS, None)
    if not found:
        return None
    masks = {name: mask if isinstance(mask, str) else mask[0] for name, mask in found.items()}
    return {
        name: (len(kept_indices(mask)), int(mask.partition(":")[0])) for name, mask in masks.items()
    }


def intact_layers(kept: list[int]) -> int:
    """How many of a student's first layers stand where the teacher's do, and so compute the same.

    None do where nothing was cut behind them, or where less than half of the layers up to the
    last that stays were kept: such a student has to change as a whole.

    Args:
        kept: The teacher's number of each layer of the student, counted from 0.
    """
    before = next((place for place, layer in enumerate(kept) if layer != place), 0)
    return before if 2 * len(kept) > kept[-1] else 0


def layer_list(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The name and the list of a model's layers, whatever its family calls them.

    Raises:
        BadInput: The model has no single list of as many modules as its config has layers.
    """
    wanted = int(model.config.num_hidden_layers)
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == wanted and "." in name
    ]
    if not found:
        raise BadInput(
            f"{type(model).__name__} has no list of {wanted} layers, so no depth student can be "
            "cut from it. Choose a Llama-like or GPT-like teacher."
        )
    return min(found, key=lambda pair: pair[0].count("."))
