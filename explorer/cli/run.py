"""Commands that start runs, here or in the queue: run, sweep, demo."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from explorer import specs
from explorer.analysis import interference
from explorer.cli import lm_eval_flags, serve_flags
from explorer.cli.common import AsJson, ResultsDir, Wide, app, console, root_of, say_engine_start
from explorer.cli.tables import open_index, print_comparison, print_forecasts
from explorer.errors import BadInput, ExplorerError
from explorer.models import size_limits
from explorer.store import disk

if TYPE_CHECKING:
    from explorer.pipeline import preflight

Queue = Annotated[bool, typer.Option("--queue", help="Submit to the Ray queue and return at once.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only print the memory, time and cost to expect.")
]
Insist = Annotated[
    bool, typer.Option("--insist", help="Start even if the memory estimate says it does not fit.")
]
Again = Annotated[
    bool, typer.Option("--again", help="Measure finished runs again, on this machine.")
]


@app.command()
def run(
    what: Annotated[
        str,
        typer.Argument(help="A YAML file with a run's spec; or a run's id or a beginning of it."),
    ],
    results: ResultsDir = None,
    queue: Queue = False,
    again: Again = False,
    dry_run: DryRun = False,
    insist: Insist = False,
    wide: Wide = False,
    queued: Annotated[
        bool, typer.Option("--queued", hidden=True, help="Set by the queue, not by hand.")
    ] = False,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", hidden=True, help="With --dry-run, only the costs.")
    ] = False,
    serve: serve_flags.Serve = None,
    serve_arguments: serve_flags.Arguments = None,
    tasks: lm_eval_flags.Tasks = None,
    limit: lm_eval_flags.Limit = None,
    num_fewshot: lm_eval_flags.Fewshot = None,
    batch_size: lm_eval_flags.BatchSize = None,
    apply_chat_template: lm_eval_flags.Template = None,
    include_path: lm_eval_flags.Folder = None,
    seed: lm_eval_flags.Seed = None,
) -> None:
    """Run one spec here, or continue it where it stopped.

    The options from --tasks on are lm-eval's. They replace parts of the spec's capability, --serve
    its latency.serve, and the result is a run of its own.
    """
    root = root_of(results)
    spec = _spec(root, what)
    if isinstance(spec, specs.SweepSpec):
        raise BadInput(f"{what} is a sweep. Start it with: explorer sweep {what}")
    flags = lm_eval_flags.Flags(
        tasks, limit, num_fewshot, batch_size, apply_chat_template, include_path, seed
    )
    spec = serve_flags.applied_to(flags.applied_to(spec), serve, serve_arguments)
    _insist(insist)
    if dry_run:
        _print_forecast([spec], root, wide=wide, checked=not unchecked)
        return
    _run_all([spec], root, queue=queue, again=again, queued=queued)


def _print_forecast(
    runs: list[specs.RunSpec], root: Path, *, wide: bool, checked: bool = True
) -> None:
    """Print what runs will take: memory and time of this machine, tokens of endpoints.

    With `checked` print what is wrong with them, too.

    Raises:
        ExplorerError: What is wrong with them.
    """
    size_limits.check_students(runs, root)
    found = []
    if checked:
        from explorer.pipeline import preflight

        found = preflight.findings(runs, root)
        _print_warnings([finding for finding in found if not finding.error])
    try:
        _print_costs(runs, root, wide)
    except ExplorerError:
        if not any(finding.error for finding in found):
            raise
    if found:
        preflight.raise_errors(found)


def _print_costs(runs: list[specs.RunSpec], root: Path, wide: bool) -> None:
    with_endpoint = [run for run in runs if run.teacher.startswith("endpoint:")]
    if with_endpoint:
        from explorer.pipeline import endpoint_stage

        requesting = [spec for run in with_endpoint for spec in (run.teacher_run(), run) if spec]
        # Students share the requests for tasks and targets.
        sentences = dict.fromkeys(
            endpoint_stage.describe_requests(spec, root) for spec in requesting
        )
        console.print(f"{' '.join(sentences)} Nothing was evaluated.", markup=False)
    local = [run for run in runs if run not in with_endpoint or run.student is not None]
    if local:
        print_forecasts(local, root, wide=wide)


@app.command()
def sweep(
    what: Annotated[
        str,
        typer.Argument(help="A YAML file with a sweep; `starter` is the example study's."),
    ] = "starter",
    results: ResultsDir = None,
    queue: Queue = False,
    again: Again = False,
    dry_run: DryRun = False,
    insist: Insist = False,
    wide: Wide = False,
) -> None:
    """Benchmark a teacher and distil several students of it.

    Every student is evaluated, timed and compared with its teacher.
    """
    root = root_of(results)
    spec = specs.starter_sweep() if what == "starter" else specs.read_run_or_sweep(Path(what))
    runs = spec.runs() if isinstance(spec, specs.SweepSpec) else [spec]
    _insist(insist)
    if dry_run:
        _print_forecast(runs, root, wide=wide)
        return
    _run_all(runs, root, queue=queue, again=again)
    if not queue:
        print_comparison(root, [run.run_id for run in runs], wide=wide)


@app.command()
def demo(results: ResultsDir = None, wide: Wide = False) -> None:
    """Distil two students on little data and compare them."""
    root = root_of(results, default=Path("results-demo"))
    runs = specs.demo_sweep().runs()
    console.print("Trains two students of the starter teacher; evaluates and times all three here.")
    _run_all(runs, root, queue=False, again=False)
    _price_from_the_book(root)
    print_comparison(root, [run.run_id for run in runs], wide=wide)
    console.print(
        f"\nThe results are in {root.resolve()}, one folder per run. The demo uses little data, so "
        "its intervals are wide; the example study is the full one.\n"
        f"Open them as a chart: EXPLORER_RESULTS={root} explorer app"
    )


def _spec(root: Path, what: str) -> specs.RunSpec | specs.SweepSpec:
    """A spec, from its file or from a run of the store."""
    if run_id := _run_of_spec_file(root, what):
        return disk.read_spec(root, run_id)
    if what.endswith((".yaml", ".yml")) or Path(what).is_file():
        return specs.read_run_or_sweep(Path(what))
    return disk.read_spec(root, disk.resolve_run_id(root, what))


def _run_of_spec_file(root: Path, what: str) -> str | None:
    """The run whose spec.yaml in the store this is; it must agree with the run's record."""
    path = Path(what)
    is_spec = path.name == disk.SPEC and path.is_file()
    in_store = is_spec and path.absolute().parent.parent.resolve() == root.resolve()
    return path.absolute().parent.name if in_store else None


def _insist(insist: bool) -> None:
    """Let this command's runs, queued ones too, start even if the memory estimate refuses them."""
    if insist:
        os.environ["EXPLORER_INSIST"] = "1"


def _checked(
    runs: list[specs.RunSpec], root: Path, place: Literal["here", "queue", "cluster"] = "here"
) -> list["preflight.Finding"]:
    """The warnings about an order that can run.

    Raises:
        ExplorerError: What is wrong with it.
    """
    # First what needs no model library: a wrong size is said at once.
    size_limits.check_students(runs, root)
    from explorer.pipeline import preflight

    return preflight.refuse(runs, root, place=place)


def _print_warnings(found: list["preflight.Finding"]) -> None:
    for finding in found:
        console.print(finding.in_words(), markup=False, soft_wrap=True)


def _run_all(
    runs: list[specs.RunSpec], root: Path, *, queue: bool, again: bool, queued: bool = False
) -> None:
    """Run one after another here, or submit to the queue."""
    if not queued and int(os.environ.get("RANK", "0")) == 0:
        # Now, rather than hours later, after the teacher's run.
        from explorer import jobs

        _print_warnings(_checked(runs, root, jobs.place() if queue else "here"))
    if again and int(os.environ.get("RANK", "0")) == 0:
        for spec in runs:
            disk.request_remeasure(root, spec.run_id)
    if queue:
        from explorer import jobs

        for run_id in jobs.submit(runs, root, say_engine_start):
            console.print(f"queued {run_id}")
        return
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from explorer import pipeline
    from explorer.cli.progress_bar import stage_bar
    from explorer.distill import distributed
    from explorer.pipeline import launch

    with launch.all_ranks(runs, root, checked=not queued):
        for number, spec in enumerate(runs, start=1):
            if not distributed.is_main():
                pipeline.run(spec, root, checked=not queued)
                continue
            run_id = spec.run_id
            if not queued:
                # Started by hand, which withdraws an earlier request to stop.
                disk.withdraw_cancel(root, run_id)
            try:
                with stage_bar(console, f"{number}/{len(runs)} {run_id}") as bar:
                    record = pipeline.run(spec, root, bar, checked=not queued)
            except ExplorerError:
                if disk.is_finished(root, run_id):
                    console.print(f"The earlier result of {run_id} still counts.")
                raise
            seconds = sum(record.stage_seconds.values())
            console.print(
                f"[{number}/{len(runs)}] {run_id} {record.status}, {seconds:.0f} s of work"
            )
            # A sweep's comparison names all such runs at its end.
            if record.latency and record.latency.was_busy and len(runs) == 1:
                console.print(interference.retiming_advice([run_id]), markup=False, soft_wrap=True)
        if not distributed.is_main():
            raise typer.Exit


@app.command()
def check(
    what: Annotated[
        str,
        typer.Argument(
            help="A YAML file with a run, a sweep or a tournament; or a run's id or a beginning "
            "of it."
        ),
    ],
    results: ResultsDir = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Leave out whole files, tokenizers and the network."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find what would make a run fail, without starting it.

    The same checks run at the beginning of each run, in --dry-run and on the Run page. Exit code 1
    or 2 if something is wrong.
    """
    if quick:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when the libraries load
    from explorer.pipeline import preflight

    root = root_of(results)
    found = preflight.findings(_runs_of(root, what), root, "quick" if quick else "full")
    if as_json:
        print(json.dumps([finding.as_dict() for finding in found], indent=2))
        return
    _print_warnings(found)
    preflight.raise_errors(found)
    if not found:
        console.print("Nothing is wrong with it.")


def _runs_of(root: Path, what: str) -> list[specs.RunSpec]:
    """The runs of an order: of a run, a sweep or a tournament, or of a run in the store."""
    if run_id := _run_of_spec_file(root, what):
        return [disk.read_spec(root, run_id)]
    if what.endswith((".yaml", ".yml")) or Path(what).is_file():
        return specs.runs_in(Path(what))
    return [disk.read_spec(root, disk.resolve_run_id(root, what))]


def _price_from_the_book(root: Path) -> None:
    """Give devices without a price the cheapest one the price book has for them, and say so."""
    from explorer.catalogue import prices

    runs = open_index(root).runs()
    for name, known, suggested in prices.device_prices(runs, root):
        if known is None and suggested:
            prices.write_override(root / prices.OVERRIDES, name, suggested[0])
            console.print(
                f"{name} gets the price of such a machine in the price book: "
                f"${suggested[0].usd_per_hour:g} per hour, {suggested[0].in_words()}. "
                f"Set your own: explorer price {name!r} USD_PER_HOUR",
                markup=False,
            )
