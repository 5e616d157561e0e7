"""The same actions as the pages, from a shell.

    explorer demo                 # the main job, small: teacher, two students, the table
    explorer run spec.yaml        # one run in the foreground; again to resume
    explorer export --format csv

Exit code 0 is success, 2 a wrong request, 1 anything else that failed.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.exceptions import TyperException

from explorer import paths, specs, store
from explorer.errors import BadInput, ExplorerError

app = typer.Typer(
    help=(__doc__ or "").split("\n")[0],
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)
console = Console()
ResultsDir = Annotated[
    Path | None,
    typer.Option("--results", help="The store; EXPLORER_RESULTS or results/ by default."),
]
Utilisation = Annotated[
    float, typer.Option(help="Share of the time that the device is busy, above 0 and up to 1.")
]
Queue = Annotated[
    bool, typer.Option("--queue", help="Hand it to the Ray queue and return at once.")
]


@app.command()
def run(
    what: Annotated[str, typer.Argument(help="A YAML file with a spec, or a run's id.")],
    results: ResultsDir = None,
    queue: Queue = False,
    again: Annotated[
        bool, typer.Option("--again", help="Measure a finished run anew, on this machine.")
    ] = False,
    queued: Annotated[
        bool, typer.Option("--queued", hidden=True, help="The queue says this, not a person.")
    ] = False,
) -> None:
    """Do one run in the foreground, or continue it where it stopped."""
    root = _root(results)
    spec = _spec(root, what)
    if isinstance(spec, specs.SweepSpec):
        raise BadInput(f"{what} holds a sweep. Start it with: explorer sweep {what}")
    _do([spec], root, queue=queue, again=again, queued=queued)


@app.command()
def sweep(
    what: Annotated[
        str, typer.Argument(help="A YAML file with a sweep; `starter` is the study in results/.")
    ] = "starter",
    results: ResultsDir = None,
    queue: Queue = False,
    again: Annotated[
        bool, typer.Option("--again", help="Measure finished runs anew, on this machine.")
    ] = False,
) -> None:
    """Benchmark a teacher, then make, teach and benchmark several students of it."""
    root = _root(results)
    spec = specs.starter_sweep() if what == "starter" else specs.read(Path(what))
    runs = spec.runs() if isinstance(spec, specs.SweepSpec) else [spec]
    _do(runs, root, queue=queue, again=again)
    if not queue:
        _print_comparison(root, [one.run_id for one in runs])


@app.command()
def demo(results: ResultsDir = None) -> None:
    """The main job, small: benchmark the starter, distil and benchmark two students."""
    root = _root(results, default=Path("results-demo"))
    sweep_spec = specs.demo_sweep()
    runs = sweep_spec.runs()
    console.print("One teacher and two students: made, taught, tested and timed on this machine.")
    _do(runs, root, queue=False, again=False)
    _price_from_the_book(root)
    _print_comparison(root, [one.run_id for one in runs])
    console.print(
        f"\nThe results are in {root.resolve()}, a folder a run. Little data was used, so the "
        "intervals are wide: results/ holds the full study.\n"
        f"See them as a chart: EXPLORER_RESULTS={root} explorer app"
    )


@app.command("ls")
def list_runs(
    results: ResultsDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
) -> None:
    """List all runs, the queued, running and failed ones included."""
    from explorer import jobs

    root = _root(results)
    listing = jobs.listing(root)
    found, problems = store.records(root)
    frame = store.frame(found)[["run_id", "num_layers", "num_parameters", "tpot_ms", "finished_at"]]
    merged = listing.merge(frame, on="run_id", how="left")
    if as_json:
        print(merged.to_json(orient="records", indent=1))
    else:
        table = Table("Run", "State", "Stage", "Layers", "Finished", box=None)
        for row in merged.to_dict("records"):
            layers = row["num_layers"]
            table.add_row(
                row["run_id"], row["state"], str(row["stage"] or "–"),
                "–" if layers != layers or layers is None else str(int(layers)),
                str(row["finished_at"]) if isinstance(row["finished_at"], str) else "–",
            )  # fmt: skip
        console.print(table if len(merged) else "No runs yet. Start one: explorer demo")
    for problem in problems:
        print(problem, file=sys.stderr)


@app.command()
def show(
    run_id: Annotated[str, typer.Argument(help="A run's id, as `explorer ls` prints it.")],
    results: ResultsDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole record.")] = False,
) -> None:
    """Show one run: its record, or where it is."""
    root = _root(results)
    if not (store.run_folder(root, run_id) / store.RECORD).exists():
        store.read_spec(root, run_id)
        print(json.dumps(store.read_status(root, run_id), indent=1))
        return
    record = store.load(root, run_id)
    if as_json:
        print(record.to_json(), end="")
        return
    table = Table(box=None, show_header=False)
    for key, value in store.row(record).items():
        if value is not None:
            table.add_row(key, f"{value:.4g}" if isinstance(value, float) else str(value))
    console.print(table)
    if record.capability:
        scores = Table("Task", "Metric", "Score", "Std. error", "Chance", "Documents", box=None)
        for score in record.capability.scores:
            if score.headline:
                scores.add_row(
                    score.task, score.metric, f"{score.score:.3f}",
                    "–" if score.stderr is None else f"{score.stderr:.3f}",
                    "–" if score.chance is None else f"{score.chance:.3f}",
                    str(score.num_documents),
                )  # fmt: skip
        console.print(scores)


@app.command()
def compare(
    run_ids: Annotated[
        list[str] | None, typer.Argument(help="Runs; all when none is named.")
    ] = None,
    results: ResultsDir = None,
    utilisation: Utilisation = 1.0,
    differences: Annotated[
        bool, typer.Option("--differences", help="Per task, against the teacher, with a verdict.")
    ] = False,
) -> None:
    """Compare runs: retention with its interval, latency and cost."""
    root = _root(results)
    if differences:
        _print_differences(root, run_ids or [])
    else:
        _print_comparison(root, run_ids or [], utilisation)


@app.command()
def export(
    format: Annotated[
        str, typer.Option("--format", "-f", help="csv, xlsx, parquet, md, latex or json.")
    ] = "csv",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A file; standard output when left out.")
    ] = None,
    run_ids: Annotated[
        list[str] | None, typer.Argument(help="Runs; all when none is named.")
    ] = None,
    results: ResultsDir = None,
    utilisation: Utilisation = 1.0,
) -> None:
    """Write the comparison table, one row a run."""
    from explorer.report import export as report_export

    data = report_export.write(_analysed(_root(results), run_ids or [], utilisation), format)
    if out is None:
        sys.stdout.buffer.write(data)
        return
    try:
        out.write_bytes(data)
    except OSError as error:
        raise ExplorerError(f"Could not write {out}: {error.strerror}.") from error
    console.print(f"Wrote {out} ({len(data):,} bytes).")


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

    root = _root(results)
    if device is not None:
        if usd_per_hour is None:
            raise BadInput(f"Give the price too, as in: explorer price {device!r} 0.05")
        today = datetime.now(UTC).date().isoformat()
        own = prices.Price.parse(
            {"usd_per_hour": usd_per_hour, "date_seen": today}, f"the price of {device}"
        )
        prices.write_override(root / prices.OVERRIDES, device, own)
    found, _ = store.records(root)
    runs = store.frame(found)
    known = prices.prices_for(runs, root)
    for name, num_cpus in runs[["device_name", "num_cpus"]].drop_duplicates().values:
        if name in known:
            print(f"{name}: ${known[name].usd_per_hour:g} per hour, {known[name].in_words()}")
            continue
        print(f"{name}: no price. Set one: explorer price {name!r} USD_PER_HOUR")
        for one in prices.suggest(name, num_cpus, prices.book()):
            print(f"  in the price book: ${one.usd_per_hour:g} per hour, {one.in_words()}")


@app.command()
def cancel(
    run_id: Annotated[str, typer.Argument(help="A queued or running run.")],
    results: ResultsDir = None,
) -> None:
    """Stop a queued or running run; its checkpoint stays."""
    from explorer import jobs

    jobs.cancel(_root(results), run_id)
    console.print(f"{run_id} will stop at its next step. Continue it: explorer resume {run_id}")


@app.command()
def resume(
    run_id: Annotated[str, typer.Argument(help="A cancelled, failed or interrupted run.")],
    results: ResultsDir = None,
) -> None:
    """Put a run back into the queue; it continues where it stopped."""
    from explorer import jobs

    jobs.resume(_root(results), run_id)
    console.print(f"{run_id} is queued. Watch it: explorer ls")


@app.command("jobs")
def show_engine(
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop the Ray head that we started.")
    ] = False,
) -> None:
    """Show the Ray engine that runs the queue, or stop it."""
    from explorer import jobs

    if stop:
        console.print("Stopped." if jobs.stop_engine() else "There was none of ours to stop.")
        return
    print(json.dumps(jobs.engine(), indent=1))


@app.command()
def synthesise(
    teacher: Annotated[str, typer.Argument(help="A chat model.")] = "starter",
    out: Annotated[Path, typer.Option("--out", "-o", help="A .jsonl file.")] = Path("corpus.jsonl"),
    tokens: Annotated[int, typer.Option(min=1, help="Budget, in tokens.")] = 300_000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    temperature: Annotated[float, typer.Option(min=0.05, max=5)] = 0.9,
    top_k: Annotated[int, typer.Option(min=1, help="Tokens sampled from, the likeliest.")] = 50,
    document_tokens: Annotated[int, typer.Option(min=8, help="Tokens of one document.")] = 256,
    batch_size: Annotated[int, typer.Option(min=1, help="Documents written together.")] = 128,
) -> None:
    """Let a chat teacher write its own distillation text."""
    from explorer.distill.synthesise import synthesise as write
    from explorer.models.loading import load
    from explorer.terminal import stage_bar

    with stage_bar(console) as bar:
        bar({"stage": "load", "done": 0, "total": 0})
        recipe = write(
            load(teacher, device="auto"), out,
            num_tokens=tokens, document_tokens=document_tokens, batch_size=batch_size,
            temperature=temperature, top_k=top_k, seed=seed,
            progress=lambda done, total: bar(
                {"stage": "synthesise", "done": done, "total": total, "unit": "tokens"}
            ),
        )  # fmt: skip
    console.print(f"Wrote {recipe['num_documents']} documents to {out}, and the recipe beside it.")


@app.command("tasks")
def list_tasks(
    search: Annotated[str, typer.Argument(help="Part of a name.")] = "",
    include_path: Annotated[Path | None, typer.Option(help="A folder with more tasks.")] = None,
) -> None:
    """List the tasks that a run can ask: ours, lm-eval's and those of a folder."""
    from explorer.measure.task_sets import list_tasks as find

    found = find(str(include_path) if include_path else None)
    for row in found.to_dict("records"):
        if search.lower() in str(row["name"]).lower():
            print(f"{row['name']}\t{row['kind']}")


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(help="run or sweep.")] = "run",
) -> None:
    """Print the JSON Schema of a spec, for editors and checks."""
    known = {"run": specs.RunSpec, "sweep": specs.SweepSpec}
    if kind not in known:
        raise BadInput(f"schema knows run and sweep, got {kind!r}.")
    print(json.dumps(known[kind].model_json_schema(), indent=1))


@app.command()
def spec(
    name: Annotated[str, typer.Argument(help="starter or demo.")] = "starter",
) -> None:
    """Print a sweep that ships with us as YAML, to change and run."""
    known = {"starter": specs.starter_sweep, "demo": specs.demo_sweep}
    if name not in known:
        raise BadInput(f"spec knows starter and demo, got {name!r}.")
    print(known[name]().to_yaml(), end="")


@app.command("fetch-starter")
def fetch_starter() -> None:
    """Fetch the starter teacher once, and check it."""
    from explorer.models import starter

    console.print(f"The starter teacher is at {starter.fetch()}")


@app.command()
def doctor(results: ResultsDir = None) -> None:
    """Say what this machine has and what is missing, with what to do."""
    root = _root(results)
    table = Table(box=None, show_header=False)
    for package in ("torch", "transformers", "lm-eval", "accelerate", "streamlit", "ray", "plotly"):
        try:
            table.add_row(package, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            table.add_row(package, "missing: make install")
    import torch

    from explorer.models import starter

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "none, so the CPU is used"
    table.add_row("GPU", name)
    table.add_row("CPU cores", str(os.cpu_count()))
    here = starter.starter_path().exists()
    table.add_row("starter teacher", "here" if here else "missing: explorer fetch-starter")
    nearest = next(p for p in (root.resolve(), *root.resolve().parents) if p.exists())
    writable = os.access(nearest, os.W_OK)
    table.add_row("store", f"{root.resolve()}" + ("" if writable else ": no permission to write"))
    free = shutil.disk_usage(nearest).free
    table.add_row(
        "free disk", f"{free / 1e9:.0f} GB" + (" (a run needs 2 GB)" if free < 2e9 else "")
    )
    browser = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
    table.add_row("browser for PNG and SVG", browser or "missing: install Chromium, or export HTML")
    console.print(table)
    _, problems = store.records(root)
    for problem in problems:
        console.print(problem, markup=False)


@app.command("app")
def open_dashboard(
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 8501,
    results: ResultsDir = None,
) -> None:
    """Open the dashboard."""
    script = Path(__file__).parent.parent / "app.py"
    if not script.exists():
        raise ExplorerError(f"The dashboard's script {script} is missing; run from a checkout.")
    environment = {**os.environ, "EXPLORER_RESULTS": str(_root(results).resolve())}
    command = [sys.executable, "-m", "streamlit", "run", str(script), "--server.port", str(port)]
    raise typer.Exit(
        subprocess.run(command, env=environment, cwd=script.parent, check=False).returncode
    )


def main() -> None:
    """Run the command line; a known error is one line and its exit code."""
    try:
        code = app(standalone_mode=False, prog_name="explorer")
    except ExplorerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except TyperException as error:
        # Typer's own words for a wrong option or a missing argument.
        print(f"error: {error}. See explorer --help.", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        print("Stopped. Run the same command to continue.", file=sys.stderr)
        sys.exit(130)
    sys.exit(code or 0)


def _root(results: Path | None, default: Path | None = None) -> Path:
    if results is not None:
        os.environ["EXPLORER_RESULTS"] = str(results)
    elif default is not None and "EXPLORER_RESULTS" not in os.environ:
        os.environ["EXPLORER_RESULTS"] = str(default)
    return paths.store_root()


def _spec(root: Path, what: str) -> specs.RunSpec | specs.SweepSpec:
    """A spec by its file or by the id of a run in the store."""
    if what.endswith((".yaml", ".yml")) or Path(what).is_file():
        return specs.read(Path(what))
    return store.read_spec(root, what)


def _do(
    runs: list[specs.RunSpec], root: Path, *, queue: bool, again: bool, queued: bool = False
) -> None:
    """Do the runs one after another here, or put them into the queue."""
    if again:
        for one in runs:
            store.set_aside(root, one.run_id)
    if queue:
        from explorer import jobs

        for run_id in jobs.submit(runs, root):
            console.print(f"queued {run_id}")
        return
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from explorer.run import run as do
    from explorer.terminal import stage_bar

    for number, one in enumerate(runs, start=1):
        if not queued:
            # Asked for by hand, so an old request to stop is over.
            store.withdraw_cancel(root, one.run_id)
        with stage_bar(console, f"{number}/{len(runs)} {one.run_id}") as bar:
            record = do(one, root, bar)
        seconds = sum(record.stage_seconds.values())
        console.print(
            f"[{number}/{len(runs)}] {one.run_id} {record.status}, {seconds:.0f} s of work"
        )


def _analysed(root: Path, run_ids: list[str], utilisation: float) -> Any:
    """The store's frame with retention and cost, of these runs and the teachers they need."""
    from explorer.analysis import cost, retention
    from explorer.catalogue import prices

    found, _ = store.records(root)
    unknown = set(run_ids) - {record.run_id for record in found}
    if unknown:
        raise BadInput(
            f"No record of {', '.join(sorted(unknown))} in {root}. `explorer ls` lists the runs."
        )
    teachers = {record.teacher_run_id for record in found if record.run_id in run_ids}
    if run_ids:
        found = [r for r in found if r.run_id in {*run_ids, *teachers}]
    runs = store.frame(found)
    answers = {record.run_id: store.answers(root, record.run_id) for record in found}
    runs = retention.add(runs, store.scores(found), answers)
    runs = cost.add(runs, prices.prices_for(runs, root), utilisation=utilisation)
    return runs[runs["run_id"].isin(run_ids)] if run_ids else runs


def _price_from_the_book(root: Path) -> None:
    """Give devices without a price the cheapest that the book has for such a device, and say so."""
    from explorer.catalogue import prices

    runs = store.frame(store.records(root)[0])
    known = prices.prices_for(runs, root)
    for name, num_cpus in runs[["device_name", "num_cpus"]].drop_duplicates().values:
        suggested = prices.suggest(name, num_cpus, prices.book())
        if name not in known and suggested:
            prices.write_override(root / prices.OVERRIDES, name, suggested[0])
            console.print(
                f"{name} is priced like a machine of its size in the price book: "
                f"${suggested[0].usd_per_hour:g} per hour, {suggested[0].in_words()}. "
                f"Your own price: explorer price {name!r} USD_PER_HOUR",
                markup=False,
            )


def _print_comparison(root: Path, run_ids: list[str], utilisation: float = 1.0) -> None:
    from explorer.analysis import advise
    from explorer.report import tables

    runs = _analysed(root, run_ids, utilisation)
    if runs.empty:
        console.print("No finished runs yet. Start some: explorer demo")
        return
    frame = tables.comparison(runs)
    table = Table(*[str(column) for column in frame.columns], box=None)
    for row in frame.itertuples(index=False):
        table.add_row(*[str(cell) for cell in row])
    wide = Console(width=max(console.width, 150)) if not console.is_terminal else console
    wide.print(table, markup=False)
    console.print("\n" + advise.headline(runs), markup=False)
    if runs["usd_per_hour"].isna().any():
        unpriced = runs.loc[runs["usd_per_hour"].isna(), "device_name"].dropna().unique()
        console.print(
            f"No price is known for {', '.join(map(str, unpriced))}: set one on the page, or with "
            "explorer price.",
            markup=False,
        )


def _print_differences(root: Path, run_ids: list[str]) -> None:
    from explorer.analysis import retention

    found, _ = store.records(root)
    by_id = {record.run_id: record for record in found}
    scores = store.scores(found)
    for record in found:
        teacher = by_id.get(record.teacher_run_id or "")
        if teacher is None or (run_ids and record.run_id not in run_ids):
            continue
        rows = retention.per_task(
            scores[scores["run_id"] == record.run_id],
            scores[scores["run_id"] == teacher.run_id],
            store.answers(root, record.run_id),
            store.answers(root, teacher.run_id),
        )
        table = Table("Task", "Teacher", "Student", "Difference [95 %]", "p", "Verdict", box=None)
        for row in rows.to_dict("records"):
            table.add_row(
                row["task"], f"{row['teacher']:.3f}", f"{row['student']:.3f}",
                f"{row['difference']:+.3f} [{row['difference_low']:+.3f}, "
                f"{row['difference_high']:+.3f}]",
                f"{row['p_value']:.2g}", str(row["verdict"]),
            )  # fmt: skip
        console.print(f"{record.run_id} against {teacher.run_id}")
        console.print(table)
