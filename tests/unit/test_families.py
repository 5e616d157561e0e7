"""A few architectures through the steps of `make families`, in seconds."""

import pytest
import torch

from explorer.errors import BadInput, UnknownModel
from explorer.evaluate.backends.tree_model import TreeModel
from explorer.latency.runtimes.pytorch import check_compiles
from explorer.models.decoding import Decoder, length_switch
from explorer.models.output_head import OutputHead, check_causal, check_head
from tests.families import steps, tiny
from tests.families.steps import Subject

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def subject(request, tmp_path, store_root):
    name = request.param
    return Subject(name, tiny.save(name, tmp_path / "model"), tmp_path, store_root)


@pytest.mark.parametrize(
    ("subject", "step"),
    [
        ("gemma2", steps.evaluate),
        ("gemma2", steps.training),
        ("bloom", steps.evaluate),
        ("bloom", steps.depth),
        ("rwkv", steps.evaluate),
        ("rwkv", steps.save),
    ],
    indirect=["subject"],
)
def test_a_capped_model_and_an_old_one_go_through_the_steps(subject, step):
    """Evaluated as by stock lm-eval, cut, trained on its own logits, saved and loaded."""
    assert step(subject) in ("yes", "trees", "lm-eval's own code")


@pytest.mark.parametrize(
    "subject", ["mamba", "rwkv", "recurrent_gemma", "phi3_long"], indirect=True
)
def test_whatever_a_model_keeps_it_continues_a_text_as_without(subject):
    """A state, a state of another name, nothing at all, frequencies that change on the way."""
    assert steps.synthesise(subject) == "yes"


@pytest.mark.parametrize(
    ("name", "scale", "cap"),
    [("granite", 0.25, None), ("cohere", 0.25, None), ("gemma2", 1, 3.0), ("llama", 1, None)],
)
def test_the_head_is_read_from_the_configuration(name, scale, cap):
    """Scale and cap are known, and give the model's own logits, also of some tokens alone."""
    model, ids = tiny.model(name), torch.arange(2, 10)[None]

    head = OutputHead.of(model)
    check_head(model, ids)

    assert (head.scale, head.cap) == (scale, cap)
    some = torch.tensor([3, 200])
    with torch.inference_mode():
        hidden = model.base_model(ids).last_hidden_state
        torch.testing.assert_close(head(hidden, some), model(ids).logits[..., some])


def test_a_head_with_an_unknown_step_is_refused(monkeypatch):
    """A scale that the configuration does not name is found by comparing the logits."""
    model = tiny.model("llama")
    monkeypatch.setattr(model.lm_head, "forward", lambda hidden: hidden @ model.lm_head.weight.T)
    whole = model.forward

    def scaled(*arguments, **options):
        output = whole(*arguments, **options)
        output.logits = output.logits * 2
        return output

    monkeypatch.setattr(model, "forward", scaled)
    with pytest.raises(BadInput, match="changes its logits"):
        check_head(model, torch.arange(2, 10)[None])


def test_a_model_that_reads_both_ways_is_refused():
    """Its log-likelihood of an answer would be taken with the answer in view."""
    with pytest.raises(UnknownModel, match="both directions"):
        check_causal(tiny.model("gemma3_both_ways"))
    check_causal(tiny.model("gemma3_text"))


def test_a_window_longer_than_the_first_check_is_checked_when_a_text_reaches_it():
    """GPT-Neo counts the distance in its window by indices, which a short text cannot show."""
    neo, llama = TreeModel(tiny.model("gpt_neo_wide")), TreeModel(tiny.model("llama"))

    assert neo.matches_plain_forward()
    assert neo.holds_for(150)
    assert not neo.holds_for(300)
    assert llama.matches_plain_forward()
    assert llama.holds_for(500)


def test_longrope_switches_at_its_length():
    """The text is read anew when it gets longer; other models have no such length."""
    model = tiny.model("phi3_long")
    assert length_switch(model) == 64
    assert length_switch(tiny.model("llama")) is None

    decoder, text = Decoder(model), steps.blocks(1, 66)
    with torch.inference_mode():
        decoder.step(text[:, :63])
        for end in (64, 65, 66):
            found = decoder.step(text[:, end - 1 : end])
            wanted = model(text[:, :end], use_cache=False).logits[:, -1]
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_what_transformers_cannot_compile_is_refused():
    """Asked for by `latency.runtime: compiled`, before anything is timed."""
    check_compiles("it", tiny.model("llama"))
    with pytest.raises(BadInput, match="runtime: eager"):
        check_compiles("it", tiny.model("mpt"))
