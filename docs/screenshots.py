"""Pictures of the pages, taken from the running app.

    python docs/screenshots.py --store results --out docs/images

Starts the dashboard on a store, on loopback and a free port, opens each page in headless
Chromium at four widths, light and dark, and writes PAGE-WIDTH-THEME.png.
"""

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image  # Streamlit brings it
from playwright.sync_api import Page, sync_playwright

APP = Path(__file__).parent.parent / "app.py"
PAGES = {
    name: "" if name == "explore" else name
    for name in ("explore", "run", "tasks", "compare", "answers", "published", "economics")
}
WIDTHS = {1920: 1080, 1440: 1000, 1024: 900, 390: 844}
"""Width to height of the window, in pixels."""
CHROME_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
START_TIMEOUT_S = 120.0
FREQUENT_COLOURS = 128
SETTLE_MS = 1000
SETTLE_TIMEOUT_S = 240.0
"""Long, because a busy machine leaves little time to the page."""


def chrome() -> str:
    """The browser: `CHROME_PATH`, or the first Chromium or Chrome on the path."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = os.environ.get("CHROME_PATH") or next(filter(None, map(shutil.which, names)), None)
    if not path:
        raise SystemExit("No Chromium or Chrome found: install one or set CHROME_PATH.")
    return path


@contextlib.contextmanager
def app(store: Path, *, script: Path = APP, **environment: str) -> Iterator[str]:
    """Run the dashboard, or another app, on a store: yields its address and stops it afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        str(script),
        "--server.headless=true",
        f"--server.port={port}",
    ]
    process = subprocess.Popen(
        command,
        cwd=APP.parent,
        env={**os.environ, "EXPLORER_RESULTS": str(store), "EXPLORER_TOKEN": "off", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url + "/_stcore/health", process)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the address answers.

    Raises:
        RuntimeError: The process ended, or did not answer in time.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"The dashboard ended with code {process.returncode}.")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.2)
    raise RuntimeError(f"The dashboard did not answer at {url} in {START_TIMEOUT_S:.0f} s.")


IS_DRAWN = """document.querySelector('.stApp')?.dataset.testScriptState === 'notRunning'
  && !document.querySelector('[data-testid=stSkeleton]')
  && [...document.querySelectorAll('.chart')].every(chart => chart.querySelector('svg'))"""
IS_STALE = "[data-stale=true]"


def settled(page: Page) -> None:
    """Wait until the page's script has ended and everything is drawn."""
    page.locator("[data-testid=stMainBlockContainer]").wait_for()
    while True:
        page.wait_for_function(f"() => {IS_DRAWN}")
        # The page runs again where the width of its charts was guessed wrong, and fades meanwhile.
        page.wait_for_timeout(SETTLE_MS)
        if page.locator(IS_STALE).count() == 0:
            return


def take(page: Page, address: str, width: int, file: Path) -> None:
    """One picture of one page at its full height."""
    page.set_viewport_size({"width": width, "height": WIDTHS[width]})
    page.goto(address)
    settled(page)
    # Streamlit scrolls inside the window, so make the window as high as the page.
    height = page.evaluate(
        "() => Math.max(...[...document.querySelectorAll('.stMain, .stMainBlockContainer')]"
        ".map(e => e.scrollHeight))"
    )
    page.set_viewport_size({"width": width, "height": max(height + 8, WIDTHS[width])})
    settled(page)
    page.screenshot(path=str(file))
    with Image.open(file) as picture:
        with_palette(picture.convert("RGB")).save(file, optimize=True)


def with_palette(picture: Image.Image) -> Image.Image:
    """The picture in 256 colours, a third as large: its most frequent ones exactly, and rare ones.

    The frequent ones keep backgrounds as they are, the rare ones keep thin lines in colour.
    """
    num_rare = 256 - FREQUENT_COLOURS
    rare = picture.quantize(num_rare, method=Image.Quantize.MAXCOVERAGE).getpalette()
    pixels = np.asarray(picture, dtype=np.int64)
    codes = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    colours, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
    rgb = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1)
    frequent = rgb[np.argsort(counts)[::-1][:FREQUENT_COLOURS]]
    palette = np.concatenate([frequent, np.reshape(rare[: 3 * num_rare], (-1, 3))])
    # By hand: Pillow compares colours only roughly, and white would become nearly white.
    nearest = np.abs(rgb[:, None] - palette[None]).sum(axis=-1).argmin(axis=-1)
    image = Image.fromarray(nearest[places].reshape(codes.shape).astype(np.uint8), mode="P")
    image.putpalette(palette.astype(np.uint8).tobytes())
    return image


def main() -> None:
    """Take all pictures, or those of some pages, widths and themes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--pages", nargs="*", choices=PAGES, default=list(PAGES))
    parser.add_argument("--widths", nargs="*", type=int, choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--themes", nargs="*", choices=["light", "dark"], default=["light", "dark"])
    parser.add_argument("--query", default="", help="of the address, as in x=ttft_ms&run=ID")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    query = f"?{arguments.query}" if arguments.query else ""
    with app(arguments.store.resolve()) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chrome(), args=CHROME_FLAGS)
        for theme in arguments.themes:
            # One context per theme, so that later pages find their files in the browser's cache.
            page = browser.new_context(color_scheme=theme).new_page()
            page.set_default_timeout(1e3 * SETTLE_TIMEOUT_S)
            for name in arguments.pages:
                for width in arguments.widths:
                    file = arguments.out / f"{name}-{width}-{theme}.png"
                    take(page, f"{url}/{PAGES[name]}{query}", width, file)
                    print(file, flush=True)
        browser.close()


if __name__ == "__main__":
    main()
