"""Freed memory that is kept: fewer pages to clear, and all of it given back at the end."""

import platform
import resource

import pytest
import torch

from explorer.distill import heap

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc has these settings"
)
LARGE = 12_000_000  # numbers of 4 bytes, above what glibc ever keeps of itself


def faults_of_ten_blocks() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(LARGE)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_freed_memory_serves_again():
    every = faults_of_ten_blocks()
    with heap.kept():
        for _ in range(4):
            # At first the freed blocks lie where none fits: their ends serve other, smaller ones.
            kept = faults_of_ten_blocks()

    assert kept < every / 10
    assert every > 10 * 4 * LARGE / resource.getpagesize() * 0.9


def test_all_is_given_back_at_the_end():
    before = resident_bytes()
    with heap.kept():
        torch.ones(LARGE)
        held = resident_bytes()

    assert held - before > 0.9 * 4 * LARGE
    assert resident_bytes() - before < 0.1 * 4 * LARGE
