"""Where a model keeps its layers, whatever its family calls them."""

from torch import nn
from transformers import PreTrainedModel

from explorer.errors import BadInput

KEPT_LAYERS = "explorer_kept_layers"
"""Key in a student's config that maps its layers to the teacher's, counted from 0."""


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
