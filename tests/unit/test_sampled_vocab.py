"""A part of the vocabulary that stands for the whole."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from explorer.distill.losses import events, forward_kl, kept_log_softmax
from explorer.distill.sampled_vocab import SampledVocab
from explorer.models.output_head import OutputHead

VOCABULARY, HIDDEN, POSITIONS, KEPT = 500, 8, 6, 4


def _seeded(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _head(bias=False):
    head = nn.Linear(HIDDEN, VOCABULARY, bias=bias)
    with torch.no_grad():
        head.weight.copy_(_seeded(VOCABULARY, HIDDEN, seed=1))
        if bias:
            head.bias.copy_(_seeded(VOCABULARY, seed=2))
    return head


def test_what_is_always_in_stands_for_itself_and_the_rest_for_all():
    """The weights of a shortlist add up to the vocabulary, each given token's is one."""
    always = torch.tensor([[7, 3], [3, 499]])

    found = SampledVocab.draw(always, VOCABULARY, num_drawn=50, seed=0)

    weights = dict(zip(found.ids_S.tolist(), found.log_weights_S.exp().tolist(), strict=True))
    assert len(weights) == 53
    assert list(weights) == sorted(weights)
    assert [weights.pop(token) for token in (3, 7, 499)] == [1, 1, 1]
    assert all(weight == pytest.approx(497 / 50) for weight in weights.values())
    assert sum(weights.values()) + 3 == pytest.approx(VOCABULARY, rel=1e-5)


def test_a_shortlist_is_drawn_by_its_seed():
    """Same seed, same tokens; another seed draws others."""
    draws = [SampledVocab.draw(torch.tensor([1]), VOCABULARY, 50, seed).ids_S for seed in (0, 0, 1)]

    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_fewer_tokens_than_asked_for_are_all_in():
    """With all tokens in it a shortlist changes nothing."""
    for always in (torch.tensor([5, 9]), torch.arange(VOCABULARY)):
        found = SampledVocab.draw(always, VOCABULARY, VOCABULARY, seed=0)

        assert torch.equal(found.ids_S, torch.arange(VOCABULARY))
        assert not found.log_weights_S.any()


def test_given_tokens_are_found_again_at_their_places():
    """A token's place is its column."""
    ids = torch.tensor([[40, 2], [499, 40]])

    found = SampledVocab.draw(ids, VOCABULARY, 20, seed=3)

    assert torch.equal(found.ids_S[found.places(ids)], ids)


@pytest.mark.parametrize("bias", [False, True])
def test_logits_are_the_heads_at_these_tokens(bias):
    """Column by column what the whole head gives."""
    head, hidden = _head(bias), _seeded(POSITIONS, HIDDEN, seed=4)
    found = SampledVocab.draw(torch.tensor([1, 2]), VOCABULARY, 30, seed=0)

    torch.testing.assert_close(OutputHead(head)(hidden, found.ids_S), head(hidden)[:, found.ids_S])


def test_the_estimated_sum_is_right_on_average():
    """Over many draws the softmax's denominator is the whole vocabulary's."""
    logits_TV = _head()(_seeded(POSITIONS, HIDDEN, seed=4)).detach()
    always = logits_TV.topk(KEPT, dim=-1).indices
    whole = logits_TV.exp().sum(-1)
    sums = []

    for seed in range(2_000):
        found = SampledVocab.draw(always, VOCABULARY, 100, seed)
        sums.append((logits_TV[:, found.ids_S] + found.log_weights_S).exp().sum(-1))

    mean, error = torch.stack(sums).mean(0), torch.stack(sums).std(0) / 2_000**0.5
    assert (error > 0).all()
    assert ((mean - whole).abs() < 4 * error).all()


def test_losses_and_gradients_are_near_the_whole_ones_on_average():
    """Divergence, cross-entropy and their gradients, the mean of many draws."""
    head, hidden = _head(), _seeded(POSITIONS, HIDDEN, seed=4)
    teacher_TV = head(hidden + 0.3 * _seeded(POSITIONS, HIDDEN, seed=5)).detach()
    ids = teacher_TV.topk(KEPT, dim=-1).indices
    log_p = kept_log_softmax(teacher_TV, ids)
    labels = ids[:, 1]

    def both(leaf, places, at):
        logits = at(leaf)
        loss = forward_kl(*events(logits, places(ids), log_p)).sum()
        return loss + cross_entropy(logits, places(labels), reduction="sum")

    def gradient(leaf, loss):
        return torch.autograd.grad(loss, leaf)[0]

    leaf = hidden.clone().requires_grad_()
    whole = both(leaf, lambda t: t, head)
    exact = gradient(leaf, whole)
    losses, gradients = [], []
    for seed in range(300):
        found = SampledVocab.draw(torch.cat([ids.flatten(), labels]), VOCABULARY, 150, seed)
        loss = both(
            leaf, found.places, lambda h, f=found: OutputHead(head)(h, f.ids_S) + f.log_weights_S
        )
        losses.append(float(loss.detach()))
        gradients.append(gradient(leaf, loss))

    assert sum(losses) / len(losses) == pytest.approx(float(whole.detach()), rel=0.02)
    gap = (torch.stack(gradients).mean(0) - exact).norm()
    assert gap < 0.1 * exact.norm()
