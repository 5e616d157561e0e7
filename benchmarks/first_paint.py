"""How soon does the first page show something, beside an empty Streamlit page?

    python benchmarks/first_paint.py --turns 5

The peer is a Streamlit app of one line, on the same version: what is left over is ours.
Both are started anew for each turn, since the first visit after a start also pays for
the imports; then each is visited a second time. Every visit is a new browser context,
with an empty cache. First contentful paint is the browser's own measure; the sentence's
time is when the finding came into the page, seen from inside.
"""

import argparse
import importlib.util
import statistics
import tempfile
from importlib.metadata import version
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[1]
EMPTY = 'import streamlit as st\n\nst.html("<p class=finding>Nothing here.</p>")\n'
WATCH = """new MutationObserver(() => {
  if (!window.sentenceMs && document.querySelector('.finding'))
    window.sentenceMs = performance.now();
}).observe(document, {childList: true, subtree: true})"""
PAINT_MS = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
SENTENCE_MS = "() => window.sentenceMs"
PATIENCE_MS = 60_000


def screenshots():
    """docs/screenshots.py, which knows how to start an app and the browser."""
    spec = importlib.util.spec_from_file_location("screenshots", ROOT / "docs" / "screenshots.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def visit(browser: Browser, url: str) -> tuple[float, float]:
    """First contentful paint and the first sentence, in ms after the navigation began."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    page = context.new_page()
    page.add_init_script(WATCH)
    page.goto(url, wait_until="commit")
    sentence_ms, paint_ms = (
        page.wait_for_function(asked, timeout=PATIENCE_MS).json_value()
        for asked in (SENTENCE_MS, PAINT_MS)
    )
    context.close()
    return paint_ms, sentence_ms


def main() -> None:
    """Take turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--store", type=Path, default=ROOT / "results")
    asked = parser.parse_args()
    tools = screenshots()
    samples: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        empty = Path(folder) / "empty.py"
        empty.write_text(EMPTY, encoding="utf-8")
        browser = playwright.chromium.launch(
            executable_path=tools.chrome(), args=tools.CHROME_FLAGS
        )
        for turn in range(asked.turns + 1):
            for name, script in (("ours", tools.APP), ("empty page", empty)):
                with tools.app(asked.store.resolve(), script=script) as url:
                    for which in ("first visit", "second visit"):
                        seen = visit(browser, url)
                        if turn:  # the first turn warms the disk's cache
                            samples.setdefault((name, which), []).append(seen)
        browser.close()
    print(f"{'page':12}{'visit':14}{'first paint (ms)':>18}{'sentence (ms)':>16}")
    for (name, which), seen in sorted(samples.items()):
        paint, sentence = (statistics.median(column) for column in zip(*seen, strict=True))
        print(f"{name:12}{which:14}{paint:18.0f}{sentence:16.0f}")
    for which in ("first visit", "second visit"):
        ratios = [
            ours[0] / peer[0]
            for ours, peer in zip(samples["ours", which], samples["empty page", which], strict=True)
        ]
        print(
            f"First paint, {which}: ours / empty page = {statistics.median(ratios):.2f} "
            f"[{min(ratios):.2f}, {max(ratios):.2f}] over {asked.turns} turns, "
            f"Streamlit {version('streamlit')}"
        )


if __name__ == "__main__":
    main()
