"""One token after another: what a model keeps between two steps, whatever it calls it.

Attention keeps keys and values, Mamba and RWKV a state. A model that keeps nothing reads the whole
text again at each step, which is slow and right. So does one whose rotary frequencies change at a
certain length, when it gets there.

    decoder = Decoder(model)
    logits_BV = decoder.step(prompt_BT)
    logits_BV = decoder.step(logits_BV.argmax(-1, keepdim=True))
"""

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

# Shape letters: B texts, T tokens, V vocabulary.

CARRIED = ("past_key_values", "cache_params", "state")
"""What a model returns and takes again at the next step."""


class Decoder:
    """Some texts in progress."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Begin with no text."""
        self._model: Any = model
        self._accepts = frozenset(inspect.signature(model.forward).parameters)
        self._options = step_options(model)
        self._carried: dict[str, Any] = {}
        self._switch = length_switch(model)
        self._keeps_text = self._switch is not None
        self._text_BT: Tensor | None = None
        self.rereads = False
        """Whether the model keeps nothing; known after the first step."""

    def step(self, ids_BT: Tensor) -> Tensor:
        """Read these tokens after those of earlier steps; logits [B, V] of what comes next."""
        is_first = self._text_BT is None and not self._carried
        if self._keeps_text:
            text_BT = ids_BT[:, :0] if self._text_BT is None else self._text_BT
            before = text_BT.shape[1]
            self._text_BT = torch.cat([text_BT, ids_BT], dim=1)
            if self._switch is None or before <= self._switch < self._text_BT.shape[1]:
                self._carried, ids_BT = {}, self._text_BT
        output = self._model(ids_BT, **self._options, **self._carried)
        self._carried = {
            name: output[name]
            for name in CARRIED
            if name in self._accepts and output.get(name) is not None
        }
        if not self._carried and not self._keeps_text:
            assert is_first, "a model that keeps something keeps it from the first step on"
            self._keeps_text, self._text_BT = True, ids_BT
            self._options["use_cache"] = False
            self.rereads = True
        logits_BV: Tensor = output.logits[:, -1]
        return logits_BV


def step_options(model: PreTrainedModel) -> dict[str, Any]:
    """What every step is called with: keep what the next one needs, and one position's logits."""
    options: dict[str, Any] = {"use_cache": True}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = 1
    return options


def length_switch(model: PreTrainedModel) -> int | None:
    """The length in tokens above which a model reads the whole text with other rotary frequencies.

    None where the frequencies are the same for all texts. Longer and shorter texts must not share
    a batch or a prefix then.
    """
    config: Any = model.config.get_text_config()
    ropes: list[dict[str, Any]] = [getattr(config, "rope_parameters", None) or {}]
    # Models that mix kinds of attention have one for each.
    ropes += [rope for rope in ropes[0].values() if isinstance(rope, dict)]
    lengths = [
        int(rope["original_max_position_embeddings"])
        for rope in ropes
        if rope.get("rope_type") == "longrope" and rope.get("original_max_position_embeddings")
    ]
    return min(lengths, default=None)
