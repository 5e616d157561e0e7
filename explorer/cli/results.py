"""Commands that read the store: list, show, compare, export, price."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from explorer.analysis import interference, load_table, numbers
from explorer.analysis.cost.unit_cost import UTILISATION
from explorer.analysis.stats import intervals, pairing
from explorer.cli.common import Out, ResultsDir, Utilisation, Wide, app, console, root_of
from explorer.cli.tables import (
    PAGE_ROWS,
    analysed,
    named_runs,
    open_index,
    print_comparison,
    print_effects,
    print_facts,
    print_table,
    write_out,
)
from explorer.errors import BadInput
from explorer.records import TaskScore, Timing
from explorer.records.rows import row_dicts
from explorer.store import disk, frames


@app.command("ls")
def list_runs(
    results: ResultsDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help=f"Runs to list, the latest; without --json {PAGE_ROWS}."),
    ] = None,
    show_all: Annotated[
        bool, typer.Option("--all", help="Every run, the hidden ones too.")
    ] = False,
    wide: Wide = False,
) -> None:
    """List runs, the queued, running and failed ones included; the latest first."""
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
    # A run under way is never out of sight.
    under_way = runs["hidden"] & runs["state"].isin(ACTIVE)
    num_hidden = 0 if show_all else index.num_states(hidden) - int(under_way.sum())
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
            console.print(f"{num_hidden} hidden; `explorer ls --all` lists them, too.")
    for problem in index.problems():
        print(problem, file=sys.stderr)


def _print_runs(runs: pd.DataFrame, wide: bool) -> None:
    if runs.empty:
        console.print("No runs yet. Start one: explorer demo")
        return
    words = [
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
        pd.DataFrame(words),
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
    run_id: Annotated[
        str, typer.Argument(help="A run's id, as `explorer ls` prints it, or how it begins.")
    ],
    results: ResultsDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole record.")] = False,
    wide: Wide = False,
) -> None:
    """Show one run: its record, or where it is."""
    from explorer import jobs

    root = root_of(results)
    run_id = disk.resolve_run_id(root, run_id)
    if not (disk.run_folder(root, run_id) / disk.RECORD).exists():
        print(json.dumps(disk.read_status(root, run_id), indent=1))
        return
    record = disk.load(root, run_id)
    if as_json:
        print(record.to_json(), end="")
        return
    print_facts(
        {
            key: f"{value:.4g}" if isinstance(value, float) else str(value)
            for key, value in frames.row(record).items()
            if value is not None
        }
    )
    if (row := jobs.status_row(root, run_id)) and row["state"] != record.status:
        console.print(f"Now: {row['state']}.", markup=False)
    elif row and record.status == "finished" and row["error"]:
        console.print(row["error"], markup=False)
    if record.capability:
        scores = [
            {
                "Task": score.task,
                "Metric": score.metric,
                "Score [95 %]": _score(score),
                "Std. error": numbers.MISSING if score.stderr is None else f"{score.stderr:.3f}",
                "Chance": numbers.MISSING if score.chance is None else f"{score.chance:.3f}",
                "Documents": str(score.num_documents),
            }
            for score in record.capability.scores
            if score.headline
        ]
        if scores:
            print_table(
                pd.DataFrame(scores),
                identifying=["Task"],
                wide=wide,
                importance=["Score [95 %]", "Documents", "Chance", "Metric"],
            )
    from explorer.catalogue import api_prices

    if said := api_prices.spent(record, root):
        console.print(f"Asked: {said}", markup=False)
    if record.latency and record.latency.own.curve:
        _print_levels(record.latency.own, wide)
    if record.latency and record.latency.was_busy:
        console.print(interference.retiming_advice([run_id]), markup=False, soft_wrap=True)
    print_effects(open_index(root), [run_id])


def _print_levels(timing: Timing, wide: bool) -> None:
    """The levels of load, and why their sweep ended."""
    words = [
        {
            "Load": f"{row['level']:g} {load_table.KINDS[row['kind']]}",
            "Answered": str(row["num_requests"]),
            "Failed": str(row["num_failed"]),
            "Tokens/s": numbers.significant(row["output_tokens_per_s"]),
            "TTFT (ms)": numbers.significant(row["ttft_ms"]),
            "TPOT (ms)": numbers.significant(row["tpot_ms"]),
        }
        for row in row_dicts(load_table.load_table(timing))
    ]
    print_table(
        pd.DataFrame(words),
        identifying=["Load"],
        wide=wide,
        importance=["Tokens/s", "TPOT (ms)", "TTFT (ms)", "Failed"],
    )
    if timing.curve_note:
        console.print(timing.curve_note, markup=False)


def _score(score: TaskScore) -> str:
    """A score and, where it is a share of right answers, Wilson's interval."""
    right = score.score * score.num_documents
    if score.chance is None or abs(right - round(right)) > 1e-6:
        return f"{score.score:.3f}"
    low, high = intervals.wilson(right, score.num_documents)
    return f"{score.score:.3f} [{low:.3f}, {high:.3f}]"


@app.command()
def compare(
    run_ids: Annotated[
        list[str] | None, typer.Argument(help="Runs; all when none is named.")
    ] = None,
    results: ResultsDir = None,
    utilisation: Utilisation = UTILISATION,
    against: Annotated[
        str | None,
        typer.Option(
            help="The run that the others are held against: by default, of several named runs, the "
            "teacher of another one or else the first."
        ),
    ] = None,
    differences: Annotated[
        bool, typer.Option("--differences", help="Each student against its teacher, task by task.")
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(help=f"Compare although these differ: {', '.join(pairing.ALLOWED)}."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The differences as one JSON array.")
    ] = False,
    wide: Wide = False,
) -> None:
    """Compare runs: what each keeps and costs and, of two or more, whether they really differ."""
    from explorer.cli import differences as difference

    root = root_of(results)
    named = named_runs(root, run_ids or [])
    against = disk.resolve_run_id(root, against) if against else None
    if as_json:
        difference.print_json(difference.gather(root, named, against, allow or []))
        return
    if not differences:
        print_comparison(root, named, utilisation, wide=wide)
    if differences or against or len(named) > 1:
        difference.print_tables(difference.gather(root, named, against, allow or []), wide=wide)


@app.command()
def export(
    format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="csv, xlsx, parquet, md, latex or json; of one run also lm-eval, model-index "
            "or eval-results.",
        ),
    ] = "csv",
    out: Out = None,
    run_ids: Annotated[
        list[str] | None, typer.Argument(help="Runs; all when none is named.")
    ] = None,
    results: ResultsDir = None,
    utilisation: Utilisation = UTILISATION,
) -> None:
    """Write the comparison table, one row a run; or one run's scores as other tools read them.

    lm-eval is its output folder (a zip where --out ends in .zip or is left out), model-index a
    model card's front matter, eval-results a file for .eval_results/ on the Hugging Face Hub.
    """
    from explorer.charts import export as report_export
    from explorer.lm_eval_io import export_run

    root = root_of(results)
    named = named_runs(root, run_ids or [])
    if format not in export_run.FORMATS:
        runs = analysed(root, named, utilisation)
        write_out(report_export.write_runs(runs, format), out)
        return
    if len(named) != 1:
        raise BadInput(f"The format {format} takes one run: explorer export RUN --format {format}")
    if format == "lm-eval" and out is not None and out.suffix != ".zip":
        written = export_run.write_files(export_run.lm_eval_files(root, named[0]), out)
        console.print(f"Wrote {len(written)} files under {out}.", markup=False)
        return
    write_out(export_run.export_bytes(root, named[0], format), out)


@app.command("import")
def bring_in(
    folder: Annotated[
        Path, typer.Argument(help="What lm-eval wrote: its --output_path, or a zip of it.")
    ],
    name: Annotated[str, typer.Option("--as", help="Begins the new run's id.")],
    teacher: Annotated[
        str | None, typer.Option(help="The run that this model is a student of.")
    ] = None,
    results: ResultsDir = None,
) -> None:
    """Import an output folder of lm-evaluation-harness, any version since 0.4.0, as a run."""
    from explorer.lm_eval_io import import_run, upload

    root = root_of(results)
    teacher = disk.resolve_run_id(root, teacher) if teacher else None
    if folder.suffix == ".zip" and folder.is_file():
        with folder.open("rb") as file, upload.unpacked({folder.name: file}) as unpacked:
            run_id, problems = import_run.import_folder(root, unpacked, name, teacher)
    else:
        run_id, problems = import_run.import_folder(root, folder, name, teacher)
    console.print(f"Imported as {run_id}.", markup=False)
    for problem in problems:
        print(problem, file=sys.stderr)


@app.command()
def price(
    device: Annotated[
        str | None, typer.Argument(help="A device's name, as in the list that is printed without.")
    ] = None,
    usd_per_hour: Annotated[str | None, typer.Argument(help="US dollars per hour.")] = None,
    results: ResultsDir = None,
) -> None:
    """Set the price of a device, or list the devices of the runs with their prices."""
    from explorer.catalogue import prices

    root = root_of(results)
    if device is not None:
        if usd_per_hour is None:
            raise BadInput(f"Give the price too, as in: explorer price {device!r} 0.05")
        own = prices.own(usd_per_hour, f"the price of {device}")
        prices.write_override(root / prices.OVERRIDES, device, own)
    for name, known, suggested in prices.devices(open_index(root).runs(), root):
        if known:
            print(f"{name}: ${known.usd_per_hour:g} per hour, {known.in_words()}")
            continue
        print(f"{name}: no price. Set one: explorer price {name!r} USD_PER_HOUR")
        for one in suggested:
            print(f"  in the price book: ${one.usd_per_hour:g} per hour, {one.in_words()}")
