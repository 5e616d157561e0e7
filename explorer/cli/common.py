"""What all commands share: the application, its console, common options and the store."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import explorer
from explorer import paths

Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="The file to write; standard output by default.")
]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)
# Wraps at word boundaries on a terminal, not at all in a file or a pipe.
console = Console(soft_wrap=not sys.stdout.isatty())
err_console = Console(stderr=True, soft_wrap=not sys.stderr.isatty())
ResultsDir = Annotated[
    Path | None,
    typer.Option(
        "--results",
        help="The results folder. By default EXPLORER_RESULTS, else results/ in this folder if it "
        "exists, else distill-explorer/results in your data folder.",
    ),
]
Wide = Annotated[
    bool, typer.Option("--wide", help="Show every column, even where the terminal is too narrow.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
MinRetention = Annotated[
    float, typer.Option(help="Share of the teacher's capability to keep, such as 0.8.")
]
Confidence = Annotated[
    float, typer.Option(help="How sure to be that it is kept, at least 0.5 and below 1.")
]
Utilisation = Annotated[
    float,
    typer.Option(
        help="Share of the paid hours in which the device is busy, above 0 and up to 1. The cost "
        "per token depends on it."
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"explorer {explorer.__version__}")
        raise typer.Exit


@app.callback()
def common_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """The same actions as the pages, from a shell."""


def output_width() -> int | None:
    """The width of the output in characters; None for a file or a pipe, where lines do not wrap.

    COLUMNS overrides it everywhere.
    """
    stated = os.environ.get("COLUMNS", "")
    if stated.isdigit() and int(stated) > 0:
        return int(stated)
    return console.width if console.is_terminal else None


def say_engine_start(step: str, done: int, total: int) -> None:
    """Explain on standard error why submitting takes a while: the queue's engine starts."""
    from explorer.jobs import ray_head

    if step == ray_head.STARTING:
        print(f"{step}.", file=sys.stderr, flush=True)


def root_of(results: Path | None, default: Path | None = None) -> Path:
    """The store of this command, which its child processes find in EXPLORER_RESULTS.

    Args:
        results: The option `--results`.
        default: The folder for a command with a default of its own, as `demo`.
    """
    if results is not None:
        os.environ["EXPLORER_RESULTS"] = str(results)
    elif default is not None and "EXPLORER_RESULTS" not in os.environ:
        os.environ["EXPLORER_RESULTS"] = str(default)
    return paths.store_root()
