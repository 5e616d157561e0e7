"""What a model is: its size with or without its weights, and a fingerprint that tells it apart."""

import hashlib
import json

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from explorer.errors import UnknownModel
from explorer.models.layers import KEPT_LAYERS, kept_widths
from explorer.models.loading import Loaded, load_config
from explorer.models.quantize import dtype_name, stored_tensors
from explorer.records import ModelFacts


def model_without_weights(name: str) -> PreTrainedModel:
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


def model_facts(loaded: Loaded) -> ModelFacts:
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
            for _, stored in stored_tensors(name, weight)
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
    for name, tensor in (one for weight in weights for one in stored_tensors(*weight)):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().view(torch.uint8).numpy()))
    return digest.hexdigest()[:16]


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Sixteen hex digits over the vocabulary and the chat template."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    text = json.dumps([vocabulary, tokenizer.chat_template])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
