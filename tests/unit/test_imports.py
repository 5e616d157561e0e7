"""The dashboard's process stays light: no model library, and no queue until it is needed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from explorer.pages.dashboard import navigation

ROOT = Path(__file__).parents[2]
HEAVY = ["torch", "transformers", "lm_eval", "accelerate", "datasets"]
DASHBOARD_MODULES = """
import importlib, pkgutil
import explorer.jobs, explorer.store.disk, explorer.store.progress, explorer.specs
import explorer.analysis, explorer.catalogue, explorer.charts

for room in (explorer.analysis, explorer.catalogue, explorer.charts):
    found = [module.name for module in pkgutil.walk_packages(room.__path__, room.__name__ + ".")]
    assert found, f"{room.__name__} holds no module"
    for name in found:
        importlib.import_module(name)
"""
PAGE = """
from streamlit.testing.v1 import AppTest

page = AppTest.from_file({path!r}).run(timeout=60)
assert not page.exception, page.exception
"""


def pages() -> list[str]:
    """Scripts that the dashboard shows as pages."""
    return [str(navigation.script(name)) for name in navigation.PAGES]


def loaded_after(code: str, names: list[str]) -> list[str]:
    """Which of these modules a new process holds after it ran the code."""
    tail = f"\nimport json, sys\nprint(json.dumps([n for n in {names!r} if n in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code + tail],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_the_check_sees_a_heavy_library():
    """The checks below can fail: a process that does import such a library is caught."""
    assert loaded_after("import json", ["json", "torch"]) == ["json"]


def test_dashboard_modules_load_no_model_library():
    """What the pages are made of opens in a moment and holds no model: no torch, no Ray yet."""
    assert loaded_after(DASHBOARD_MODULES, [*HEAVY, "ray", "streamlit"]) == []


@pytest.mark.usefixtures("known_tasks")
@pytest.mark.parametrize("path", pages())
def test_no_page_loads_a_model_library(path):
    """A page shown on an empty store never loads torch, so a crash in a job leaves it standing."""
    assert loaded_after(PAGE.format(path=path), HEAVY) == []


def test_the_command_line_answers_help_without_a_model_library():
    """`explorer --help` comes at once: commands load torch only when they need it."""
    code = (
        "import sys\nfrom explorer.cli import main\nsys.argv = ['explorer', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )
    assert loaded_after(code, [*HEAVY, "ray", "streamlit"]) == []
