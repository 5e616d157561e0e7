"""Draws a figure with Chromium in a process of its own, which can be ended with all its children.

A browser may start and never answer; then nothing inside one process gets rid of it.

    echo '{"figure": {}, "options": {"format": "svg"}, "timeout_s": 60}' \
        | python -m explorer.charts.draw_image > figure.svg
"""

import asyncio
import json
import sys
import threading
from typing import Any

from explorer.processes import child_process

NO_BROWSER = 3
"""Exit status when the browser is missing, does not start or does not answer."""


async def draw(figure: dict[str, Any], options: dict[str, Any]) -> bytes:
    """The figure as the bytes of a file.

    Args:
        figure: Plotly's JSON.
        options: Kaleido's: format, width, height, scale.
    """
    import kaleido  # takes half a second, and only the process that draws needs it

    # Plotly's own export would fetch MathJax from the internet.
    async with kaleido.Kaleido(n=1, mathjax=False) as browser:
        return bytes(await browser.calc_fig(figure, opts=options))


def main() -> None:
    """Read a request from standard input and write the image to standard output."""
    import kaleido.errors

    child_process.end_with_parent()
    request = json.load(sys.stdin)
    deadline = threading.Timer(request["timeout_s"], child_process.end_now, [NO_BROWSER])
    deadline.daemon = True
    deadline.start()
    try:
        image = asyncio.run(draw(request["figure"], request["options"]))
    except (kaleido.errors.ChromeNotFoundError, kaleido.errors.BrowserFailedError):
        child_process.end_now(NO_BROWSER)
    sys.stdout.buffer.write(image)
    sys.stdout.buffer.flush()
    child_process.end_now(0)


if __name__ == "__main__":
    main()
