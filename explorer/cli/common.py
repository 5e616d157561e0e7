"""What all commands share: the application, the console, the store they work on."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from explorer import paths

Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="A file; standard output when left out.")
]

app = typer.Typer(
    help="The same actions as the pages, from a shell.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)
# A terminal gets its lines broken between words; a file or a pipe gets them whole.
console = Console(soft_wrap=not sys.stdout.isatty())
ResultsDir = Annotated[
    Path | None,
    typer.Option("--results", help="The store; EXPLORER_RESULTS or results/ by default."),
]
Wide = Annotated[
    bool, typer.Option("--wide", help="Every column of a table, however narrow the terminal.")
]
Utilisation = Annotated[
    float,
    typer.Option(
        help="Share of the paid hours in which the device is busy, above 0 and up to 1: the cost "
        "per token is stated at it."
    ),
]


def output_width() -> int | None:
    """Characters of a line of the output; None for a file or a pipe, whose lines have no end.

    COLUMNS, where it is set, counts for all of them.
    """
    stated = os.environ.get("COLUMNS", "")
    if stated.isdigit() and int(stated) > 0:
        return int(stated)
    return console.width if console.is_terminal else None


def say_engine_start(step: str, done: int, total: int) -> None:
    """Say on standard error why a command that submits takes a while."""
    from explorer.jobs import ray_head

    if step == ray_head.STARTING:
        print(f"{step}.", file=sys.stderr, flush=True)


def root_of(results: Path | None, default: Path | None = None) -> Path:
    """The store of this command; what runs under it finds it in EXPLORER_RESULTS."""
    if results is not None:
        os.environ["EXPLORER_RESULTS"] = str(results)
    elif default is not None and "EXPLORER_RESULTS" not in os.environ:
        os.environ["EXPLORER_RESULTS"] = str(default)
    return paths.store_root()
