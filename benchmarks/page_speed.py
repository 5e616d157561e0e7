"""How fast is the Explore page in a real browser, at 22, 1,000 and 10,000 runs?

    python benchmarks/page_speed.py --turns 3
    python benchmarks/page_speed.py --runs 22

A turn starts the dashboard anew and visits it twice, each time with an empty browser cache: the
first visit after a start also pays for imports. The clock is the browser's own; it runs from the
navigation until the chart's points are on the screen. Then the axis is changed several times: a
rerun takes from the click to the last change of the page, after which it stays as it is for a
second. The peer is a Streamlit app of one line, visited in the same turns: what is left over is
ours.

The browser is asked over its DevTools protocol, and only for what is needed. Playwright has it
report every request and every message of a websocket, which adds a fifth to these figures. The
pages that Chromium loads for the address bar of a new window are switched off: they take a second
or two of a core, which a person's browser has behind it.

The store of 22 runs is the committed study; larger ones are generated as in `store_scale.py`, and
their index is built before. `rss_mb` is the memory of the dashboard's own process after the visits.
The last line is JSON, medians over the turns, by store.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
from websockets.sync.client import ClientConnection, connect  # Streamlit brings it

ROOT = Path(__file__).parents[1]
STUDY_RUNS = 22
EMPTY = 'import streamlit as st\n\nst.html("<p id=drawn>Nothing here.</p>")\n'
AXES = ("TTFT", "$/1M output", "Parameters", "TPOT")
"""Choices of the axis that are taken in turn for the reruns."""
RERUNS = 12
ADDRESS_BAR = "WebUIOmniboxPopup,WebUIOmniboxAimPopup,WebUIOmniboxFullPopup"
"""Features of Chromium: pages that it loads for the address bar of each new window."""
NEW_WINDOW_S = 1.0
"""Until the browser has opened a window."""
PATIENCE_S = 240
LOOK_EVERY_S = 0.25
"""How often the page is asked for something; each time costs it a little."""
WATCH = """(selector => new MutationObserver(() => {
  if (!window.drawnMs && document.querySelector(selector)) window.drawnMs = performance.now();
}).observe(document, {childList: true, subtree: true}))"""
POINTS = ".chart .scatterlayer path.point"
AXIS = """(() => {
  const label = box => box.getAttribute('aria-label') || box.labels?.[0]?.textContent || '';
  const boxes = [...document.querySelectorAll('[role=combobox]')];
  const place = boxes.find(box => label(box).includes('Across')).getBoundingClientRect();
  return {x: place.x + place.width / 2, y: place.y + place.height / 2};
})()"""
RERUN = """((name, quietMs, isSettled) => new Promise(resolve => {
  const app = document.querySelector('.stApp'), start = performance.now();
  const options = [...document.querySelectorAll('[role=option]')];
  let timer;
  const observer = new MutationObserver(() => {
    const changed = performance.now();
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (!isSettled()) return;
      observer.disconnect();
      resolve(changed - start);
    }, quietMs);
  });
  observer.observe(app, {attributes: true, childList: true, subtree: true});
  options.find(option => option.textContent.trim() === name).click();
}))"""


def settled(tools: ModuleType) -> str:
    """The condition in the browser that the script has ended and all is drawn."""
    return f"{tools.IS_DRAWN} && !document.querySelector('{tools.IS_STALE}')"


class Browser:
    """Headless Chromium, asked over its DevTools protocol."""

    def __init__(self, connection: ClientConnection) -> None:
        """One that is connected already."""
        self._connection, self._number = connection, 0

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The browser's answer to a command.

        Raises:
            RuntimeError: The browser refused the command.
            TimeoutError: It sent nothing for `PATIENCE_S`.
        """
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._connection.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self._connection.recv(timeout=PATIENCE_S))
            if answer.get("id") == self._number:  # events come in between
                break
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    @contextlib.contextmanager
    def visit(self, url: str, selector: str) -> Iterator["Tab"]:
        """A tab that began with an empty cache and in which something matches the selector."""
        context = self.ask("Target.createBrowserContext")["browserContextId"]
        blank: Any = {"url": "about:blank", "width": 1440, "height": 900}
        target = self.ask("Target.createTarget", browserContextId=context, **blank)
        attached = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        time.sleep(NEW_WINDOW_S)
        tab = Tab(self, attached["sessionId"])
        tab.ask("Page.enable")
        watch = f"{WATCH}({json.dumps(selector)})"
        tab.ask("Page.addScriptToEvaluateOnNewDocument", source=watch)
        tab.ask("Page.navigate", url=url)
        tab.wait_for("window.drawnMs")
        yield tab
        self.ask("Target.disposeBrowserContext", browserContextId=context)


class Tab:
    """A page in the browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        """One that is open already."""
        self._browser, self._session = browser, session

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a command about this page."""
        return self._browser.ask(method, self._session, **parameters)

    def evaluate(self, script: str) -> Any:
        """What a script's value is, or that of its promise.

        Raises:
            RuntimeError: The script threw an error.
        """
        answer = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Return when a script's value is true.

        Raises:
            TimeoutError: It did not become true.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not self.evaluate(f"!!({condition})"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{condition} was not true within {PATIENCE_S} s.")
            time.sleep(LOOK_EVERY_S)

    def drawn_s(self) -> float:
        """Seconds from the navigation until something matched the selector."""
        return float(self.evaluate("window.drawnMs")) / 1e3

    def reruns(self, tools: ModuleType) -> list[float]:
        """Seconds of each change of the axis."""
        seconds = []
        self.wait_for(settled(tools))
        time.sleep(tools.SETTLE_MS / 1e3)
        for number in range(RERUNS):
            place = self.evaluate(AXIS)
            for kind in ("mousePressed", "mouseReleased"):
                self.ask(
                    "Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place
                )
            self.wait_for("document.querySelector('[role=option]')")
            name = AXES[number % len(AXES)]
            script = f"{RERUN}({json.dumps(name)}, {tools.SETTLE_MS}, () => {settled(tools)})"
            seconds.append(self.evaluate(script) / 1e3)
        return seconds


@contextlib.contextmanager
def chromium(tools: ModuleType) -> Iterator[Browser]:
    """A browser of our own; it ends with the block."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [tools.chrome(), "--headless=new", *tools.CHROME_FLAGS]
        command += [f"--disable-features={ADDRESS_BAR}"]
        command += ["--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            port_file = Path(folder) / "DevToolsActivePort"
            deadline = time.monotonic() + PATIENCE_S
            while not (port_file.exists() and len(port_file.read_text().split()) == 2):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} did not start: {process.returncode}.")
                time.sleep(0.1)
            port, path = port_file.read_text().split()
            with connect(f"ws://127.0.0.1:{port}{path}", max_size=None) as connection:
                yield Browser(connection)
        finally:
            process.terminate()
            process.wait()


def sibling(folder: str, name: str) -> ModuleType:
    """A script beside this one, or in docs/, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def dashboard_mb() -> float:
    """The memory of the Streamlit process that we started, without its children."""
    (server,) = (
        child for child in psutil.Process().children() if "streamlit" in " ".join(child.cmdline())
    )
    return float(server.memory_info().rss / 2**20)


def turn(browser: Browser, tools: ModuleType, store: Path, empty: Path) -> dict[str, float]:
    """One turn: the empty page, then ours."""
    facts = {}
    with tools.app(store, script=empty) as url:
        for which in ("first", "second"):
            with browser.visit(url, "#drawn") as tab:
                facts[f"{which}_empty_s"] = tab.drawn_s()
    with tools.app(store) as url:
        with browser.visit(url, POINTS) as tab:
            facts["first_chart_s"] = tab.drawn_s()
        with browser.visit(url, POINTS) as tab:
            facts["second_chart_s"] = tab.drawn_s()
            seconds = tab.reruns(tools)
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
    with tempfile.TemporaryDirectory() as folder, chromium(tools) as browser:
        empty = Path(folder) / "empty.py"
        empty.write_text(EMPTY, encoding="utf-8")
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
