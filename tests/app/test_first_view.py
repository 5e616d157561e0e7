"""What begins before the first view asks for it."""

import json
import subprocess
import sys
from pathlib import Path

import streamlit

from explorer.pages.dashboard import first_view


def test_the_page_names_the_scripts_that_its_elements_need():
    """Those of the installed Streamlit, under the path where Streamlit answers."""
    scripts = first_view.element_scripts("/tools")

    static = Path(streamlit.__file__).parent / "static"
    assert list(scripts) == list(first_view.ELEMENTS)
    assert all((static / url.removeprefix("/tools/")).is_file() for url in scripts.values())
    assert f"<{scripts[first_view.PLOTLY]}>; rel=modulepreload" in first_view.preload_header(
        "/tools"
    )


def test_plotly_is_evaluated_as_the_page_imports_it():
    """By the same address, so that the browser evaluates it once."""
    assert f'import("{first_view.element_scripts("")["PlotlyChart"]}")' in (
        first_view.evaluate_early("")
    )


def test_another_streamlit_without_that_script_gets_none_added(monkeypatch, tmp_path):
    """The early start is left out, and nothing else changes."""
    monkeypatch.setattr(first_view.streamlit, "__file__", str(tmp_path / "__init__.py"))

    assert first_view.preload_header("") == ""
    assert first_view.evaluate_early("") == ""


def test_the_server_loads_the_first_pages_modules_and_no_model_library():
    """All that Explore imports, but not the page, which is a script."""
    code = (
        "import json, sys\nfrom explorer.pages.dashboard import first_view\n"
        "first_view._warm_up()\nprint(json.dumps(sorted(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    modules = set(json.loads(done.stdout.splitlines()[-1]))
    assert {"explorer.charts.retention_chart", "explorer.pages.explore.needs"} <= modules
    assert not modules & {"torch", "transformers", "lm_eval", "explorer.pages.explore.explore"}
