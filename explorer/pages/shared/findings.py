"""What is wrong with the order in the form, as `explorer check` says it.

Another process looks, as this one loads no model library. While somebody types, one that started
with the dashboard makes the quick checks; at Start a fresh one makes all of them.
"""

import dataclasses
import functools
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import streamlit as st

from explorer import jobs
from explorer.errors import BadInput, ExplorerError
from explorer.pages.shared import consent, text_format
from explorer.processes import cli_subprocess
from explorer.specs import RunSpec

MODULE = "explorer.pipeline.preflight_server"
STATE = "run_checked"
"""Session key of the last question and its answer."""
WAIT_S = 1.5
"""How long the page waits for an answer before it is drawn without."""
KEEP_S = 10.0
"""An answer is asked for again after this time, as files may have changed."""
POLL_S = 0.5
START_AFTER_S = 5.0
"""The process for the quick checks starts this long after the first page, which it would slow."""
QUICK_TIMEOUT_S = 120.0
FULL_TIMEOUT_S = 1800.0
"""Long enough to read a large corpus and to download tokenizers."""
_quick = cli_subprocess.Worker(MODULE, HF_HUB_OFFLINE="1")
_threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="findings")


@dataclasses.dataclass(frozen=True)
class Finding:
    """As in `pipeline.preflight`."""

    severity: str
    field: str
    message: str
    source: str | None = None
    """What brings code that nobody allowed."""


@dataclasses.dataclass(frozen=True)
class Checked:
    """What the quick checks found."""

    findings: tuple[Finding, ...] = ()
    memory_bytes: float | None = None
    """Of the largest run; None if no size is known."""

    @property
    def has_errors(self) -> bool:
        """Whether the order will be refused."""
        return any(finding.severity == "error" for finding in self.findings)


@functools.cache
def start_soon() -> None:
    """Start the process for the quick checks, once: on the Run page its libraries are loaded."""
    timer = threading.Timer(START_AFTER_S, _quick.start)
    timer.daemon = True
    timer.start()


def ask(request: dict[str, Any]) -> "Future[dict[str, Any]]":
    """Ask the process that is kept."""
    return _threads.submit(_quick.ask, request, timeout_s=QUICK_TIMEOUT_S)


def ask_fully(request: dict[str, Any]) -> dict[str, Any]:
    """Ask a fresh process, which may use the network.

    Raises:
        ExplorerError: It ended without an answer.
    """
    worker = cli_subprocess.Worker(MODULE)
    try:
        return worker.ask(request, timeout_s=FULL_TIMEOUT_S)
    finally:
        worker.close()


def check(specs: Sequence[RunSpec], root: Path) -> Checked | None:
    """What is wrong with these runs; None while the answer is on its way."""
    if not specs:
        return Checked()
    request = _request(specs, root, "quick")
    key = json.dumps(request, sort_keys=True)
    asked, answer, since = st.session_state.get(STATE, ("", None, 0.0))
    if asked != key or (answer.done() and time.monotonic() - since > KEEP_S):
        answer = ask(request)
        st.session_state[STATE] = (key, answer, time.monotonic())
    try:
        return _checked(answer.result(timeout=WAIT_S))
    except TimeoutError:
        return None
    except ExplorerError as error:
        return Checked((Finding("warning", "check", str(error)),))


def refuse(specs: Sequence[RunSpec], root: Path) -> None:
    """Make all checks, which takes seconds, and refuse what cannot run.

    Raises:
        BadInput: What is wrong, all of it.
    """
    found = _checked(ask_fully(_request(specs, root, "full"))).findings
    errors = [finding.message for finding in found if finding.severity == "error"]
    if errors:
        raise BadInput(" ".join(errors))


def show(checked: Checked | None) -> None:
    """Each finding in a line; or that they are on their way, and draw the page again with them."""
    if checked is None:
        _waiting()
        return
    for number, finding in enumerate(checked.findings):
        sentence = f"{text_format.md(finding.message)} `{finding.field}`"
        if finding.severity == "error":
            st.error(sentence, icon=":material/error:")
            if finding.source:
                consent.offer(finding.source, f"run_code_{number}")
        else:
            st.caption(f":material/warning: {sentence}")


@st.fragment(run_every=POLL_S)
def _waiting() -> None:
    st.caption("Checking models, sizes and files…")
    _, answer, _ = st.session_state.get(STATE, ("", None, 0.0))
    if answer is not None and answer.done():
        st.rerun()


def _request(specs: Sequence[RunSpec], root: Path, level: str) -> dict[str, Any]:
    runs = [spec.model_dump(mode="json") for spec in specs]
    return {"runs": runs, "root": str(root), "level": level, "place": jobs.place()}


def _checked(answer: dict[str, Any]) -> Checked:
    findings = tuple(Finding(**finding) for finding in answer["findings"])
    return Checked(findings, answer["memory_bytes"])
