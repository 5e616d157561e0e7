"""Commands about the explorer itself: its specs, health, starter and dashboard."""

import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from explorer import paths, specs
from explorer.cli.common import ResultsDir, app, console, root_of
from explorer.cli.tables import print_facts
from explorer.errors import BadInput, ExplorerError
from explorer.store import disk
from explorer.tasks import user_config


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(help="run, sweep or tune.")] = "run",
) -> None:
    """Print the JSON Schema of a spec, for editors and checks."""
    known: dict[str, type[specs.Spec]] = {
        "run": specs.RunSpec,
        "sweep": specs.SweepSpec,
        "tune": specs.TuneSpec,
    }
    if kind not in known:
        raise BadInput(f"schema knows run, sweep and tune, got {kind!r}.")
    print(json.dumps(known[kind].model_json_schema(), indent=1))


@app.command()
def spec(
    name: Annotated[str, typer.Argument(help="starter or demo.")] = "starter",
) -> None:
    """Print a sweep that ships with us as YAML, to change and run."""
    known = {"starter": specs.starter_sweep, "demo": specs.demo_sweep}
    if name not in known:
        raise BadInput(f"spec knows starter and demo, got {name!r}.")
    print(known[name]().to_yaml(), end="")


@app.command("fetch-starter")
def fetch_starter() -> None:
    """Fetch the starter teacher once, and check it."""
    from explorer.models import starter

    console.print(f"The starter teacher is at {starter.fetch()}")


@app.command()
def doctor(results: ResultsDir = None) -> None:
    """Say what this machine has and what is missing, with what to do."""
    root = root_of(results)
    facts = {}
    for package in ("torch", "transformers", "lm-eval", "accelerate", "streamlit", "ray", "plotly"):
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = "missing: make install"
    import torch

    from explorer.charts import export
    from explorer.models import starter

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "none, so the CPU is used"
    facts["GPU"] = name
    facts["CPU cores"] = str(os.cpu_count())
    here = starter.starter_path().exists()
    facts["starter teacher"] = "here" if here else "missing: explorer fetch-starter"
    nearest = next(p for p in (root.resolve(), *root.resolve().parents) if p.exists())
    writable = os.access(nearest, os.W_OK)
    facts["store"] = f"{root.resolve()}" + ("" if writable else ": no permission to write")
    free = shutil.disk_usage(nearest).free
    facts["free disk"] = f"{free / 1e9:.0f} GB" + (" (a run needs 2 GB)" if free < 2e9 else "")
    facts["configuration"] = _configuration()
    missing = "missing: install Chromium, or export HTML"
    facts["browser for PNG and SVG"] = export.browser() or missing
    print_facts(facts)
    _, problems = disk.records(root)
    for problem in problems:
        console.print(problem, markup=False)


def _configuration() -> str:
    """Where the user's configuration is, and what it holds or why it cannot be read."""
    path = paths.config_file()
    try:
        held = user_config.read()
        folders = user_config.task_folders().values()
    except BadInput as error:
        return str(error)
    if not path.exists():
        return f"{path} is not there, so no task code is allowed but ours and lm-eval's"
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    return (
        f"{path}: {len(held.task_folders)} task folders, {len(held.allowed_task_code)} places "
        "whose task code may run"
    ) + (f"; not there: {', '.join(missing)}" if missing else "")


@app.command("app")
def open_dashboard(
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 8501,
    results: ResultsDir = None,
) -> None:
    """Open the dashboard."""
    script = Path(__file__).parents[2] / "app.py"
    if not script.exists():
        raise ExplorerError(f"The dashboard's script {script} is missing; run from a checkout.")
    _refuse_taken_port(port)
    environment = {**os.environ, "EXPLORER_RESULTS": str(root_of(results).resolve())}
    command = [sys.executable, "-m", "streamlit", "run", str(script), "--server.port", str(port)]
    raise typer.Exit(
        subprocess.run(command, env=environment, cwd=script.parent, check=False).returncode
    )


def _refuse_taken_port(port: int) -> None:
    """Say what holds the port, where something does.

    Raises:
        BadInput: Something listens there, and what to do about it.
    """
    with socket.socket() as trial:
        # As the server binds it: a connection that has just ended does not keep it.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
            return
        except PermissionError as error:
            raise BadInput(f"Port {port} needs an administrator. Choose one from 1024.") from error
        except OSError:
            pass
    from explorer import jobs

    other = (
        f"or choose another port: explorer app --port {port - 1 if port == 65_535 else port + 1}"
    )
    process = jobs.listener_on(port)
    if process is not None:
        raise BadInput(
            f"Port {port} is held by the queue's Ray head (process {process}), which an older "
            f"version of the explorer started. Stop it with `explorer jobs --stop`, {other}. "
            "Runs that it is doing are interrupted; `explorer resume` continues them."
        )
    raise BadInput(
        f"Port {port} is in use. If it is a dashboard, it is at http://127.0.0.1:{port}. "
        f"End that program, {other}."
    )
