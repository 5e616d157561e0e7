"""The training loop, for a few steps of a tiny model."""

import json
import shutil
import threading
import types

import pytest
import torch
from torch.nn.functional import log_softmax

from explorer.devices import accelerator
from explorer.distill import cpu_tuning, schedule, student_layers, train
from explorer.distill.heldout import evaluate_heldout
from explorer.distill.losses import DIVERGENCES, forward_kl
from explorer.distill.teacher_cache import TeacherCache, local_teacher
from explorer.distill.teacher_signal import (
    CachedTeacher,
    LiveTeacher,
    NoTeacher,
    TrainingData,
    check_hidden_states,
)
from explorer.distill.train_state import TrainState, untrained_layers
from explorer.errors import BadInput, RunCancelled, RunFailed
from explorer.models.layers import layer_list
from explorer.models.loading import load
from explorer.specs import DistillSpec, WidthStudent
from explorer.students import create, depth
from tests import killing
from tests.killing import Killed

HELDOUT, TRAINING = [0, 1], list(range(2, 20))


@pytest.fixture
def teacher(tiny_llama):
    """A random teacher with opinions: a plain random one is nearly uniform."""
    loaded = load(str(tiny_llama()))
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "embed_tokens.weight")):
                parameter.mul_(15)
    return loaded


@pytest.fixture
def targets(tmp_path, teacher):
    """All tokens are kept, so that cached losses are the dense ones."""
    return _filled(tmp_path, teacher, 320)


@pytest.fixture
def few(tmp_path, teacher):
    """Few tokens are kept, so that there are others to draw from."""
    return _filled(tmp_path, teacher, 4)


def _filled(tmp_path, teacher, top_k):
    blocks = torch.randint(0, 320, (20, 16), generator=torch.Generator().manual_seed(0))
    identity = {"teacher": "t", "top_k": top_k, "temperature": 1.0, "vocab_size": 320}
    made = TeacherCache(tmp_path / "targets", blocks, identity)
    made.fill(lambda: local_teacher(teacher), [*HELDOUT, *TRAINING], lambda *told: None)
    return made


def _spec(**changes):
    plain = {
        "max_tokens": 8 * 30,
        "block_tokens": 16,
        "blocks_per_step": 2,
        "heldout_blocks": 2,
        "learning_rate": 1e-2,
        "eval_every_steps": 3,
    }
    return DistillSpec(**{**plain, **changes})


def _student(teacher):
    return depth.keep_layers(teacher.model, [0, 3])


def _data(teacher, targets, spec):
    sources = {
        "cached": lambda: CachedTeacher(targets, spec),
        "live": lambda: LiveTeacher(teacher.model, targets.blocks_NT, spec),
        "text": lambda: NoTeacher(targets.blocks_NT),
        "labels": lambda: NoTeacher(targets.blocks_NT),
    }
    return TrainingData(sources[spec.method](), TRAINING, CachedTeacher(targets), HELDOUT)


def _train(teacher, targets, spec, checkpoint, on_step=lambda *told: None):
    student = _student(teacher)
    data = _data(teacher, targets, spec)
    state = train.train(student, data, spec, checkpoint, on_step)
    return student, state


def _gradients(teacher, targets, spec, numbers, student=None):
    """One step's terms and gradients, without an update."""
    student = student or _student(teacher)
    data = _data(teacher, targets, spec)
    terms, num_scored = train.gradients(student, data, 0, numbers, spec)
    gradients = {n: p.grad for n, p in student.named_parameters() if p.grad is not None}
    return terms, num_scored, gradients


def test_the_gradient_is_that_of_the_dense_kl(teacher, targets, tmp_path):
    """Chunked sparse logits give the gradient of the plain mean KL over all positions."""
    spec = _spec(train_embeddings=True)
    blocks = targets.blocks_NT[TRAINING[:2]]
    with torch.no_grad():
        teacher_logits = teacher.model(blocks).logits[:, :-1].flatten(0, 1)

    terms, num_scored, ours = _gradients(teacher, targets, spec, TRAINING[:2])
    student = _student(teacher)
    dense = forward_kl(student(blocks).logits[:, :-1].flatten(0, 1), teacher_logits).mean()
    dense.backward()

    assert num_scored == 30
    assert terms["loss"] == pytest.approx(float(dense.detach()), rel=1e-2)
    assert terms["kd"] == pytest.approx(terms["loss"])
    for name, parameter in student.named_parameters():
        scale = parameter.grad.abs().max()
        assert (ours[name] - parameter.grad).abs().max() <= 2e-2 * scale + 1e-7, name


def test_distilling_brings_the_student_closer_to_its_teacher(teacher, targets, tmp_path):
    """Held-out KL falls and is the one that the dense models have."""
    student, state = _train(teacher, targets, _spec(max_tokens=40 * 30), tmp_path / "c")

    first, last = state.curve[0], state.curve[-1]
    assert last.heldout_kl < first.heldout_kl
    blocks = targets.blocks_NT[HELDOUT]
    with torch.no_grad():
        dense = forward_kl(
            student(blocks).logits[:, :-1].flatten(0, 1),
            teacher.model(blocks).logits[:, :-1].flatten(0, 1),
        ).mean()
    assert last.heldout_kl == pytest.approx(float(dense), rel=2e-2)


def test_a_frozen_embedding_does_not_move(teacher, targets, tmp_path):
    """Unless asked for, the shared embedding is the teacher's to the last bit."""
    student, _ = _train(teacher, targets, _spec(), tmp_path / "c")

    theirs = teacher.model.get_input_embeddings().weight
    torch.testing.assert_close(student.get_input_embeddings().weight, theirs, rtol=0, atol=0)


def test_the_layers_before_the_first_cut_can_be_left_alone(teacher, targets, tmp_path):
    """They end as they began, the ones behind are taught, and the student comes closer."""
    student, state = _train(
        teacher, targets, _spec(max_tokens=40 * 30, train_layers="auto"), tmp_path / "c"
    )

    before, behind = layer_list(student)[1]
    theirs = layer_list(teacher.model)[1]
    for own, kept in zip(before.parameters(), theirs[0].parameters(), strict=True):
        torch.testing.assert_close(own, kept, rtol=0, atol=0)
    for own, kept in zip(behind.parameters(), theirs[3].parameters(), strict=True):
        assert not torch.equal(own, kept)
    assert state.curve[-1].heldout_kl < 0.8 * state.curve[0].heldout_kl


def test_a_narrower_student_has_no_layer_to_leave_alone(teacher):
    """Its first layer stands where the teacher's does and computes something else."""
    spec = WidthStudent(kind="width", intermediate_size=32)
    blocks = torch.arange(32).view(2, 16)
    narrow = create.create_student(teacher, teacher, spec, blocks).model

    assert untrained_layers(narrow, _spec(train_layers="auto")) == []
    assert len(untrained_layers(_student(teacher), _spec(train_layers="auto"))) == 1
    assert untrained_layers(_student(teacher), _spec()) == []


WAYS = {
    "cached": {"kd_weight": 0.7},
    "live": {"method": "live", "hidden_weight": 0.1},
    "on_policy": {"method": "live", "on_policy_fraction": 0.5, "prompt_tokens": 4},
    "labels": {"method": "labels"},
    "sampled": {"vocab_sample": 20, "kd_weight": 0.7},
    "bfloat16": {"precision": "bfloat16"},
    "layers behind the cut": {"train_layers": "auto"},
    "in_parts": {"micro_blocks": 1, "gradient_checkpointing": True},
    "read ahead": {"prefetch": True, "micro_blocks": 1, "vocab_sample": 20},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_continued_training_gives_the_losses_of_an_unbroken_one(
    way, teacher, targets, few, tmp_path
):
    """Stopped after any step and continued in a new process's place, nothing differs."""
    spec = _spec(**WAYS[way])
    targets = few if spec.vocab_sample else targets
    whole, unbroken = _train(teacher, targets, spec, tmp_path / "unbroken")
    seen = []

    def stop_at_four(state, total, loss, rate):
        seen.append(loss)
        if state.step == 4:
            raise RunCancelled("stop")

    with pytest.raises(RunCancelled):
        _train(teacher, targets, spec, tmp_path / "broken", stop_at_four)
    again, continued = _train(
        teacher, targets, spec, tmp_path / "broken", lambda s, t, loss, r: seen.append(loss)
    )

    assert continued.step == unbroken.step == len(seen)
    assert continued.num_resumes == 1
    for ours, theirs in zip(continued.curve, unbroken.curve, strict=True):
        assert ours.model_copy(update={"seconds": theirs.seconds}) == theirs
    for ours, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("num_before", [0, 1])
def test_a_training_killed_while_it_writes_a_checkpoint_goes_on(
    num_before, teacher, targets, tmp_path
):
    """Killed at any moment, it resumes from the newest whole checkpoint and leaves no other.

    It ends with the losses and the weights of an unbroken training.
    """
    spec = _spec(max_tokens=4 * 30, checkpoint_every_s=1e-9)
    whole, unbroken = _train(teacher, targets, spec, tmp_path / "unbroken")
    num_kills = 0

    def killed(kill):
        kill.armed = num_before == 0

        def arm(state, total, loss, rate):
            kill.armed = state.step == num_before
            if state.step > num_before:
                raise Killed

        _train(teacher, targets, spec, tmp_path / str(kill.moment), arm)

    for kill in killing.moments(killed):
        num_kills += 1
        folder = tmp_path / str(kill.moment)
        steps = []

        def note(state, *told, steps=steps):
            steps.append(state.step)

        again, resumed = _train(teacher, targets, spec, folder, note)
        # The state comes last, by a rename: from then on the new checkpoint is whole.
        new_is_whole = "replace" in kill.changes
        assert steps[0] == num_before + 1 + new_is_whole
        assert resumed.step == unbroken.step
        for ours, theirs in zip(resumed.curve, unbroken.curve, strict=True):
            assert ours.model_copy(update={"seconds": theirs.seconds}) == theirs
        for ours, theirs in zip(again.parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
        assert [path.name for path in tmp_path.glob(f"{folder.name}*")] == [folder.name]
    assert num_kills > 4


def test_a_training_killed_while_it_resumes_goes_on(teacher, targets, tmp_path):
    """A kill left the new checkpoint beside the last one, the next kill came in the midst of it."""
    spec = _spec(max_tokens=4 * 30, checkpoint_every_s=1e-9)
    _, unbroken = _train(teacher, targets, spec, tmp_path / "unbroken")

    def killed_in_second_checkpoint(kill):
        kill.armed = False

        def arm(state, total, loss, rate):
            kill.armed = state.step == 1

        _train(teacher, targets, spec, tmp_path / "left" / str(kill.moment), arm)

    kills = list(killing.moments(killed_in_second_checkpoint, ("replace",)))
    assert len(kills) > 2
    for kill in kills:

        def killed_again(again, left=kill.moment):
            root = tmp_path / f"{left}-{again.moment}"
            again.armed = False
            for folder in (tmp_path / "left").glob(f"{left}*"):
                shutil.copytree(folder, root / folder.name)
            again.armed = True

            def stop(state, *told):
                again.armed = False
                raise Killed

            seldom = spec.with_(checkpoint_every_s=1e9)
            _train(teacher, targets, seldom, root / str(left), stop)

        for again in killing.moments(killed_again, ("replace", "unlink", "rmdir")):
            folder = tmp_path / f"{kill.moment}-{again.moment}" / str(kill.moment)
            _, resumed = _train(teacher, targets, spec, folder)
            for ours, theirs in zip(resumed.curve, unbroken.curve, strict=True):
                assert ours.model_copy(update={"seconds": theirs.seconds}) == theirs
            assert list(folder.parent.iterdir()) == [folder]


def _halved(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def _of_an_older_version(checkpoint):
    """Without a checksum of the weights, and of itself."""
    path = checkpoint / "state.json"
    data = json.loads(path.read_text())
    del data["weights"], data["checksum"]
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("state.json", lambda path: path.write_text("")),
        ("state.json", _halved),
        ("training.pt", lambda path: path.write_text("")),
        ("training.pt", _halved),
        ("training.pt", _flipped),
        ("training.pt", lambda path: None),
    ],
)
def test_a_damaged_checkpoint_is_set_aside(
    name, damage, is_old, teacher, targets, tmp_path, caplog
):
    """Training begins again, with a line in the log, and ends with the unbroken one's losses.

    A flipped bit is noticed. A whole checkpoint of an older version, without checksums, is used.
    """
    spec = _spec(max_tokens=6 * 30, checkpoint_every_s=1e-9)
    whole, unbroken = _train(teacher, targets, spec, tmp_path / "unbroken")
    checkpoint = tmp_path / "checkpoint"

    def stop_at_three(state, *told):
        if state.step == 3:
            raise RunCancelled("enough")

    with pytest.raises(RunCancelled):
        _train(teacher, targets, spec, checkpoint, stop_at_three)
    if is_old:
        _of_an_older_version(checkpoint)
    before = (checkpoint / name).read_bytes()
    damage(checkpoint / name)
    is_damaged = (checkpoint / name).read_bytes() != before

    again, resumed = _train(teacher, targets, spec, checkpoint)

    assert resumed.num_resumes == (0 if is_damaged else 1)
    assert (f"{name} " in caplog.text and "set aside" in caplog.text) == is_damaged
    assert (tmp_path / "checkpoint.damaged").exists() == is_damaged
    for ours, theirs in zip(resumed.curve, unbroken.curve, strict=True):
        assert ours.model_copy(update={"seconds": theirs.seconds}) == theirs
    for ours, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_dropout_draws_the_same_when_a_training_goes_on(teacher, targets, tmp_path):
    """What is dropped comes from the seed and the step, not from what was drawn before."""
    spec = _spec()

    def taught(folder, on_step=lambda *told: None):
        student = _student(teacher)
        for layer in student.model.layers:
            layer.self_attn.attention_dropout = 0.5
        train.train(student, _data(teacher, targets, spec), spec, tmp_path / folder, on_step)
        return student

    def stop_at_two(state, total, loss, rate):
        if state.step == 2:
            raise RunCancelled("stop")

    whole = taught("whole")
    with pytest.raises(RunCancelled):
        taught("broken", stop_at_two)
    torch.rand(7)
    for ours, theirs in zip(taught("broken").parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_loss_that_is_not_finite_stops_before_the_step(teacher, targets, tmp_path):
    """The message names the step and the blocks, and the weights are untouched by it."""
    student = _student(teacher)
    with torch.no_grad():
        student.model.norm.weight.fill_(float("nan"))
    before = student.model.layers[0].mlp.up_proj.weight.clone()

    with pytest.raises(RunFailed, match=r"loss became nan at step 1 \(blocks \[2, 3\]\)"):
        train.train(student, _data(teacher, targets, _spec()), _spec(), tmp_path / "c")
    torch.testing.assert_close(student.model.layers[0].mlp.up_proj.weight, before, rtol=0, atol=0)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_before_the_step(wrong, teacher, targets, tmp_path):
    """The loss may still be finite; the second batch spoils the gradient and is named."""
    student = _student(teacher)
    weight = student.model.layers[0].mlp.up_proj.weight
    seen = []

    def spoil(gradient):
        return gradient * (wrong if seen else 1.0)

    weight.register_hook(spoil)

    def remember(state, total, loss, rate):
        seen.append(weight.detach().clone())

    with pytest.raises(RunFailed, match=r"gradient became (nan|inf) at step 2 \(blocks \[4, 5\]\)"):
        train.train(student, _data(teacher, targets, _spec()), _spec(), tmp_path / "c", remember)
    torch.testing.assert_close(weight.detach(), seen[0], rtol=0, atol=0)


def test_a_head_that_changes_its_logits_unsaid_is_refused(teacher, targets, tmp_path):
    """The loop would train such a model on other logits than it answers with, so it says no."""
    student = _student(teacher)
    whole = student.forward

    def capped(*arguments, **options):
        output = whole(*arguments, **options)
        output.logits = 2 * torch.tanh(output.logits / 2)
        return output

    student.forward = capped
    with pytest.raises(BadInput, match="changes its logits"):
        train.train(student, _data(teacher, targets, _spec()), _spec(), tmp_path / "c")


def test_labels_only_is_plain_language_modelling(teacher, targets, tmp_path):
    """With kd_weight 0 the teacher plays no part in the loss."""
    terms, _, _ = _gradients(teacher, targets, _spec(kd_weight=0.0), [2])
    control, _, _ = _gradients(teacher, targets, _spec(method="labels"), [2])

    block = targets.blocks_NT[[2]]
    log_q = log_softmax(_student(teacher)(block).logits[0, :-1], -1)
    expected = -log_q.gather(1, block[0, 1:, None]).mean()
    assert terms["loss"] == pytest.approx(float(expected.detach()), rel=1e-5)
    assert control == terms
    assert terms == pytest.approx({"loss": terms["loss"], "label": terms["loss"]})


@pytest.mark.parametrize(
    "changes",
    [
        *({"loss": name} for name in DIVERGENCES),
        {"vocab_sample": 20},
        {"precision": "bfloat16"},
        {"loss": "adaptive_kl", "method": "live"},
        {"method": "live", "on_policy_fraction": 1.0, "prompt_tokens": 4, "loss": "reverse_kl"},
        {"method": "live", "hidden_weight": 1.0},
        {"method": "live", "hidden_weight": 1.0, "hidden_loss": "cosine"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_every_way_of_teaching_brings_the_student_closer(changes, teacher, targets, few, tmp_path):
    """After nine rounds of two blocks the student has less of the loss that it was taught with."""
    student, spec = _student(teacher), _spec(max_tokens=18 * 30, learning_rate=3e-3, **changes)
    targets = few if spec.vocab_sample else targets
    data = TrainingData(
        _data(teacher, targets, spec).signal, [2, 3], CachedTeacher(targets), HELDOUT
    )

    state = train.train(student, data, spec, tmp_path / "c")

    assert state.curve[-1].loss < 0.95 * state.curve[1].loss


def test_a_live_teacher_gives_the_gradient_of_cached_targets_of_all_tokens(teacher, targets):
    """Two roads to one loss, up to the half precision of the targets."""
    cached, _, ours = _gradients(teacher, targets, _spec(), [2, 3])
    live, _, theirs = _gradients(teacher, targets, _spec(method="live"), [2, 3])

    assert cached["loss"] == pytest.approx(live["loss"], rel=1e-2)
    for name, gradient in ours.items():
        scale = gradient.abs().max()
        assert (gradient - theirs[name]).abs().max() <= 2e-2 * scale + 1e-7, name


def test_products_in_bfloat16_give_the_gradient_to_its_digits(teacher, few):
    """On a processor too; weights, gradients and losses stay float32, and the exam is exact."""
    changes = {"vocab_sample": 50, "kd_weight": 0.5}
    whole, _, ours = _gradients(teacher, few, _spec(**changes), [2, 3])
    student = _student(teacher)
    spec = _spec(precision="bfloat16", **changes)
    data = _data(teacher, few, spec)
    state = TrainState(student, spec)

    heldout = evaluate_heldout(student, data, 1.0)
    terms, num_scored = train.gradients(state.student, data, 0, [2, 3], spec)

    assert num_scored == 30
    assert terms == pytest.approx(whole, rel=2e-2)
    assert terms["loss"] != whole["loss"]
    taught = {n: p for n, p in student.named_parameters() if p.requires_grad}
    assert set(ours) - set(taught) == {"model.embed_tokens.weight"}
    for name, parameter in taught.items():
        assert parameter.dtype == parameter.grad.dtype == torch.float32
        assert (parameter.grad - ours[name]).norm() < 0.1 * ours[name].norm() + 1e-6, name
    plain = _data(teacher, few, _spec(**changes))
    assert evaluate_heldout(student, plain, 1.0) == heldout


@pytest.mark.parametrize("vocab_sample", [None, 50])
def test_a_step_in_parts_is_the_same_step(vocab_sample, teacher, few):
    """Gradients gathered block by block, with layers computed again, are those of all at once."""
    changes = {"kd_weight": 0.5, "vocab_sample": vocab_sample}
    whole, num_whole, ours = _gradients(teacher, few, _spec(**changes), [2, 3, 4])
    student = _student(teacher)
    student.activation_checkpointing_enable({"use_reentrant": False})
    student.train()
    parts, num_parts, theirs = _gradients(
        teacher, few, _spec(micro_blocks=2, **changes), [2, 3, 4], student
    )

    assert num_parts == num_whole == 45
    assert parts == pytest.approx(whole, rel=1e-5)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-3, atol=1e-6)


def test_a_sample_of_all_tokens_is_all_of_them(teacher, few):
    """Drawing as many as there are gives the losses and gradients without drawing."""
    mixed = {"kd_weight": 0.5, "temperature": 2.0}
    plain, _, ours = _gradients(teacher, few, _spec(**mixed), [2, 3])
    drawn, _, theirs = _gradients(teacher, few, _spec(vocab_sample=320, **mixed), [2, 3])

    assert drawn == pytest.approx(plain, rel=1e-5)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_mean_loss_of_many_samples_is_near_that_of_all_tokens(temperature, teacher, few):
    """A half of the other tokens stands for all, whatever the temperature."""
    changes = {"temperature": temperature, "kd_weight": 0.5}
    whole, *_ = _gradients(teacher, few, _spec(**changes), [2, 3])
    draws = [
        _gradients(teacher, few, _spec(vocab_sample=150, seed=seed, **changes), [2, 3])[0]
        for seed in range(20)
    ]

    for name, value in whole.items():
        of_draws = [draw[name] for draw in draws]
        assert len(set(of_draws)) == 20
        assert sum(of_draws) / 20 == pytest.approx(value, rel=0.02)


def test_a_block_has_its_own_sample_in_whatever_company(teacher, few):
    """Alone or with others a block draws the same, at another step another sample."""
    student, source = _student(teacher), CachedTeacher(few, _spec(vocab_sample=20))
    together, alone, later = (
        source.batch(numbers, step, student).vocabs
        for numbers, step in (([2, 3], 0), ([3], 0), ([3], 1))
    )

    assert torch.equal(together[1].ids_S, alone[0].ids_S)
    assert not torch.equal(together[0].ids_S, together[1].ids_S)
    assert not torch.equal(alone[0].ids_S, later[0].ids_S)


def test_held_out_blocks_are_measured_with_all_tokens(teacher, few, tmp_path):
    """However few are drawn to learn from, the exam of an untaught student is the same."""
    before = [
        _train(teacher, few, _spec(max_tokens=30, **changes), tmp_path / str(i))[1].curve[0]
        for i, changes in enumerate(({}, {"vocab_sample": 1}))
    ]

    assert before[0].heldout_kl == before[1].heldout_kl


def test_both_terms_of_a_mix_are_in_the_curve(teacher, targets, tmp_path):
    """Each without its weight, and None where it plays no part."""
    _, mixed = _train(teacher, targets, _spec(kd_weight=0.7), tmp_path / "mixed")
    _, pure = _train(teacher, targets, _spec(), tmp_path / "pure")

    first, *rest = mixed.curve
    assert (first.kd_loss, first.label_loss, first.hidden_loss) == (None, None, None)
    for point in rest:
        assert point.loss == pytest.approx(0.7 * point.kd_loss + 0.3 * point.label_loss)
        assert point.heldout_label_loss > 0
    assert pure.curve[-1].label_loss is None
    assert pure.curve[-1].kd_loss == pytest.approx(pure.curve[-1].loss)


def test_the_hidden_term_compares_what_the_next_kept_layer_gets(teacher, targets):
    """Layer 0 learns the state before layer 3, the last layer the teacher's last state."""
    student = _student(teacher)

    terms, _, _ = _gradients(
        teacher, targets, _spec(method="live", hidden_weight=0.5), [2], student
    )

    with torch.no_grad():
        block = targets.blocks_NT[[2]]
        own = student.base_model(block, output_hidden_states=True).hidden_states
        theirs = teacher.model.base_model(block, output_hidden_states=True).hidden_states
        by_layer = [
            (((a - b) ** 2).mean(-1) / (b**2).mean(-1))[0, :-1].mean()
            for a, b in ((own[1], theirs[3]), (own[2], theirs[4]))
        ]
    assert terms["hidden"] == pytest.approx(float(sum(by_layer)) / 2, rel=1e-4)
    assert terms["loss"] == pytest.approx(terms["kd"] + 0.5 * terms["hidden"])


def test_hidden_states_of_strangers_are_refused(teacher, tiny_llama):
    """Without a map of kept layers, or with another hidden size, there is nothing to match."""
    stranger = load(str(tiny_llama(num_layers=2))).model
    with pytest.raises(BadInput, match="keeps layers of its teacher"):
        check_hidden_states(teacher.model, stranger)
    stranger.config.explorer_kept_layers = [0, 1]
    stranger.config.hidden_size = 16
    with pytest.raises(BadInput, match="the student's size is 16 and the teacher's 32"):
        check_hidden_states(teacher.model, stranger)


def test_what_the_student_writes_begins_with_the_text_and_is_scored_after_it(teacher, targets):
    """On-policy text is drawn anew each step, from the seed, and has no labels to imitate."""
    spec = _spec(method="live", on_policy_fraction=1.0, prompt_tokens=4, kd_weight=0.5)
    source, student = LiveTeacher(teacher.model, targets.blocks_NT, spec), _student(teacher)

    first, again, later = (source.batch([2, 3], step, student) for step in (0, 0, 1))

    torch.testing.assert_close(first.blocks_BT, again.blocks_BT)
    torch.testing.assert_close(first.blocks_BT[:, :4], targets.blocks_NT[[2, 3], :4])
    assert (first.blocks_BT[:, 4:] != targets.blocks_NT[[2, 3], 4:]).any()
    assert (first.blocks_BT != later.blocks_BT).any()
    torch.testing.assert_close(first.labels_P, first.blocks_BT[:, 4:].flatten())
    assert len(first.teacher.top1()) == len(first.labels_P) == 24
    terms, num_scored, _ = _gradients(teacher, targets, spec, [2, 3])
    assert num_scored == 24
    assert set(terms) == {"loss", "kd"}


def test_the_asked_share_of_steps_is_written_by_the_student(teacher, targets):
    """Decided by seed and step alone."""
    spec = _spec(method="live", on_policy_fraction=0.3, prompt_tokens=15)
    source, student = LiveTeacher(teacher.model, targets.blocks_NT, spec), _student(teacher)

    own = [not source.batch([2], step, student).labelled for step in range(100)]

    assert 20 <= sum(own) <= 40


def test_a_half_precision_student_is_trained_in_full_and_handed_back_as_it_came(
    teacher, targets, tmp_path
):
    """Steps below the resolution of bfloat16 still add up."""
    student = _student(teacher).to(torch.bfloat16)
    dtypes = set()

    train.train(
        student,
        _data(teacher, targets, _spec()),
        _spec(),
        tmp_path / "c",
        lambda *told: dtypes.add(student.dtype),
    )

    assert dtypes == {torch.float32}
    assert student.dtype == torch.bfloat16


def test_the_budget_buys_the_steps_it_says():
    """Steps times scored tokens a step stays within the budget."""
    spec = DistillSpec(max_tokens=60_000)

    assert schedule.num_steps(spec) * 4 * 255 <= 60_000 < (schedule.num_steps(spec) + 1) * 4 * 255


def test_the_rate_warms_up_and_decays():
    """It rises to the peak and falls to a tenth of it."""
    spec = DistillSpec(max_tokens=102_000, learning_rate=1.0, warmup_fraction=0.1)
    rates = [schedule.learning_rate(spec, step) for step in range(schedule.num_steps(spec))]

    assert max(rates) == pytest.approx(1.0)
    assert rates[0] < rates[5] < rates[9]
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


def _only_two_blocks_fit(monkeypatch, error=None):
    """A larger pass runs out of memory."""
    plain = train._backward

    def small(model, batch, *rest, **named):
        if len(batch.blocks_BT) > 2:
            raise error or torch.OutOfMemoryError("full")
        return plain(model, batch, *rest, **named)

    monkeypatch.setattr(train, "_backward", small)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), MemoryError()])
def test_where_memory_runs_out_passes_become_smaller_and_the_losses_stay(
    teacher, targets, tmp_path, monkeypatch, error
):
    """Half as many blocks at once, twice at most; the training goes on and counts it."""
    spec = _spec(blocks_per_step=8, max_tokens=8 * 15 * 4)
    _, wanted = _train(teacher, targets, spec, tmp_path / "whole")
    _only_two_blocks_fit(monkeypatch, error)
    _, found = _train(teacher, targets, spec, tmp_path / "halved")

    assert (wanted.num_halvings, found.num_halvings) == (0, 2)
    for one, other in zip(found.curve, wanted.curve, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)


def test_where_smaller_passes_do_not_help_the_training_stops_with_a_checkpoint(
    teacher, targets, tmp_path, monkeypatch
):
    """After the second halving the error stands, and nothing that was trained is lost."""
    spec = _spec(blocks_per_step=8, max_tokens=8 * 15 * 4)
    plain, sizes = train._backward, []

    def fail_in_the_second_step(model, batch, *rest, **named):
        sizes.append(len(batch.blocks_BT))
        if len(sizes) > 1:
            raise torch.OutOfMemoryError("full")
        return plain(model, batch, *rest, **named)

    monkeypatch.setattr(train, "_backward", fail_in_the_second_step)
    with pytest.raises(torch.OutOfMemoryError):
        _train(teacher, targets, spec, tmp_path / "checkpoint")
    monkeypatch.setattr(train, "_backward", plain)

    assert sizes == [8, 8, 4, 2]
    _, resumed = _train(teacher, targets, spec, tmp_path / "checkpoint")
    assert resumed.num_resumes == 1


READ_AHEAD = {
    "one pass a step": {},
    "passes of two and one block": {"blocks_per_step": 3, "micro_blocks": 2, "vocab_sample": 20},
    "on-policy": {"method": "live", "on_policy_fraction": 0.5, "prompt_tokens": 4},
    "labels": {"method": "labels"},
}


def _reading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def _same_to_the_bit(one, other):
    """Two trainings: student and state of each."""
    for ours, theirs in zip(one[1].curve, other[1].curve, strict=True):
        assert ours.model_copy(update={"seconds": theirs.seconds}) == theirs
    for ours, theirs in zip(one[0].parameters(), other[0].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("way", READ_AHEAD)
def test_reading_ahead_changes_no_bit(way, teacher, few, tmp_path, monkeypatch):
    """A thread reads every pass but the first, once and in order, and ends with the training."""
    spec = _spec(**READ_AHEAD[way])
    plain = _train(teacher, few, spec, tmp_path / "plain")
    signal, reads = type(_data(teacher, few, spec).signal), []

    def noted(self, numbers, step, read=signal.read):
        if not set(numbers) & set(HELDOUT):
            reads.append((threading.current_thread() in _reading_threads(), step, numbers))
        return read(self, numbers, step)

    monkeypatch.setattr(signal, "read", noted)
    ahead = _train(teacher, few, spec.with_(prefetch=True), tmp_path / "ahead")

    _same_to_the_bit(ahead, plain)
    assert [in_thread for in_thread, *_ in reads] == [False] + [True] * (len(reads) - 1)
    size = spec.micro_blocks or spec.blocks_per_step
    assert [(step, numbers) for _, step, numbers in reads] == [
        (step, blocks[start : start + size])
        for step in range(ahead[1].step)
        for blocks in [schedule.blocks_of_step(spec, TRAINING, step)]
        for start in range(0, len(blocks), size)
    ]
    assert not _reading_threads()


def test_what_is_read_ahead_is_pinned_where_the_device_copies_from_it(
    teacher, few, tmp_path, monkeypatch
):
    """Every tensor of it; here pinning is replaced by a copy."""
    spec = _spec(vocab_sample=20)
    plain = _train(teacher, few, spec, tmp_path / "plain")
    pinned = []
    monkeypatch.setattr(accelerator, "pins_memory", lambda device: True)
    monkeypatch.setattr(
        torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor.clone()
    )

    ahead = _train(teacher, few, spec.with_(prefetch=True), tmp_path / "ahead")

    _same_to_the_bit(ahead, plain)
    # Blocks, ids, log-probabilities, and for each of two blocks its sampled ids and their weights.
    assert len(pinned) == ahead[1].step * (3 + 2 * 2)


def test_smaller_passes_are_read_ahead_as_well(teacher, few, tmp_path, monkeypatch):
    """Where memory ran out, what was read for the larger pass is dropped."""
    spec = _spec(blocks_per_step=4, max_tokens=4 * 15 * 4)
    smaller = _train(teacher, few, spec.with_(micro_blocks=2), tmp_path / "smaller")
    _only_two_blocks_fit(monkeypatch)
    halved = _train(teacher, few, spec.with_(prefetch=True), tmp_path / "halved")

    assert halved[1].num_halvings == 1
    _same_to_the_bit(halved, smaller)


@pytest.mark.parametrize("error", [RunCancelled("stop"), KeyboardInterrupt()])
def test_the_reading_thread_ends_with_a_training_that_is_stopped(error, teacher, few, tmp_path):
    """By a cancel or by Ctrl-C, in whatever step."""

    def stop(state, *told):
        assert _reading_threads()
        if state.step == 2:
            raise error

    with pytest.raises(type(error)):
        _train(teacher, few, _spec(prefetch=True), tmp_path / "c", stop)

    assert not _reading_threads()


def test_an_error_while_reading_ahead_is_the_trainings_own(teacher, few, tmp_path, monkeypatch):
    """It keeps its words, and what was trained before it is not lost."""
    plain, spec = CachedTeacher.read, _spec(prefetch=True)

    def fail(self, numbers, step):
        if step == 3:
            raise RunFailed("The disk with the targets was removed.")
        return plain(self, numbers, step)

    with monkeypatch.context() as patch:
        patch.setattr(CachedTeacher, "read", fail)
        with pytest.raises(RunFailed, match="The disk with the targets was removed"):
            _train(teacher, few, spec, tmp_path / "c")
    assert not _reading_threads()
    again = _train(teacher, few, spec, tmp_path / "c")
    assert again[1].num_resumes == 1
    _same_to_the_bit(again, _train(teacher, few, _spec(), tmp_path / "unbroken"))


NUM_TRIAL = 2 * (student_layers.NUM_WARMUP + student_layers.NUM_TIMED)
"""Passes of a whole trial of compiled layers."""


@pytest.fixture
def clock(monkeypatch):
    """What a pass takes is what the test says; torch compiles without a C++ compiler."""
    clock = types.SimpleNamespace(
        now=0.0, eager_s=2.0, compiled_s=1.0, compiled_passes=0, is_inside=False
    )
    plain = torch.autograd.backward

    def compile_quickly(module, **options):
        compiled = compile_for_real(module, backend="eager", **options)

        def run(*args, **options):
            clock.compiled_passes += 1
            clock.now += clock.compiled_s - clock.eager_s
            return compiled(*args, **options)

        return run

    def backward(*args, **options):
        if clock.is_inside:  # where matmuls are tuned, torch calls itself once more
            return plain(*args, **options)
        clock.now += clock.eager_s
        clock.is_inside = True
        try:
            return plain(*args, **options)
        finally:
            clock.is_inside = False

    compile_for_real = torch.compile
    monkeypatch.setattr(torch, "compile", compile_quickly)
    monkeypatch.setattr(student_layers.torch.autograd, "backward", backward)
    monkeypatch.setattr(
        student_layers, "time", types.SimpleNamespace(perf_counter=lambda: clock.now)
    )
    yield clock
    torch._dynamo.reset()


COMPILED = {
    "cached": {},
    "cached in parts": {"vocab_sample": 20, "blocks_per_step": 3, "micro_blocks": 2},
    "hidden states": {"method": "live", "hidden_weight": 0.1},
    "on-policy": {"method": "live", "on_policy_fraction": 0.5, "prompt_tokens": 4},
    "checkpointing": {"method": "labels", "gradient_checkpointing": True},
    "layers behind the cut": {"train_layers": "auto"},
}


@pytest.mark.parametrize(
    ("way", "prefers_onednn"), [*((way, False) for way in COMPILED), ("checkpointing", True)]
)
def test_compiled_layers_have_the_losses_of_eager_ones(
    way, prefers_onednn, teacher, few, tmp_path, clock, monkeypatch
):
    """Up to rounding, in every method; the weights keep their names, and a record says why.

    Also where products run in oneDNN, as on AMD.
    """
    monkeypatch.setattr(cpu_tuning, "_prefers_onednn", lambda: prefers_onednn)
    blocks = COMPILED[way].get("blocks_per_step", 2)
    spec = _spec(max_tokens=20 * blocks * 15, **COMPILED[way])
    plain, wanted = _train(teacher, few, spec, tmp_path / "plain")

    compiled, found = _train(teacher, few, spec.with_(compile=True), tmp_path / "compiled")

    assert clock.compiled_passes > NUM_TRIAL // 2
    assert found.compilation.kept == "compiled"
    assert (found.compilation.eager_ms, found.compilation.compiled_ms) == (2000.0, 1000.0)
    assert wanted.compilation is None
    for ours, theirs in zip(found.curve, wanted.curve, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
        assert ours.heldout_kl == pytest.approx(theirs.heldout_kl, rel=1e-3)
    assert compiled.state_dict().keys() == plain.state_dict().keys()


def test_compiled_layers_are_kept_only_where_they_are_faster(
    teacher, targets, tmp_path, clock, caplog
):
    """Otherwise the training goes on as before the trial, and the log has both times."""
    caplog.set_level("INFO", "explorer")
    clock.compiled_s = 3.0

    _, found = _train(teacher, targets, _spec(max_tokens=20 * 30, compile=True), tmp_path / "c")

    assert clock.compiled_passes == NUM_TRIAL // 2
    assert found.compilation.kept == "eager"
    said = "the student's layers take 3000.0 ms a pass, otherwise 2000.0 ms; they run as they are"
    assert said in caplog.text


def test_a_training_that_ends_in_the_trial_keeps_nothing(teacher, targets, tmp_path, clock):
    """Nothing was found out, and the record does not claim it."""
    short = _spec(max_tokens=(NUM_TRIAL - 1) * 30, compile=True)

    _, found = _train(teacher, targets, short, tmp_path / "c")

    assert clock.compiled_passes > 0
    assert found.compilation is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError("No working C++ compiler found\nLong advice"),
            "RuntimeError: No working C++",
        ),
        (torch.OutOfMemoryError("full"), "OutOfMemoryError: full"),
        (MemoryError(), "MemoryError"),
        (ImportError("no module named triton"), "ImportError: no module named triton"),
    ],
)
def test_where_layers_cannot_be_compiled_they_run_as_they_are(
    error, reason, teacher, targets, tmp_path, monkeypatch, caplog
):
    """One sentence with the reason; not a loss differs, and passes become no smaller."""
    spec = _spec(max_tokens=12 * 30)
    plain = _train(teacher, targets, spec, tmp_path / "plain")

    def fail(module, **options):
        if isinstance(error, ImportError):
            raise error

        def run(*args, **options):
            raise error

        return run

    monkeypatch.setattr(torch, "compile", fail)
    tried = _train(teacher, targets, spec.with_(compile=True), tmp_path / "tried")

    _same_to_the_bit(tried, plain)
    outcome = tried[1].compilation
    assert (outcome.kept, outcome.compiled_ms) == ("eager", None)
    assert outcome.eager_ms > 0
    assert outcome.problem.startswith(reason)
    assert "Long advice" not in caplog.text
    assert (
        f"could not be compiled, so they run as they are; the losses stay the same. ({reason}"
        in (caplog.text)
    )
    assert tried[1].num_halvings == 0


def test_a_compiled_training_goes_on_from_its_checkpoint(teacher, targets, tmp_path, clock):
    """With the losses of an unbroken one up to rounding; the outcome of the trial is not lost."""
    spec = _spec(max_tokens=20 * 30, compile=True)
    _, unbroken = _train(teacher, targets, spec.with_(compile=False), tmp_path / "unbroken")

    def stop(state, *told):
        if state.step == 18:
            raise RunCancelled("stop")

    with pytest.raises(RunCancelled):
        _train(teacher, targets, spec, tmp_path / "c", stop)
    stored = torch.load(tmp_path / "c" / "training.pt", weights_only=True)
    _, found = _train(teacher, targets, spec, tmp_path / "c")

    assert found.num_resumes == 1
    assert found.compilation.kept == "compiled"
    assert not [name for name in stored["model"] if "_orig_mod" in name]
    for ours, theirs in zip(found.curve, unbroken.curve, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)


def test_smaller_passes_are_tried_anew(teacher, targets, tmp_path, monkeypatch, clock):
    """Where memory ran out before the trial, its times would be those of other passes."""
    spec = _spec(blocks_per_step=4, max_tokens=12 * 4 * 15, compile=True)
    _only_two_blocks_fit(monkeypatch)
    _, found = _train(teacher, targets, spec, tmp_path / "halved")

    assert found.num_halvings == 1
    assert found.compilation.kept == "compiled"


def test_on_amd_compiled_layers_leave_products_to_torch(monkeypatch):
    """Within the mode that replaces them, torch cannot compile the replacement."""
    monkeypatch.setattr(cpu_tuning, "_prefers_onednn", lambda: True)
    linear, numbers = torch.nn.Linear(4, 4), torch.ones(2, 4)
    replaced = []
    monkeypatch.setattr(
        cpu_tuning, "_onednn_linear", lambda *args: replaced.append(args) or torch.ones(2, 4)
    )

    with cpu_tuning.onednn_matmul():
        linear(numbers)
        with cpu_tuning.torch_matmul():
            linear(numbers)

    assert len(replaced) == 1
    assert "context_fn" in cpu_tuning.checkpoint_options()
    assert "context_fn" not in cpu_tuning.checkpoint_options(compiles=True)
