"""Begins early what the first view waits for: imports and Plotly's script.

The server imports what a page needs when the first page is opened, and a browser asks for Plotly's
script, 4.7 MB, only when a chart's data arrive. Both can begin when the server starts and when the
page's HTML is answered.
"""

import importlib
import pkgutil
from pathlib import Path
from threading import Thread

import streamlit

PACKAGES = ("explorer.charts", "explorer.pages.shared", "explorer.pages.explore")
PAGE = "explorer.pages.explore.explore"
"""The first page itself: a script, which Streamlit runs and nobody imports."""


def preload_header(base: str) -> str | None:
    """The Link header that makes a browser load Plotly's script at once.

    Args:
        base: The path under which Streamlit answers, such as `/tools`; empty for none.

    Returns:
        None if this version of Streamlit has no such script, or several.
    """
    folder = Path(streamlit.__file__).parent / "static" / "static" / "js"
    scripts = list(folder.glob("PlotlyChart.*.js"))
    if len(scripts) != 1:
        return None
    return f"<{base}/static/js/{scripts[0].name}>; rel=modulepreload"


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
