"""A store of one's own, and the pages opened on it without a browser."""

import functools
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from explorer import jobs
from explorer.index import store_index
from explorer.jobs import submission
from explorer.jobs.queue import OnProgress
from explorer.pages.shared import findings
from explorer.specs import RunSpec
from tests import records

SCRIPT = Path(__file__).parents[2] / "explorer" / "pages" / "dashboard" / "script.py"
TIMEOUT_S = 120

OpenPage = Callable[..., AppTest]


@pytest.fixture(scope="session", autouse=True)
def installed_packages() -> Iterator[None]:
    """They stay the same: Streamlit looks through all of them at each run, for 0.25 s."""
    with pytest.MonkeyPatch.context() as patch:
        scan_once = functools.cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", scan_once)
        yield


@pytest.fixture
def root(store_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The empty store that the dashboard will show; no cache of another test."""
    monkeypatch.setenv("EXPLORER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EXPLORER_READ_ONLY", raising=False)
    # Most tests check no order, and the process that would takes seconds of a core.
    monkeypatch.setattr(findings, "start_soon", lambda: None)
    # A test writes to the store and looks at once.
    monkeypatch.setattr(store_index, "LOOK_EVERY_S", 0.0)
    st.cache_data.clear()
    st.cache_resource.clear()
    yield store_root
    st.cache_data.clear()
    st.cache_resource.clear()


@pytest.fixture(scope="session")
def written_study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A store with a teacher and five students, and their run ids; do not write into it."""
    store = tmp_path_factory.mktemp("study")
    return store, records.write_study(store)


@pytest.fixture
def study(root: Path, written_study: tuple[Path, list[str]]) -> list[str]:
    """A teacher and five students, finished; their run ids, the teacher's first."""
    store, run_ids = written_study
    shutil.copytree(store, root, dirs_exist_ok=True)
    return list(run_ids)


@pytest.fixture
def open_page() -> OpenPage:
    """Opens a page of the app, as in `open_page("run", x="ttft_ms")`."""

    def opener(name: str, **query: str) -> AppTest:
        page = AppTest.from_file(str(SCRIPT), default_timeout=TIMEOUT_S)
        if name != "explore":
            # Before the first run Streamlit finds a page by its file name, which is its address
            # here: only this page is drawn.
            page.switch_page(f"../{name}/{name}.py")
        for key, value in query.items():
            page.query_params[key] = value
        page.run()
        assert not page.exception, [error.value for error in page.exception]
        return page

    return opener


@pytest.fixture(autouse=True)
def no_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a press submits is submitted when the page is drawn, so that a test can look."""
    monkeypatch.setattr(submission, "in_background", lambda work: work())


@pytest.fixture(autouse=True)
def checks_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick checks are made in this process; those of Start find nothing."""

    def ask(request: dict[str, Any]) -> "Future[dict[str, Any]]":
        from explorer.pipeline import preflight_server

        answer: Future[dict[str, Any]] = Future()
        answer.set_result(preflight_server.answer(request))
        return answer

    monkeypatch.setattr(findings, "ask", ask)
    monkeypatch.setattr(findings, "ask_fully", lambda request: {"findings": [], "memory_bytes": 0})


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    """The specs that a page hands to the queue; no Ray is started."""
    seen: list[RunSpec] = []

    def submit(specs: list[RunSpec], root: Path, on_progress: OnProgress) -> list[str]:
        seen.extend(specs)
        return [spec.run_id for spec in specs]

    monkeypatch.setattr(jobs, "submit", submit)
    return seen
