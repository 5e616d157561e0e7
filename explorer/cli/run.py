"""Commands that do runs: here in the foreground, or through the queue."""

import json
import os
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from explorer import paths, specs
from explorer.analysis import interference
from explorer.cli import lm_eval_flags
from explorer.cli.common import ResultsDir, Wide, app, console, root_of, say_engine_start
from explorer.cli.tables import open_index, print_comparison, print_forecasts
from explorer.errors import BadInput, ExplorerError
from explorer.models import sizes
from explorer.store import disk

Queue = Annotated[
    bool, typer.Option("--queue", help="Hand it to the Ray queue and return at once.")
]

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only say what memory, time and money it will take.")
]
Insist = Annotated[
    bool, typer.Option("--insist", help="Try a run that by our arithmetic does not fit.")
]


@app.command()
def run(
    what: Annotated[
        str, typer.Argument(help="A YAML file with a spec, or a run's id or how it begins.")
    ],
    results: ResultsDir = None,
    queue: Queue = False,
    again: Annotated[
        bool, typer.Option("--again", help="Measure a finished run anew, on this machine.")
    ] = False,
    dry_run: DryRun = False,
    insist: Insist = False,
    wide: Wide = False,
    queued: Annotated[
        bool, typer.Option("--queued", hidden=True, help="The queue says this, not a person.")
    ] = False,
    tasks: lm_eval_flags.Tasks = None,
    limit: lm_eval_flags.Limit = None,
    num_fewshot: lm_eval_flags.Fewshot = None,
    batch_size: lm_eval_flags.BatchSize = None,
    apply_chat_template: lm_eval_flags.Template = None,
    include_path: lm_eval_flags.Folder = None,
    seed: lm_eval_flags.Seed = None,
) -> None:
    """Do one run in the foreground, or continue it where it stopped.

    With lm-eval's flags (--tasks and those below it) it is another run than the spec's.
    """
    root = root_of(results)
    read = _spec(root, what)
    if isinstance(read, specs.SweepSpec):
        raise BadInput(f"{what} holds a sweep. Start it with: explorer sweep {what}")
    flags = lm_eval_flags.Asked(
        tasks, limit, num_fewshot, batch_size, apply_chat_template, include_path, seed
    )
    spec = flags.of(read)
    if dry_run:
        _say_ahead([spec], root, wide)
        return
    _insist(insist)
    _do([spec], root, queue=queue, again=again, queued=queued)


def _say_ahead(runs: list[specs.RunSpec], root: Path, wide: bool) -> None:
    """Print what runs will take: of this machine, and in tokens of endpoints."""
    sizes.check_students(runs, root)
    served = [one for one in runs if one.teacher.startswith("endpoint:")]
    if served:
        from explorer.pipeline import endpoint_stage

        asked = [spec for one in served for spec in (one.teacher_run(), one) if spec]
        # Tasks and targets are asked for once, whatever the number of students.
        said = dict.fromkeys(endpoint_stage.describe_requests(spec, root) for spec in asked)
        console.print(f"{' '.join(said)} Nothing was asked.", markup=False)
    here = [one for one in runs if one not in served or one.student is not None]
    if here:
        print_forecasts(here, root, wide=wide)


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
    dry_run: DryRun = False,
    insist: Insist = False,
    wide: Wide = False,
) -> None:
    """Benchmark a teacher, then make, teach and benchmark several students of it."""
    root = root_of(results)
    spec = specs.starter_sweep() if what == "starter" else specs.read_run_or_sweep(Path(what))
    runs = spec.runs() if isinstance(spec, specs.SweepSpec) else [spec]
    if dry_run:
        _say_ahead(runs, root, wide)
        return
    _insist(insist)
    _do(runs, root, queue=queue, again=again)
    if not queue:
        print_comparison(root, [one.run_id for one in runs], wide=wide)


@app.command()
def demo(results: ResultsDir = None, wide: Wide = False) -> None:
    """The main job, small: benchmark the starter, distil and benchmark two students."""
    root = root_of(results, default=Path("results-demo"))
    sweep_spec = specs.demo_sweep()
    runs = sweep_spec.runs()
    console.print("One teacher and two students: made, taught, tested and timed on this machine.")
    _do(runs, root, queue=False, again=False)
    _price_from_the_book(root)
    print_comparison(root, [one.run_id for one in runs], wide=wide)
    console.print(
        f"\nThe results are in {root.resolve()}, a folder a run. Little data was used, so the "
        "intervals are wide: results/ holds the full study.\n"
        f"See them as a chart: EXPLORER_RESULTS={root} explorer app"
    )


@app.command()
def cancel(
    run_id: Annotated[str, typer.Argument(help="A queued or running run, or a tournament.")],
    results: ResultsDir = None,
) -> None:
    """Stop a queued or running run, or a tournament with its runs; checkpoints stay."""
    root = root_of(results)
    run_id, queue = _queued(root, run_id)
    queue.cancel(root, run_id)
    console.print(f"{run_id} will stop at its next step. Continue it: explorer resume {run_id}")


@app.command()
def resume(
    run_id: Annotated[
        str, typer.Argument(help="A cancelled, failed or interrupted run, or a tournament.")
    ],
    results: ResultsDir = None,
) -> None:
    """Put a run or a tournament back into the queue; it continues where it stopped."""
    root = root_of(results)
    run_id, queue = _queued(root, run_id)
    queue.resume(root, run_id, say_engine_start)
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
    print(json.dumps(jobs.engine_status(), indent=1))


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
    from explorer.cli.progress_bar import stage_bar
    from explorer.distill.synthesise import synthesise as write
    from explorer.models.loading import load

    with stage_bar(console) as bar:
        bar({"stage": "load", "done": 0, "total": 0})
        recipe = write(
            load(_model(teacher), device="auto"),
            out,
            num_tokens=tokens,
            document_tokens=document_tokens,
            batch_size=batch_size,
            temperature=temperature,
            top_k=top_k,
            seed=seed,
            progress=lambda done, total: bar(
                {"stage": "synthesise", "done": done, "total": total, "unit": "tokens"}
            ),
        )
    console.print(f"Wrote {recipe['num_documents']} documents to {out}, and the recipe beside it.")


@app.command()
def convert(
    model: Annotated[str, typer.Argument(help="A model: starter, a folder, run:RUN_ID, ...")],
    out: Annotated[Path, typer.Argument(help="The .gguf file to write.")],
    to: Annotated[
        specs.GgufType, typer.Option("--to", help="Number format; q4_k_m needs llama.cpp.")
    ] = "q8_0",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a model as GGUF, for llama.cpp and what is built on it."""
    model = _model(model)
    if out.exists() and not force:
        raise BadInput(f"{out} exists. Choose another name, or --force to overwrite it.")
    from explorer.models.gguf.convert import to_gguf
    from explorer.models.gguf.header import gguf_facts
    from explorer.models.loading import load

    to_gguf(load(model, device="cpu", dtype="float32"), to, out)
    written = gguf_facts(model, out)
    console.print(
        f"Wrote {out}: {out.stat().st_size:,} bytes, {written.num_layers} layers, {written.dtype}. "
        f"Time it: teacher: llamacpp:{out}",
        markup=False,
    )


def _spec(root: Path, what: str) -> specs.RunSpec | specs.SweepSpec:
    """A spec by its file or by the id of a run in the store."""
    if what.endswith((".yaml", ".yml")) or Path(what).is_file():
        return specs.read_run_or_sweep(Path(what))
    return disk.read_spec(root, disk.resolve_run_id(root, what))


def _model(name: str) -> str:
    """A model's name, in which `run:` and the beginning of a run's id has become the whole id."""
    if not name.startswith("run:"):
        return name
    return f"run:{disk.resolve_run_id(paths.store_root(), name.removeprefix('run:'))}"


def _queued(root: Path, text: str) -> tuple[str, ModuleType]:
    """The run or tournament that `text` names, and what cancels and resumes it."""
    from explorer import jobs
    from explorer.search import queued, successive_halving

    disk.run_folder(root, text)  # refuses what cannot be an id
    tournaments = successive_halving.search_ids(root)
    runs = [run_id for run_id in disk.run_ids(root) if disk.is_run(root, run_id)]
    whole = disk.resolve_id(
        text,
        [*runs, *tournaments],
        "runs and tournaments",
        f"There is no run or tournament {text!r} in {root}.",
        "`explorer ls` and `explorer tune --standings` list them.",
    )
    return whole, queued if whole in tournaments else jobs


def _insist(insist: bool) -> None:
    """What runs under this command, in the queue too, is tried whatever our arithmetic says."""
    if insist:
        os.environ["EXPLORER_INSIST"] = "1"


def _do(
    runs: list[specs.RunSpec], root: Path, *, queue: bool, again: bool, queued: bool = False
) -> None:
    """Do the runs one after another here, or put them into the queue."""
    # Before anything is done anew, and not after the teacher's run.
    sizes.check_students(runs, root)
    if again and int(os.environ.get("RANK", "0")) == 0:
        for one in runs:
            disk.request_again(root, one.run_id)
    if queue:
        from explorer import jobs

        for run_id in jobs.submit(runs, root, say_engine_start):
            console.print(f"queued {run_id}")
        return
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from explorer.cli.progress_bar import stage_bar
    from explorer.distill import distributed
    from explorer.pipeline import run as do

    with distributed.joined():
        for number, one in enumerate(runs, start=1):
            if not distributed.is_main():
                do(one, root)
                continue
            if not queued:
                # Asked for by hand, so an old request to stop is over.
                disk.withdraw_cancel(root, one.run_id)
            try:
                with stage_bar(console, f"{number}/{len(runs)} {one.run_id}") as bar:
                    record = do(one, root, bar)
            except ExplorerError:
                if disk.is_finished(root, one.run_id):
                    console.print(f"The earlier result of {one.run_id} still counts.")
                raise
            seconds = sum(record.stage_seconds.values())
            console.print(
                f"[{number}/{len(runs)}] {one.run_id} {record.status}, {seconds:.0f} s of work"
            )
            # A sweep's comparison names all such runs at its end.
            if record.latency and record.latency.was_busy and len(runs) == 1:
                console.print(
                    interference.retiming_advice([one.run_id]), markup=False, soft_wrap=True
                )
        if not distributed.is_main():
            raise typer.Exit


def _price_from_the_book(root: Path) -> None:
    """Give devices without a price the cheapest that the book has for such a device, and say so."""
    from explorer.catalogue import prices

    runs = open_index(root).runs()
    for name, known, suggested in prices.devices(runs, root):
        if known is None and suggested:
            prices.write_override(root / prices.OVERRIDES, name, suggested[0])
            console.print(
                f"{name} is priced like a machine of its size in the price book: "
                f"${suggested[0].usd_per_hour:g} per hour, {suggested[0].in_words()}. "
                f"Your own price: explorer price {name!r} USD_PER_HOUR",
                markup=False,
            )
