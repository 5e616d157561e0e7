"""Plotly for the browser: the script that draws the charts, in two sizes.

Streamlit's own chart element brings all of Plotly, 4.7 MB, which a browser evaluates for 1.6 s
before it can draw anything. Our charts need points, lines and bars: `plotly/plotly-basic.min.js`,
from the npm package plotly.js-basic-dist-min, has those in 1.2 MB and 0.3 s. A figure of another
type, such as a heat map, gets all of Plotly from the Python package.
"""

import functools
import gzip
import re
from pathlib import Path

import plotly
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from explorer.pages.dashboard.base_path import base_path

BASIC = Path(__file__).parent / "plotly" / "plotly-basic.min.js"
WHOLE = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
BASIC_TRACES = frozenset({"bar", "pie", "scatter"})
"""Types of trace that the small script can draw."""


def routes() -> list[Route]:
    """What `st.App` answers beside Streamlit's own addresses: both scripts."""
    return [
        Route(address(script), functools.partial(_answer, script=script))
        for script in (BASIC, WHOLE)
    ]


@functools.cache
def address(script: Path) -> str:
    """The address of one of the scripts; another version has another one, so browsers keep it."""
    return f"{base_path()}/plotly/{version(script)}/{script.name}"


def version(script: Path) -> str:
    """The version of Plotly that a script says it is."""
    with script.open(encoding="utf-8") as file:
        head = file.read(200)
    match = re.search(r"plotly\.js .*?v([\d.]+)", head)
    assert match, f"{script} does not say which Plotly it is: {head!r}"
    return match[1]


async def _answer(request: Request, *, script: Path) -> Response:
    headers = {"cache-control": "public, max-age=31536000, immutable", "vary": "accept-encoding"}
    body = script.read_bytes()
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["content-encoding"] = "gzip"
        body = _compressed(script)
    return Response(body, media_type="text/javascript", headers=headers)


@functools.cache
def _compressed(script: Path) -> bytes:
    return gzip.compress(script.read_bytes(), 6)
