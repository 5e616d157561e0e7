"""Depth students of families in which a layer's index decides what it is."""

from typing import Any

import pytest
import torch
import transformers as hf

from explorer.errors import BadInput
from explorer.models.facts import model_facts
from explorer.models.families import shape_of
from explorer.models.layers import layer_list
from explorer.models.loading import Loaded
from explorer.students import depth
from explorer.students.layer_check import check_kept_layers

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
ALTERNATING = ["sliding_attention", "full_attention"] * 3


def deepseek():
    """Dense layers first, told by their number."""
    latent = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
    routed = {"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1}
    return hf.DeepseekV3ForCausalLM(
        hf.DeepseekV3Config(
            **{**SIZES, **EXPERTS, **latent, **routed, "num_key_value_heads": 4},
            v_head_dim=8,
            first_k_dense_replace=3,
        )
    )


def qwen_step():
    """Experts in every second layer, and one more dense layer by its index."""
    return hf.Qwen2MoeForCausalLM(
        hf.Qwen2MoeConfig(
            **SIZES,
            **EXPERTS,
            num_experts=4,
            shared_expert_intermediate_size=16,
            decoder_sparse_step=2,
            mlp_only_layers=[3],
        )
    )


def qwen_all_dense():
    """As many dense layers by their indices as there are layers."""
    config = hf.Qwen3MoeConfig(
        **SIZES, **EXPERTS, head_dim=8, num_experts=4, mlp_only_layers=list(range(6))
    )
    return hf.Qwen3MoeForCausalLM(config)


def ernie():
    """Experts in every second layer from the third on."""
    return hf.Ernie4_5_MoeForCausalLM(
        hf.Ernie4_5_MoeConfig(
            **SIZES,
            moe_intermediate_size=16,
            moe_k=2,
            moe_num_experts=4,
            moe_num_shared_experts=1,
            moe_layer_start_index=2,
            moe_layer_interval=2,
        )
    )


def gpt_neo():
    """Global and local attention in turns."""
    return hf.GPTNeoForCausalLM(
        hf.GPTNeoConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=64,
            num_layers=6,
            num_heads=4,
            max_position_embeddings=128,
            window_size=8,
            attention_types=[[["global", "local"], 3]],
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def gpt2_scaled():
    """Attention divided by the layer's number."""
    return hf.GPT2LMHeadModel(
        hf.GPT2Config(
            vocab_size=64,
            n_positions=64,
            n_embd=32,
            n_layer=6,
            n_head=4,
            scale_attn_by_inverse_layer_idx=True,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def llama4():
    """Experts by indices, rotary positions in three of four layers, chunks where they are."""
    return hf.Llama4ForCausalLM(
        hf.Llama4TextConfig(
            **SIZES,
            head_dim=8,
            intermediate_size_mlp=64,
            num_local_experts=2,
            num_experts_per_tok=1,
            interleave_moe_layer_step=2,
            attention_chunk_size=8,
        )
    )


def gemma3():
    """A language model inside one that also sees; as many layers in its eyes."""
    eyes = {
        "model_type": "siglip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 6,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    text = {**SIZES, "head_dim": 8, "sliding_window": 8, "layer_types": ALTERNATING}
    return hf.Gemma3ForConditionalGeneration(
        hf.Gemma3Config(
            text_config=text,
            vision_config=eyes,
            mm_tokens_per_image=4,
            boi_token_index=61,
            eoi_token_index=62,
            image_token_index=63,
        )
    )


def many_ends():
    """As many end tokens as layers: they are not about layers."""
    return hf.LlamaForCausalLM(hf.LlamaConfig(**{**SIZES, "eos_token_id": [2, 3, 4, 5, 6, 7]}))


def made(make):
    """A model with wide random weights, so that another layer gives another answer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().eval()
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.data.normal_(0, 0.15)
    return model


@torch.inference_mode()
def answers_with(model, kept, ids):
    """The model's logits when its other layers return what they are given."""

    def skip(_, args, kwargs, output):
        hidden = args[0] if args else kwargs["hidden_states"]
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handles = [
        layer.register_forward_hook(skip, with_kwargs=True)
        for index, layer in enumerate(layer_list(model)[1])
        if index not in kept
    ]
    logits = model(ids).logits
    for handle in handles:
        handle.remove()
    return logits


@pytest.mark.parametrize("kept", [[0, 3], [1, 2, 5], [0, 2, 4]], ids=str)
@pytest.mark.parametrize(
    "make",
    [
        deepseek,
        qwen_step,
        qwen_all_dense,
        ernie,
        gpt_neo,
        gpt2_scaled,
        llama4,
        gemma3,
        many_ends,
    ],
)
def test_a_students_layers_are_the_teachers(make, kept, tmp_path):
    """It answers as the teacher does without the other layers, and so does the saved student."""
    teacher, ids = made(make), torch.arange(40)[None]

    student = depth.keep_layers(teacher, kept)
    student.save_pretrained(tmp_path)
    again = type(student).from_pretrained(tmp_path).eval()

    wanted = answers_with(teacher, kept, ids)
    torch.testing.assert_close(student(ids).logits, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(again(ids).logits, wanted, rtol=1e-4, atol=1e-5)
    ends = [model.config.get_text_config().eos_token_id for model in (again, teacher)]
    assert ends[0] == ends[1]


def jamba():
    """Attention in every third layer, experts in every second."""
    return hf.JambaForCausalLM(
        hf.JambaConfig(
            **SIZES,
            attn_layer_period=3,
            attn_layer_offset=1,
            expert_layer_period=2,
            expert_layer_offset=1,
            num_experts=4,
            mamba_d_state=8,
            mamba_dt_rank=4,
            use_mamba_kernels=False,
        )
    )


def test_a_rhythm_that_the_kept_layers_do_not_have_is_refused():
    """Before anything is loaded, with numbers of layers that the uniform choice can keep."""
    with torch.device("meta"):
        model = jamba()
    depth.check_layers_fit(model, [1, 2])
    with pytest.raises(BadInput, match="layers 0, 1, 5 .*feed_forward.* of another kind"):
        depth.check_layers_fit(model, [0, 1, 5])
    with pytest.raises(BadInput, match=r"works with .* layers"):
        depth.check_uniform(model, 4)
    with pytest.raises(BadInput, match="no layer with attention would be left"):
        depth.check_layers_fit(model, [0, 3])


def gemma3n():
    """The last two layers read the keys and values of the last layer of their kind before them."""
    return hf.Gemma3nForCausalLM(
        hf.Gemma3nTextConfig(
            **{**SIZES, "intermediate_size": [64] * 6},
            head_dim=8,
            vocab_size_per_layer_input=64,
            hidden_size_per_layer_input=8,
            laurel_rank=4,
            num_kv_shared_layers=2,
            sliding_window=8,
            layer_types=ALTERNATING,
            altup_num_inputs=2,
            activation_sparsity_pattern=[0.9, 0.9, 0.0, 0.0, 0.0, 0.0],
        )
    )


def test_layers_that_share_keys_and_values_keep_their_source_or_are_refused(tmp_path):
    """An embedding for each layer is cut to the kept ones, too."""
    teacher, ids = made(gemma3n), torch.arange(40)[None]

    student = depth.keep_layers(teacher, [1, 2, 3, 4, 5])
    student.save_pretrained(tmp_path)
    again = type(student).from_pretrained(tmp_path).eval()

    wanted = answers_with(teacher, [1, 2, 3, 4, 5], ids)
    torch.testing.assert_close(again(ids).logits, wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(BadInput, match="layer 5 would compute something else"):
        depth.keep_layers(teacher, [0, 1, 2, 5])


def test_the_check_sees_a_window_longer_than_its_text_and_a_wrong_weight():
    """A setting is compared as such; a weight by what the layer computes."""
    teacher = made(gemma3)
    student = depth.keep_layers(teacher, [0, 4])
    _, layers = layer_list(student)

    check_kept_layers(teacher, student, [0, 4])
    layers[1].self_attn.sliding_window = 60_000
    with pytest.raises(BadInput, match="sliding_window of layer 4 would be 60000, not 8"):
        check_kept_layers(teacher, student, [0, 4])
    layers[1].self_attn.sliding_window = 8
    with torch.no_grad():
        layers[1].mlp.up_proj.weight[3, 5] += 1e-3
    with pytest.raises(BadInput, match="layer 4 would compute something else"):
        check_kept_layers(teacher, student, [0, 4])


def test_sizes_are_those_of_the_language_model():
    """A model that also sees keeps them in a part of its configuration."""
    model = made(gemma3)
    model.config.eos_token_id = 2

    facts = model_facts(Loaded("sees", model, hf.PreTrainedTokenizerFast(tokenizer_object=words())))

    assert (facts.num_layers, facts.hidden_size, facts.vocab_size) == (6, 32, 64)
    assert (facts.context_tokens, shape_of(model).head_dim) == (128, 8)


def words():
    """A tokenizer of two words."""
    from tokenizers import Tokenizer, models

    return Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))


def test_a_model_without_heads_has_sizes():
    """A state-space model has no attention."""
    with torch.device("meta"):
        model = hf.MambaForCausalLM(
            hf.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=4, state_size=8)
        )
    assert (shape_of(model).num_layers, shape_of(model).num_attention_heads) == (4, 1)
