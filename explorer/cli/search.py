"""Tournaments: hold one here, hand it to the queue, see how it stands."""

import contextlib
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from explorer import specs
from explorer.analysis import numbers
from explorer.cli.common import ResultsDir, Wide, app, console, root_of, say_engine_start
from explorer.cli.run import Queue
from explorer.cli.tables import print_table, write_out
from explorer.errors import BadInput
from explorer.records.rows import row_dicts
from explorer.search import queued, successive_halving
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
        Path, typer.Option("--out", "-o", help="Where the winner's spec is written.")
    ] = Path("tuned.yaml"),
    queue: Queue = False,
    show: Annotated[
        bool,
        typer.Option("--standings", help="Only print how it stands; without WHAT, list all."),
    ] = False,
    wide: Wide = False,
    by_the_queue: Annotated[
        bool, typer.Option("--queued", hidden=True, help="The queue says this, not a person.")
    ] = False,
) -> None:
    """Find the better of several ways to teach a student, by a short tournament."""
    root = root_of(results)
    if what is None:
        if not show:
            raise BadInput("tune needs a YAML file, or a tournament's id. --standings lists them.")
        _list(root, wide)
        return
    spec = _spec(root, what)
    if show:
        now = successive_halving.standings(spec, root)
        _print_standings(spec, now.table, wide)
        console.print(f"{now.title}, {len(now.missing)} of {now.num_runs} trainings to be done.")
    elif queue:
        tune_id = queued.submit(spec, root, say_engine_start)
        console.print(
            f"queued {tune_id}\nHow it stands: explorer tune {tune_id} --standings\n"
            f"When it is done, the winner's spec: explorer tune {tune_id}"
        )
    elif by_the_queue:
        _print_standings(spec, successive_halving.hold(spec, root, queued.train), wide)
    else:
        table = _hold_here(spec, root)
        _print_standings(spec, table, wide)
        write_out(table[0].spec.to_yaml().encode(), out)


def _spec(root: Path, what: str) -> specs.TuneSpec:
    """A tournament by its file or by its id in the store."""
    if what.endswith((".yaml", ".yml")) or Path(what).is_file():
        return specs.TuneSpec.read(Path(what))
    return successive_halving.read(root, successive_halving.resolve_tune_id(root, what))


def _hold_here(spec: specs.TuneSpec, root: Path) -> list[successive_halving.Standing]:
    """Hold it in this process, a bar a run."""
    from explorer.cli.progress_bar import stage_bar
    from explorer.search import local

    # Asked for by hand, so an old request to stop is over.
    disk.withdraw_cancel(successive_halving.folder(root), successive_halving.begin(spec, root))
    with contextlib.ExitStack() as bars:

        def bar_of(title: str) -> Listener:
            bars.close()
            return bars.enter_context(stage_bar(console, title))

        return successive_halving.hold(spec, root, local.train(bar_of))


def _print_standings(
    spec: specs.TuneSpec, table: list[successive_halving.Standing], wide: bool
) -> None:
    words = successive_halving.in_words(spec, table)
    # The last rounds, which had the most tokens, say the most.
    last_first = [str(name) for name in words.columns[:0:-1]]
    print_table(words, identifying=["Variant"], importance=last_first, wide=wide)


def _list(root: Path, wide: bool) -> None:
    rows = row_dicts(queued.listing(root))
    if not rows:
        console.print("No tournaments yet. Start one: explorer tune tune.yaml")
        return
    words = [
        {
            "Tournament": row["run_id"],
            "State": row["state"],
            "Stage": row["stage"] or numbers.MISSING,
            "Done": f"{row['done']:.0f} of {row['total']:.0f}" if row["total"] else numbers.MISSING,
        }
        for row in rows
    ]
    print_table(pd.DataFrame(words), identifying=["Tournament"], wide=wide)
    for row in rows:
        if row["error"]:
            console.print(f"{row['run_id']}: {row['error']}", markup=False)
