"""The command for searches by successive halving: tune."""

import contextlib
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import typer

from explorer import jobs, specs
from explorer.analysis import numbers
from explorer.cli.common import ResultsDir, Wide, app, console, root_of, say_engine_start
from explorer.cli.run import Queue
from explorer.cli.tables import print_table, write_out
from explorer.errors import BadInput
from explorer.models import size_limits
from explorer.records.rows import row_dicts
from explorer.search import queued, successive_halving
from explorer.search.successive_halving import VariantResult
from explorer.store import disk
from explorer.store.progress import Listener


@app.command()
def tune(
    what: Annotated[
        str | None,
        typer.Argument(help="A YAML file with a run and its variants, or a tournament's id."),
    ] = None,
    results: ResultsDir = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The file for the winner's spec.")
    ] = Path("tuned.yaml"),
    queue: Queue = False,
    standings: Annotated[
        bool,
        typer.Option(
            "--standings",
            help="Only print the standings of this tournament; without WHAT, list all tournaments.",
        ),
    ] = False,
    wide: Wide = False,
    by_the_queue: Annotated[
        bool, typer.Option("--queued", hidden=True, help="Set by the queue, not by hand.")
    ] = False,
) -> None:
    """Find better training settings by successive halving.

    A tournament trains every variant of a run briefly. Each round keeps 1 in N by held-out KL and
    trains the survivors N times longer. Run the same command again to continue.
    """
    root = root_of(results)
    if what is None:
        if not standings:
            raise BadInput(
                "tune needs a YAML file or the id of a tournament. List tournaments: explorer tune "
                "--standings"
            )
        _list_searches(root, wide)
        return
    spec = _spec(root, what)
    if standings:
        status = successive_halving.round_status(spec, root)
        _print_results(spec, status.results, wide)
        console.print(f"{status.title}: {len(status.missing)} of {status.num_runs} trainings left.")
    elif queue:
        _check(spec, root, jobs.place())
        tune_id = queued.submit(spec, root, say_engine_start)
        console.print(
            f"queued {tune_id}\nStandings: explorer tune {tune_id} --standings\n"
            f"Write the winner's spec once it is finished: explorer tune {tune_id}"
        )
    elif by_the_queue:
        ranking = successive_halving.run_search(spec, root, queued.train_in_queue)
        _print_results(spec, ranking, wide)
    else:
        _check(spec, root, "here")
        ranking = _run_here(spec, root)
        _print_results(spec, ranking, wide)
        write_out(ranking[0].spec.to_yaml().encode(), out)


def _spec(root: Path, what: str) -> specs.TuneSpec:
    """The spec of a search, from its file or from its id in the store."""
    if what.endswith((".yaml", ".yml")) or Path(what).is_file():
        return specs.TuneSpec.read(Path(what))
    return successive_halving.read_spec(root, successive_halving.resolve_tune_id(root, what))


def _check(spec: specs.TuneSpec, root: Path, place: Literal["here", "queue", "cluster"]) -> None:
    """Refuse what cannot work in any round, before the first one."""
    size_limits.check_students(spec.contenders().values(), root)
    from explorer.pipeline import preflight

    for finding in preflight.refuse(spec.last_round(), root, place=place):
        console.print(finding.in_words(), markup=False, soft_wrap=True)


def _run_here(spec: specs.TuneSpec, root: Path) -> list[VariantResult]:
    """Run a search in this process, with a progress bar per run."""
    from explorer.cli.progress_bar import stage_bar
    from explorer.search import local

    # Started by hand, which withdraws an earlier request to stop.
    tune_id = successive_halving.save_spec(spec, root)
    disk.withdraw_cancel(successive_halving.searches_folder(root), tune_id)
    with contextlib.ExitStack() as bars:

        def new_bar(title: str) -> Listener:
            bars.close()
            return bars.enter_context(stage_bar(console, title))

        return successive_halving.run_search(spec, root, local.train_here(new_bar))


def _print_results(spec: specs.TuneSpec, results: list[VariantResult], wide: bool) -> None:
    table = successive_halving.results_table(spec, results)
    # The last rounds, which train longest, matter most.
    last_first = [str(name) for name in table.columns[:0:-1]]
    print_table(table, identifying=["Variant"], importance=last_first, wide=wide)


def _list_searches(root: Path, wide: bool) -> None:
    rows = row_dicts(queued.status_table(root))
    if not rows:
        console.print("No tournaments yet. Start one: explorer tune tune.yaml")
        return
    cells = [
        {
            "Tournament": row["run_id"],
            "State": row["state"],
            "Stage": row["stage"] or numbers.MISSING,
            "Done": f"{row['done']:.0f} of {row['total']:.0f}" if row["total"] else numbers.MISSING,
        }
        for row in rows
    ]
    print_table(pd.DataFrame(cells), identifying=["Tournament"], wide=wide)
    for row in rows:
        if row["error"]:
            console.print(f"{row['run_id']}: {row['error']}", markup=False)
