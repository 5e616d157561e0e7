"""Tiny random decoders, one for each architecture that the families test covers.

The tokens are bytes. The weights are drawn wide, so that a cap, a window, a sink or a scale that
is left out changes the answers by far more than rounding does.
"""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

IDS: dict[str, Any] = {
    "vocab_size": 258,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
    "initializer_range": 0.2,
}
SIZES: dict[str, Any] = {
    **IDS,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
LLAMA: dict[str, Any] = {**SIZES, "intermediate_size": 64, "num_key_value_heads": 2}
GPT_NEO: dict[str, Any] = {
    **IDS,
    "hidden_size": 32,
    "num_layers": 4,
    "num_heads": 4,
    "max_position_embeddings": 512,
    "attention_types": [[["global", "local"], 2]],
}
GPT: dict[str, Any] = {**IDS, "n_positions": 512, "n_embd": 32, "n_layer": 4, "n_head": 4}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 24}
LATENT = {
    **EXPERTS,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
EYES = {
    "model_type": "siglip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", LLAMA),
    "llama_tied": ("Llama", LLAMA | {"tie_word_embeddings": True, "mlp_bias": True}),
    "mistral": ("Mistral", LLAMA | {"sliding_window": 24}),
    "mixtral": ("Mixtral", LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": ("Qwen2", LLAMA),
    "qwen2_window": (
        "Qwen2",
        LLAMA | {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 2},
    ),
    "qwen2_moe": (
        "Qwen2Moe",
        LLAMA
        | EXPERTS
        | {"num_experts": 4, "shared_expert_intermediate_size": 16, "decoder_sparse_step": 2},
    ),
    "qwen3": ("Qwen3", LLAMA | {"head_dim": 16}),
    "qwen3_moe": ("Qwen3Moe", LLAMA | EXPERTS | {"num_experts": 4, "head_dim": 16}),
    "gemma": ("Gemma", LLAMA | {"head_dim": 16}),
    "gemma2": (
        "Gemma2",
        LLAMA | GEMMA | {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0},
    ),
    "gemma3_text": ("Gemma3", LLAMA | GEMMA),
    "gemma3_both_ways": ("Gemma3", LLAMA | GEMMA | {"use_bidirectional_attention": True}),
    "llama4": (
        "Llama4",
        LLAMA
        | {
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "head_dim": 8,
            "attention_chunk_size": 24,
            "intermediate_size_mlp": 64,
            "no_rope_layers": [1, 1, 1, 0],
        },
    ),
    "gemma3": (
        "Gemma3ForConditionalGeneration",
        {
            "text_config": LLAMA | GEMMA | {"vocab_size": 264},
            "vision_config": EYES,
            "mm_tokens_per_image": 4,
            "boi_token_index": 258,
            "eoi_token_index": 259,
            "image_token_index": 260,
        },
    ),
    "phi": ("Phi", LLAMA | {"partial_rotary_factor": 0.5}),
    "phi3": ("Phi3", LLAMA | {"sliding_window": 24}),
    "phi3_long": (
        "Phi3",
        LLAMA
        | {
            "original_max_position_embeddings": 64,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0] * 4,
                "long_factor": [6.0] * 4,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "olmo2": ("Olmo2", LLAMA),
    "granite": (
        "Granite",
        LLAMA
        | {
            "logits_scaling": 4.0,
            "residual_multiplier": 0.5,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.2,
        },
    ),
    "smollm3": ("SmolLM3", LLAMA),
    "stablelm": ("StableLm", LLAMA | {"partial_rotary_factor": 0.5}),
    "starcoder2": ("Starcoder2", LLAMA | {"sliding_window": 24}),
    "cohere": ("Cohere", LLAMA | {"logit_scale": 0.25}),
    "cohere2": ("Cohere2", LLAMA | {"logit_scale": 0.25, "sliding_window": 24, "head_dim": 8}),
    "glm4": ("Glm4", LLAMA | {"head_dim": 8, "partial_rotary_factor": 0.5}),
    "gpt_oss": (
        "GptOss",
        LLAMA
        | {
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 24,
            "head_dim": 16,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    "deepseek_v2": ("DeepseekV2", LLAMA | LATENT | {"first_k_dense_replace": 1}),
    "deepseek_v3": ("DeepseekV3", LLAMA | LATENT | {"first_k_dense_replace": 2}),
    "falcon": ("Falcon", SIZES | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon_alibi": ("Falcon", SIZES | {"alibi": True, "multi_query": False}),
    "bloom": ("Bloom", IDS | {"hidden_size": 32, "n_layer": 4, "n_head": 4}),
    "mpt": ("Mpt", IDS | {"d_model": 32, "n_layers": 4, "n_heads": 4, "max_seq_len": 512}),
    "gpt2": ("GPT2LMHeadModel", GPT),
    "gpt2_scaled": ("GPT2LMHeadModel", GPT | {"scale_attn_by_inverse_layer_idx": True}),
    "gptj": ("GPTJ", GPT | {"rotary_dim": 4}),
    "gpt_neo": ("GPTNeo", GPT_NEO | {"window_size": 24}),
    "gpt_neo_wide": ("GPTNeo", GPT_NEO | {"window_size": 160}),
    "gpt_neox": ("GPTNeoX", SIZES | {"intermediate_size": 64}),
    "opt": ("OPT", SIZES | {"ffn_dim": 64, "word_embed_proj_dim": 16, "init_std": 0.2}),
    "mamba": ("Mamba", IDS | {"hidden_size": 32, "num_hidden_layers": 4, "state_size": 8}),
    "recurrent_gemma": (
        "RecurrentGemma",
        LLAMA | {"lru_width": 32, "attention_window_size": 24, "logits_soft_cap": 3.0},
    ),
    "rwkv": (
        "Rwkv",
        IDS
        | {
            "hidden_size": 32,
            "attention_hidden_size": 32,
            "num_hidden_layers": 4,
            "context_length": 512,
            "rescale_every": 2,
        },
    ),
}
"""The class in transformers, without its usual ending, and the arguments of its configuration."""

TITLES = {
    "llama_tied": "Llama, tied head and biases",
    "qwen2_window": "Qwen2, windows in the last layers",
    "gemma3_text": "Gemma3, text",
    "gemma3": "Gemma3, with eyes",
    "gemma3_both_ways": "Gemma3, both directions",
    "phi3_long": "Phi3, longrope",
    "falcon_alibi": "Falcon, alibi",
    "gpt2_scaled": "GPT-2, scaled by layer",
    "gpt_neo_wide": "GPTNeo, wide window",
}
"""What tells apart the variants of a class."""


def title(name: str) -> str:
    """An architecture in the table."""
    plain = ARCHITECTURES[name][0].removesuffix("LMHeadModel")
    return TITLES.get(name, plain)


TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)


def model(name: str) -> PreTrainedModel:
    """The tiny model of that name, always with the same weights."""
    prefix, arguments = ARCHITECTURES[name]
    kind = prefix if prefix.endswith(("Generation", "HeadModel")) else prefix + "ForCausalLM"
    model_class: Any = getattr(transformers, kind)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = model_class(model_class.config_class(**json.loads(json.dumps(arguments))))
        with torch.no_grad():
            for parameter_name, parameter in made.named_parameters():
                # Biases, norms and sinks begin at a constant, which would hide a mixed-up one.
                if parameter.ndim == 1 and "A_log" not in parameter_name:
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return made.eval()


def tokenizer(special: tuple[str, str] = ("<s>", "</s>")) -> PreTrainedTokenizerFast:
    """A token for each byte, and two special ones."""
    words = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=special[0], eos_token=special[1], pad_token=special[1]
    )
    fast.chat_template = TEMPLATE
    return fast


def save(name: str, folder: Path) -> Path:
    """The model and its tokenizer as a folder that a spec can name."""
    model(name).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
