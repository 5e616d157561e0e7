"""The product on a device that is not the CPU: `checks.py`, in a process that has such a device."""

import ast
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests import pretend_device
from tests.conftest import ROOT

pytestmark = [pytest.mark.long, pytest.mark.timeout(1000)]

CHECKS = Path(__file__).with_name("checks.py")
NAMES = [
    node.name
    for node in ast.parse(CHECKS.read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What became of each check: its problem, or nothing; and what the process printed."""
    folder = tmp_path_factory.mktemp("pretend")
    pretend_device.install(folder)
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-m", "", str(CHECKS), f"--junitxml={report}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    found = {name: [] for name in NAMES}
    if report.exists():
        for case in ElementTree.parse(report).iter("testcase"):
            problem = next(
                (case.find(kind) for kind in ("failure", "error") if case.find(kind) is not None),
                None,
            )
            name = case.get("name", "").partition("[")[0]
            found.setdefault(name, []).append(None if problem is None else problem.text)
    return found, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.mark.parametrize("name", NAMES)
def test_on_a_device_that_is_not_the_cpu(outcomes, name):
    """Each check ran there and passed."""
    found, printed = outcomes
    assert found[name], f"The check did not run:\n{printed}"
    problems = [problem for problem in found[name] if problem]
    assert not problems, "\n".join(problems)
