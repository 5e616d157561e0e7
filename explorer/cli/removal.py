"""Commands that hide and delete runs and undo it: hide, unhide, delete, restore, trash."""

from typing import Annotated

import pandas as pd
import typer

from explorer.cli.common import ResultsDir, Wide, app, console, root_of
from explorer.cli.tables import named_runs, print_table
from explorer.store import trash

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
