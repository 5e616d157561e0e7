"""The cost of serving a given traffic with each run: economics."""

from typing import Annotated

import typer

from explorer.analysis.cost.unit_cost import UTILISATION
from explorer.analysis.headline import TARGET_RETENTION
from explorer.analysis.pick.limits import CONFIDENCE
from explorer.cli.common import (
    Confidence,
    MinRetention,
    Out,
    ResultsDir,
    Utilisation,
    Wide,
    app,
    console,
    root_of,
)
from explorer.cli.tables import Format, analysed_runs, named_runs, open_index, print_or_write
from explorer.errors import BadInput
from explorer.store import disk


@app.command()
def economics(
    run_ids: Annotated[
        list[str] | None,
        typer.Argument(
            help="Ids of runs, or unique beginnings of ids; by default the newest study."
        ),
    ] = None,
    traffic: Annotated[float, typer.Option(help="Requests per minute at the busiest time.")] = 60.0,
    prompt_tokens: Annotated[
        int | None,
        typer.Option(
            "--prompt-tokens",
            "--input-tokens",
            help="Tokens of each prompt; by default as in most timings.",
        ),
    ] = None,
    output_tokens: Annotated[
        int | None, typer.Option(help="Tokens of each answer; by default as in most timings.")
    ] = None,
    utilisation: Utilisation = UTILISATION,
    max_ttft: Annotated[
        float | None, typer.Option(help="Highest median time to first token, in ms.")
    ] = None,
    max_tpot: Annotated[
        float | None, typer.Option(help="Highest median time per output token, in ms.")
    ] = None,
    prices: Annotated[
        str | None,
        typer.Option(
            help="yours, or the price book's cheapest or dearest; by default the first known one."
        ),
    ] = None,
    api: Annotated[
        str | None, typer.Option(help="An API to compare with, such as openai/gpt-4o-mini.")
    ] = None,
    min_retention: MinRetention = TARGET_RETENTION,
    confidence: Confidence = CONFIDENCE,
    all_runs: Annotated[
        bool, typer.Option("--all", help="All timed runs that are not hidden.")
    ] = False,
    results: ResultsDir = None,
    format: Format = "table",
    out: Out = None,
    wide: Wide = False,
) -> None:
    """Show what serving a given traffic costs with each run.

    With the payback of each distillation and the break-even with an API.
    """
    from explorer.analysis import interference, studies
    from explorer.analysis.cost import economics as analysis
    from explorer.analysis.cost import unit_cost
    from explorer.analysis.cost.cost_headline import cost_headline
    from explorer.analysis.cost.fleet import LatencyLimits
    from explorer.analysis.cost.serving_cost import Workload
    from explorer.analysis.pick import candidates
    from explorer.analysis.pick.limits import Limits
    from explorer.analysis.tables import run_table
    from explorer.catalogue import api_prices
    from explorer.catalogue import prices as price_book

    limits = Limits(min_retention=min_retention, confidence=confidence)
    root = root_of(results)
    sets = dict(zip(("yours", "cheapest", "dearest"), price_book.SETS, strict=True))
    if prices is not None and prices not in sets:
        raise BadInput(f"--prices must be one of {', '.join(sets)}, got {prices!r}.")
    runs = analysed_runs(root, named_runs(root, run_ids or []), utilisation)
    runs = run_table.ordered_for_people(
        runs[runs["status"] == "finished"].dropna(subset=["tpot_ms"])
    )
    num_timed = len(runs)
    if not run_ids and not all_runs and num_timed:
        runs = runs[runs["run_id"].isin(studies.newest_study(runs))]
    if runs.empty:
        console.print("No timed runs yet. Start with: explorer demo")
        return
    known = price_book.price_sets(runs, root)
    price_set = sets[prices] if prices else price_book.first_known(known)
    book = known[price_set]
    offer = None
    if api is not None:
        own = {price.name: price for price in api_prices.known_prices(root)}
        offer = own.get(api) or api_prices.look_up_price(api)
    timed_prompt, timed_output = unit_cost.common_lengths(runs)
    assumed = analysis.Assumptions(
        workload=Workload(
            timed_prompt if prompt_tokens is None else prompt_tokens,
            timed_output if output_tokens is None else output_tokens,
        ),
        traffic_per_s=traffic / 60,
        utilisation=utilisation,
        usd_per_hour={name: price.usd_per_hour for name, price in book.items()},
        limits=LatencyLimits(max_ttft, max_tpot),
        api_usd_per_mtok_input=offer.input_usd_per_mtok if offer else None,
        api_usd_per_mtok_output=offer.output_usd_per_mtok if offer else None,
    )
    records = [disk.load(root, run_id) for run_id in runs["run_id"]]
    labels = studies.unique_labels(runs)
    runs["sure"] = candidates.sure(runs, open_index(root).draws(runs), limits.min_retention)
    kept = ["run_id", "retention", "retention_low", "retention_high", "sure", "method"]
    rows = analysis.candidates(records, labels, assumed).merge(runs[kept], on="run_id", how="left")
    cells = run_table.economics_table(rows)
    if format == "table":
        cells = run_table.without_equal_lengths(cells)
        cells = cells if offer else cells.drop(columns="API break-even")
    print_or_write(
        rows,
        cells,
        format,
        out,
        wide=wide,
        identifying=["Model"],
        importance=[
            "Retention [95 %]",
            "Fleet $/month",
            "Devices",
            unit_cost.heading_of(rows),
            "Paid back after",
            "API break-even",
            "Bill",
        ],
    )
    if format != "table":
        return
    lines = [cost_headline(rows, assumed, min_retention, confidence)]
    if not run_ids and len(runs) < num_timed:
        lines.append(
            f"The newest study: {len(runs):,} of {num_timed:,} timed runs. --all takes all of them."
        )
    if rows["usd_per_mtok"].notna().any():
        lines.append(
            f"{unit_cost.conditions_text(rows)}. Cost of a request, prefill and decode: for "
            f"{assumed.workload.in_words()}."
        )
    lines.append(f"Prices: {price_set.lower()}.")
    lines += [
        f"{name}: ${price.usd_per_hour:g} per hour, {price.in_words()}."
        for name, price in book.items()
    ]
    if offer:
        lines.append(
            f"API: {offer.in_words()}. It serves another model, so only the price is comparable."
        )
    lines += [f"Note: {note}." for note in dict.fromkeys(rows["notes"]) if note]
    lines += [f"Not known without {what}." for what in dict.fromkeys(rows["missing"]) if what]
    busy = rows.loc[interference.was_busy(rows), "run_id"].tolist()
    if busy:
        lines.append(interference.retiming_advice(busy))
    console.print("\n" + "\n".join(lines), markup=False)
