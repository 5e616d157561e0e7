"""Commands on the teacher's cached targets: targets ls, targets info, targets rm."""

import json
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from explorer.analysis import numbers
from explorer.cli.common import AsJson, ResultsDir, Wide, app, console, root_of
from explorer.cli.tables import print_facts, print_table

targets_app = typer.Typer(
    help="List, check or remove the teacher's cached targets.", no_args_is_help=True
)
app.add_typer(targets_app, name="targets")
Key = Annotated[
    str, typer.Argument(help="A key from `explorer targets ls`, or a unique beginning of it.")
]


def _root(results: Path | None) -> Path:
    return root_of(results) / ".work" / "targets"


@targets_app.command("ls")
def list_targets(results: ResultsDir = None, as_json: AsJson = False, wide: Wide = False) -> None:
    """List cached targets with their teacher, corpus and size."""
    from explorer.distill import teacher_cache_files

    caches = teacher_cache_files.list_caches(_root(results))
    if as_json:
        print(json.dumps(caches, indent=1))
        return
    if not caches:
        console.print("No targets yet. The first distilled student computes them.")
        return
    print_table(
        pd.DataFrame([_in_words(row) for row in caches]),
        identifying=["Key"],
        wide=wide,
        importance=["Size", "Teacher", "Corpus", "Blocks", "Top k"],
    )
    for row in caches:
        if "problem" in row:
            console.print(f"{row['key']} was {row['problem']}.", markup=False)


def _in_words(row: dict[str, Any]) -> dict[str, str]:
    known = "problem" not in row
    blocks = f"{row['num_blocks']:,} of {row['num_blocks_of_corpus']:,}" if known else ""
    return {
        "Key": row["key"],
        "Teacher": row["teacher"] if known else numbers.MISSING,
        "Corpus": row["corpus"] if known else numbers.MISSING,
        "Top k": str(row["top_k"]) if known else numbers.MISSING,
        "Blocks": blocks or numbers.MISSING,
        "Bytes/token": str(row["bytes_per_token"]) if known else numbers.MISSING,
        "Size": numbers.size(row["num_bytes"]),
    }


@targets_app.command("info")
def show_targets(key: Key, results: ResultsDir = None) -> None:
    """Show one set of targets and verify its checksums."""
    from explorer.distill import teacher_cache_files

    root = _root(results)
    key = teacher_cache_files.resolve_key(root, key)
    row = next(row for row in teacher_cache_files.list_caches(root) if row["key"] == key)
    print_facts(
        {
            name: f"{value:.4g}" if isinstance(value, float) else str(value)
            for name, value in row.items()
            if value is not None
        }
    )
    if "problem" in row:
        return
    damaged = teacher_cache_files.damaged_shards(root, key)
    for sentence in damaged:
        console.print(f"{sentence} The next run that needs it computes it again.", markup=False)
    if not damaged:
        console.print("All checksums match.")


@targets_app.command("rm")
def remove_targets(key: Key, results: ResultsDir = None) -> None:
    """Remove one set of targets. A run that needs them computes them again."""
    from explorer.distill import teacher_cache_files

    root = _root(results)
    key = teacher_cache_files.resolve_key(root, key)
    teacher_cache_files.remove_cache(root, key)
    console.print(f"Removed {key}.")
