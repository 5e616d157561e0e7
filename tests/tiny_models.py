"""Tiny random models of every family whose widths we cut, four layers each."""

from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

_SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}


def _made(model: Any, config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model(config).eval()


def gpt2() -> Any:
    """Fused projections, learned positions, tied embeddings."""
    config = GPT2Config(
        vocab_size=64,
        n_positions=64,
        n_embd=32,
        n_layer=4,
        n_head=4,
        bos_token_id=1,
        eos_token_id=2,
    )
    return _made(GPT2LMHeadModel, config)


def llama() -> Any:
    """Grouped queries, an output layer of its own."""
    return _made(LlamaForCausalLM, LlamaConfig(**_SIZES))


def llama_with_biases() -> Any:
    """A bias in every projection, tied embeddings."""
    config = LlamaConfig(**_SIZES, attention_bias=True, mlp_bias=True, tie_word_embeddings=True)
    model = _made(LlamaForCausalLM, config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(1))
    return model


def mistral() -> Any:
    """As Llama."""
    return _made(MistralForCausalLM, MistralConfig(**_SIZES))


def qwen2() -> Any:
    """Biases on queries, keys and values; no head size in its configuration."""
    return _made(Qwen2ForCausalLM, Qwen2Config(**_SIZES))


def qwen3() -> Any:
    """Norms on queries and keys, heads larger than hidden size / heads."""
    return _made(Qwen3ForCausalLM, Qwen3Config(**_SIZES, head_dim=16))


def smollm3() -> Any:
    """Every fourth layer without rotary positions."""
    return _made(SmolLM3ForCausalLM, SmolLM3Config(**_SIZES))


FAMILIES = {
    one.__name__: one for one in (gpt2, llama, llama_with_biases, mistral, qwen2, qwen3, smollm3)
}
