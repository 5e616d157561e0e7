"""What all commands share: the application, the console, the store they work on."""

import os
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
console = Console()
ResultsDir = Annotated[
    Path | None,
    typer.Option("--results", help="The store; EXPLORER_RESULTS or results/ by default."),
]
Utilisation = Annotated[
    float,
    typer.Option(
        help="Share of the paid hours in which the device is busy, above 0 and up to 1: the cost "
        "per token is stated at it."
    ),
]


def wide_console(width: int = 150) -> Console:
    """Where wide tables go: the terminal as it is, a file or pipe with room for them."""
    return console if console.is_terminal else Console(width=max(console.width, width))


def root_of(results: Path | None, default: Path | None = None) -> Path:
    """The store of this command; what runs under it finds it in EXPLORER_RESULTS."""
    if results is not None:
        os.environ["EXPLORER_RESULTS"] = str(results)
    elif default is not None and "EXPLORER_RESULTS" not in os.environ:
        os.environ["EXPLORER_RESULTS"] = str(default)
    return paths.store_root()
