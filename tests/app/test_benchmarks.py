"""The benchmarks of the pages find what they press: nothing else runs them until somebody does."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from explorer.store import disk

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    """Loads a script of benchmarks/ as a module."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


def test_store_scale_generates_runs_and_uses_the_page(root, benchmark, capsys):
    """Its runs are whole, and the page has the widgets that it sets."""
    scale = benchmark("store_scale")

    scale.generate(root, 101)  # the last is of another device
    scale.use_page()

    assert len(disk.load_records(root)[0]) == 101
    steps = json.loads(capsys.readouterr().out.splitlines()[-1])["actions"]
    assert set(steps) == {"open", "rerun", "filter", "no filter", "axis"}


def test_store_scale_opens_sessions_on_a_dashboard(study, root, benchmark, monkeypatch):
    """Also on a machine with other users, where a dashboard asks for its token."""
    scale = benchmark("store_scale")
    monkeypatch.delenv("EXPLORER_TOKEN")

    facts = scale.measure_sessions(root.parent, 2)

    assert facts["sessions"] == 2
    assert facts["mb_with_all"] > 100


def test_page_speed_presses_choices_that_the_page_has(study, benchmark, open_page):
    """Its names of axes are among the page's own."""
    speed = benchmark("page_speed")

    assert set(speed.AXES) <= set(open_page("explore").selectbox(key="x").options)
