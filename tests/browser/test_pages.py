"""What a person sees in a real browser, on a store that is filled already."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from explorer.store import disk
from tests import records, scripts

pytestmark = pytest.mark.browser
WAIT_MS = 120_000
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("view", ["", "?view=Ranking"])
def test_a_click_on_a_point_opens_its_evidence(study, page: Page, view):
    """A point on the chart answers with the run behind it, and the address keeps the run."""
    page.goto(f"{study.url}/{view}")
    # The second trace holds the students; Plotly draws their marks in the frame's order.
    point = page.locator(".chart .scatterlayer .trace .points path.point").last
    expect(point).to_be_visible(timeout=WAIT_MS)

    point.click(force=True)

    expect(page.get_by_role("button", name="Open the run")).to_be_visible(timeout=WAIT_MS)
    expect(page).to_have_url(re.compile(r"[?&]run="), timeout=WAIT_MS)


def test_a_zoom_stays_while_the_axes_do(study, page: Page, settled):
    """A click changes the chart that is there; another axis, or a double click, shows all again."""
    heights = "() => document.querySelector('.chart')._fullLayout.yaxis.range.map(Math.round)"
    page.goto(study.url)
    settled(page)  # what arrives above the chart moves it
    whole = page.evaluate(heights)
    area = page.locator(".chart .nsewdrag").first.bounding_box()
    assert area is not None
    left, top = area["x"] + 5, area["y"] + 5
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(left + 0.9 * area["width"], top + 0.8 * area["height"], steps=8)
    page.mouse.up()
    page.wait_for_function(f"whole => String(({heights})()) !== String(whole)", arg=whole)
    zoomed = page.evaluate(heights)

    places = [point.bounding_box() for point in page.locator(".chart .points path.point").all()]
    x, y = next(
        (place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
        for place in places
        if place and 20 < place["x"] - left < 0.8 * area["width"]
        if 20 < place["y"] - top < 0.8 * area["height"]
    )
    page.mouse.move(x, y, steps=4)
    expect(page.locator(".chart .hoverlayer .hovertext").first).to_be_visible(timeout=WAIT_MS)
    # Sooner, and Plotly takes the drag and the click for a double click.
    page.wait_for_timeout(
        page.evaluate("() => document.querySelector('.chart')._context.doubleClickDelay")
    )
    page.mouse.click(x, y)
    expect(page.get_by_role("button", name="Open the run")).to_be_visible(timeout=WAIT_MS)
    assert page.evaluate(heights) == zoomed

    page.mouse.dblclick(left + 20, top + 20)
    page.wait_for_function(f"whole => String(({heights})()) === String(whole)", arg=whole)
    page.get_by_text("By task", exact=True).click()
    # This one needs more of Plotly than the others.
    expect(page.locator(".chart .heatmaplayer image").first).to_be_visible(timeout=WAIT_MS)


def test_the_benchmark_of_this_page_sees_its_points_and_a_rerun(study, monkeypatch):
    """`benchmarks/page_speed.py` asks a browser of its own, without Playwright."""
    page_speed = scripts.load(ROOT / "benchmarks" / "page_speed.py")
    monkeypatch.setattr(page_speed, "RERUNS", 1)
    tools = page_speed.sibling("docs", "screenshots")

    with (
        page_speed.chromium(tools) as browser,
        browser.visit(study.url, page_speed.POINTS) as tab,
    ):
        assert tab.drawn_s() > 0
        (seconds,) = tab.reruns(tools)

    assert seconds > 0


@pytest.mark.parametrize("states", [[], ["running", "notRunning", "running", "notRunning"]])
def test_the_benchmark_sees_the_end_of_a_rerun(states: list[str], tmp_path):
    """A rerun can be too quick to be seen running, and can seem to end in between."""
    page_speed = scripts.load(ROOT / "benchmarks" / "page_speed.py")
    tools = page_speed.sibling("docs", "screenshots")
    file = tmp_path / "page.html"
    file.write_text(
        f"""<body><div class=stApp data-test-script-state=notRunning><p role=option>TTFT</p></div>
        <script>
          const app = document.querySelector('.stApp'), states = {states};
          app.querySelector('p').onclick = event => {{
            event.target.append(' chosen');
            states.forEach((state, number) =>
              setTimeout(() => app.dataset.testScriptState = state, 50 * number));
            setTimeout(() => app.dataset.last = 'drawn', 50 * states.length);
          }};
        </script>""",
        encoding="utf-8",
    )

    with page_speed.chromium(tools) as browser, browser.visit(file.as_uri(), "p") as tab:
        is_settled = page_speed.settled(tools)
        seconds = tab.evaluate(f"{page_speed.RERUN}('TTFT', 500, () => {is_settled})")

        assert seconds > 0
        assert tab.evaluate("document.querySelector('.stApp').dataset.last") == "drawn"


def test_a_click_on_a_published_point_opens_its_source(study, page: Page):
    """A diamond answers with its method, its benchmarks and the page that it is from."""
    page.goto(f"{study.url}/published?family=DeepSeek-R1")
    point = page.locator(".chart .scatterlayer .trace .points path.point").first
    expect(point).to_be_visible(timeout=WAIT_MS)

    point.click(force=True)

    expect(page.get_by_text("sequence-level KD").first).to_be_visible(timeout=WAIT_MS)
    source = page.get_by_role("link", name="DeepSeek-R1 README (evaluation results)")
    expect(source).to_have_attribute("href", re.compile("github.com/deepseek-ai"))
    expect(page).to_have_url(re.compile(r"[?&]pair="), timeout=WAIT_MS)


def test_a_link_brings_axis_and_run_back(study, page: Page):
    """An address that somebody sent opens the same axis and the same run."""
    page.goto(f"{study.url}/?x=TTFT&run={study.run_ids[3]}")

    expect(page.get_by_text("TTFT, median (times").first).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_text("Cut to 15 layers")).to_be_visible(timeout=WAIT_MS)


@pytest.mark.parametrize("path", ["", "run", "compare", "answers", "published", "economics"])
def test_no_page_is_wider_than_a_phone(study, page: Page, path):
    """At 390 pixels nothing but the table, in its own frame, scrolls sideways."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{study.url}/{path}")
    expect(page.locator("[data-testid=stMainBlockContainer] button").first).to_be_visible(
        timeout=WAIT_MS
    )

    overflow = page.evaluate(
        "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )

    assert overflow <= 0


def test_on_a_phone_the_limits_are_never_where_the_chart_will_be(study, page: Page, settled):
    """They arrive first and stand below it, so its room is kept: nothing on the screen moves."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.add_init_script(
        """new MutationObserver(() => {
          const limits = document.querySelector(".st-key-explore_needs");
          if (limits) (window.tops ??= []).push(limits.getBoundingClientRect().top + scrollY);
        }).observe(document, {childList: true, subtree: true, attributes: true})"""
    )
    page.goto(study.url)
    expect(page.locator(".chart .textpoint").first).to_be_visible(timeout=WAIT_MS)
    settled(page)

    assert page.evaluate("Math.min(...window.tops)") > 844
    chart = page.locator("[data-testid=stColumn]:has(.st-key-explore_chart)")
    assert chart.evaluate("column => getComputedStyle(column).minHeight") != "960px"


def test_labels_are_placed_for_the_window_there_is(committed, page: Page):
    """At any width no name covers another or leaves the chart; nor after the window grew."""
    for width in (420, 1024, 1440, 1920):
        page.set_viewport_size({"width": width, "height": 844})
        if width == 420:
            page.goto(committed)
        expect(page.locator(".chart .textpoint").first).to_be_visible(timeout=WAIT_MS)

        page.wait_for_function(
            """() => {
              const chart = document.querySelector(".chart");
              const area = chart?.querySelector(".nsewdrag");
              if (!area) return false; // the chart is being drawn again for the new width
              const plot = area.getBoundingClientRect();
              const names = [...chart.querySelectorAll(".annotation-text, .textpoint text")];
              const box = name => name.getBoundingClientRect();
              const boxes = names.map(box);
              const ticks = [...chart.querySelectorAll(".xtick text")].map(box);
              const inside = boxes.every(b => b.left >= plot.left && b.right <= plot.right);
              const apart = (a, b) => a.right <= b.left || b.right <= a.left ||
                a.bottom <= b.top + 2 || b.bottom <= a.top + 2;
              const allApart = boxes =>
                boxes.every((a, i) => boxes.slice(i + 1).every(b => apart(a, b)));
              return names.length > 3 && ticks.length > 1 && inside &&
                allApart(boxes) && allApart(ticks);
            }""",
            timeout=WAIT_MS,
        )


def test_ticks_of_published_sizes_do_not_touch_on_a_telephone(study, page: Page):
    """From 10 M to 500 B parameters, in the width that a telephone has."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{study.url}/published")

    page.wait_for_function(
        """() => {
          const ticks = [...document.querySelectorAll(".chart .xtick text")]
            .map(tick => tick.getBoundingClientRect()).sort((a, b) => a.left - b.left);
          return ticks.length > 2 &&
            ticks.slice(1).every((tick, number) => tick.left > ticks[number].right);
        }""",
        timeout=WAIT_MS,
    )


def test_back_undoes_the_last_change(study, page: Page, settled):
    """Back as often as there were changes brings the first state back, in address and page."""
    page.goto(study.url)
    view = page.get_by_role("radio", name="Ranking")
    expect(page.locator(".chart .textpoint").first).to_be_visible(timeout=WAIT_MS)
    # It draws only the chart again.
    page.get_by_role("combobox", name="Across").click()
    page.get_by_role("option", name="TTFT").click()
    expect(page.get_by_text("TTFT, median (times").first).to_be_visible(timeout=WAIT_MS)
    settled(page)
    view.click()
    expect(page.get_by_text("A bracket joins models")).to_be_visible(timeout=WAIT_MS)
    page.get_by_role("spinbutton", name="Keep at least (%)").fill("50")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"[?&]keep=50"), timeout=WAIT_MS)
    settled(page)  # the address changes before the page's script has run

    page.go_back()
    expect(page).not_to_have_url(re.compile(r"[?&]keep="), timeout=WAIT_MS)
    field = page.get_by_role("spinbutton", name="Keep at least (%)")
    expect(field).to_have_value("95", timeout=WAIT_MS)
    settled(page)
    page.go_back()

    expect(page.get_by_text("Drag to zoom")).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_text("TTFT, median (times").first).to_be_visible(timeout=WAIT_MS)
    expect(page).not_to_have_url(re.compile(r"[?&]view="), timeout=WAIT_MS)
    settled(page)
    page.go_back()

    expect(page.get_by_text("TPOT, median (times").first).to_be_visible(timeout=WAIT_MS)
    expect(page).not_to_have_url(re.compile(r"[?&]x="), timeout=WAIT_MS)


def test_back_returns_to_the_page_before(study, page: Page, settled):
    """Each link of the menu is one entry of the history, and the settings are there again."""
    link = f"{study.url}/?keep=80&max_ttft=1000&view=Ranking"
    page.goto(link)
    settled(page)
    for name in ("Compare", "Explore"):
        page.get_by_role("link", name=name).first.click()
        expect(page).to_have_title(re.compile(name), timeout=WAIT_MS)
        settled(page)

    page.go_back()
    expect(page).to_have_title(re.compile("Compare"), timeout=WAIT_MS)
    settled(page)
    page.go_back()

    expect(page).to_have_url(link, timeout=WAIT_MS)
    first_token = page.get_by_role("spinbutton", name="First token at most (ms)")
    expect(first_token).to_have_value("1000", timeout=WAIT_MS)
    settled(page)
    assert page.url == link


def test_a_limit_that_was_folded_away_is_there_after_a_look_at_another_page(
    study, page: Page, settled
):
    """It is set where the fold was opened, and the fold is open where it is set."""
    page.goto(study.url)
    settled(page)
    page.get_by_text("More limits").click()
    first_token = page.get_by_role("spinbutton", name="First token at most (ms)")
    first_token.fill("1000")
    first_token.press("Enter")
    expect(page).to_have_url(re.compile("max_ttft=1000"), timeout=WAIT_MS)
    settled(page)
    for name in ("Compare", "Explore"):
        page.get_by_role("link", name=name).first.click()
        expect(page).to_have_title(re.compile(name), timeout=WAIT_MS)
        settled(page)

    expect(page).to_have_url(re.compile("max_ttft=1000"), timeout=WAIT_MS)
    expect(first_token).to_have_value("1000", timeout=WAIT_MS)


def test_hiding_an_entry_of_the_legend_hides_its_names(committed, page: Page):
    """No label is left over without its point."""
    page.goto(committed)
    names = page.locator(".chart .textpoint")
    label = names.filter(has_text="24 layers q4_k_m")
    expect(label).to_have_count(1, timeout=WAIT_MS)

    page.locator(".chart .legend .traces").filter(has_text="student, q4_k_m").locator(
        ".legendtoggle"
    ).click()

    expect(label).to_have_count(0, timeout=WAIT_MS)
    expect(names.filter(has_text="teacher q8_0")).to_have_count(1)


def test_every_point_is_reachable_by_keyboard(study, page: Page, settled):
    """The list beside the chart opens what a click on a point opens."""
    page.goto(study.url)
    settled(page)
    page.get_by_role("combobox", name="Evidence for").focus()
    page.keyboard.type("15l")
    page.keyboard.press("Enter")

    expect(page.get_by_text("Cut to 15 layers")).to_be_visible(timeout=WAIT_MS)


@pytest.mark.parametrize("size", [(1440, 900), (390, 844)])
def test_a_choice_by_keyboard_keeps_its_focus_on_the_screen(committed, page: Page, settled, size):
    """The evidence that a choice opens pushes the list with the focus nowhere."""
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.goto(committed)
    settled(page)
    runs = page.get_by_role("combobox", name="Evidence for")
    for words, made in (("24 layers q4", "Cut to 24 layers"), ("15 layers q8", "Cut to 15 layers")):
        runs.focus()
        page.keyboard.type(words)
        page.keyboard.press("Enter")
        expect(page.get_by_text(made)).to_be_visible(timeout=WAIT_MS)
        settled(page)

        expect(runs).to_be_focused()
        expect(runs).to_be_in_viewport(ratio=1)
        assert runs.evaluate("element => element.matches(':focus-visible')")


def test_chart_limits_and_evidence_are_on_the_screen(committed, page: Page, settled):
    """At 1440 by 900 nothing that decides has to be scrolled to."""
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(f"{committed}/?run={records.committed(24)}")
    settled(page)

    parts = [
        page.locator(".chart").first,
        page.get_by_role("spinbutton", name="Weights at most (MB)"),
        page.get_by_text("Bars begin at chance"),
    ]
    for part in parts:
        box = part.bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= 900


def test_limits_choose_a_model_that_can_be_followed_to_other_pages(committed, page: Page):
    """A limit changes the pick at once; evidence, Compare and Economics are one click away.

    The chosen runs and what to keep are the same there.
    """
    page.goto(f"{committed}/?keep=80")
    expect(page.get_by_text("Pick: teacher q4_k_m")).to_be_visible(timeout=WAIT_MS)

    page.get_by_role("spinbutton", name="Weights at most (MB)").fill("100")
    page.keyboard.press("Enter")

    expect(page.get_by_text("No model fits")).to_be_visible(timeout=WAIT_MS)
    expect(page).to_have_url(re.compile(r"[?&]max_weights=100"), timeout=WAIT_MS)
    page.get_by_role("spinbutton", name="Keep at least (%)").fill("70")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Pick: 24 layers q4_k_m")).to_be_visible(timeout=WAIT_MS)
    page.get_by_role("button", name="Evidence").click()
    expect(page.get_by_text("Cut to 24 layers")).to_be_visible(timeout=WAIT_MS)
    finding = page.locator("h1.finding").inner_text()

    page.locator(".st-key-explore_pick_actions").get_by_role("link", name="Compare").click()

    expect(page.get_by_role("button", name="2 runs chosen")).to_be_visible(timeout=WAIT_MS)
    for name in ("starter (teacher)", "24 layers q4_k_m"):
        box = page.get_by_role("checkbox", name=f"Choose {name}", exact=True)
        expect(box).to_be_checked(timeout=WAIT_MS)
    assert "24-layer student as q4_k_m" in finding
    expect(page.locator("h1.finding")).to_contain_text("24-layer student as q4_k_m")

    page.get_by_role("link", name="Economics").click()

    field = page.get_by_role("spinbutton", name="Keep at least (%)")
    expect(field).to_have_value("70", timeout=WAIT_MS)
    expect(page.get_by_role("button", name="2 runs chosen")).to_be_visible(timeout=WAIT_MS)
    expect(page.locator("h1.finding")).to_contain_text("24 layers q4_k_m")


def test_the_table_is_taken_away_in_every_format(study, page: Page):
    """Each file is named after the study, opens, and has every run; the figure has its names."""
    page.goto(f"{study.url}/compare")
    page.get_by_role("button", name="Export").click()

    def download(format: str) -> Path:
        button = page.get_by_role("button", name=format, exact=True)
        with page.expect_download(timeout=WAIT_MS) as waiting:
            button.click(timeout=WAIT_MS)
        assert waiting.value.suggested_filename.startswith("starter.")
        return waiting.value.path()

    assert set(pd.read_csv(download("CSV"))["run_id"]) == set(study.run_ids)
    assert set(pd.read_parquet(download("Parquet"))["run_id"]) == set(study.run_ids)
    assert {row["run_id"] for row in json.loads(download("JSON").read_text())} == set(study.run_ids)
    with zipfile.ZipFile(download("Excel")) as book:
        texts = book.read("xl/sharedStrings.xml").decode()
        sheets = re.findall(r'<sheet name="(\w+)"', book.read("xl/workbook.xml").decode())
    assert all(run_id in texts for run_id in study.run_ids)
    assert sheets == ["table", "scores", "notes"]
    for format in ("Markdown", "LaTeX"):
        text = download(format).read_text()
        assert all(f"{layers} layers" in text for layers in (24, 20, 15, 10, 6)), format
    assert "24 layers" in download("SVG").read_text()
    assert "Plotly.newPlot" in download("HTML").read_text()
    with Image.open(download("PNG")) as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000


def test_a_running_line_shows_how_its_loss_falls(store_root: Path, dashboard: str, page: Page):
    """The curve is there to see, not only in the page's text."""
    spec = records.study("live", layers=(20,))[1]
    disk.open_run(store_root, spec)
    status = {
        "run_id": spec.run_id,
        "state": "running",
        "stage": "distil",
        "done": 3,
        "total": 9,
        "loss": 1.5,
        "losses": [3.0, 2.0, 1.5],
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "updated_at": time.time(),
    }
    disk.write_status(store_root, spec.run_id, status)

    page.goto(f"{dashboard}/run")

    curve = page.get_by_alt_text("Loss from 3.00 to 1.50")
    expect(curve).to_be_visible(timeout=WAIT_MS)
    assert curve.evaluate("image => image.complete && image.naturalWidth > 0")


@pytest.mark.skipif(not Path("/proc/self/fdinfo").is_dir(), reason="only Linux counts watches")
def test_the_dashboard_watches_no_folder(store_root, cache, tmp_path, page: Page, settled, answers):
    """Started from anywhere, it follows neither .venv nor the results."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "explorer", "app", "--port", str(port)]
    environment = {**os.environ, "STREAMLIT_SERVER_HEADLESS": "true", "PYTHONPATH": str(ROOT)}
    with (tmp_path / "log.txt").open("w") as log:
        starter = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        answers(f"http://127.0.0.1:{port}/_stcore/health", starter)
        page.goto(f"http://127.0.0.1:{port}/")
        settled(page)
        # `explorer app` becomes the dashboard's process.
        watches = [
            line
            for file in Path(f"/proc/{starter.pid}/fdinfo").iterdir()
            for line in file.read_text().splitlines()
            if line.startswith("inotify ")
        ]
        assert watches == []
    finally:
        starter.terminate()
        starter.wait(timeout=60)


def test_a_tick_chooses_a_run_and_a_heading_sorts(study, page: Page, settled):
    """In the table itself; the address keeps both."""
    page.goto(f"{study.url}/compare")
    settled(page)
    box = page.get_by_role("checkbox", name="Choose 20 layers", exact=True)
    expect(box).to_be_checked(timeout=WAIT_MS)

    box.uncheck()

    expect(page.get_by_role("button", name="5 runs chosen")).to_be_visible(timeout=WAIT_MS)
    expect(page.locator("tr.unticked")).to_contain_text("20 layers", timeout=WAIT_MS)
    expect(page).to_have_url(re.compile(r"[?&]runs="), timeout=WAIT_MS)
    page.get_by_role("button", name="Parameters", exact=True).click()
    expect(page.locator("th[aria-sort=ascending]")).to_contain_text("Parameters", timeout=WAIT_MS)
    expect(page.locator("table.results tbody tr").nth(1)).to_contain_text("6 layers")
    page.get_by_role("button", name="Parameters").click()
    expect(page.locator("th[aria-sort=descending]")).to_contain_text("Parameters", timeout=WAIT_MS)
    expect(page).to_have_url(re.compile(r"[?&]sort=Parameters"), timeout=WAIT_MS)
