"""Several at once on one store: dashboards, a page and a command, and clocks that disagree."""

import functools
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from explorer import pipeline
from explorer.catalogue import prices
from explorer.catalogue.prices import Price
from explorer.index import store_index
from explorer.jobs import queue, states
from explorer.store import disk, trash
from tests.faults.faults import Bad, Fault, in_process
from tests.faults.stores import Stores, enter, open_pages, outcome_of, shown

DAY_S = 86_400.0
STEPS_S = {
    "a second back": -1.5,
    "an hour back": -3_600.0,
    "a day back": -DAY_S,
    "ten years back": -3_652 * DAY_S,
    "an hour on": 3_600.0,
    "a day on": DAY_S,
    "ten years on": 3_652 * DAY_S,
}
"""How far the clock of a run jumps."""


def faults(stores: Stores) -> Iterator[Fault]:
    """Every fault of this subject."""
    at_once: dict[str, Callable[[Stores, Path], None]] = {
        "both index a store that grows": two_indexes,
        "both hide runs": two_hide,
        "both name prices": two_prices,
        "one hides, one deletes": hide_and_delete,
        "one deletes, one restores": delete_and_restore,
        "both draw every page": two_draw,
    }
    for name, happen in at_once.items():
        yield Fault("two dashboards", name, functools.partial(happen, stores))
    for name, happen in {
        "started at once": run_twice,
        "drawn while it runs": drawn_while_running,
        "cancelled while it runs": cancelled,
        "cancelled while it waits": cancelled_while_waiting,
        "a second student at once": two_students,
    }.items():
        yield Fault("page and command on one run", name, functools.partial(happen, stores))
    updates = {stage: number for number, stage in reversed(list(enumerate(stores.stages)))}
    for name, seconds in STEPS_S.items():
        for stage in ("distil", "capability"):
            happen = functools.partial(clock_step, stores, updates[stage], seconds)
            yield Fault("the clock steps", f"{name} in {stage}", happen)


def side_by_side(works: list[Callable[[], Any]], folder: Path) -> list[Any]:
    """What each of these returns in a process of its own, started together."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(works)) as pool:
        places = []
        for _ in works:
            places.append(Path(tempfile.mkdtemp(dir=folder)))
        return list(pool.map(lambda pair: in_process(*pair), zip(works, places, strict=True)))


def two_indexes(stores: Stores, folder: Path) -> None:
    """Two processes read a store into one index while a third adds runs."""
    root = stores.copy(stores.finished, folder)
    known = list(shown(root)["rows"])
    ids = [f"copy-{number:08x}" for number in range(30)]

    def grow() -> None:
        for run_id in ids:
            record = disk.load(root, known[0]).model_copy(update={"run_id": run_id})
            disk.save(root, record)
            time.sleep(0.02)

    def look() -> list[str]:
        index = store_index.StoreIndex(root)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            index.update()
            runs = index.runs()["run_id"].tolist()
            # A folder is empty for a moment before its record is written.
            if problems := [p for p in index.problems() if "is not a run" not in p]:
                raise Bad("untrue", str(problems))
            if not {*known} <= {*runs}:
                raise Bad("lost", f"a look shows {len(runs)} runs")
            if {*ids} <= {*runs}:
                return []
        raise Bad("lost", "the new runs never came")

    side_by_side([grow, look, look], folder)


def two_hide(stores: Stores, folder: Path) -> None:
    """Two processes hide and show the same store's runs; neither undoes the other."""
    root = stores.copy(stores.finished, folder)
    ours, theirs = _two_lists(root)
    side_by_side(
        [lambda: _each(trash.hide, root, ours), lambda: _each(trash.hide, root, theirs)], folder
    )
    if not {*ours, *theirs} <= trash.hidden_run_ids(root):
        raise Bad("lost", f"{len(trash.hidden_run_ids(root))} runs are hidden")
    side_by_side(
        [lambda: _each(trash.unhide, root, ours), lambda: _each(trash.unhide, root, theirs)], folder
    )


def two_prices(stores: Stores, folder: Path) -> None:
    """Two processes name prices; all are there in the end."""
    root = stores.copy(stores.finished, folder)
    path = root / prices.OVERRIDES

    def name(prefix: str) -> None:
        for number in range(10):
            prices.write_override(path, f"{prefix} {number}", Price(usd_per_hour=1.0 + number))

    side_by_side([lambda: name("a"), lambda: name("b")], folder)
    if len(prices.read_overrides(path)) != 21:
        raise Bad("lost", f"{len(prices.read_overrides(path))} of 21 prices")


def hide_and_delete(stores: Stores, folder: Path) -> None:
    """A run that is deleted while others are hidden goes, and the others are hidden."""
    root = stores.copy(stores.finished, folder)
    ours, theirs = _two_lists(root)
    side_by_side(
        [lambda: _each(trash.hide, root, ours), lambda: _each(_delete, root, theirs)], folder
    )
    if not {*ours} <= trash.hidden_run_ids(root):
        raise Bad("lost", "not all are hidden")
    if len(trash.deleted_runs(root)) != len(theirs):
        raise Bad("lost", f"{len(trash.deleted_runs(root))} runs are in the trash")


def delete_and_restore(stores: Stores, folder: Path) -> None:
    """Runs that one process deletes, another restores."""
    root = stores.copy(stores.finished, folder)
    ours, theirs = _two_lists(root)
    _each(_delete, root, theirs)
    side_by_side(
        [lambda: _each(_delete, root, ours), lambda: _each(_restore, root, theirs)], folder
    )
    left = {*disk.run_ids(root)}
    if not {*theirs} <= left or {*ours} & left:
        raise Bad("lost", f"{len(left)} runs are left")


def two_draw(stores: Stores, folder: Path) -> None:
    """Two dashboards draw every page of one store for the first time."""
    root = stores.copy(stores.finished, folder)
    side_by_side([lambda: open_pages(root), lambda: open_pages(root)], folder)


def run_twice(stores: Stores, folder: Path) -> None:
    """Two processes start the same run; it is done once."""
    root = folder / "results"

    def run() -> Any:
        enter(root)
        pipeline.run(stores.spec, root)
        return outcome_of(root, stores.spec)

    ours, theirs = side_by_side([run, run], folder)
    if ours != theirs or ours != stores.unbroken:
        raise Bad("lost", "two processes at once have other results")
    if list((root / stores.spec.run_id).glob("record.[0-9]*.json")):
        raise Bad("untrue", "the run was done twice")


def drawn_while_running(stores: Stores, folder: Path) -> None:
    """Pages are drawn while the run changes its store."""
    root = folder / "results"
    root.mkdir()

    def run() -> None:
        enter(root)
        pipeline.run(stores.spec, root)

    def draw() -> None:
        enter(root)
        for _ in range(3):
            open_pages(root, ("explore", "run"))

    side_by_side([run, draw], folder)
    stores.go_on(root, folder)


def cancelled(stores: Stores, folder: Path) -> None:
    """The page cancels a run of the shell; it says so, and resumes."""
    root = folder / "results"

    def run() -> str:
        enter(root)
        update = stores.stages.index("distil") + 3
        seen = 0

        def listen(status: dict[str, object]) -> None:
            nonlocal seen
            seen += 1
            if seen == update:
                queue.cancel(root, stores.spec.run_id)

        try:
            pipeline.run(stores.spec, root, listen)
        except Exception as error:
            return type(error).__name__
        return "finished"

    said = in_process(run, folder)
    if said != "RunCancelled":
        raise Bad("untrue", f"a cancelled run ended as {said}")
    if states.state_of(root, stores.spec.run_id) != "cancelled":
        raise Bad("untrue", f"it is {states.state_of(root, stores.spec.run_id)}")
    disk.withdraw_cancel(root, stores.spec.run_id)
    stores.go_on(root, folder)


def cancelled_while_waiting(stores: Stores, folder: Path) -> None:
    """A run that waits for another run's student is cancelled within seconds."""
    root = folder / "results"
    second = stores.spec.with_(name="second")

    def first() -> None:
        enter(root)
        seen = 0

        def listen(status: dict[str, object]) -> None:
            nonlocal seen
            seen += 1
            if status["stage"] == "distil" and seen > 3 and not (folder / "go").exists():
                deadline = time.monotonic() + 30
                while not (folder / "go").exists() and time.monotonic() < deadline:
                    time.sleep(0.05)

        pipeline.run(stores.spec, root, listen)

    def wait() -> str:
        enter(root)
        while not list(root.glob(".work/students/*/checkpoint")):
            time.sleep(0.05)
        began = time.monotonic()

        def listen(status: dict[str, object]) -> None:
            if str(status["stage"]).startswith("waiting"):
                disk.request_cancel(root, second.run_id)

        try:
            pipeline.run(second, root, listen)
            said = "finished"
        except Exception as error:
            said = type(error).__name__
        took = time.monotonic() - began
        (folder / "go").touch()
        return f"{said} after {took:.0f} s" if took > 15 else said

    _, said = side_by_side([first, wait], folder)
    if said != "RunCancelled":
        raise Bad("stuck", f"the waiting run was {said}")
    disk.withdraw_cancel(root, second.run_id)
    stores.go_on(root, folder)
    stores.go_on(root, folder, second)


def two_students(stores: Stores, folder: Path) -> None:
    """Two students of one teacher run at once; its run and its targets are made once."""
    root = folder / "results"
    assert stores.spec.student is not None
    other = stores.spec.with_(student=stores.spec.student.with_(num_layers=3))

    def run(spec: Any) -> None:
        enter(root)
        pipeline.run(spec, root)

    side_by_side([lambda: run(stores.spec), lambda: run(other)], folder)
    stores.go_on(root, folder)
    if disk.load(root, other.run_id).status != "finished":
        raise Bad("lost", "the other student has not finished")


def clock_step(stores: Stores, update: int, seconds: float, folder: Path) -> None:
    """Let the clock jump at this progress update, and look at the run from outside."""
    root = folder / "results"
    paused, go = folder / "paused", folder / "go"

    def run() -> Any:
        enter(root)
        clock, seen = time.time, 0

        def listen(status: dict[str, object]) -> None:
            nonlocal seen
            seen += 1
            if seen == update + 1:
                time.time = lambda: clock() + seconds
            if seen == update + 2:
                time.sleep(0.6)  # so that the next status is written
            if seen == update + 3:
                paused.touch()
                deadline = time.monotonic() + 30
                while not go.exists() and time.monotonic() < deadline:
                    time.sleep(0.05)

        try:
            pipeline.run(stores.spec, root, listen)
        finally:
            time.time = clock
        return outcome_of(root, stores.spec)

    def look() -> str | None:
        enter(root)
        deadline = time.monotonic() + 60
        while not paused.exists():
            if time.monotonic() > deadline:
                raise Bad("stuck", "the run never came so far")
            time.sleep(0.05)
        state = states.state_of(root, stores.spec.run_id)
        go.touch()
        return state

    outcome, state = side_by_side([run, look], folder)
    if state != "running":
        raise Bad("untrue", f"a living run is called {state}")
    if outcome != stores.unbroken:
        raise Bad("lost", "the results differ from the unbroken run's")
    open_pages(root, ("explore", "run"))


def _two_lists(root: Path) -> tuple[list[str], list[str]]:
    """Copies of a run, in two lists."""
    source = next(path for path in sorted(root.iterdir()) if (path / disk.RECORD).is_file())
    ids = [f"copy-{number:08x}" for number in range(16)]
    for run_id in ids:
        shutil.copytree(source, root / run_id)
        record = json.loads((root / run_id / disk.RECORD).read_text()) | {"run_id": run_id}
        (root / run_id / disk.RECORD).write_text(json.dumps(record))
    return ids[::2], ids[1::2]


def _each(change: Callable[[Path, Any], Any], root: Path, run_ids: list[str]) -> None:
    for run_id in run_ids:
        change(root, [run_id])


def _delete(root: Path, run_ids: list[str]) -> None:
    queue.delete(root, run_ids)


def _restore(root: Path, run_ids: list[str]) -> None:
    trash.restore(root, run_ids[0])
