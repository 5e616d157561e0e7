"""Begins early what the first view waits for: imports, and the scripts of its elements.

The server imports what a page needs when the first page is opened. A browser asks for the script of
an element when the first of its kind arrives, and Plotly's, 4.7 MB, takes it longer to evaluate
than the server needs for the page. All of this can begin when the server starts and when the page's
HTML is answered.
"""

import importlib
import pkgutil
from pathlib import Path
from threading import Thread

import streamlit

PACKAGES = ("explorer.charts", "explorer.pages.shared", "explorer.pages.explore")
PAGE = "explorer.pages.explore.explore"
"""The first page itself: a script, which Streamlit runs and nobody imports."""
PLOTLY = "PlotlyChart"
ELEMENTS = (
    *(PLOTLY, "Html", "BidiComponent", "NumberInput", "Selectbox", "Slider", "ButtonGroup"),
    *("Multiselect", "Checkbox", "Button", "TextInput"),
)
"""Names of Streamlit's scripts, without the hash."""
EVALUATE = """
const open = () => document.querySelector("[data-test-connection-state=CONNECTED]");
const watcher = new MutationObserver(() => {
  if (open()) { watcher.disconnect(); import("URL"); }
});
watcher.observe(document, {attributes: true, childList: true, subtree: true});
"""


def element_scripts(base: str) -> dict[str, str]:
    """The address of the script of each kind of element that Explore's first view has.

    Args:
        base: The path under which Streamlit answers, such as `/tools`; empty for none.

    Returns:
        Only kinds of which this version of Streamlit has exactly one script.
    """
    folder = Path(streamlit.__file__).parent / "static" / "static" / "js"
    found = {kind: list(folder.glob(f"{kind}.*.js")) for kind in ELEMENTS}
    return {
        kind: f"{base}/static/js/{paths[0].name}"
        for kind, paths in found.items()
        if len(paths) == 1
    }


def preload_header(base: str) -> str:
    """The Link header that makes a browser load these scripts at once."""
    return ", ".join(f"<{url}>; rel=modulepreload" for url in element_scripts(base).values())


def evaluate_early(base: str) -> str:
    """A script that makes a browser evaluate Plotly while the server still works on the page.

    It waits until the page's websocket is open: before that, it would keep the browser from asking
    for the page. Empty if this version of Streamlit has no script of Plotly.
    """
    url = element_scripts(base).get(PLOTLY)
    return EVALUATE.replace("URL", url) if url else ""


def begin() -> None:
    """Import the first page's modules while the browser still starts.

    The store is not read: a look at it is reused for a second, and the first view should be of now.
    """
    Thread(target=_warm_up, name="first_view", daemon=True).start()


def _warm_up() -> None:
    for package in map(importlib.import_module, PACKAGES):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if module.name != PAGE:
                importlib.import_module(module.name)
