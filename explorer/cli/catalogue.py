"""Commands on the published facts we ship: catalogue check, published, fit."""

from pathlib import Path
from typing import Annotated

import typer

from explorer.analysis.cost.unit_cost import UTILISATION
from explorer.analysis.planning import roofline
from explorer.cli.common import Out, ResultsDir, Utilisation, Wide, app, console, root_of
from explorer.cli.tables import Format, print_or_write
from explorer.errors import BadInput, DamagedStore
from explorer.records.rows import row_dicts

catalogue = typer.Typer(
    help="The published facts that come with the explorer.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(catalogue, name="catalogue")


@catalogue.callback()
def _group() -> None:
    """The published facts that come with the explorer."""


@catalogue.command()
def check() -> None:
    """Check every row: source, date, names, ranges, references, arithmetic."""
    from explorer.catalogue.check import check_catalogue

    report = check_catalogue()
    for name, num_rows in report.num_rows.items():
        console.print(f"{name}: {num_rows:,} rows")
    for note in report.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    for fault in report.faults:
        console.print(f"fault: {fault}", markup=False, soft_wrap=True)
    if report.faults:
        raise DamagedStore(f"The catalogue has the {len(report.faults)} faults named above.")
    console.print("No faults found.")


@app.command()
def published(
    family: Annotated[
        list[str] | None, typer.Option(help="A model family, such as Llama. Repeat for more.")
    ] = None,
    claims: Annotated[
        bool, typer.Option("--claims", help="Print the four common claims with verdicts instead.")
    ] = False,
    bits: Annotated[
        int, typer.Option(help="Bits per weight for the estimated rent: 16, 8 or 4.")
    ] = 16,
    format: Format = "table",
    out: Out = None,
    wide: Wide = False,
) -> None:
    """Show what published students keep of larger models' scores."""
    from explorer.analysis.published import check_claims, published_retention
    from explorer.analysis.tables import run_table
    from explorer.catalogue import load

    facts = published_retention.collect_published(load.all_tables(), bits=bits)
    if claims:
        for claim in check_claims.check_claims(
            facts.rows, facts.fitted, load.load_table("speeds"), load.load_table("deployments")
        ):
            console.print(
                f"{claim.text}\n{claim.verdict}. {claim.why}", markup=False, soft_wrap=True
            )
            for sign, points in (("+", claim.supporting), ("-", claim.opposing)):
                for row in row_dicts(points):
                    console.print(
                        f"  {sign} {row['point']}: {row['value']} ({row['basis']}) "
                        f"{row['source_url'] or ''}".rstrip(),
                        markup=False,
                        soft_wrap=True,
                    )
            console.print()
        return
    rows = facts.rows
    if family:
        unknown = set(family) - set(rows["family"])
        if unknown:
            known = ", ".join(dict.fromkeys(rows["family"]))
            raise BadInput(
                f"There is no family {', '.join(sorted(unknown))}. The families are {known}."
            )
        rows = rows[rows["family"].isin(family)]
    cells = run_table.published_table(rows)
    if format == "table":
        sources = cells.drop_duplicates("Table")
        cells = cells.drop(columns=["Source"])
    print_or_write(
        rows.reset_index(drop=True),
        cells,
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
        console.print("\n" + published_retention.published_headline(rows), markup=False)


@app.command()
def fit(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Models of the catalogue, or sizes such as 7B; by default 70B and 7B."),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(help="A device of the catalogue; repeat for more. RTX 4090 and H100 SXM."),
    ] = None,
    concurrency: Annotated[int, typer.Option(help="Requests in memory at once.")] = 1,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of each prompt.")] = 512,
    output_tokens: Annotated[int, typer.Option(help="Tokens of each answer.")] = 128,
    utilisation: Utilisation = UTILISATION,
    prefill_efficiency: Annotated[
        float, typer.Option(help="Share of the peak FLOPS that prefill reaches.")
    ] = 1.0,
    decode_efficiency: Annotated[
        float, typer.Option(help="Share of the peak bandwidth that decoding reaches.")
    ] = 1.0,
    run: Annotated[
        str | None, typer.Option(help="A measured run to derive both efficiencies from.")
    ] = None,
    run_tflops: Annotated[
        float | None,
        typer.Option(help="Peak TFLOPS of that run's device, if the catalogue lacks it."),
    ] = None,
    run_bandwidth: Annotated[
        float | None, typer.Option(help="Its memory bandwidth in GB/s, if the catalogue lacks it.")
    ] = None,
    results: ResultsDir = None,
    format: Format = "table",
    out: Out = None,
    wide: Wide = False,
) -> None:
    """Estimate which devices fit a model, at what cost and speed."""
    from explorer.analysis.cost import unit_cost
    from explorer.analysis.planning import device_fit
    from explorer.analysis.tables import run_table
    from explorer.catalogue import load

    sized = device_fit.sized_models(load.load_table("models"), load.load_table("shapes"))
    names = models or list(device_fit.EXAMPLE_MODELS)
    if run is not None:
        reached = _reached(run, run_tflops, run_bandwidth, results)
    else:
        reached = roofline.stated_efficiency(prefill_efficiency, decode_efficiency)
    rows = device_fit.device_fit(
        device_fit.models_named(names, sized),
        device_fit.devices_named(
            device or list(device_fit.EXAMPLE_DEVICES), load.load_table("hardware_specs")
        ),
        load.load_table("hardware"),
        concurrency=concurrency,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        utilisation=utilisation,
        efficiency=reached,
    )
    print_or_write(
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
            f"\nAll values are estimates for {concurrency} concurrent requests of {prompt_tokens} "
            f"prompt and {output_tokens} output tokens; {reached.in_words()}; "
            f"{unit_cost.utilisation_text(utilisation)}; {device_fit.USABLE_MEMORY:.0%} of the "
            "memory usable. Prices go from the cheapest to the dearest offer of the price book.",
            markup=False,
        )


def _reached(
    run: str, tflops: float | None, bandwidth_gb_s: float | None, results: Path | None
) -> roofline.Efficiency:
    """The share of its device's peak that a run reached."""
    from explorer.catalogue import load, prices
    from explorer.store import disk, frames

    root = root_of(results)
    row = frames.row(disk.load(root, disk.resolve_run_id(root, run)))
    specs = load.load_table("hardware_specs")
    # Imported runs name no device.
    device_name = row.get("device_name")
    part = prices.match_hardware(device_name, specs["hardware"].tolist()) if device_name else None
    if part is not None:
        known = row_dicts(specs[specs["hardware"] == part])[0]
        tflops = tflops or float(known["dense_bf16_tflops"])
        bandwidth_gb_s = bandwidth_gb_s or float(known["mem_bandwidth_gb_s"])
    if device_name is None:
        raise BadInput(f"{row['run_id']} was not timed. Choose a run with timings.")
    if tflops is None or bandwidth_gb_s is None:
        raise BadInput(
            f"The catalogue does not list the peak of {device_name}. State it with --run-tflops "
            "and --run-bandwidth."
        )
    return roofline.calibrated_efficiency(row, tflops=tflops, bandwidth_gb_s=bandwidth_gb_s)
