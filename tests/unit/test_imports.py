"""What the processes of the dashboard and of the command line load."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import records

ROOT = Path(__file__).parents[2]
MODEL_LIBRARIES = {"torch", "transformers", "lm_eval", "accelerate", "datasets"}
DASHBOARD = """
import importlib, os, pkgutil, sys
import explorer.analysis, explorer.catalogue, explorer.charts
from streamlit.testing.v1 import AppTest
from explorer.pages.dashboard import navigation, web_guard

for package in (explorer.analysis, explorer.catalogue, explorer.charts):
    modules = [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
    assert modules, f"{package.__name__} holds no module"
    for module in modules:
        importlib.import_module(module)
for store in sys.argv[1:]:
    os.environ["EXPLORER_RESULTS"] = store
    page = AppTest.from_file(str(web_guard.SCRIPT), default_timeout=120).run()
    for name in navigation.PAGES:
        page.switch_page(f"../{name}/{name}.py").run()
        assert not page.exception, (name, store, page.exception)
"""
HELP = """
import sys
from explorer.__main__ import main
sys.argv = ["explorer", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


def loaded_after(code: str, *arguments: str) -> set[str]:
    """The top names of all modules that a new process holds after it ran the code."""
    tail = "\nimport sys\nprint(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code + tail, *arguments],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.usefixtures("known_tasks")
def test_the_dashboard_never_loads_a_model_library(store_root, tmp_path):
    """Every page on an empty and on a filled store loads no model library and no Ray.

    So the dashboard opens in a moment, and a crash of a run cannot take it down.
    """
    records.write_study(store_root)

    loaded = loaded_after(DASHBOARD, str(tmp_path / "empty"), str(store_root))

    assert {"streamlit", "plotly", "explorer"} <= loaded
    assert loaded.isdisjoint(MODEL_LIBRARIES | {"ray"})


def test_the_command_line_answers_help_without_a_model_library():
    """`explorer --help` comes at once: commands load torch only when they need it."""
    loaded = loaded_after(HELP)

    assert "explorer" in loaded
    assert loaded.isdisjoint(MODEL_LIBRARIES | {"ray", "streamlit"})
