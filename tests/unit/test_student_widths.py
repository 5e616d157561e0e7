"""Width students, students by a number of parameters, fresh ones."""

import dataclasses
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, OPTConfig, OPTForCausalLM

from explorer.errors import BadInput
from explorer.models.facts import model_facts
from explorer.models.families import count_parameters, shape_of
from explorer.models.layers import KEPT_LAYERS, KEPT_WIDTHS, kept_indices, kept_mask, layer_list
from explorer.models.loading import Loaded, load
from explorer.specs import BothStudent, DepthStudent, FreshStudent, WidthStudent
from explorer.students import create, size_target, width
from tests.tiny_models import FAMILIES, gpt2, llama, qwen3

BLOCKS = torch.randint(0, 64, (3, 16), generator=torch.Generator().manual_seed(0))
IDS = torch.arange(60)[None]

every_family = pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)


def _build(teacher, spec, start=None):
    whole = Loaded("tiny", teacher, None)
    return create.create_student(whole, start or whole, spec, BLOCKS).model


def _narrow(make):
    """Widths that every family can have: GPT-2 cuts heads and hidden size together."""
    if make is gpt2:
        return {"intermediate_size": 48, "hidden_size": 16, "num_attention_heads": 2}
    return {"intermediate_size": 48, "hidden_size": 20, "num_attention_heads": 2}


@every_family
def test_nothing_cut_is_the_teacher_exactly(make):
    """A width student at the teacher's own sizes gives the same logits, bit for bit."""
    teacher = make()
    sizes = dataclasses.asdict(shape_of(teacher))

    student = _build(
        teacher,
        WidthStudent(
            kind="width",
            hidden_size=sizes["hidden_size"],
            intermediate_size=sizes["intermediate_size"],
            num_attention_heads=sizes["num_attention_heads"],
        ),
    )

    assert torch.equal(student(IDS).logits, teacher(IDS).logits)


@every_family
def test_a_narrow_student_is_a_plain_model(make, tmp_path):
    """Saved, it loads with transformers alone, answers the same, and generates."""
    teacher = make()
    student = _build(teacher, WidthStudent(kind="width", **_narrow(make)))
    student.save_pretrained(tmp_path)

    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()

    assert torch.equal(again(IDS).logits, student(IDS).logits)
    shape = dataclasses.asdict(shape_of(again))
    assert {name: shape[name] for name in _narrow(make)} == _narrow(make)
    assert shape["head_dim"] == shape_of(teacher).head_dim
    assert again.num_parameters() == count_parameters(teacher, [shape_of(again)])[0]
    assert again.generate(IDS[:, :4], max_new_tokens=3, do_sample=False).shape == (1, 7)
    assert _is_tied(again) == _is_tied(teacher)


def _is_tied(model):
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


@every_family
def test_cut_channels_and_heads_are_as_if_switched_off(make):
    """The student answers as its teacher does with the left-out channels and heads at zero."""
    teacher = make()
    kept_heads = [[2, 3], [0, 1], [2, 3], [0, 1]]
    groups = [[1], [0], [1], [0]]
    if make is gpt2:  # cannot lose heads without hidden dimensions
        kept_heads = groups = [[0, 1, 2, 3]] * 4
    channels = [sorted(range(i, 64, 2)) for i in (0, 1, 1, 0)]
    if make is gpt2:
        channels = [sorted(range(i, 128, 2)) for i in (0, 1, 1, 0)]
    kept = width.KeptWidths(list(range(32)), channels, kept_heads, groups)

    student = width.keep_widths(teacher, kept, {})

    size = shape_of(teacher).head_dim
    _, layers = layer_list(teacher)
    with torch.no_grad():
        for layer, rows, heads in zip(layers, channels, kept_heads, strict=True):
            down = layer.mlp.c_proj if make is gpt2 else layer.mlp.down_proj
            out = layer.attn.c_proj if make is gpt2 else layer.self_attn.o_proj
            columns = [head * size + i for head in heads for i in range(size)]
            for module, used in ((down, rows), (out, columns)):
                weight = module.weight if make is gpt2 else module.weight.T
                unused = [i for i in range(len(weight)) if i not in set(used)]
                weight[unused] = 0
    torch.testing.assert_close(student(IDS).logits, teacher(IDS).logits, rtol=1e-4, atol=1e-5)


def test_what_does_nothing_is_cut_first():
    """Channels, heads and dimensions of the hidden state that are zero are the ones to go."""
    teacher = llama()
    _, layers = layer_list(teacher)
    with torch.no_grad():
        for layer in layers:
            layer.mlp.up_proj.weight[::2] = 0
            layer.self_attn.v_proj.weight[:8] = 0
            for module in (layer.input_layernorm, layer.post_attention_layernorm):
                module.weight[5:9] = 0
        teacher.model.norm.weight[5:9] = 0
    sizes = {"intermediate_size": 32, "num_attention_heads": 2, "hidden_size": 28}

    student = _build(teacher, WidthStudent(kind="width", **sizes))

    masks = getattr(student.config, KEPT_WIDTHS)
    assert [kept_indices(mask) for mask in masks["channels"]] == [list(range(1, 64, 2))] * 4
    assert [kept_indices(mask) for mask in masks["groups"]] == [[1]] * 4
    assert [kept_indices(mask) for mask in masks["heads"]] == [[2, 3]] * 4
    assert kept_indices(masks["hidden"]) == [i for i in range(32) if i not in range(5, 9)]


def test_importance_is_the_mean_over_tokens_and_the_norm_over_blocks():
    """As computed by hand from what enters the last projection of the MLP."""
    teacher, entering = llama(), []
    layer = teacher.model.layers[1]
    hook = layer.mlp.down_proj.register_forward_pre_hook(lambda _, args: entering.append(args[0]))
    for block in BLOCKS:
        teacher(block[None])
    hook.remove()

    seen = width.width_importance(teacher, BLOCKS)

    expected = sum(x[0].double().abs().mean(0) ** 2 for x in entering).sqrt()
    torch.testing.assert_close(seen.channels_LF[1], expected, rtol=1e-5, atol=1e-8)


def test_a_norm_keeps_the_size_of_what_stays():
    """Where the dimensions that go are silent, cutting them changes no answer."""
    teacher = llama()
    with torch.no_grad():
        for name, weight in teacher.named_parameters():
            if "embed_tokens" in name:
                weight[:, :12] = 0
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight[:12] = 0
    seen = width.width_importance(teacher, BLOCKS)
    whole = shape_of(teacher)
    kept = width.select_widths(dataclasses.replace(whole, hidden_size=20), whole, seen)

    student = width.keep_widths(teacher, kept, seen.squares)
    plain = width.keep_widths(teacher, kept, {})

    @torch.inference_mode()
    def miss(model):
        wanted = teacher(IDS).logits
        return float((model(IDS).logits - wanted).norm() / wanted.norm())

    assert miss(student) < 0.01  # the norms' epsilon weighs a little differently
    assert miss(plain) > 0.1


@pytest.mark.parametrize(
    ("heads", "groups"),
    [(2, 1), (1, None), (3, None), (4, 2), (8, 4)],
)
def test_heads_without_groups_keep_whole_groups_where_possible(heads, groups):
    """Of 8 heads in 4 groups of 2: whole groups, else evenly in all, else what is possible."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=4,
    )
    teacher = LlamaForCausalLM(config)
    spec = WidthStudent(kind="width", num_attention_heads=heads)
    if groups is None:
        with pytest.raises(BadInput, match="multiple of 2 .whole groups"):
            size_target.requested_shape(teacher, spec)
        return
    assert size_target.requested_shape(teacher, spec).num_key_value_heads == groups


@pytest.mark.parametrize(
    ("make", "sizes", "says"),
    [
        (llama, {"hidden_size": 64}, "hidden_size must be between 1 and the teacher's 32, got 64"),
        (llama, {"hidden_size": 18}, "hidden_size must be a multiple of the 4 attention heads"),
        (
            llama,
            {"num_attention_heads": 3, "num_key_value_heads": 2},
            "multiple of the 2 key-value",
        ),
        (
            llama,
            {"num_attention_heads": 4, "num_key_value_heads": 1},
            "at most 2 for each of the 1",
        ),
        (gpt2, {"hidden_size": 16}, "both are cut together: 4 heads require hidden_size 32"),
    ],
)
def test_impossible_widths_are_refused(make, sizes, says):
    """The message names the key, what is possible and what came."""
    with pytest.raises(BadInput, match=says):
        _build(make(), WidthStudent(kind="width", **sizes))


def test_a_family_that_cannot_be_cut_is_refused():
    """Named with its families that can, and with what else to do."""
    config = OPTConfig(
        vocab_size=64,
        hidden_size=16,
        ffn_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        word_embed_proj_dim=16,
        max_position_embeddings=64,
    )
    with pytest.raises(
        BadInput, match=r"OPTForCausalLM .*supported types are gpt2, llama.*depth student"
    ):
        _build(OPTForCausalLM(config), WidthStudent(kind="width", intermediate_size=16))


@every_family
@pytest.mark.parametrize("kind", ["width", "both", "fresh"])
def test_a_number_of_parameters_is_met_closely_and_always_alike(make, kind, caplog):
    """Within 2 % even in a tiny model; the same shape every time; the log says how close."""
    caplog.set_level("INFO", logger="explorer")
    teacher = make()
    target = round(0.65 * teacher.num_parameters())
    spec = {"width": WidthStudent, "both": BothStudent, "fresh": FreshStudent}[kind](
        kind=kind, num_parameters=target
    )

    student, again = _build(teacher, spec), _build(teacher, spec)

    assert student.num_parameters() == pytest.approx(target, rel=0.02)
    assert torch.equal(student(IDS).logits, again(IDS).logits)
    layers = shape_of(student).num_layers
    assert layers == 4 if kind == "width" else layers <= 4
    if kind != "fresh":
        found = re.search(r"shape has ([\d,]+) \(", caplog.text)
        assert found
        assert int(found[1].replace(",", "")) == student.num_parameters()


def test_a_target_out_of_reach_is_refused_with_the_range():
    """The range in the message can be asked for."""
    teacher = llama()
    spec = BothStudent(kind="both", num_parameters=1000)
    with pytest.raises(BadInput, match=r"must be between [\d,]+ and 41,248 here") as refused:
        _build(teacher, spec)

    lowest = int(re.search(r"between ([\d,]+)", str(refused.value))[1].replace(",", ""))

    student = _build(teacher, spec.with_(num_parameters=lowest))
    assert student.num_parameters() == pytest.approx(lowest, rel=0.01)


def test_both_ways_keep_a_map_of_layers_and_widths(tiny_llama, tmp_path):
    """The map and the sizes survive saving, and the record's facts have them."""
    teacher = load(str(tiny_llama(num_layers=6)))
    target = round(0.6 * teacher.model.num_parameters())
    spec = BothStudent(kind="both", num_parameters=target, sample_blocks=2)
    student = create.create_student(teacher, teacher, spec, BLOCKS)
    student.model.save_pretrained(tmp_path)
    teacher.tokenizer.save_pretrained(tmp_path)

    found = model_facts(load(str(tmp_path)))

    assert len(found.kept_layers) == found.num_layers < 6
    assert found.kept_widths["hidden"] == (found.hidden_size, 32)
    assert found.kept_widths["heads"] == (4, 4)
    assert found.num_parameters == pytest.approx(target, rel=0.02)


def test_two_steps_of_width_are_told_in_the_teachers_numbers():
    """A second cut's map is laid over the first's; a depth cut takes the kept layers' part."""
    teacher = qwen3()
    first = _build(teacher, WidthStudent(kind="width", hidden_size=24, intermediate_size=40))
    start = Loaded("run:first", first, None)
    narrower = WidthStudent(kind="width", hidden_size=16, intermediate_size=20, start_from="run:x")
    shorter = DepthStudent(num_layers=2, choice="uniform", start_from="run:x")

    second, shallow = _build(teacher, narrower, start), _build(teacher, shorter, start)

    one, two = getattr(first.config, KEPT_WIDTHS), getattr(second.config, KEPT_WIDTHS)
    assert set(kept_indices(two["hidden"])) < set(kept_indices(one["hidden"]))
    assert len(kept_indices(two["hidden"])) == 16
    hidden = kept_indices(two["hidden"])
    ours, theirs = second.get_input_embeddings().weight, teacher.get_input_embeddings().weight
    assert torch.equal(ours, theirs[:, hidden])
    for layer in range(4):
        assert set(kept_indices(two["channels"][layer])) < set(kept_indices(one["channels"][layer]))
    assert getattr(shallow.config, KEPT_LAYERS) == [0, 3]
    masks = getattr(shallow.config, KEPT_WIDTHS)
    assert masks["channels"] == [one["channels"][0], one["channels"][3]]
    assert masks["hidden"] == one["hidden"]


def test_a_fresh_student_is_random_and_repeatable():
    """The seed decides the weights; nothing of the teacher is in them."""
    teacher = llama()

    def made(seed):
        return _build(teacher, FreshStudent(kind="fresh", num_layers=2, hidden_size=16, seed=seed))

    a, b, other = made(0), made(0), made(1)

    assert torch.equal(a(IDS).logits, b(IDS).logits)
    assert not torch.equal(a(IDS).logits, other(IDS).logits)
    assert shape_of(a).num_layers == 2
    assert shape_of(a).hidden_size == 16
    assert not hasattr(a.config, KEPT_LAYERS)


def test_a_fresh_student_has_no_silent_token():
    """The padding token may also end documents, so its embedding is random as all others are."""
    teacher = llama()
    assert teacher.get_input_embeddings().padding_idx == 2

    rows = _build(teacher, FreshStudent(kind="fresh")).get_input_embeddings().weight

    assert float(rows.detach().norm(dim=1).min()) > 0


def test_a_mask_names_what_is_kept():
    """Writing and reading a mask gives the same indices."""
    for indices, of in (([0, 2, 3], 4), ([], 5), ([63], 64), (list(range(9)), 9)):
        mask = kept_mask(indices, of)
        assert kept_indices(mask) == indices
        assert mask.startswith(f"{of}:")
