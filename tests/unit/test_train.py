"""The training loop, for a few steps of a tiny model."""

import pytest
import torch
from torch.nn.functional import log_softmax

from explorer.distill import students, train
from explorer.distill.losses import forward_kl
from explorer.distill.targets import Targets
from explorer.errors import BadInput, RunCancelled, RunFailed
from explorer.models.loading import load
from explorer.specs import DistillSpec

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
    blocks = torch.randint(0, 320, (20, 16), generator=torch.Generator().manual_seed(0))
    identity = {"teacher": "t", "top_k": 320, "temperature": 1.0, "vocab_size": 320}
    made = Targets(tmp_path / "targets", blocks, identity)
    made.fill(lambda: teacher, [*HELDOUT, *TRAINING], lambda *told: None)
    return made


def _spec(**changes):
    plain = {
        "max_tokens": 8 * 30, "block_tokens": 16, "blocks_per_step": 2, "heldout_blocks": 2,
        "learning_rate": 1e-2, "eval_every_steps": 3,
    }  # fmt: skip
    return DistillSpec(**{**plain, **changes})


def _student(teacher):
    return students.keep_layers(teacher.model, [0, 3])


def _train(teacher, targets, spec, checkpoint, on_step=lambda *told: None):
    student = _student(teacher)
    state = train.train(student, targets, HELDOUT, TRAINING, spec, checkpoint, on_step)
    return student, state


def test_the_gradient_is_that_of_the_dense_kl(teacher, targets, tmp_path):
    """Chunked sparse logits give the gradient of the plain mean KL over all positions."""
    spec = _spec(train_embeddings=True)
    student = _student(teacher)
    from accelerate import Accelerator

    blocks = targets.blocks_NT[TRAINING[:2]]
    with torch.no_grad():
        teacher_logits = teacher.model(blocks).logits[:, :-1].flatten(0, 1)

    loss, num_scored = train._gradients(Accelerator(cpu=True), student, targets, TRAINING[:2], spec)
    ours = {name: p.grad.clone() for name, p in student.named_parameters()}
    student.zero_grad()
    dense = forward_kl(student(blocks).logits[:, :-1].flatten(0, 1), teacher_logits).mean()
    dense.backward()

    assert num_scored == 30
    assert loss == pytest.approx(float(dense.detach()), rel=1e-2)
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


def test_a_continued_training_gives_the_losses_of_an_unbroken_one(teacher, targets, tmp_path):
    """Stopped after any step and continued in a new process's place, nothing differs."""
    spec = _spec()
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
        assert (ours.step, ours.loss, ours.heldout_kl) == (
            theirs.step, theirs.loss, theirs.heldout_kl,
        )  # fmt: skip
    for ours, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_loss_that_is_not_finite_stops_before_the_step(teacher, targets, tmp_path):
    """The message names the step and the blocks, and the weights are untouched by it."""
    student = _student(teacher)
    with torch.no_grad():
        student.model.norm.weight.fill_(float("nan"))
    before = student.model.layers[0].mlp.up_proj.weight.clone()

    with pytest.raises(RunFailed, match=r"loss became nan at step 1 \(blocks \[2, 3\]\)"):
        train.train(student, targets, HELDOUT, TRAINING, _spec(), tmp_path / "c")
    torch.testing.assert_close(student.model.layers[0].mlp.up_proj.weight, before, rtol=0, atol=0)


def test_a_head_that_caps_its_logits_is_refused(teacher, targets, tmp_path):
    """The loop would train such a model on other logits than it answers with, so it says no."""
    student = _student(teacher)
    whole = student.forward

    def capped(*arguments, **options):
        output = whole(*arguments, **options)
        output.logits = 2 * torch.tanh(output.logits / 2)
        return output

    student.forward = capped
    with pytest.raises(BadInput, match="caps or scales its logits"):
        train.train(student, targets, HELDOUT, TRAINING, _spec(), tmp_path / "c")


def test_labels_only_is_plain_language_modelling(teacher, targets, tmp_path):
    """With kd_weight 0 the teacher plays no part in the loss."""
    student = _student(teacher)
    from accelerate import Accelerator

    loss, _ = train._gradients(Accelerator(cpu=True), student, targets, [2], _spec(kd_weight=0.0))

    block = targets.blocks_NT[[2]]
    log_q = log_softmax(student(block).logits[0, :-1], -1)
    expected = -log_q.gather(1, block[0, 1:, None]).mean()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)


def test_the_budget_buys_the_steps_it_says():
    """Steps times scored tokens a step stays within the budget."""
    spec = DistillSpec(max_tokens=60_000)

    assert train.num_steps(spec) * 4 * 255 <= 60_000 < (train.num_steps(spec) + 1) * 4 * 255


def test_the_rate_warms_up_and_decays():
    """It rises to the peak and falls to a tenth of it."""
    spec = DistillSpec(max_tokens=102_000, learning_rate=1.0, warmup_fraction=0.1)
    rates = [train.learning_rate(spec, step) for step in range(train.num_steps(spec))]

    assert max(rates) == pytest.approx(1.0)
    assert rates[0] < rates[5] < rates[9]
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
