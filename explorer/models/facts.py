"""What a model is: its size with or without its weights, and a fingerprint that tells it apart."""

import dataclasses
import hashlib
import json

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from explorer.errors import UnknownModel
from explorer.models.layers import KEPT_LAYERS, kept_widths, layer_list
from explorer.models.loading import DTYPES, Loaded, load_config
from explorer.models.rounding import dtype_name, plain_tensors
from explorer.records import ModelFacts


@dataclasses.dataclass(frozen=True)
class Size:
    """A model's size as its configuration tells it."""

    num_parameters: int
    num_layers: int
    vocab_size: int
    hidden_size: int
    num_layer_parameters: int
    """Parameters of one layer, the first: what a depth student saves."""

    def with_layers(self, num_layers: int) -> "Size":
        """The size of a depth student of this model."""
        saved = (self.num_layers - num_layers) * self.num_layer_parameters
        return dataclasses.replace(
            self, num_layers=num_layers, num_parameters=self.num_parameters - saved
        )

    def weight_bytes(self, dtype: str) -> int:
        """Bytes of the weights at a dtype such as float32."""
        return self.num_parameters * DTYPES[dtype].itemsize


def size(name: str) -> Size:
    """Parameters and shape of a model without loading its weights.

    Raises:
        UnknownModel: No such model, or its configuration makes no causal language model.
    """
    model = skeleton(name)
    _, layers = layer_list(model)
    return Size(
        num_parameters=model.num_parameters(),
        num_layers=len(layers),
        vocab_size=int(model.config.vocab_size),
        hidden_size=int(model.config.hidden_size),
        num_layer_parameters=sum(p.numel() for p in layers[0].parameters()),
    )


def skeleton(name: str) -> PreTrainedModel:
    """A model without its weights, on torch's meta device, which takes no memory.

    Raises:
        UnknownModel: No such model, or its configuration makes no causal language model.
    """
    config = load_config(name)
    try:
        with torch.device("meta"):
            made: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    except (ValueError, AttributeError) as error:
        raise UnknownModel(f"{name} is no causal language model: {error}") from error
    return made


def facts(loaded: Loaded) -> ModelFacts:
    """What a record keeps of a model in memory."""
    model = loaded.model
    config = model.config
    return ModelFacts(
        name=loaded.name,
        fingerprint=fingerprint(loaded),
        architecture=type(model).__name__,
        num_parameters=model.num_parameters(),
        num_layers=int(config.num_hidden_layers),
        hidden_size=int(config.hidden_size),
        vocab_size=int(config.vocab_size),
        context_tokens=getattr(config, "max_position_embeddings", None),
        dtype=dtype_name(model.dtype, loaded.bits),
        weight_bytes=sum(
            stored.nbytes
            for name, weight in model.named_parameters()
            for _, stored in plain_tensors(name, weight)
        ),
        kept_layers=getattr(config, KEPT_LAYERS, None),
        kept_widths=kept_widths(config),
    )


def fingerprint(loaded: Loaded) -> str:
    """Sixteen hex digits over every weight, its dtype and the tokenizer.

    Two models with the same fingerprint give the same answers; about a second a gigabyte.
    """
    digest = hashlib.sha256(tokenizer_digest(loaded.tokenizer).encode())
    weights = sorted(loaded.model.state_dict().items())
    for name, tensor in (one for weight in weights for one in plain_tensors(*weight)):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().view(torch.uint8).numpy()))
    return digest.hexdigest()[:16]


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Sixteen hex digits over the vocabulary and the chat template."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    text = json.dumps([vocabulary, tokenizer.chat_template])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
