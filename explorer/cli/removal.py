"""Commands that hide and delete runs and undo it, and free disk space: hide, trash, clean ..."""

import dataclasses
import json
from typing import Annotated

import pandas as pd
import typer

from explorer.analysis import numbers
from explorer.cli.common import AsJson, ResultsDir, Wide, app, console, root_of
from explorer.cli.tables import named_runs, print_table
from explorer.store import leftovers, trash

RunIds = Annotated[list[str], typer.Argument(help="Ids of runs, or unique beginnings of ids.")]


@app.command()
def hide(run_ids: RunIds, results: ResultsDir = None) -> None:
    """Leave runs out of pages and tables. Their files stay."""
    root = root_of(results)
    names = named_runs(root, run_ids)
    trash.hide(root, names)
    for name in names:
        console.print(f"{name} is hidden. To show it again: explorer unhide {name}", soft_wrap=True)


@app.command()
def unhide(run_ids: RunIds, results: ResultsDir = None) -> None:
    """Show hidden runs again."""
    root = root_of(results)
    names = named_runs(root, run_ids)
    trash.unhide(root, names)
    for name in names:
        console.print(f"{name} is shown again.", soft_wrap=True)


@app.command()
def delete(run_ids: RunIds, results: ResultsDir = None) -> None:
    """Move runs to the trash; `explorer restore` restores them."""
    from explorer import jobs

    root = root_of(results)
    names = named_runs(root, run_ids)
    for entry in jobs.delete(root, names):
        console.print(
            f"{entry.run_id} is in the trash. To restore it: explorer restore {entry.run_id}",
            soft_wrap=True,
        )


@app.command()
def restore(run_ids: RunIds, results: ResultsDir = None) -> None:
    """Restore deleted runs from the trash."""
    root = root_of(results)
    for name in [trash.resolve_run_id(root, text) for text in run_ids]:
        trash.restore(root, name)
        console.print(f"{name} is restored.", soft_wrap=True)


@app.command("trash")
def list_trash(
    results: ResultsDir = None,
    empty: Annotated[
        bool,
        typer.Option(
            "--empty",
            help="Delete them for good, with the weights of students no other run uses.",
        ),
    ] = False,
    wide: Wide = False,
) -> None:
    """List deleted runs, or delete them for good."""
    root = root_of(results)
    if empty:
        num_runs = trash.empty_trash(root)
        console.print(f"Deleted {num_runs} run{'' if num_runs == 1 else 's'} for good.")
        return
    rows = [
        {"Run": entry.run_id, "Deleted": entry.deleted_at} for entry in trash.deleted_runs(root)
    ]
    if rows:
        print_table(pd.DataFrame(rows), identifying=["Run"], wide=wide)
    else:
        console.print("The trash is empty.")


@app.command()
def clean(
    results: ResultsDir = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without, only list it.")] = False,
    caches: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Also texts, tokens, targets and GGUF files that any new run would make again.",
        ),
    ] = False,
    as_json: AsJson = False,
    wide: Wide = False,
) -> None:
    """List or remove what no run needs any more.

    That is the trash, students and targets of no run, checkpoints that nothing can continue,
    earlier records and half-written files. Nothing that a run under way uses is touched.
    """
    from explorer.jobs import clean as cleaning

    root = root_of(results)
    findings = cleaning.clean(root, caches=caches) if yes else cleaning.look(root, caches=caches)
    if as_json:
        rows = [{**dataclasses.asdict(one), "path": str(one.path)} for one in findings.leftovers]
        print(json.dumps({"removed": yes, "items": rows, "kept": findings.reasons}, indent=1))
        return
    if findings.leftovers:
        rows = [
            {
                "What": leftovers.KINDS[kind],
                "Items": sum(one.kind == kind for one in findings.leftovers),
                "Size": numbers.size(num_bytes),
            }
            for kind, num_bytes in findings.bytes_by_kind().items()
        ]
        print_table(pd.DataFrame(rows), identifying=["What"], wide=wide)
    for reason in findings.reasons:
        console.print(reason, markup=False)
    if not findings.leftovers:
        console.print("Nothing to remove.")
    elif yes:
        console.print(f"Removed {numbers.size(findings.num_bytes)}.")
    else:
        console.print(
            f"{numbers.size(findings.num_bytes)} can go. Nothing was removed; to remove it: "
            f"explorer clean{' --all' if caches else ''} --yes"
        )
