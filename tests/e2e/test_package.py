"""The built package in an environment of its own: installed, opened from an empty folder.

The wheel is really built and installed. Its dependencies are not downloaded again: the new
environment reads them from the one that runs the tests, without its editable explorer. So this
proves that the package is complete, not that pip finds every dependency.
"""

import os
import re
import socket
import subprocess
import sys
import sysconfig
import time
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
LARGEST_STUDY_BYTES = 8_000_000
LARGEST_WHEEL_BYTES = 9_000_000
PATIENCE_MS = 120_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `python -m build` makes, by way of the source distribution."""
    out = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)])
    assert list(out.glob("*.tar.gz")), "no source distribution"
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def explorer(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `explorer` of an environment that holds the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    run([sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", str(wheel)])
    site = next(folder.glob("lib/python*/site-packages"))
    # A .pth file in a folder that is added this way is not read, so nothing editable comes along.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    return folder / "bin" / "explorer"


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment variables of somebody who has just installed the package."""
    for name in [*os.environ]:
        if re.match(r"EXPLORER_|PYTHON|STREAMLIT_|XDG_", name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STREAMLIT_SERVER_HEADLESS", "true")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return dict(os.environ)


def run(command: list[str]) -> str:
    """The output of a command that sees no PYTHONPATH, which would hide the package."""
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_the_wheel_holds_the_study_and_stays_small(wheel):
    """Every committed run with its samples is in the wheel, in at most 8 MB; all of it in 9 MB."""
    committed = run(["git", "-C", str(ROOT), "ls-files", "results"]).splitlines()
    assert len(committed) > 100

    infos = zipfile.ZipFile(wheel).infolist()
    packed = {info.filename for info in infos}

    study = {name.replace("results/", "explorer/store/example_study/", 1) for name in committed}
    assert study <= packed
    assert any(name.endswith(".jsonl") for name in study)
    assert not [name for name in packed if not name.startswith(("explorer/", "distill_explorer-"))]
    assert sum(i.compress_size for i in infos if i.filename in study) <= LARGEST_STUDY_BYTES
    assert wheel.stat().st_size <= LARGEST_WHEEL_BYTES


def test_the_commands_come_from_the_package(explorer, stranger):
    """The command imports the installed package, and looks for results in the user's folder."""
    python = explorer.parent / "python"

    where = run([str(python), "-c", "import explorer; print(explorer.__file__)"])
    version = run([str(explorer), "--version"])
    doctor = run([str(explorer), "doctor"])

    assert Path(where.strip()).is_relative_to(explorer.parents[1])
    assert version.startswith("explorer ")
    assert str(Path(stranger["HOME"]) / ".local/share/distill-explorer/results") in doctor


@pytest.fixture
def dashboard(explorer: Path, stranger: dict[str, str]) -> Iterator[str]:
    """The address that `explorer app` prints, token included, started in an empty folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = Path("log.txt")
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(explorer), "app", "--port", str(port)], stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + PATIENCE_MS / 1e3
        while not (printed := re.search(r"Distill Explorer: (http://\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        first, results, *_ = log.read_text().splitlines()
        assert "the example study was copied" in first
        assert results.startswith(f"Results: {stranger['HOME']}")
        yield printed[1]
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_the_dashboard_opens_on_the_example_study(dashboard, chromium_path):
    """From an empty folder: Explore shows the finding, Answers a question, in our own theme."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium_path, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.goto(dashboard)
        expect(page.locator(".finding")).to_contain_text("83 %", timeout=PATIENCE_MS)
        color = page.evaluate("getComputedStyle(document.querySelector('.stApp')).color")
        page.goto(dashboard.partition("/?")[0] + "/answers")
        expect(page.locator("th", has_text="log-likelihood").first).to_be_visible(
            timeout=PATIENCE_MS
        )
        browser.close()

    assert color == "rgb(27, 33, 39)", "the theme is not that of the package's config.toml"
