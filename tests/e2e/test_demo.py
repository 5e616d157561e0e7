"""`explorer demo` as the README tells it, on the real starter teacher."""

import os
import re
import subprocess
import sys

import pytest

from explorer.store import disk

pytestmark = [pytest.mark.e2e, pytest.mark.long]


@pytest.mark.timeout(1200)
def test_the_demo_ends_with_a_table_of_teacher_and_two_students(tmp_path):
    """Retention with interval, TPOT, TTFT, parameters and cost, and where the results are."""
    environment = {**os.environ, "EXPLORER_RESULTS": str(tmp_path / "demo")}

    done = subprocess.run(
        [sys.executable, "-m", "explorer", "demo"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1100,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    found, problems = disk.load_records(tmp_path / "demo")
    assert problems == []
    assert sorted(r.model.num_layers for r in found) == [10, 20, 30]
    for column in ("Retention", "TPOT", "TTFT", "Parameters", "$/1M"):
        assert column in done.stdout
    assert re.search(r"\d+(\.\d+)? % \[-?\d", done.stdout), "no retention with an interval"
    assert str(tmp_path / "demo") in done.stdout.replace("\n", "")
    for record in found:
        if record.distillation:
            assert record.distillation.kl_after < record.distillation.kl_before
