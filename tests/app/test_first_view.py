"""What begins before the first view asks for it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import streamlit
from starlette.applications import Starlette
from starlette.testclient import TestClient

from explorer.pages.dashboard import first_view, plotly_scripts


def test_the_page_names_the_scripts_that_its_elements_need():
    """Of every element, with all that it imports; none that Streamlit's own page names."""
    static = Path(streamlit.__file__).parent / "static"
    own = (static / "index.html").read_text()

    scripts = first_view.element_scripts()

    kinds = [script.name.split(".")[0] for script in scripts]
    assert set(first_view.ELEMENTS) <= set(kinds)
    named = {script.name for script in scripts}
    assert len(scripts) > len(first_view.ELEMENTS)
    for script in scripts:
        imported = first_view.IMPORT.findall(script.read_text(encoding="utf-8"))
        assert all(name in named or name in own for name in imported), script
    assert not [name for name in named if name in own]
    links = re.findall(r'href="(.*?)"', first_view.preload_links("/tools"))
    assert all((static / url.removeprefix("/tools/")).is_file() for url in links[1:])
    assert len(links) == len(scripts) + 1


def test_plotly_is_warmed_up_by_the_address_that_charts_use():
    """So that the browser evaluates it once."""
    url = plotly_scripts.address(plotly_scripts.BASIC)
    assert f'import("{url}")' in first_view.warm_up_script()
    assert f'href="{url}"' in first_view.preload_links("")


def test_another_streamlit_without_those_scripts_gets_none_named(monkeypatch, tmp_path):
    """They are left out, and nothing else changes."""
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "index.html").write_text("<head></head>")
    monkeypatch.setattr(first_view.streamlit, "__file__", str(tmp_path / "__init__.py"))

    assert first_view.element_scripts() == []
    assert first_view.preload_links("").count("<link") == 1, "Plotly's"


def test_both_scripts_of_plotly_are_of_one_version():
    """The small one is kept here, the whole one comes with the Python package.

    After an update of plotly take the small one from the npm package plotly.js-basic-dist-min.
    """
    assert plotly_scripts.version(plotly_scripts.BASIC) == plotly_scripts.version(
        plotly_scripts.WHOLE
    )


def test_the_scripts_are_answered_whole_and_kept_by_the_browser():
    """With gzip where the browser takes it; another version has another address."""
    client = TestClient(Starlette(routes=plotly_scripts.routes()))
    for script in (plotly_scripts.BASIC, plotly_scripts.WHOLE):
        url = plotly_scripts.address(script)
        assert plotly_scripts.version(script) in url

        plain = client.get(url, headers={"accept-encoding": "identity"})
        packed = client.get(url, headers={"accept-encoding": "gzip"})

        assert plain.content == packed.content == script.read_bytes()
        assert packed.headers["content-encoding"] == "gzip"
        assert "immutable" in plain.headers["cache-control"]
        assert plain.headers["content-type"].startswith("text/javascript")


def test_the_server_loads_the_first_pages_modules_and_no_model_library():
    """All that Explore imports, but not the page, which is a script; nothing in it is garbage."""
    code = (
        "import gc, json, sys\nfrom explorer.pages.dashboard import first_view\n"
        "first_view._warm_up()\nassert gc.isenabled() and gc.get_freeze_count() > 100_000\n"
        "print(json.dumps(sorted(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    modules = set(json.loads(done.stdout.splitlines()[-1]))
    assert {"explorer.charts.retention_chart", "explorer.pages.explore.needs"} <= modules
    assert not modules & {"torch", "transformers", "lm_eval", "explorer.pages.explore.explore"}
