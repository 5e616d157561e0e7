"""Commands on the published facts that ship with us: check them."""

import typer

from explorer.cli.base import app, console
from explorer.errors import DamagedStore

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
