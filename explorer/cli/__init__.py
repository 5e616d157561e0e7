"""The same actions as the pages, from a shell.

    explorer demo                 # small and complete: a teacher, two students, the table
    explorer run spec.yaml        # one run in the foreground; again to resume
    explorer export --format csv

Exit code 0 is success, 2 a wrong request, 1 any other failure.

common.py        the application, and options and helpers that commands share
run.py           run, sweep, demo, check
serve_flags.py   run's options for a server
consent.py       trust, keys, keys allow, keys list, keys remove
queue.py         cancel, resume, jobs
models.py        synthesise, convert
search.py        tune
results.py       ls, show, compare, export, import, price
run_summary.py   what show prints: a summary, or progress
removal.py       hide, unhide, delete, restore, trash, clean
teacher_cache.py targets ls, targets info, targets rm
tasks.py         tasks, tasks preview, tasks add, tasks fetch
info.py          schema, spec, fetch-starter, doctor, app
stand_ins.py     what a terminal that is not UTF-8 shows for other characters
machine_report.py  the facts of doctor --report
lm_eval.py       lm-eval
catalogue.py     catalogue check, published, fit
economics.py     economics
pick.py          pick
rank.py          rank
lm_eval_flags.py lm-eval's options on run
tables.py        tables in the terminal, or as files
differences.py   differences between runs, as tables or JSON
progress_bar.py  the progress of a run in the terminal
"""

import sys

import typer
from typer.exceptions import TyperException

# Importing a module adds its commands, in this order.
# isort: off
from explorer.cli import (
    run,
    queue,
    models,
    search,
    results,
    removal,
    teacher_cache,
    tasks,
    consent,
    info,
    lm_eval,
    catalogue,
    economics,
    pick,
    rank,
)

# isort: on
from explorer.cli import stand_ins
from explorer.cli.common import app
from explorer.errors import ExplorerError

__all__ = [
    "info",
    "app",
    "catalogue",
    "consent",
    "run",
    "models",
    "queue",
    "lm_eval",
    "main",
    "economics",
    "pick",
    "rank",
    "results",
    "removal",
    "teacher_cache",
    "tasks",
    "search",
]


def main() -> None:
    """Run the command line; a known error becomes one line and its exit code."""
    stand_ins.use()
    try:
        code = app(standalone_mode=False, prog_name="explorer")
    except ExplorerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except PermissionError as error:
        print(f"error: No permission for {error.filename}.", file=sys.stderr)
        sys.exit(1)
    except TyperException as error:
        # Typer's message about a wrong option or a missing argument.
        end = "" if str(error).endswith(("?", ".")) else "."
        print(f"error: {error}{end} See explorer --help.", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        print("Stopped. Run the same command to continue.", file=sys.stderr)
        sys.exit(130)
    sys.exit(code or 0)
