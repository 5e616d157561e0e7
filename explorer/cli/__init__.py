"""The same actions as the pages, from a shell.

    explorer demo                 # the main job, small: teacher, two students, the table
    explorer run spec.yaml        # one run in the foreground; again to resume
    explorer export --format csv

Exit code 0 is success, 2 a wrong request, 1 anything else that failed.

    base.py      the application and what commands share
    doing.py     run, sweep, demo, cancel, resume, jobs, synthesise, convert
    tune.py      tune
    reading.py   ls, show, compare, export, price
    removal.py   hide, unhide, delete, restore, trash
    targets.py   targets ls, targets info, targets rm
    tasks.py     tasks, tasks preview, tasks add, tasks fetch
    about.py     schema, spec, doctor, fetch-starter, app
    harness.py   lm-eval
    catalogue.py catalogue check, published, fit
    money.py     economics
    tables.py    tables in the terminal
    differences.py  what two runs really differ in, as tables or JSON
"""

import sys

import typer
from typer.exceptions import TyperException

# Importing a module of commands is what adds them, in this order.
# isort: off
from explorer.cli import (
    run,
    search,
    results,
    removal,
    teacher_cache,
    tasks,
    info,
    lm_eval,
    catalogue,
    economics,
)

# isort: on
from explorer.cli.common import app
from explorer.errors import ExplorerError

__all__ = [
    "info",
    "app",
    "catalogue",
    "run",
    "lm_eval",
    "main",
    "economics",
    "results",
    "removal",
    "teacher_cache",
    "tasks",
    "search",
]


def main() -> None:
    """Run the command line; a known error is one line and its exit code."""
    try:
        code = app(standalone_mode=False, prog_name="explorer")
    except ExplorerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except TyperException as error:
        # Typer's own words for a wrong option or a missing argument.
        print(f"error: {error}. See explorer --help.", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        print("Stopped. Run the same command to continue.", file=sys.stderr)
        sys.exit(130)
    sys.exit(code or 0)
