"""Products by oneDNN: those of `linear` and its gradients, and only where they are meant."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

from explorer.distill import products


@pytest.fixture(autouse=True)
def as_on_amd(monkeypatch):
    """The processor of the tests may be another's."""
    monkeypatch.setattr(products, "_worth_it", lambda: True)


WORTH_IT = products._worth_it.__wrapped__


def matrices(*shapes):
    torch.manual_seed(0)
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def is_ours(out):
    return type(out.grad_fn).__name__ == "_LinearBackward"


@pytest.mark.parametrize("positions", [(5,), (2, 7), (2, 3, 4), (1, 1)])
@pytest.mark.parametrize("biased", [True, False])
def test_a_product_and_its_gradients_are_those_of_torch(positions, biased):
    given = matrices((*positions, 24), (9, 24), *([(9,)] if biased else []))
    expected = linear(*given)
    cotangent = torch.randn(expected.shape)
    expected_gradients = torch.autograd.grad(expected, given, cotangent)

    with products.by_onednn():
        out = linear(*given)
    gradients = torch.autograd.grad(out, given, cotangent)

    assert is_ours(out)
    torch.testing.assert_close(out, expected)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_frozen_weight_gets_no_gradient():
    into, weight = matrices((6, 24), (9, 24))
    with products.by_onednn():
        linear(into, weight.detach()).sum().backward()

    torch.testing.assert_close(into.grad, weight.detach().sum(0).expand(6, 24))
    assert weight.grad is None


def test_gradients_of_sliced_and_turned_matrices():
    """What is contiguous in neither direction, as the rows of one of several heads."""
    into, weight = matrices((24, 8), (24, 40))
    with products.by_onednn():
        out = linear(into.t()[:, ::2], weight.t()[::3, ::2])

    expected = into.t()[:, ::2] @ weight.t()[::3, ::2].t()
    torch.testing.assert_close(out, expected)
    cotangent = torch.randn(expected.shape)
    for ours, theirs in zip(
        torch.autograd.grad(out, (into, weight), cotangent),
        torch.autograd.grad(expected, (into, weight), cotangent),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "given",
    [
        lambda: (torch.randn(3, 8).double(), torch.randn(4, 8).double()),
        lambda: (torch.randn(3, 8).bfloat16(), torch.randn(4, 8).bfloat16()),
        lambda: (torch.randn(8), torch.randn(4, 8)),
        lambda: (torch.randn(0, 8), torch.randn(4, 8)),
    ],
    ids=["float64", "bfloat16", "one vector", "no position"],
)
def test_all_else_stays_with_torch(given):
    into, weight = given()
    into.requires_grad_()
    with products.by_onednn():
        out = linear(into, weight)

    assert not is_ours(out)
    assert torch.equal(out, linear(into, weight))


def test_bfloat16_by_autocast_stays_with_torch():
    layer = nn.Linear(8, 4)
    with products.by_onednn(), torch.autocast("cpu", torch.bfloat16):
        out = layer(torch.randn(3, 8))

    assert out.dtype is torch.bfloat16


def test_it_ends_with_its_block_and_never_begins_on_another_makers_processor(monkeypatch):
    layer, into = nn.Linear(8, 4), torch.randn(3, 8)
    with products.by_onednn():
        assert is_ours(layer(into))
    assert not is_ours(layer(into))

    monkeypatch.setattr(products, "_worth_it", lambda: False)
    with products.by_onednn():
        assert not is_ours(layer(into))


def test_beside_an_accelerator_no_call_is_looked_at(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert not WORTH_IT()


@pytest.mark.parametrize(("maker", "expected"), [("AuthenticAMD", True), ("GenuineIntel", False)])
def test_the_maker_decides(maker, expected, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr(Path, "read_text", lambda path, **how: f"vendor_id\t: {maker}\n")
    assert WORTH_IT() is expected
