"""The dashboard as a process and a browser that looks at it."""

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests import records, scripts

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120
"""How long a page may take on a machine that is also measuring something."""


screenshots = scripts.load(ROOT / "docs" / "screenshots.py")
"""Knows how to start the app and the browser."""


@pytest.fixture
def cache(tmp_path: Path, task_list: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, which knows lm-eval's tasks."""
    folder = tmp_path / "cache"
    shutil.copytree(task_list, folder / "tasks")
    monkeypatch.setenv("EXPLORER_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Browser]:
    """One headless Chromium for a file's tests.

    Not for the session: Playwright's event loop runs until it is closed, and no test after it
    could start one of its own.
    """
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=chromium_path, args=screenshots.CHROME_FLAGS
        )
        yield chromium
        chromium.close()


OpenWindow = Callable[[], AbstractContextManager[Page]]


@pytest.fixture(scope="module")
def open_window(browser: Browser) -> OpenWindow:
    """Opens an empty window, wide as a laptop's.

    Whatever happens in it, nothing may break the page's Content-Security-Policy.
    """

    @contextlib.contextmanager
    def opened() -> Iterator[Page]:
        context = browser.new_context(viewport={"width": 1440, "height": 1000})
        page = context.new_page()
        page.set_default_timeout(1e3 * PATIENCE_S)
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        yield page
        context.close()
        assert [text for text in said if "Content Security Policy" in text] == []

    return opened


@pytest.fixture
def page(open_window: OpenWindow) -> Iterator[Page]:
    """A window of the test's own."""
    with open_window() as window:
        yield window


@pytest.fixture(scope="session")
def settled() -> Callable[[Page], None]:
    """Returns when a page is drawn to its end."""
    return screenshots.settled


@pytest.fixture
def answers() -> Callable[[str, subprocess.Popen[bytes]], None]:
    """Returns when an address of a process answers."""
    return screenshots.wait_for


@pytest.fixture(scope="session")
def start_app() -> Callable[..., AbstractContextManager[str]]:
    """Starts the app on a store, perhaps with variables of the environment; yields its address."""
    return screenshots.app


class Served(NamedTuple):
    """A dashboard that a file's tests share, and only read."""

    url: str
    run_ids: list[str]
    """The store's runs, its teacher first."""


@pytest.fixture(scope="module")
def own_folders(task_list: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables that keep a shared dashboard away from the user's folders."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(task_list, folder / "cache" / "tasks")
    names = ("CACHE", "INDEX", "DEVICE_LOCKS", "CONFIG")
    return {f"EXPLORER_{name}": str(folder / name.lower()) for name in names}


@pytest.fixture(scope="module")
def study(own_folders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The app on a teacher and five students."""
    root = tmp_path_factory.mktemp("study")
    run_ids = records.write_study(root)
    with screenshots.app(root, **own_folders) as url:
        yield Served(url, run_ids)


@pytest.fixture(scope="module")
def committed(own_folders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the app on a copy of the committed study, to be read only."""
    root = tmp_path_factory.mktemp("committed")
    shutil.copytree(records.STUDY, root, dirs_exist_ok=True)
    with screenshots.app(root, **own_folders) as url:
        yield url


@pytest.fixture
def dashboard(store_root: Path, cache: Path) -> Iterator[str]:
    """The running app on the test's store; its address."""
    with screenshots.app(store_root) as url:
        yield url
