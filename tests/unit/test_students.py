"""Students cut out of tiny random teachers."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

from explorer.distill import students
from explorer.errors import BadInput
from explorer.models.facts import facts
from explorer.models.layers import KEPT_LAYERS, layer_list
from explorer.models.loading import Loaded, load
from explorer.specs import DepthStudent


def _gpt2():
    config = GPT2Config(
        vocab_size=64, n_positions=32, n_embd=16, n_layer=5, n_head=2,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def _qwen():
    config = Qwen3Config(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=5,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=32,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).eval()


@pytest.mark.parametrize("make", [_gpt2, _qwen], ids=["gpt2", "qwen3"])
def test_keeping_all_layers_changes_no_answer(make):
    """A student of all layers is its teacher, whatever the family calls its layers."""
    teacher = make()
    ids = torch.arange(10)[None]

    student = students.keep_layers(teacher, [0, 1, 2, 3, 4])

    torch.testing.assert_close(student(ids).logits, teacher(ids).logits)


def test_a_student_has_the_layers_it_was_told_to_keep():
    """Layer i of the student is the teacher's kept layer i, and the config remembers the map."""
    teacher = _gpt2()

    student = students.keep_layers(teacher, [1, 4])

    _, kept = layer_list(student)
    _, all_layers = layer_list(teacher)
    assert len(kept) == 2
    for new, old in enumerate([1, 4]):
        for ours, theirs in zip(kept[new].parameters(), all_layers[old].parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert getattr(student.config, KEPT_LAYERS) == [1, 4]
    student.generate(torch.arange(4)[None], max_new_tokens=3, do_sample=False)


def test_the_layer_map_survives_saving(tiny_llama, tmp_path):
    """A saved student still knows which of the teacher's layers it keeps."""
    teacher = load(str(tiny_llama(num_layers=6)))
    student = students.keep_layers(teacher.model, [0, 3, 5])
    student.save_pretrained(tmp_path / "student")
    teacher.tokenizer.save_pretrained(tmp_path / "student")

    again = load(str(tmp_path / "student"))

    assert facts(again).kept_layers == [0, 3, 5]
    assert facts(again).num_layers == 3


def test_uniform_layers_are_spread_from_first_to_last():
    """The uniform choice keeps both ends."""
    assert students.uniform_layers(30, 4) == [0, 10, 19, 29]
    assert students.uniform_layers(30, 30) == list(range(30))
    assert students.uniform_layers(30, 1) == [0]
    assert all(len(set(students.uniform_layers(30, n))) == n for n in range(1, 31))


def test_a_layer_that_does_nothing_is_dropped_first():
    """Block influence finds the layer whose output is its input."""
    teacher = _qwen()
    _, layers = layer_list(teacher)
    with torch.no_grad():
        layers[2].self_attn.o_proj.weight.zero_()
        layers[2].mlp.down_proj.weight.zero_()
    blocks = torch.arange(64).view(4, 16)

    student, kept = students.build(
        Loaded("tiny", teacher, None), DepthStudent(num_layers=4), blocks, lambda done: None
    )

    assert kept == [0, 1, 3, 4]
    torch.testing.assert_close(student.model(blocks).logits, teacher(blocks).logits)
    influence = students.block_influence(teacher, blocks)
    assert influence[2] == pytest.approx(0, abs=1e-6)
    assert min(influence[:2] + influence[3:]) > 1e-4


def test_more_layers_than_the_teacher_has_are_refused():
    """The message says what is possible."""
    with pytest.raises(BadInput, match=r"between 1 and the teacher's 5, got 6"):
        students.build(
            Loaded("tiny", _gpt2(), None), DepthStudent(num_layers=6), torch.zeros(1, 4).long(),
            lambda done: None,
        )  # fmt: skip
