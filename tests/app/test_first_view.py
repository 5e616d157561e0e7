"""What begins before the first view asks for it."""

import json
import subprocess
import sys
from pathlib import Path

import streamlit

from explorer.pages.dashboard import first_view


def test_the_page_names_the_script_that_its_chart_needs():
    """The one of the installed Streamlit, under the path where Streamlit answers."""
    header = first_view.preload_header("/tools")

    path = header.removeprefix("</tools/").removesuffix(">; rel=modulepreload")
    script = Path(streamlit.__file__).parent / "static" / path
    assert script.name.startswith("PlotlyChart.")
    assert script.is_file()


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
