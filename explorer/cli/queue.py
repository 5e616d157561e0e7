"""Commands on the queue: cancel, resume, jobs."""

import json
import logging
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from explorer.cli.common import ResultsDir, app, console, root_of, say_engine_start
from explorer.errors import BadInput
from explorer.store import disk

NAMED = typer.Argument(help="The id of a run or of a tournament, or a unique beginning of it.")
Job = Annotated[str, NAMED]


@app.command()
def cancel(
    run_id: Annotated[str | None, NAMED] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Stop all queued and running runs and tournaments.")
    ] = False,
    results: ResultsDir = None,
) -> None:
    """Stop a run or tournament, or all of them.

    Checkpoints stay. The runs of a tournament stop with it.
    """
    from explorer.search import queued

    if everything == (run_id is not None):
        raise BadInput(
            "Name the run or tournament to cancel, or write --all to cancel everything in the "
            "queue, and not both. `explorer ls` lists them."
        )
    root = root_of(results)
    if run_id is None:
        names = queued.cancel_all(root)
        for name in names:
            console.print(f"{name} stops at its next step.")
        if names:
            console.print(f"To continue one: explorer resume {names[0]}")
        else:
            console.print("Nothing is queued or running.")
        return
    run_id, queue = _resolve(root, run_id)
    queue.cancel(root, run_id)
    console.print(f"{run_id} stops at its next step. Continue it: explorer resume {run_id}")


@app.command()
def resume(run_id: Job, results: ResultsDir = None) -> None:
    """Queue a stopped run or tournament again.

    It continues where it was cancelled, failed or was interrupted. A finished run is measured
    again; its result counts until the new one is written.
    """
    root = root_of(results)
    run_id, queue = _resolve(root, run_id)
    finished = disk.is_run(root, run_id) and disk.is_finished(root, run_id)
    queue.resume(root, run_id, say_engine_start)
    if finished:
        console.print(
            f"{run_id} was finished already and is queued to be measured again. Its present result "
            f"counts until then. To keep it as it is: explorer cancel {run_id}"
        )
        return
    console.print(f"{run_id} is queued. Watch it: explorer ls")


@app.command("jobs")
def show_engine(
    stop: Annotated[bool, typer.Option("--stop", help="Stop the Ray head we started.")] = False,
    dispatch: Annotated[
        bool, typer.Option("--dispatch", hidden=True, help="Set by the queue, not by hand.")
    ] = False,
) -> None:
    """Show the Ray engine that runs the queue, or stop it."""
    from explorer import jobs

    if dispatch:
        from explorer.jobs import dispatch as dispatching

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        dispatching.run_here(root_of(None))
        return

    if stop:
        console.print("Stopped." if jobs.stop_engine() else "No Ray head of ours was running.")
        return
    print(json.dumps(jobs.engine_status(), indent=1))


def _resolve(root: Path, text: str) -> tuple[str, ModuleType]:
    """The run or search that `text` names, and the module that cancels and resumes it."""
    from explorer import jobs
    from explorer.search import queued, successive_halving

    disk.run_folder(root, text)  # refuses what cannot be an id
    searches = successive_halving.search_ids(root)
    runs = [run_id for run_id in disk.run_ids(root) if disk.is_run(root, run_id)]
    run_id = disk.resolve_id(
        text,
        [*runs, *searches],
        "runs and tournaments",
        f"There is no run or tournament {text!r} in {root}.",
        "`explorer ls` and `explorer tune --standings` list them.",
    )
    return run_id, queued if run_id in searches else jobs
