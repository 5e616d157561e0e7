"""The list of a model's layers, and the map of what a student keeps of its teacher."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from explorer.errors import BadInput

KEPT_LAYERS = "explorer_kept_layers"
"""Key in a student's config: the teacher's index of each of its layers, counted from 0."""
KEPT_WIDTHS = "explorer_kept_widths"
"""Key in a student's config: what it keeps of the teacher's widths, as `kept_mask`s. `hidden` has
one; `channels`, `heads` and `groups` have one per layer."""


def kept_mask(indices: Iterable[int], total: int) -> str:
    """Kept indices as `TOTAL:HEX`: the highest bit is index 0, and 1 means kept."""
    ones = set(indices)
    bits = "".join("1" if index in ones else "0" for index in range(total))
    return f"{total}:{int(bits, 2):x}"


def kept_indices(mask: str) -> list[int]:
    """The inverse of `kept_mask`, counted from 0."""
    total, _, digits = mask.partition(":")
    bits = f"{int(digits, 16):0{total}b}"
    return [index for index, bit in enumerate(bits) if bit == "1"]


def kept_widths(config: Any) -> dict[str, tuple[int, int]] | None:
    """Number kept and total of each width that a student cut; None where nothing was cut.

    Channels, heads and groups differ by layer in what they keep, but not in how many.
    """
    stored = getattr(config, KEPT_WIDTHS, None)
    if not stored:
        return None
    masks = {name: mask if isinstance(mask, str) else mask[0] for name, mask in stored.items()}
    return {
        name: (len(kept_indices(mask)), int(mask.partition(":")[0])) for name, mask in masks.items()
    }


def intact_layers(kept: list[int]) -> int:
    """Number of a student's first layers that compute the same as the teacher's.

    0 if no layer after them was cut. Also 0 if fewer than half of the layers up to the last kept
    one were kept: such a student has to change as a whole.

    Args:
        kept: The teacher's index of each layer of the student, ascending.
    """
    before = next((place for place, layer in enumerate(kept) if layer != place), 0)
    return before if 2 * len(kept) > kept[-1] else 0


def body_of(model: PreTrainedModel) -> Any:
    """All of a model but its head: the module that gives the last hidden states."""
    # A language model that is a part of a larger one (Llama 4) names itself its own base.
    bodies = (model.base_model, model.get_decoder(), getattr(model, "model", model))
    return next((body for body in bodies if body is not model), model)


def layer_list(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The name and the list of a model's layers.

    Raises:
        BadInput: The model has no single list with as many modules as its config has layers.
    """
    num_layers = int(model.config.get_text_config().num_hidden_layers)
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == num_layers and "." in name
    ]
    # A model that also sees may have as many layers in its eyes.
    decoder = set(model.get_decoder().modules())
    lists = [pair for pair in lists if pair[1] in decoder] or lists
    if not lists:
        raise BadInput(
            f"{type(model).__name__} has no list of {num_layers} layers, so no depth student can "
            "be cut from it. Choose a Llama-like or GPT-like teacher."
        )
    return min(lists, key=lambda pair: pair[0].count("."))
