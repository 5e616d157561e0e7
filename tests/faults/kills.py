"""A process that ends in the middle: kill -9, SIGTERM, memory, and a disk that takes no more."""

import errno
import functools
import os
import re
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from explorer import pipeline
from explorer.errors import ExplorerError
from explorer.jobs import states
from explorer.store import disk
from tests.faults.faults import Bad, Fault, in_process, place
from tests.faults.stores import Stores, enter, open_pages, shown, watched

PATIENCE_S = 60.0
PAGES_EVERY = 10
"""After every tenth kill the pages are drawn, too."""


def faults(stores: Stores) -> Iterator[Fault]:
    """Every fault of this subject."""
    for moment in range(stores.num_changes):
        yield Fault("kill -9 before a change", str(moment), functools.partial(kill, stores, moment))
    kinds = {
        "SIGTERM in a stage": signal.SIGTERM,
        # What the kernel's killer sends when a machine or a cgroup runs out of memory.
        "out-of-memory kill in a stage": signal.SIGKILL,
    }
    updates = {stage: number for number, stage in reversed(list(enumerate(stores.stages)))}
    for kind, number in kinds.items():
        for stage, update in updates.items():
            happen = functools.partial(signalled, stores, number, update)
            yield Fault(kind, stage, happen)
    for stage in ("latency", "record"):
        yield Fault("kill -9 in a timing", stage, functools.partial(kill_timed, stores, stage))
    for stage, update in updates.items():
        yield Fault("no memory", stage, functools.partial(no_memory, stores, update))
        happen = functools.partial(no_more_memory, stores, update)
        yield Fault("a limit on memory", stage, happen)
    for moment in range(0, stores.num_changes, 6):
        happen = functools.partial(refusing, stores, errno.ENOSPC, moment, stays=True)
        yield Fault("the disk is full and stays so", str(moment), happen)
    for moment in range(3, stores.num_changes, 12):
        happen = functools.partial(refusing, stores, errno.ENOSPC, moment, stays=False)
        yield Fault("the disk is full for a moment", str(moment), happen)
    for num_bytes in (0, 300, 3_000, 20_000, 60_000):
        happen = functools.partial(no_larger_file, stores, num_bytes)
        yield Fault("no file may be larger", f"{num_bytes:,} bytes", happen)
    yield Fault("read-only store", "run", functools.partial(refusing, stores, errno.EROFS, 0))
    yield Fault("read-only store", "pages", functools.partial(read_only_pages, stores))


def kill(stores: Stores, moment: int, folder: Path) -> None:
    """Kill the run before its change of this number."""
    root = folder / "results"

    def at(number: int, what: str) -> None:
        if number == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    run_once(stores, root, folder, lambda: watched(root, at))
    check_left(root, folder, with_pages=moment % PAGES_EVERY == 0)
    stores.go_on(root, folder)


def kill_timed(stores: Stores, stage: str, folder: Path) -> None:
    """Kill a run that times its models: at its first turn, or before its record is written."""
    root, spec = folder / "results", stores.timed

    def listen(status: dict[str, object]) -> None:
        if stage == "latency" and status["stage"] == stage and status["done"]:
            os.kill(os.getpid(), signal.SIGKILL)

    def at(number: int, what: str) -> None:
        is_last = what.startswith("os.rename") and spec.run_id in what and ".record.json" in what
        if stage == "record" and is_last:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> str:
        enter(root)
        with watched(root, at):
            pipeline.run(spec, root, listen)
        return "finished"

    if in_process(work, folder) is not None:
        raise Bad("untrue", f"the run has no stage {stage}")
    check_left(root, folder)
    stores.go_on(root, folder, spec)


def signalled(stores: Stores, number: int, update: int, folder: Path) -> None:
    """Send a signal to the run at this progress update."""
    root = folder / "results"
    seen = 0

    def listen(status: dict[str, object]) -> None:
        nonlocal seen
        if seen == update:
            os.kill(os.getpid(), number)
        seen += 1

    run_once(stores, root, folder, listener=listen)
    check_left(root, folder)
    stores.go_on(root, folder)


def no_memory(stores: Stores, update: int, folder: Path) -> None:
    """Let an allocation fail at this progress update."""
    root = folder / "results"
    seen = 0

    def listen(status: dict[str, object]) -> None:
        nonlocal seen
        seen += 1
        if seen == update + 1:
            raise MemoryError

    said = run_once(stores, root, folder, listener=listen)
    # A student's run says it of its teacher's run, which comes first.
    if said is None or "ran out of memory" not in said:
        raise Bad("untrue", f"out of memory was called {said}")
    check_left(root, folder)
    stores.go_on(root, folder)


def no_more_memory(stores: Stores, update: int, folder: Path) -> None:
    """Let the kernel refuse every further allocation from this progress update on."""
    root = folder / "results"
    seen = 0

    def listen(status: dict[str, object]) -> None:
        nonlocal seen
        seen += 1
        if seen == update + 1:
            used = psutil.Process().memory_info().vms
            resource.setrlimit(resource.RLIMIT_AS, (used, resource.RLIM_INFINITY))

    def free() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    teacher = stores.spec.teacher_run()
    assert teacher is not None
    run_ids = (stores.spec.run_id, teacher.run_id)
    # Python waits for ever for a thread that found no memory to begin: people cancel such a run.
    patience = threading.Timer(PATIENCE_S, lambda: [disk.request_cancel(root, i) for i in run_ids])
    patience.start()
    said = run_once(stores, root, folder, listener=listen, after=free)
    patience.cancel()
    patience.join()
    # A C++ library may end the process where it gets nothing; it is then as after a kill.
    # The last is what Python itself says of a library that got nothing and did not say so.
    words = " memory|RunCancelled|can't start new thread|error return without exception set"
    if said not in (None, "finished") and not re.search(words, str(said)):
        raise Bad("untrue", f"out of memory was called {said}")
    for run_id in run_ids:
        disk.withdraw_cancel(root, run_id)
    check_left(root, folder)
    stores.go_on(root, folder)


def refusing(stores: Stores, number: int, moment: int, folder: Path, *, stays: bool = True) -> None:
    """Let the disk refuse a change, and all after it if it stays so."""
    root = folder / "results"

    def refuse(change: int, what: str) -> None:
        if change == moment or (stays and change > moment):
            if what.startswith(("os.remove", "os.rmdir")) and number == errno.ENOSPC:
                return
            raise OSError(number, os.strerror(number), what.partition(" ")[2])

    said = run_once(stores, root, folder, lambda: watched(root, refuse))
    check_said(said)
    if root.exists():
        check_left(root, folder)
    stores.go_on(root, folder)


def no_larger_file(stores: Stores, num_bytes: int, folder: Path) -> None:
    """Let the kernel refuse every file above a size, as a quota does."""
    root = folder / "results"

    def limited() -> object:
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))
        return watched(root, lambda number, what: None)

    def free() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    said = run_once(stores, root, folder, limited, after=free)
    check_said(said)
    check_left(root, folder)
    stores.go_on(root, folder)


def read_only_pages(stores: Stores, folder: Path) -> None:
    """Draw every page on a store that may not be written."""
    root = stores.copy(stores.finished, folder)

    def refuse(change: int, what: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), what)

    with watched(root, refuse):
        open_pages(root)
        left = shown(root)
    if len(left["rows"]) != 2:
        raise Bad("lost", f"{len(left['rows'])} of 2 runs are shown")


def run_once(
    stores: Stores,
    root: Path,
    folder: Path,
    around: Callable[[], object] | None = None,
    listener: Callable[[dict[str, object]], None] | None = None,
    after: Callable[[], None] = lambda: None,
) -> str | None:
    """Run the run in a process; what it said in the end, None if it was killed."""

    def work() -> str:
        enter(root)
        context = around() if around else watched(root, lambda number, what: None)
        try:
            with context:  # type: ignore[attr-defined]
                pipeline.run(stores.spec, root, listener)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            if not isinstance(error, ExplorerError):
                said = f"traceback {said}{place(error)}"
            return said
        finally:
            after()
        return "finished"

    answer = in_process(work, folder)
    return None if answer is None else str(answer)


def check_said(said: str | None) -> None:
    if said is None or said.startswith("traceback"):
        raise Bad("untrue", f"a traceback in the place of a sentence: {said}")


def check_left(root: Path, folder: Path, *, with_pages: bool = False) -> None:
    """Check what is shown of a store that a run has left."""
    if not root.exists():
        return

    def look() -> None:
        enter(root)
        left = shown(root)
        # A folder without anything in it is called so.
        empty = [str(path) for path in root.iterdir() if path.is_dir() and not any(path.iterdir())]
        for problem in left["problems"]:
            if not problem.startswith(tuple(f"{path} is not a run" for path in empty)):
                raise Bad("untrue", f"a store that nobody damaged: {problem}")
        for run_id in left["rows"]:
            state = states.state_of(root, run_id)
            if state == "running":
                raise Bad("untrue", f"{run_id} is said to run")
        if with_pages:
            open_pages(root, ("explore", "run"))

    in_process(look, folder)
