"""How fast is the Explore page in a real browser, at 22, 1,000 and 10,000 runs?

    python benchmarks/page_speed.py --turns 3
    python benchmarks/page_speed.py --runs 22

A turn starts the dashboard anew and visits it twice, each time with an empty browser cache: the
first visit after a start also pays for imports. The clock is the browser's own; it runs from the
navigation until the chart's points are on the screen. Then the axis is changed several times: a
rerun takes from the click until the script has ended and nothing on the page is stale. The peer is
a Streamlit app of one line, visited in the same turns: what is left over is ours.

The store of 22 runs is the committed study; larger ones are generated as in `store_scale.py`, and
their index is built before. `rss_mb` is the memory of the dashboard's own process after the visits.
The last line is JSON, medians over the turns, by store.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import psutil
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[1]
STUDY_RUNS = 22
EMPTY = 'import streamlit as st\n\nst.html("<p id=drawn>Nothing here.</p>")\n'
AXES = ("TTFT", "$/1M output", "Parameters", "TPOT")
"""Choices of the axis that are taken in turn for the reruns."""
RERUNS = 12
PATIENCE_MS = 240_000
WATCH = """selector => new MutationObserver(() => {
  if (!window.drawnMs && document.querySelector(selector)) window.drawnMs = performance.now();
}).observe(document, {childList: true, subtree: true})"""
POINTS = ".chart .scatterlayer path.point"
RERUN = """choice => new Promise(resolve => {
  const app = document.querySelector('.stApp'), start = performance.now();
  let ran = false;
  const observer = new MutationObserver(() => {
    if (app.dataset.testScriptState === 'running') ran = true;
    else if (ran && !document.querySelector('[data-stale=true]')) {
      observer.disconnect();
      requestAnimationFrame(() => resolve(performance.now() - start));
    }
  });
  observer.observe(app, {attributes: true, childList: true, subtree: true});
  choice.click();
})"""


def sibling(folder: str, name: str) -> ModuleType:
    """A script beside this one, or in docs/, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def visit(browser: Browser, url: str, selector: str) -> tuple[Page, float]:
    """The page, and the seconds until something that matches the selector was there."""
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.add_init_script(f"({WATCH})({json.dumps(selector)})")
    page.goto(url, wait_until="commit")
    return page, page.wait_for_function("() => window.drawnMs").json_value() / 1e3


def reruns(page: Page, settled) -> list[float]:
    """Seconds of each change of the axis."""
    seconds = []
    for number in range(RERUNS):
        settled(page)
        page.get_by_role("combobox", name="Across").click()
        option = page.get_by_role("option", name=AXES[number % len(AXES)], exact=True)
        seconds.append(option.evaluate(RERUN) / 1e3)
    return seconds


def dashboard_mb() -> float:
    """The memory of the Streamlit process that we started, without its children."""
    (server,) = (
        child for child in psutil.Process().children() if "streamlit" in " ".join(child.cmdline())
    )
    return server.memory_info().rss / 2**20


def turn(browser: Browser, tools: ModuleType, store: Path, empty: Path) -> dict[str, float]:
    """One turn: the empty page, then ours."""
    facts = {}
    with tools.app(store, script=empty) as url:
        for which in ("first", "second"):
            page, facts[f"{which}_empty_s"] = visit(browser, url, "#drawn")
            page.context.close()
    with tools.app(store) as url:
        page, facts["first_chart_s"] = visit(browser, url, POINTS)
        page.context.close()
        page, facts["second_chart_s"] = visit(browser, url, POINTS)
        seconds = reruns(page, tools.settled)
        page.context.close()
        facts["rerun_median_s"] = statistics.median(seconds)
        facts["rerun_p95_s"] = statistics.quantiles(seconds, n=20, method="inclusive")[-1]
        facts["rss_mb"] = dashboard_mb()
    return facts


def main() -> None:
    """Take turns, print a line for each, and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--runs", type=int, nargs="*", default=[STUDY_RUNS, 1000, 10_000])
    options = parser.parse_args()
    tools, scale = sibling("docs", "screenshots"), sibling("benchmarks", "store_scale")
    results: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        empty = Path(folder) / "empty.py"
        empty.write_text(EMPTY, encoding="utf-8")
        browser = playwright.chromium.launch(
            executable_path=tools.chrome(), args=tools.CHROME_FLAGS
        )
        for num_runs in options.runs:
            store = ROOT / "results"
            if num_runs != STUDY_RUNS:
                store = Path(folder) / str(num_runs)
                scale.generate(store, num_runs)
            os.environ |= {
                "EXPLORER_INDEX": f"{folder}/index-{num_runs}",
                "EXPLORER_RESULTS": str(store),
            }
            listing = [sys.executable, "-m", "explorer", "ls"]
            subprocess.run(listing, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
            turns = []
            for number in range(options.turns + 1):
                facts = turn(browser, tools, store, empty)
                if number:  # the first turn warms the disk's cache
                    turns.append(facts)
                    shown = "  ".join(f"{name} {value:.2f}" for name, value in facts.items())
                    print(f"{num_runs:7,} runs  turn {number}  {shown}", flush=True)
            results[num_runs] = {
                name: round(statistics.median(facts[name] for facts in turns), 3)
                for name in turns[0]
            }
        browser.close()
    print(
        json.dumps(
            {
                "cpus": os.cpu_count(),
                "load": os.getloadavg()[0],
                "streamlit": version("streamlit"),
                "stores": results,
            }
        )
    )


if __name__ == "__main__":
    main()
