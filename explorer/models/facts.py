"""A model's facts for its record, and the fingerprint that identifies it."""

import hashlib
import json

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from explorer.errors import UnknownModel
from explorer.models.layers import KEPT_LAYERS, kept_widths
from explorer.models.loading import Loaded, load_config, reading
from explorer.models.quantize import dtype_name, stored_tensors
from explorer.records import ModelFacts


def model_without_weights(name: str, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """A model on torch's meta device, without weights or memory.

    Raises:
        UnknownModel: No such model, or its configuration is not a causal language model's.
    """
    config = load_config(name, trust_remote_code=trust_remote_code)
    try:
        with reading(name, trust_remote_code), torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, trust_remote_code=trust_remote_code
            )
    except UnknownModel as error:
        cause = error.__cause__
        if isinstance(cause, (ValueError, AttributeError)) and "trust_remote" not in str(error):
            raise UnknownModel(f"{name} is not a causal language model: {cause}") from cause
        raise
    return model


def model_facts(loaded: Loaded) -> ModelFacts:
    """The facts of a loaded model."""
    model = loaded.model
    # A model that also sees keeps its sizes in a part of its configuration.
    config = model.config.get_text_config()
    return ModelFacts(
        name=loaded.name,
        commit=loaded.commit,
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
        kept_layers=getattr(model.config, KEPT_LAYERS, None),
        kept_widths=kept_widths(model.config),
    )


def fingerprint(loaded: Loaded) -> str:
    """Sixteen hex digits over every weight, its dtype and the tokenizer.

    Models with equal fingerprints give equal answers. Takes about a second per gigabyte.
    """
    digest = hashlib.sha256(tokenizer_digest(loaded.tokenizer).encode())
    weights = sorted(loaded.model.state_dict().items())
    for name, tensor in (stored for weight in weights for stored in stored_tensors(*weight)):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().view(torch.uint8).numpy()))
    return digest.hexdigest()[:16]


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Sixteen hex digits over the vocabulary and the chat template."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    text = json.dumps([vocabulary, tokenizer.chat_template])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
