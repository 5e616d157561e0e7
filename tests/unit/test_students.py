"""Depth students cut out of tiny random teachers."""

import json

import pytest
import torch

from explorer.distill.losses import sparse_forward_kl
from explorer.distill.teacher_cache import top_k_of
from explorer.errors import BadInput
from explorer.models.facts import model_facts
from explorer.models.layers import KEPT_LAYERS, intact_layers, layer_list
from explorer.models.loading import Loaded, load
from explorer.specs import DepthStudent
from explorer.students import create, depth
from tests.tiny_models import FAMILIES, gpt2, qwen3


def _build(teacher, spec, blocks, start=None, told=lambda done, total, unit: None):
    whole = Loaded("tiny", teacher, None)
    return create.create_student(whole, start or whole, spec, blocks, told)


@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)
def test_keeping_all_layers_changes_no_answer(make):
    """A student of all layers is its teacher, whatever the family calls its layers."""
    teacher = make()
    ids = torch.arange(10)[None]

    student = depth.keep_layers(teacher, [0, 1, 2, 3])

    torch.testing.assert_close(student(ids).logits, teacher(ids).logits)


@pytest.mark.parametrize(
    ("kept", "intact"),
    [
        ([0, 1, 2, 5, 6, 7], 3),
        ([0, 1, 2, 7], 3),  # half of eight
        ([0, 1, 7], 0),  # less than half
        ([1, 2, 3], 0),  # the first layer itself is gone
        ([0, 1, 2, 3], 0),  # nothing is cut, or only behind the last
        ([0], 0),
    ],
)
def test_layers_before_the_first_cut_are_intact_where_half_stay(kept, intact):
    """They compute what the teacher's do; a student that lost more has to change as a whole."""
    assert intact_layers(kept) == intact


def test_a_student_has_the_layers_it_was_told_to_keep():
    """Layer i of the student is the teacher's kept layer i, and the config remembers the map."""
    teacher = gpt2()

    student = depth.keep_layers(teacher, [1, 3])

    _, kept = layer_list(student)
    _, all_layers = layer_list(teacher)
    assert len(kept) == 2
    for new, old in enumerate([1, 3]):
        for ours, theirs in zip(kept[new].parameters(), all_layers[old].parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert getattr(student.config, KEPT_LAYERS) == [1, 3]
    student.generate(torch.arange(4)[None], max_new_tokens=3, do_sample=False)


def test_the_layer_map_survives_saving(tiny_llama, tmp_path):
    """A saved student still knows which of the teacher's layers it keeps."""
    teacher = load(str(tiny_llama(num_layers=6)))
    student = depth.keep_layers(teacher.model, [0, 3, 5])
    student.save_pretrained(tmp_path / "student")
    teacher.tokenizer.save_pretrained(tmp_path / "student")

    again = load(str(tmp_path / "student"))

    assert model_facts(again).kept_layers == [0, 3, 5]
    assert model_facts(again).num_layers == 3


def test_uniform_layers_are_spread_from_first_to_last():
    """The uniform choice keeps both ends."""
    assert depth.uniform_layers(30, 4) == [0, 10, 19, 29]
    assert depth.uniform_layers(30, 30) == list(range(30))
    assert depth.uniform_layers(30, 1) == [0]
    assert all(len(set(depth.uniform_layers(30, n))) == n for n in range(1, 31))


def _with_an_idle_layer(index):
    teacher = qwen3()
    _, layers = layer_list(teacher)
    with torch.no_grad():
        layers[index].self_attn.o_proj.weight.zero_()
        layers[index].mlp.down_proj.weight.zero_()
    return teacher


@pytest.mark.parametrize("choice", ["block_influence", "greedy"])
def test_a_layer_that_does_nothing_is_dropped_first(choice):
    """Both choices that look at the model find the layer whose output is its input."""
    teacher = _with_an_idle_layer(2)
    blocks = torch.arange(60).view(4, 15)

    student = _build(teacher, DepthStudent(num_layers=3, choice=choice), blocks)

    assert getattr(student.model.config, KEPT_LAYERS) == [0, 1, 3]
    torch.testing.assert_close(student.model(blocks).logits, teacher(blocks).logits)
    influence = depth.block_influence(teacher, blocks)
    assert influence[2] == pytest.approx(0, abs=1e-6)
    assert min(influence[:2] + influence[3:]) > 1e-4


@pytest.mark.parametrize("make", [gpt2, qwen3])
def test_greedy_drops_the_layer_whose_loss_raises_the_kl_least(make):
    """Each drop is the best of all that are left, as trying every student by hand finds."""
    teacher, blocks, tries = make(), torch.arange(60).view(3, 20), []
    targets = [top_k_of(Loaded("t", teacher, None), block[None], 32, 1.0)[:2] for block in blocks]

    @torch.inference_mode()
    def kl_without(layers):
        student, total = depth.keep_layers(teacher, layers), 0.0
        for block, (ids, log_p) in zip(blocks, targets, strict=True):
            logits = student(block[None]).logits[0, :-1]
            total += float(sparse_forward_kl(logits, ids[0, :-1], log_p[0, :-1]).sum())
        return total

    left = [0, 1, 2, 3]
    while len(left) > 2:
        left = min(([x for x in left if x != out] for out in left), key=kl_without)

    student = _build(
        teacher,
        DepthStudent(num_layers=2, choice="greedy"),
        blocks,
        told=lambda done, total, unit: tries.append((done, total, unit)),
    )

    assert getattr(student.model.config, KEPT_LAYERS) == left
    assert tries[-1] == (4 + 3, 4 + 3, "students")
    _, whole = layer_list(teacher)
    assert [type(layer).__name__ for layer in whole] == [type(whole[0]).__name__] * 4


def test_a_smaller_student_goes_on_from_what_a_larger_one_dropped(tmp_path):
    """The order is read from its file, whichever size came first, and the layers are the same."""
    teacher, blocks = qwen3(), torch.arange(60).view(3, 20)

    def kept(num_layers, path):
        tries = []
        student = create.create_student(
            Loaded("t", teacher, None),
            Loaded("t", teacher, None),
            DepthStudent(num_layers=num_layers, choice="greedy"),
            blocks,
            lambda done, total, unit: tries.append(total),
            depth.DropOrder(path),
        )
        return getattr(student.model.config, KEPT_LAYERS), tries[-1:]

    shared, alone = tmp_path / "order.json", tmp_path / "alone.json"

    assert kept(3, shared)[1] == [4]
    assert kept(1, shared) == (kept(1, alone)[0], [3 + 2])
    assert kept(2, shared) == (kept(2, tmp_path / "other.json")[0], [])
    assert json.loads(shared.read_text()) == json.loads(alone.read_text())


def test_more_layers_than_the_teacher_has_are_refused():
    """The message says what is possible."""
    with pytest.raises(
        BadInput, match="6 layers requested, but the teacher tiny has 4. Choose fewer"
    ):
        _build(gpt2(), DepthStudent(num_layers=6), torch.zeros(1, 4).long())


def test_a_second_step_is_told_in_the_teachers_layers():
    """Cut from a student, the map still leads to the teacher; a teacher's own map does not."""
    teacher, blocks = gpt2(), torch.arange(32).view(2, 16)
    first = _build(teacher, DepthStudent(num_layers=3, choice="uniform"), blocks)
    second = DepthStudent(num_layers=2, choice="uniform", start_from="run:first")

    in_two = _build(teacher, second, blocks, start=first)
    of_a_student = _build(first.model, DepthStudent(num_layers=2, choice="uniform"), blocks)

    assert getattr(first.model.config, KEPT_LAYERS) == [0, 2, 3]
    assert getattr(in_two.model.config, KEPT_LAYERS) == [0, 3]
    assert getattr(of_a_student.model.config, KEPT_LAYERS) == [0, 2]


def test_more_than_half_in_one_step_is_warned_of(caplog):
    """The warning has the share and the two steps; half and less is silent."""
    blocks = torch.arange(32).view(2, 16)
    _build(gpt2(), DepthStudent(num_layers=3), blocks)
    assert not caplog.records or "one step" not in caplog.text

    _build(gpt2(), DepthStudent(num_layers=1), blocks)

    assert "at once" in caplog.text
    assert "start_from: run:" in caplog.text
