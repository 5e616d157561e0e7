"""From the last hidden states to the logits: a projection, in some families scaled or capped.

Training and evaluation call layers and head apart, so that logits exist only where they are
needed. `check_head` compares the two with the model's own logits first.

    OutputHead.of(model)(hidden_PH)
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear
from transformers import PreTrainedModel

from explorer.errors import BadInput, UnknownModel
from explorer.models.layers import body_of

# Shape letters: B blocks, T tokens of a block, P positions, S tokens of a sample, V vocabulary,
# H hidden size.

FACTORS = ("logit_scale", "lm_head_multiplier", "output_multiplier")
"""Keys of a configuration whose value multiplies the logits: Cohere, Falcon-H1, Muse."""
DIVISOR = "logits_scaling"
"""The key whose value divides them: Granite."""
MULTIPLYING_DIVISORS = ("hyperclovax", "hyperclovax_vision_v2")
"""Model types that multiply by `DIVISOR` instead."""
CAPS = ("final_logit_softcapping", "logits_soft_cap")
"""Keys whose value is the largest size of a logit: Gemma, RecurrentGemma."""


@dataclasses.dataclass(frozen=True)
class OutputHead:
    """A projection, then a scale, then a cap."""

    projection: nn.Module
    scale: float = 1.0
    cap: float | None = None
    """No logit is larger: cap * tanh(logit / cap). None for no cap."""

    @classmethod
    def of(cls, model: PreTrainedModel) -> "OutputHead":
        """The head as the model's configuration describes it.

        Raises:
            BadInput: The model has no output layer.
        """
        projection = model.get_output_embeddings()
        if projection is None:
            raise BadInput(
                f"{type(model).__name__} has no output layer for its vocabulary. Choose a causal "
                "language model."
            )
        config: Any = model.config.get_text_config()
        scale = 1.0
        for name in FACTORS:
            scale *= float(getattr(config, name, None) or 1.0)
        divisor = float(getattr(config, DIVISOR, None) or 1.0)
        scale *= divisor if model.config.model_type in MULTIPLYING_DIVISORS else 1 / divisor
        caps = [getattr(config, name, None) for name in CAPS]
        cap = next((float(value) for value in caps if value), None)
        return cls(projection, scale, cap)

    def __call__(self, hidden_PH: Tensor, ids_S: Tensor | None = None) -> Tensor:
        """Logits [P, V], or [P, S] of some tokens alone."""
        logits: Tensor
        if ids_S is None:
            logits = self.projection(hidden_PH)
        else:
            weight: Tensor = self.projection.weight  # type: ignore[assignment]  # a projection has one
            bias: Tensor | None = getattr(self.projection, "bias", None)
            # `embedding` takes rows in a third of the time of an index.
            rows_SH = embedding(ids_S, weight)
            logits = linear(hidden_PH, rows_SH, None if bias is None else bias[ids_S])
        return self.finish(logits)

    def finish(self, logits: Tensor) -> Tensor:
        """Scale and cap what the projection gave."""
        if self.scale != 1:
            logits = logits * self.scale
        if self.cap is not None:
            logits = torch.tanh(logits / self.cap) * self.cap
        return logits


@torch.inference_mode()
def check_head(model: PreTrainedModel, ids_BT: Tensor) -> None:
    """Refuse to train a model whose layers and head, called apart, are not the model.

    Args:
        model: Teacher or student.
        ids_BT: A few tokens of text, at least two a row.

    Raises:
        BadInput: Its logits are more than a projection with a scale and a cap.
    """
    ids_BT = ids_BT.to(model.device)
    whole = model(ids_BT, use_cache=False).logits
    head = OutputHead.of(model)
    apart = head(body_of(model)(ids_BT, use_cache=False).last_hidden_state)
    off = 1e-3 if whole.dtype == torch.float32 else 2e-2
    if not torch.allclose(whole, apart, rtol=off, atol=off, equal_nan=True):
        raise BadInput(
            f"{type(model).__name__} changes its logits after the last projection in a way that "
            "the training loop does not know. Choose a teacher of another family, such as Llama, "
            "Qwen, Gemma or GPT-2."
        )


def check_reads_forward(name: str, config: Any) -> None:
    """Refuse a model whose configuration says that it reads a text in both directions.

    Raises:
        UnknownModel: It says so; `check_causal` finds those that do not say it.
    """
    if getattr(config.get_text_config(), "use_bidirectional_attention", None) in (True, "all"):
        raise UnknownModel(
            f"{name} reads a text in both directions (use_bidirectional_attention), so what it "
            "expects of a token changes with the tokens that follow. Choose a causal language "
            "model."
        )


@torch.inference_mode()
def check_causal(model: PreTrainedModel) -> None:
    """Refuse a model that reads a text in both directions, on eight tokens.

    Raises:
        UnknownModel: A token changes what the model expects before it.
    """
    vocab_size = int(model.config.get_text_config().vocab_size)
    ids_1T = (torch.arange(8, device=model.device) % vocab_size)[None]
    whole_TV = model(ids_1T, use_cache=False).logits[0, :-1].float()
    shorter_TV = model(ids_1T[:, :-1], use_cache=False).logits[0].float()
    # Far above what products of another shape change by rounding, in bfloat16 too.
    if (whole_TV - shorter_TV).abs().mean() > 0.1 * whole_TV.std():
        raise UnknownModel(
            f"{type(model).__name__} with this configuration reads a text in both directions, so "
            "what it expects of a token changes with the tokens that follow. Choose a causal "
            "language model."
        )
