"""Commands on results: ls, show, compare, export, import, price."""

import contextlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from explorer.analysis import interference, numbers
from explorer.analysis.cost.unit_cost import UTILISATION
from explorer.analysis.stats import pairing
from explorer.cli import run_summary
from explorer.cli.common import AsJson, Out, ResultsDir, Utilisation, Wide, app, console, root_of
from explorer.cli.tables import (
    PAGE_ROWS,
    analysed_runs,
    named_runs,
    open_index,
    print_comparison,
    print_table,
    write_out,
)
from explorer.errors import BadInput
from explorer.records.rows import row_dicts
from explorer.store import disk

RunIds = Annotated[
    list[str] | None,
    typer.Argument(help="Ids of runs, or unique beginnings of ids; by default all runs."),
]


@app.command("ls")
def list_runs(
    results: ResultsDir = None,
    as_json: AsJson = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help=f"The most runs to list; {PAGE_ROWS} by default, all in JSON."),
    ] = None,
    show_all: Annotated[
        bool, typer.Option("--all", help="List every run, hidden ones too.")
    ] = False,
    wide: Wide = False,
) -> None:
    """List runs, the latest first; queued and running ones too."""
    from explorer import jobs
    from explorer.index.run_states import ACTIVE

    root = root_of(results)
    index = open_index(root)
    hidden = index.hidden()
    if limit is None and not as_json and not show_all:
        limit = PAGE_ROWS
    states = jobs.status_table(root, limit=limit, without=frozenset() if show_all else hidden)
    names = ["run_id", "num_layers", "num_parameters", "tpot_ms", "machine_busy", "finished_at"]
    runs = states.merge(index.runs(states["run_id"])[names], on="run_id", how="left")
    runs["hidden"] = runs["run_id"].isin(hidden)
    # Active runs are listed even if they are hidden.
    active = runs["hidden"] & runs["state"].isin(ACTIVE)
    num_hidden = 0 if show_all else index.num_states(hidden) - int(active.sum())
    if as_json:
        print(runs.to_json(orient="records", indent=1))
    else:
        num_runs = index.num_states() - num_hidden
        if num_hidden == 0 or not runs.empty:
            _print_runs(runs, wide)
        if len(runs) < num_runs:
            console.print(
                f"{len(runs):,} of {num_runs:,} runs, the latest first. More: --limit or --all."
            )
        if num_hidden:
            console.print(f"{num_hidden} hidden; `explorer ls --all` lists them too.")
    for problem in index.problems():
        print(problem, file=sys.stderr)


def _print_runs(runs: pd.DataFrame, wide: bool) -> None:
    if runs.empty:
        console.print("No runs yet. Start one: explorer demo")
        return
    cells = [
        {
            "Run": row["run_id"],
            "State": _state(row),
            "Stage": row["stage"] or numbers.MISSING,
            "Layers": _count(row["num_layers"]),
            "Parameters": numbers.parameters(row["num_parameters"]),
            "Finished (UTC)": _minute(row["finished_at"]),
        }
        for row in row_dicts(runs)
    ]
    print_table(
        pd.DataFrame(cells),
        identifying=["Run"],
        wide=wide,
        importance=["State", "Stage", "Parameters", "Finished (UTC)"],
    )


def _count(number: float | None) -> str:
    return numbers.MISSING if number is None else f"{number:.0f}"


def _minute(moment: str | None) -> str:
    """`2026-11-28 11:54`, in UTC."""
    if moment is None:
        return numbers.MISSING
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M}"


def _state(row: dict[Any, Any]) -> str:
    """`finished`, or `finished (hidden, machine was busy)`."""
    was_busy = row["state"] == "finished" and row["machine_busy"] is True
    marks = [*(["hidden"] if row["hidden"] else []), *([interference.MARK] if was_busy else [])]
    return f"{row['state']} ({', '.join(marks)})" if marks else str(row["state"])


@app.command()
def show(
    run_id: Annotated[str, typer.Argument(help="The id of a run, or a unique beginning of it.")],
    results: ResultsDir = None,
    as_json: AsJson = False,
    wide: Wide = False,
) -> None:
    """Show one run: its results, or its progress.

    A summary; --wide prints every column of the export, --json the whole record, or the status of
    a run without one.
    """
    from explorer import jobs

    root = root_of(results)
    run_id = disk.resolve_run_id(root, run_id)
    if not (disk.run_folder(root, run_id) / disk.RECORD).exists():
        if as_json:
            print(json.dumps(disk.read_status(root, run_id), indent=1))
        else:
            run_summary.print_progress(run_id, jobs.status_row(root, run_id))
        return
    record = disk.load(root, run_id)
    if as_json:
        print(record.to_json(), end="")
        return
    run_summary.print_run(root, record, wide=wide)


@app.command()
def compare(
    run_ids: RunIds = None,
    results: ResultsDir = None,
    utilisation: Utilisation = UTILISATION,
    against: Annotated[
        str | None,
        typer.Option(
            help="The reference run. By default the one that is another's teacher, else the first."
        ),
    ] = None,
    differences: Annotated[
        bool, typer.Option("--differences", help="Only the differences, task by task.")
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(help=f"Compare even if this differs: {', '.join(pairing.ALLOWED)}."),
    ] = None,
    as_json: AsJson = False,
    wide: Wide = False,
) -> None:
    """Compare runs: retention, cost, and whether they differ.

    Two or more named runs are also compared task by task, with verdicts. --json prints these
    differences.
    """
    from explorer.cli.differences import compute_differences, print_json, print_tables

    root = root_of(results)
    named = named_runs(root, run_ids or [])
    against = disk.resolve_run_id(root, against) if against else None
    if as_json:
        print_json(compute_differences(root, named, against, allow or []))
        return
    if not differences:
        print_comparison(root, named, utilisation, wide=wide)
    if differences or against or len(named) > 1:
        print_tables(compute_differences(root, named, against, allow or []), wide=wide)


@app.command()
def export(
    format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="csv, xlsx, parquet, md, latex or json; for one run also lm-eval, model-index or "
            "eval-results.",
        ),
    ] = "csv",
    out: Out = None,
    run_ids: RunIds = None,
    results: ResultsDir = None,
    utilisation: Utilisation = UTILISATION,
    draws: Annotated[
        Path | None,
        typer.Option(
            help="Also write the bootstrap draws of retention to this file, one row per run and "
            "draw."
        ),
    ] = None,
) -> None:
    """Write the comparison table, or one run for other tools.

    lm-eval is lm-eval's output folder (a zip if --out ends in .zip or is missing), model-index the
    front matter of a model card, eval-results a file for .eval_results/ on the Hugging Face Hub.
    """
    from explorer.analysis.stats.retention import draw_rows
    from explorer.charts import export as report_export
    from explorer.lm_eval_io import export_run

    root = root_of(results)
    named = named_runs(root, run_ids or [])
    if format not in export_run.FORMATS:
        runs = analysed_runs(root, named, utilisation)
        if draws is not None:
            table = draw_rows(open_index(root).draws(runs))
            write_out(report_export.write_table(table, table, format), draws)
        write_out(report_export.write_runs(runs, format), out)
        return
    if draws is not None:
        raise BadInput(f"--draws needs a table format such as csv, got {format}.")
    if len(named) != 1:
        raise BadInput(f"The format {format} is for one run: explorer export RUN --format {format}")
    if format == "lm-eval" and out is not None and out.suffix != ".zip":
        written = export_run.write_files(export_run.lm_eval_files(root, named[0]), out)
        console.print(f"Wrote {len(written)} files under {out}.", markup=False)
        return
    write_out(export_run.export_bytes(root, named[0], format), out)


@app.command("import")
def import_results(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="The --output_path of lm-eval, a zip of it, or one results file; then perhaps "
            "timings of the same model by guidellm, AIPerf or vLLM's bench (JSON).",
        ),
    ],
    name: Annotated[str, typer.Option("--as", help="The new run's name, the beginning of its id.")],
    teacher: Annotated[str | None, typer.Option(help="The run of this model's teacher.")] = None,
    only: Annotated[
        str, typer.Option(help="A part of the path of the results file, if there are several.")
    ] = "",
    combine: Annotated[
        bool,
        typer.Option(
            "--combine",
            help="Make one run of evaluations of one model under the same settings; of a task in "
            "several the newest counts.",
        ),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(help="What served the model that was timed, as your prices name it."),
    ] = None,
    served_as: Annotated[
        str | None,
        typer.Option(help="The model's name in the timings, if the scores have another."),
    ] = None,
    results: ResultsDir = None,
) -> None:
    """Import results of lm-evaluation-harness as a run.

    Reads what any version since 0.4.0 wrote, and timings by other tools. A run is one evaluation:
    if a folder holds several, they are named, to choose from.
    """
    from explorer.lm_eval_io import import_run, upload

    root = root_of(results)
    teacher = disk.resolve_run_id(root, teacher) if teacher else None
    folder, *timings = paths
    with contextlib.ExitStack() as stack:
        if folder.suffix.lower() == ".zip" and folder.is_file():
            file = stack.enter_context(folder.open("rb"))
            folder = stack.enter_context(upload.unpacked([(folder.name, file)]))
        run_id, problems = import_run.import_folder(
            root,
            folder,
            name,
            teacher,
            only=only,
            combine=combine,
            timings=timings,
            device=device,
            served_as=served_as,
        )
    console.print(f"Imported as {run_id}.", markup=False)
    for problem in problems:
        print(problem, file=sys.stderr)


@app.command()
def price(
    device: Annotated[
        str | None, typer.Argument(help="A device's name as the list shows it.")
    ] = None,
    usd_per_hour: Annotated[str | None, typer.Argument(help="US dollars per hour.")] = None,
    results: ResultsDir = None,
) -> None:
    """Set the price of a device, or list your devices and prices."""
    from explorer.catalogue import prices

    root = root_of(results)
    if device is not None:
        if usd_per_hour is None:
            raise BadInput(f"The price is missing, as in: explorer price {device!r} 0.05")
        own = prices.typed_price(usd_per_hour, f"the price of {device}")
        prices.write_override(root / prices.OVERRIDES, device, own)
    listed = prices.device_prices(open_index(root).runs(), root)
    names = {name for name, _, _ in listed}
    for name, own_price in prices.read_overrides(root / prices.OVERRIDES).items():
        if name not in names:
            listed.append((name, own_price, []))
    if not listed:
        console.print("No run names its device yet, and no price is set.")
    for name, known, suggested in listed:
        if known:
            print(f"{name}: ${known.usd_per_hour:g} per hour, {known.in_words()}")
            continue
        print(f"{name}: no price. Set one: explorer price {name!r} USD_PER_HOUR")
        for offer in suggested:
            print(f"  in the price book: ${offer.usd_per_hour:g} per hour, {offer.in_words()}")
