"""Begins early what the first view waits for: imports, and the scripts of its elements.

The server imports what a page needs when the first page is opened. A browser asks for the script of
an element when the first of its kind arrives, and Plotly's takes it as long to evaluate as the
server needs for the page. All of this can begin when the server starts and when the page's HTML is
answered.
"""

import gc
import importlib
import pkgutil
import re
from pathlib import Path
from threading import Thread

import streamlit

from explorer.pages.dashboard import plotly_scripts

PACKAGES = ("explorer.pages.explore", "explorer.charts", "explorer.pages.shared")
PAGE = "explorer.pages.explore.explore"
"""The first page itself: a script, which Streamlit runs and nobody imports."""
ELEMENTS = (
    *("Html", "BidiComponent", "NumberInput", "Selectbox", "Slider", "ButtonGroup"),
    *("Multiselect", "Checkbox", "Button", "TextInput", "PageLink"),
)
"""Names of Streamlit's scripts, without the hash."""
WARM_UP = """
import("URL").then(() => {
  const chart = document.createElement("div"), x = [1, 2], y = [1, 2], text = ["a", "b"];
  chart.style.cssText = "position: absolute; visibility: hidden";
  document.body.append(chart);
  const points = { x, y, text, mode: "markers+text", name: "a", error_y: { array: y } };
  const line = { x, y, mode: "lines", line: { shape: "hv" } };
  const layout = { width: 400, height: 300, xaxis: { type: "log", title: { text: "x" } },
    annotations: [{ x: 1, y: 1, text: "a" }], shapes: [{ x0: 0, x1: 1, y0: 1, y1: 1 }] };
  Plotly.newPlot(chart, [points, line], layout).then(() => {
    Plotly.purge(chart);
    chart.remove();
  });
});
"""
IMPORT = re.compile(r'(?:from|import)"\./([\w.-]+\.js)"')
"""What a script of Streamlit imports before it runs."""


def preload_links(base: str) -> str:
    """Links for the page's head, by which a browser loads at once what Explore's first view needs.

    Without them it would ask for the scripts of the elements when the first of them arrive, and
    then for what those import.

    Args:
        base: The path under which Streamlit answers, such as `/tools`; empty for none.
    """
    urls = [plotly_scripts.address(plotly_scripts.BASIC)]
    urls += [f"{base}/static/js/{path.name}" for path in element_scripts()]
    return "".join(f'<link rel="modulepreload" href="{url}">' for url in urls)


def element_scripts() -> list[Path]:
    """Streamlit's scripts of Explore's elements and of all that they import.

    Those that Streamlit's own page loads are left out, and kinds of element of which this version
    of Streamlit has no script, or several.
    """
    static = Path(streamlit.__file__).parent / "static"
    folder = static / "static" / "js"
    found = [list(folder.glob(f"{kind}.*.js")) for kind in ELEMENTS]
    waiting = [paths[0] for paths in found if len(paths) == 1]
    page = static / "index.html"
    seen = set(re.findall(r"[\w.-]+\.js", page.read_text(encoding="utf-8")))
    scripts = []
    while waiting:
        script = waiting.pop(0)
        if script.name not in seen and script.is_file():
            seen.add(script.name)
            scripts.append(script)
            imported = IMPORT.findall(script.read_text(encoding="utf-8"))
            waiting += [folder / name for name in imported]
    return scripts


def warm_up_script() -> str:
    """A script by which a browser evaluates Plotly and draws a first small chart, out of sight.

    It does so while it waits for Streamlit's scripts and for the server. A first chart takes four
    times as long as a second one, because functions are compiled at their first call.
    """
    return WARM_UP.replace("URL", plotly_scripts.address(plotly_scripts.BASIC))


def begin() -> None:
    """Import the first page's modules while the browser still starts.

    The store is not read: a look at it is reused for a second, and the first view should be of now.
    """
    Thread(target=_warm_up, name="first_view", daemon=True).start()


def _warm_up() -> None:
    # What modules create stays. Looking for garbage in it takes a sixth of the imports' time, and
    # half of a page's afterwards, as Streamlit looks through everything whenever a page was drawn.
    gc.disable()
    try:
        for package in map(importlib.import_module, PACKAGES):
            for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
                if module.name != PAGE:
                    importlib.import_module(module.name)
    finally:
        gc.freeze()
        gc.enable()
