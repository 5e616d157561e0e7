"""The benchmarks of the pages find what they press: nothing else runs them until somebody does."""

import json
from pathlib import Path

from explorer.store import disk
from tests import scripts

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_store_scale_generates_runs_and_uses_the_page(root, capsys):
    """Its runs are whole, and the page has the widgets that it sets."""
    scale = scripts.load(BENCHMARKS / "store_scale.py")

    scale.generate(root, 101)  # the last is of another device
    scale.use_page()

    assert len(disk.load_records(root)[0]) == 101
    steps = json.loads(capsys.readouterr().out.splitlines()[-1])["actions"]
    assert set(steps) == {"open", "rerun", "filter", "no filter", "axis"}


def test_store_scale_opens_sessions_on_a_dashboard(study, root, monkeypatch):
    """Also on a machine with other users, where a dashboard asks for its token."""
    scale = scripts.load(BENCHMARKS / "store_scale.py")
    monkeypatch.delenv("EXPLORER_TOKEN")

    facts = scale.measure_sessions(root.parent, 2)

    assert facts["sessions"] == 2
    assert facts["mb_with_all"] > 100


def test_page_speed_presses_choices_that_the_page_has(study, open_page):
    """Its names of axes are among the page's own."""
    speed = scripts.load(BENCHMARKS / "page_speed.py")

    assert set(speed.AXES) <= set(open_page("explore").selectbox(key="x").options)
