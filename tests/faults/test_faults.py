"""One fault of a few kinds; `make faults` tries all of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.faults.faults import Bad, Fault, summary, table, try_all


def test_a_few_faults_lose_nothing():
    """A kill, a full disk, a damaged and a foreign file: nothing is lost, stuck, down or untrue."""
    command = [sys.executable, "-m", "tests.faults.harness", "--short"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["tried"] == 4
    assert not any(last[name] for name in ("lost", "stuck", "pages_down", "untrue"))


def _raises(error: BaseException):
    def happen(folder: Path) -> None:
        raise error

    return happen


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Bad("lost", "a record"), "lost"),
        (Bad("untrue", "a number"), "untrue"),
        (ValueError("a bug"), "stuck"),
        (SystemExit(3), "stuck"),
    ],
)
def test_what_goes_wrong_is_counted(error, outcome):
    """A fault that does harm, or whose check breaks, never counts as survived."""
    faults = [Fault("a kind", "bad", _raises(error)), Fault("a kind", "good", lambda folder: None)]

    results = sorted(try_all(faults, processes=1), key=lambda result: result.name)

    assert [result.outcome for result in results] == [outcome, "survived"]
    assert summary(results) == {
        "tried": 2,
        "survived": 1,
        "lost": 0,
        "stuck": 0,
        "pages_down": 0,
        "untrue": 0,
        outcome: 1,
    }
    assert "a kind" in table(results)
