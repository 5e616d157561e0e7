"""Commands on the published facts that ship with us: catalogue check, published, fit."""

from pathlib import Path
from typing import Annotated

import typer

from explorer.analysis.cost.unit_cost import UTILISATION
from explorer.analysis.planning import roofline
from explorer.cli.common import Out, ResultsDir, Utilisation, Wide, app, console, root_of
from explorer.cli.tables import Format, give
from explorer.errors import BadInput, DamagedStore
from explorer.records.rows import row_dicts

catalogue = typer.Typer(
    help="The published facts that ship with us.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(catalogue, name="catalogue")


@catalogue.callback()
def _group() -> None:
    """The published facts that ship with us."""


@catalogue.command()
def check() -> None:
    """Check every row: source, date, names, ranges, references, arithmetic."""
    from explorer.catalogue.check import check as look

    found = look()
    for name, num_rows in found.num_rows.items():
        console.print(f"{name}: {num_rows:,} rows")
    for note in found.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    for fault in found.faults:
        console.print(f"fault: {fault}", markup=False, soft_wrap=True)
    if found.faults:
        raise DamagedStore(f"The catalogue has {len(found.faults)} faults, named above.")
    console.print("No fault found.")


@app.command()
def published(
    family: Annotated[
        list[str] | None, typer.Option(help="As on the page, as in Llama; repeat for more.")
    ] = None,
    claims: Annotated[
        bool, typer.Option("--claims", help="The four claims with their verdicts instead.")
    ] = False,
    bits: Annotated[int, typer.Option(help="16, 8 or 4, for the estimated rent.")] = 16,
    format: Format = "table",
    out: Out = None,
    wide: Wide = False,
) -> None:
    """Show what published students keep of larger models, each with its source."""
    from explorer.analysis.published import check_claims as judging
    from explorer.analysis.published import published_retention as analysis
    from explorer.analysis.tables import run_table
    from explorer.catalogue import load

    found = analysis.collect_published(load.all_tables(), bits=bits)
    if claims:
        for one in judging.check_claims(
            found.rows, found.fitted, load.table("speeds"), load.table("deployments")
        ):
            console.print(f"{one.said}\n{one.verdict}. {one.why}", markup=False, soft_wrap=True)
            for sign, points in (("+", one.supporting), ("-", one.opposing)):
                for row in row_dicts(points):
                    console.print(
                        f"  {sign} {row['point']}: {row['value']} ({row['basis']}) "
                        f"{row['source_url'] or ''}".rstrip(),
                        markup=False,
                        soft_wrap=True,
                    )
            console.print()
        return
    rows = found.rows
    if family:
        unknown = set(family) - set(rows["family"])
        if unknown:
            known = ", ".join(dict.fromkeys(rows["family"]))
            raise BadInput(f"There is no family {', '.join(sorted(unknown))}; choose {known}.")
        rows = rows[rows["family"].isin(family)]
    words = run_table.published_table(rows)
    if format == "table":
        sources = words.drop_duplicates("Table")
        words = words.drop(columns=["Source"])
    give(
        rows.reset_index(drop=True),
        words,
        format,
        out,
        wide=wide,
        identifying=["Student"],
        importance=[
            "Compared with",
            "Raw ratio",
            "Above chance",
            "Times smaller",
            "Parameters",
            "Relation",
            "API $/1M output tokens",
            "$/hour, estimated",
            "Table",
            "Worst",
            "Benchmarks",
        ],
    )
    if format == "table":
        for name, url in zip(sources["Table"], sources["Source"], strict=True):
            console.print(f"{name}: {url}", markup=False, soft_wrap=True)
        console.print("\n" + analysis.published_headline(rows), markup=False)


@app.command()
def fit(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Names of the catalogue, or sizes as in 7B; a 70B and its 7B student."),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(help="A device of the catalogue; repeat for more. RTX 4090 and H100 SXM."),
    ] = None,
    concurrency: Annotated[int, typer.Option(help="Requests held in memory at once.")] = 1,
    prompt_tokens: Annotated[int, typer.Option(help="Of each request.")] = 512,
    output_tokens: Annotated[int, typer.Option(help="Of each request.")] = 128,
    utilisation: Utilisation = UTILISATION,
    prefill_efficiency: Annotated[
        float, typer.Option(help="Share of the published arithmetic that is reached.")
    ] = 1.0,
    decode_efficiency: Annotated[
        float, typer.Option(help="Share of the published bandwidth that is reached.")
    ] = 1.0,
    run: Annotated[
        str | None, typer.Option(help="A measured run that says what is reached instead.")
    ] = None,
    run_tflops: Annotated[
        float | None, typer.Option(help="Peak of that run's device; known for the catalogue's.")
    ] = None,
    run_bandwidth: Annotated[
        float | None, typer.Option(help="Its memory's, in GB/s; known for the catalogue's.")
    ] = None,
    results: ResultsDir = None,
    format: Format = "table",
    out: Out = None,
    wide: Wide = False,
) -> None:
    """Estimate which devices hold a model, what they cost per hour, and how fast it can be."""
    from explorer.analysis.cost import unit_cost
    from explorer.analysis.planning import device_fit as analysis
    from explorer.analysis.tables import run_table
    from explorer.catalogue import load

    sized = analysis.sized_models(load.table("models"), load.table("shapes"))
    names = models or list(analysis.EXAMPLE_MODELS)
    if run is not None:
        reached = _reached(run, run_tflops, run_bandwidth, results)
    else:
        reached = roofline.stated_efficiency(prefill_efficiency, decode_efficiency)
    rows = analysis.device_fit(
        analysis.models_named(names, sized),
        analysis.devices_named(
            device or list(analysis.EXAMPLE_DEVICES), load.table("hardware_specs")
        ),
        load.table("hardware"),
        concurrency=concurrency,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        utilisation=utilisation,
        efficiency=reached,
    )
    give(
        rows,
        run_table.device_fit_table(rows),
        format,
        out,
        wide=wide,
        identifying=["Model", "Bits"],
        importance=["Devices", "Memory", "$/hour", "TPOT", "Tokens/s", "TTFT"],
    )
    if format == "table":
        console.print(
            f"\nAll of it estimated: {concurrency} requests at once, {prompt_tokens} tokens in and "
            f"{output_tokens} out; {reached.in_words()}; "
            f"{unit_cost.utilisation_text(utilisation)}; "
            f"{analysis.USABLE_MEMORY:.0%} of the memory used. From the cheapest to the dearest "
            "offer of the price book.",
            markup=False,
        )


def _reached(
    run: str, tflops: float | None, bandwidth_gb_s: float | None, results: Path | None
) -> roofline.Efficiency:
    """What a run of the store reached of its device's peak."""
    from explorer.catalogue import load, prices
    from explorer.store import disk, frames

    root = root_of(results)
    row = frames.row(disk.load(root, disk.resolve_run_id(root, run)))
    specs = load.table("hardware_specs")
    # An imported run names no device.
    device_name = row.get("device_name")
    part = prices.part(device_name, specs["hardware"].tolist()) if device_name else None
    if part is not None:
        known = row_dicts(specs[specs["hardware"] == part])[0]
        tflops = tflops or float(known["dense_bf16_tflops"])
        bandwidth_gb_s = bandwidth_gb_s or float(known["mem_bandwidth_gb_s"])
    if device_name is None:
        raise BadInput(f"{row['run_id']} was not timed here: take a run that was.")
    if tflops is None or bandwidth_gb_s is None:
        raise BadInput(
            f"The peak of {device_name} is not in the catalogue: state it with --run-tflops "
            "and --run-bandwidth."
        )
    return roofline.calibrated_efficiency(row, tflops=tflops, bandwidth_gb_s=bandwidth_gb_s)
