"""Freed memory kept for the next step, in place of given back and asked for anew.

A training step on a processor asks for the same hundreds of megabytes as the step before it.
glibc gives blocks this large back to the kernel as soon as they are free, and the kernel clears
every page of the next ones: 100,000 to 200,000 page faults a step, up to a fifth of its time
(docs/log.md). Memory on a GPU is torch's own affair.
"""

import ctypes
import functools
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
KEEPS = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}
GIVES_BACK = {M_MMAP_MAX: 65_536, M_MMAP_THRESHOLD: 32 * 2**20, M_TRIM_THRESHOLD: 64 * 2**20}
"""Where glibc's own thresholds end up in a process that has freed large blocks."""


@functools.cache
def _glibc() -> Any:
    """The C library, where it is the one that has these settings."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


@contextmanager
def kept() -> Iterator[None]:
    """Keep what is freed until the end, then give all of it back; does nothing without glibc."""
    libc = _glibc()
    if libc is None:
        yield
        return
    for name, value in KEEPS.items():
        libc.mallopt(name, value)
    try:
        yield
    finally:
        for name, value in GIVES_BACK.items():
            libc.mallopt(name, value)
        libc.malloc_trim(0)
