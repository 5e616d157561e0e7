"""Commands about the teacher's cached distributions: list, look at, remove."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from explorer.analysis import numbers
from explorer.cli.base import ResultsDir, app, console, root_of

targets_app = typer.Typer(
    help="Look at the teacher's cached distributions, or remove them.", no_args_is_help=True
)
app.add_typer(targets_app, name="targets")
Key = Annotated[str, typer.Argument(help="As `explorer targets ls` prints it.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON array.")]


def _root(results: Path | None) -> Path:
    return root_of(results) / ".work" / "targets"


@targets_app.command("ls")
def list_targets(results: ResultsDir = None, as_json: AsJson = False) -> None:
    """List the cached targets: of which teacher and corpus, and their size."""
    from explorer.distill import targets_list

    found = targets_list.listing(_root(results))
    if as_json:
        print(json.dumps(found, indent=1))
        return
    if not found:
        console.print("No targets yet: the first distilled student makes them.")
        return
    table = Table("Key", "Teacher", "Corpus", "Top k", "Blocks", "Bytes/token", "Size", box=None)
    for row in found:
        if "problem" in row:
            cells = [row["problem"], "", "", "", ""]
        else:
            blocks = f"{row['num_blocks']:,} of {row['num_blocks_of_corpus']:,}"
            cells = [
                row["teacher"], row["corpus"], str(row["top_k"]), blocks,
                str(row["bytes_per_token"]),
            ]  # fmt: skip
        table.add_row(row["key"], *cells, numbers.size(row["num_bytes"]))
    console.print(table)


@targets_app.command("info")
def show_targets(key: Key, results: ResultsDir = None) -> None:
    """Show all about one folder of targets, and check its shards."""
    from explorer.distill import targets_list

    root = _root(results)
    targets_list.folder_of(root, key)
    row = next(row for row in targets_list.listing(root) if row["key"] == key)
    table = Table(box=None, show_header=False)
    for name, value in row.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        table.add_row(name, shown)
    console.print(table)
    if "problem" in row:
        return
    damaged = targets_list.check(root, key)
    for sentence in damaged:
        console.print(f"{sentence} The next run that needs it computes it again.", markup=False)
    if not damaged:
        console.print("Every shard has the checksum that it was written with.")


@targets_app.command("rm")
def remove_targets(key: Key, results: ResultsDir = None) -> None:
    """Remove one folder of targets; a run that needs them makes them again."""
    from explorer.distill import targets_list

    targets_list.remove(_root(results), key)
    console.print(f"Removed {key}.")
