"""Readers of outside data use a file rightly or refuse it; `make fuzz` feeds them 100,000."""

import json
import sys

import pytest

from tests.fuzz import harness
from tests.fuzz.harness import Reader
from tests.fuzz.readers import READERS

PLANTED = {
    "spec": "explorer.specs.sweeps._largest_first",
    "corpus": "explorer.files.text_files.has_half_character",
    "question file": "explorer.tasks.custom._whole",
    "results zip": "explorer.lm_eval_io.results._number",
    "record": "explorer.records.migrations._part",
    "status": "explorer.index.run_states._number",
    "stream events": "explorer.latency.runtimes.endpoint_stream._has_text",
    "GGUF header": "explorer.models.gguf.header._value",
    "price file": "explorer.catalogue.prices.dollars",
    "query parameters": "explorer.pages.shared.widgets._expanded",
}
"""A function of each reader in which a fault is planted."""


@pytest.mark.parametrize("name", READERS)
def test_a_reader_withstands_damaged_files(name):
    """Fifty of them: no crash, no hang, nothing written elsewhere; some are still accepted."""
    outcome = harness.fuzz(READERS[name], 50 + len(READERS[name].seeds()), seed=1)

    assert not outcome.causes
    assert outcome.accepted > 5
    assert outcome.refused > 0


@pytest.mark.parametrize("name", READERS)
def test_a_fault_planted_in_a_reader_is_found(name, monkeypatch):
    """So that a run without crashes means something."""
    module, _, function = PLANTED[name].rpartition(".")

    def fail(*arguments, **options):
        raise IndexError("planted")

    monkeypatch.setattr(sys.modules[module], function, fail)
    outcome = harness.fuzz(READERS[name], 50, seed=2)

    assert any("planted" in cause for cause in outcome.causes)


def _reader(read):
    return Reader("planted", lambda: [("a.txt", b"a" * 20)], read, (ValueError,), (_reader,))


@pytest.mark.parametrize(
    ("read", "cause"),
    [
        (lambda name, content, folder: json.loads("[" * 100_000), "RecursionError"),
        (
            lambda name, content, folder: (folder.parent / "x").mkdir(exist_ok=True),
            "wrote os.mkdir",
        ),
        (lambda name, content, folder: bytearray(500_000_000), "memory above"),
        (lambda name, content, folder: (_ for _ in ()).throw(ValueError()), "without a word"),
    ],
    ids=["crash", "outside", "memory", "silence"],
)
def test_each_kind_of_fault_is_found(read, cause, monkeypatch):
    """Crashes, files elsewhere, memory, refusals that say nothing."""
    monkeypatch.setattr(harness, "MEMORY_BYTES", 100_000_000)
    outcome = harness.fuzz(_reader(read), 2)

    assert any(cause in found for found in outcome.causes)


def test_a_hang_is_found(monkeypatch):
    """Whatever the reader catches."""
    monkeypatch.setattr(harness, "HANG_S", 0.05)

    def wait(name, content, folder):
        while True:
            try:
                while True:
                    pass
            except Exception:
                continue

    outcome = harness.fuzz(_reader(wait), 1)

    assert any("hang" in cause for cause in outcome.causes)
