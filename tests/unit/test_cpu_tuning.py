"""CPU tuning: freed memory is kept, and float32 products run in oneDNN, only where meant."""

import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

from explorer.distill import cpu_tuning

needs_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc has these settings"
)
LARGE = 12_000_000  # numbers of 4 bytes, above what glibc ever keeps of itself
HUGE_PAGE = 2 * 2**20
ROOT = Path(__file__).parents[2]


def faults_of_ten_blocks() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(LARGE)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def faults_without_and_with() -> tuple[int, int]:
    without = faults_of_ten_blocks()
    with cpu_tuning.kept_memory():
        for _ in range(4):
            # At first the freed blocks lie where none fits: their ends serve other, smaller ones.
            faults = faults_of_ten_blocks()
    return without, faults


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def resident_before_within_and_after() -> tuple[int, int, int]:
    before = resident_bytes()
    with cpu_tuning.kept_memory():
        torch.ones(LARGE)
        held = resident_bytes()
    return before, held, resident_bytes()


def in_a_fresh_process(function: str) -> list[int]:
    """The numbers that a function of this file returns where no other test has freed memory."""
    code = f"from tests.unit import test_cpu_tuning as t; print(*t.{function}())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [int(number) for number in done.stdout.split()]


@needs_glibc
def test_freed_memory_serves_again():
    without, faults = in_a_fresh_process("faults_without_and_with")

    assert faults < without / 10
    # glibc may keep some of them by itself, and Linux may hand out pages of 2 MB.
    assert without > 10 * 4 * LARGE / HUGE_PAGE * 0.3


@needs_glibc
def test_all_is_given_back_at_the_end():
    before, held, after = in_a_fresh_process("resident_before_within_and_after")

    assert held - before > 0.9 * 4 * LARGE
    assert after - before < 0.1 * 4 * LARGE


@pytest.fixture(autouse=True)
def as_on_amd(monkeypatch):
    """The processor of the tests may be another's."""
    monkeypatch.setattr(cpu_tuning, "_prefers_onednn", lambda: True)


WORTH_IT = cpu_tuning._prefers_onednn.__wrapped__


def matrices(*shapes):
    torch.manual_seed(0)
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def is_ours(out):
    return type(out.grad_fn).__name__ == "_OneDnnLinearBackward"


@pytest.mark.parametrize("positions", [(5,), (2, 7), (2, 3, 4), (1, 1)])
@pytest.mark.parametrize("biased", [True, False])
def test_a_product_and_its_gradients_are_those_of_torch(positions, biased):
    given = matrices((*positions, 24), (9, 24), *([(9,)] if biased else []))
    expected = linear(*given)
    cotangent = torch.randn(expected.shape)
    expected_gradients = torch.autograd.grad(expected, given, cotangent)

    with cpu_tuning.onednn_matmul():
        out = linear(*given)
    gradients = torch.autograd.grad(out, given, cotangent)

    assert is_ours(out)
    torch.testing.assert_close(out, expected)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_frozen_weight_gets_no_gradient():
    into, weight = matrices((6, 24), (9, 24))
    with cpu_tuning.onednn_matmul():
        linear(into, weight.detach()).sum().backward()

    torch.testing.assert_close(into.grad, weight.detach().sum(0).expand(6, 24))
    assert weight.grad is None


def test_gradients_of_sliced_and_turned_matrices():
    """What is contiguous in neither direction, as the rows of one of several heads."""
    into, weight = matrices((24, 8), (24, 40))
    with cpu_tuning.onednn_matmul():
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
    with cpu_tuning.onednn_matmul():
        out = linear(into, weight)

    assert not is_ours(out)
    assert torch.equal(out, linear(into, weight))


def test_bfloat16_by_autocast_stays_with_torch():
    layer = nn.Linear(8, 4)
    with cpu_tuning.onednn_matmul(), torch.autocast("cpu", torch.bfloat16):
        out = layer(torch.randn(3, 8))

    assert out.dtype is torch.bfloat16


def test_it_ends_with_its_block_and_never_begins_on_another_makers_processor(monkeypatch):
    layer, into = nn.Linear(8, 4), torch.randn(3, 8)
    with cpu_tuning.onednn_matmul():
        assert is_ours(layer(into))
    assert not is_ours(layer(into))

    monkeypatch.setattr(cpu_tuning, "_prefers_onednn", lambda: False)
    with cpu_tuning.onednn_matmul():
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
