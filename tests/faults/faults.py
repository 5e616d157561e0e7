"""Faults, each tried in a process of its own, and what became of the store.

A fault is a function that gets an empty folder. It does something bad to a run or a store and
looks at what comes of it. It raises `Bad` with one of `OUTCOMES`, or returns when nothing was
lost. The process that tries it is forked from one that has imported everything, which costs
milliseconds where a new Python takes ten seconds.
"""

import dataclasses
import json
import os
import re
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

OUTCOMES = ("lost", "stuck", "pages_down", "untrue")
"""Finished work is gone or differs; the run cannot go on; a page shows an exception; something
wrong is shown without a word about it."""
TIMEOUT_S = 240.0
"""A fault that takes longer is stuck."""


class Bad(AssertionError):
    """What a fault led to."""

    def __init__(self, outcome: str, why: str) -> None:
        assert outcome in OUTCOMES
        super().__init__(f"{outcome}: {why}")
        self.outcome, self.why = outcome, why


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something bad that happens once."""

    kind: str
    """Its row in the table."""
    name: str
    """What tells it apart from others of its kind."""
    happen: Callable[[Path], None]
    """Lets it happen in an empty folder."""
    long: bool = False
    """Whether it takes more than seconds."""
    timeout_s: float = TIMEOUT_S


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a fault."""

    kind: str
    name: str
    outcome: str
    """`survived`, or one of `OUTCOMES`."""
    why: str
    seconds: float


def try_all(faults: list[Fault], processes: int = 2) -> Iterator[Result]:
    """Try faults side by side, each in a new folder that is removed afterwards."""
    waiting, running = list(faults), {}
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        number = 0
        while waiting or running:
            while waiting and len(running) < processes:
                fault = waiting.pop(0)
                folder = Path(name) / str(number)
                folder.mkdir()
                number += 1
                running[_fork(fault.happen, folder, leads=True)] = fault, folder, time.monotonic()
            for process_id, (fault, folder, began) in list(running.items()):
                seconds = time.monotonic() - began
                ended, _ = os.waitpid(process_id, os.WNOHANG)
                if not ended and seconds < fault.timeout_s:
                    continue
                if not ended:
                    # Its process group: what it started ends, too.
                    os.killpg(process_id, signal.SIGKILL)
                    os.waitpid(process_id, 0)
                outcome, why = _said(folder) if ended else ("stuck", f"{fault.timeout_s:.0f} s")
                yield Result(fault.kind, fault.name, outcome, why, round(seconds, 1))
                del running[process_id]
                shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.02)


def in_process(work: Callable[[], Any], folder: Path, timeout_s: float = TIMEOUT_S) -> Any:
    """What `work` returns in a forked process; None if it was killed.

    Raises:
        Bad: It raised so, or takes too long.
    """
    box = folder / f"box-{time.monotonic_ns()}"
    box.mkdir()

    def write() -> None:
        (box / "value.json").write_text(json.dumps(work()))

    process_id = _fork(lambda inner: write(), box)
    deadline = time.monotonic() + timeout_s
    while True:
        ended, status = os.waitpid(process_id, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(process_id, signal.SIGKILL)
            os.waitpid(process_id, 0)
            raise Bad("stuck", f"a process did not end in {timeout_s:.0f} s")
        time.sleep(0.01)
    if os.WIFSIGNALED(status):
        return None
    outcome, why = _said(box)
    if outcome != "survived":
        raise Bad(outcome, why)
    return json.loads((box / "value.json").read_text())


def _fork(work: Callable[[Path], None], folder: Path, *, leads: bool = False) -> int:
    process_id = os.fork()
    if process_id:
        return process_id
    code = 1
    try:
        if leads:
            os.setsid()
        output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        said = {"outcome": "survived", "why": ""}
        try:
            work(folder)
        except Bad as error:
            said = {"outcome": error.outcome, "why": error.why}
        except BaseException as error:
            said = {"outcome": "stuck", "why": f"{type(error).__name__}: {error!s:.300}"}
            traceback.print_exc()
            said["why"] += place(error)
        (folder / "said.json").write_text(json.dumps(said))
        code = 0
    finally:
        os._exit(code)


def place(error: BaseException) -> str:
    """The last line of ours that an error came through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/explorer/" in f.filename]
    return f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def _said(folder: Path) -> tuple[str, str]:
    try:
        said = json.loads((folder / "said.json").read_text())
        return said["outcome"], said["why"]
    except (OSError, ValueError):
        tail = ""
        if (folder / "output.txt").exists():
            tail = re.sub(r"\s+", " ", (folder / "output.txt").read_text(errors="replace")[-300:])
        return "stuck", f"the process died: {tail}"


def table(results: list[Result]) -> str:
    """A line for each kind: how many were tried, survived, and each bad outcome."""
    kinds = list(dict.fromkeys(result.kind for result in results))
    width = max(map(len, kinds), default=4)
    head = f"{'kind':{width}}  tried  survived  " + "  ".join(OUTCOMES) + "  seconds"
    lines = [head]
    for kind in kinds:
        own = [result for result in results if result.kind == kind]
        counts = [sum(r.outcome == outcome for r in own) for outcome in ("survived", *OUTCOMES)]
        cells = [f"{count:{len(name)}}" for count, name in zip(counts[1:], OUTCOMES, strict=True)]
        seconds = sum(result.seconds for result in own)
        lines.append(
            f"{kind:{width}}  {len(own):5}  {counts[0]:8}  {'  '.join(cells)}  {seconds:7.0f}"
        )
    return "\n".join(lines)


def summary(results: list[Result]) -> dict[str, Any]:
    """The last line of `make faults`, without its duration."""
    counts = {name: sum(r.outcome == name for r in results) for name in ("survived", *OUTCOMES)}
    return {"tried": len(results), **counts}
