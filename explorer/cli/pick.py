"""Which model to use under limits: pick."""

import json
from typing import Annotated

import typer

from explorer.analysis.cost.unit_cost import UTILISATION
from explorer.analysis.headline import TARGET_RETENTION
from explorer.analysis.pick.limits import CONFIDENCE
from explorer.cli.common import (
    AsJson,
    Confidence,
    MinRetention,
    ResultsDir,
    Utilisation,
    app,
    console,
    root_of,
)
from explorer.cli.tables import analysed_runs, open_index, print_facts


@app.command()
def pick(
    min_retention: MinRetention = TARGET_RETENTION,
    confidence: Confidence = CONFIDENCE,
    max_tpot_ms: Annotated[
        float | None, typer.Option(help="Highest median time per output token.")
    ] = None,
    max_ttft_ms: Annotated[
        float | None, typer.Option(help="Highest median time to first token.")
    ] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="Highest median time from request to last token.")
    ] = None,
    min_tokens_per_s: Annotated[
        float | None, typer.Option(help="Lowest output throughput, in tokens per second.")
    ] = None,
    max_usd_per_hour: Annotated[
        float | None, typer.Option(help="Highest cost per hour at the teacher's load.")
    ] = None,
    max_usd_per_mtok: Annotated[
        float | None, typer.Option(help="Highest cost per million output tokens.")
    ] = None,
    max_weights_mb: Annotated[
        float | None, typer.Option(help="Largest weights, in MB of 1,000,000 bytes.")
    ] = None,
    max_memory_mb: Annotated[
        float | None, typer.Option(help="Highest peak memory, in MB of 1,000,000 bytes.")
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="It must run in this runtime, such as llama.cpp.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="It must have this number format, such as q8_0; torch for unconverted."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Where it was timed; by default the device with the most timings."),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="The run of the teacher; by default that of most students.")
    ] = None,
    objective: Annotated[
        str, typer.Option(help="cheapest (per token), fastest, smallest or capable.")
    ] = "cheapest",
    utilisation: Utilisation = UTILISATION,
    results: ResultsDir = None,
    as_json: AsJson = False,
) -> None:
    """Pick one model under limits, with the evidence.

    Names the runner-up, what each limit removed, the near misses, how sure the pick is and which
    measurement would settle it. docs/pick.md has the rule.
    """
    from explorer.analysis.pick import decide, sentences, use
    from explorer.analysis.pick.limits import MEGABYTE, Limits
    from explorer.store import disk

    limits = Limits(
        min_retention=min_retention,
        confidence=confidence,
        max_tpot_ms=max_tpot_ms,
        max_ttft_ms=max_ttft_ms,
        max_latency_ms=max_latency_ms,
        min_output_tokens_per_s=min_tokens_per_s,
        max_usd_per_hour=max_usd_per_hour,
        max_usd_per_mtok=max_usd_per_mtok,
        max_weight_bytes=None if max_weights_mb is None else max_weights_mb * MEGABYTE,
        max_peak_memory_bytes=None if max_memory_mb is None else max_memory_mb * MEGABYTE,
        runtime=runtime,
        format=format,
    )
    root = root_of(results)
    runs = analysed_runs(root, [], utilisation)
    index = open_index(root)
    decision = decide.pick(
        runs,
        index.draws(runs),
        limits,
        objective=objective,
        teacher=disk.resolve_run_id(root, teacher) if teacher else None,
        device=device,
    )
    steps: dict[str, str] = {}
    if decision.pick is not None:
        run_id = decision.pick["run_id"]
        steps = use.use(decision.pick, index.weights([run_id]).get(run_id))
    if as_json:
        print(json.dumps(decision.as_json() | {"use": steps}, indent=1))
        return
    console.print(decision.reason, markup=False)
    for title, lines in sentences.details(decision, runs).items():
        console.print(f"\n{title}", markup=False, style="bold")
        for line in lines:
            console.print(f"  {line}", markup=False)
    if steps:
        console.print("\nUse it", style="bold")
        print_facts({f"  {name}": text for name, text in steps.items()})
