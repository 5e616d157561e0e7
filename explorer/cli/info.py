"""The commands schema, spec, fetch-starter, doctor and app."""

import importlib.metadata
import json
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel

import explorer
from explorer import paths, specs
from explorer.cli import machine_report
from explorer.cli.common import ResultsDir, app, console, root_of
from explorer.cli.tables import open_index, print_facts
from explorer.consent import host_keys, trust, user_config
from explorer.errors import BadInput
from explorer.records import RunRecord
from explorer.store import example_study

DASHBOARD = Path(explorer.__file__).parent / "pages" / "dashboard" / "app.py"


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(help="run, sweep, tune or record.")] = "run",
) -> None:
    """Print the JSON Schema of a spec, or of a run's record.

    For editors and validators.
    """
    schemas: dict[str, type[BaseModel]] = {
        "run": specs.RunSpec,
        "sweep": specs.SweepSpec,
        "tune": specs.TuneSpec,
        "record": RunRecord,
    }
    if kind not in schemas:
        raise BadInput(f"schema knows run, sweep and tune, and a run's record, got {kind!r}.")
    print(json.dumps(schemas[kind].model_json_schema(), indent=1))


@app.command()
def spec(
    name: Annotated[str, typer.Argument(help="starter or demo.")] = "starter",
) -> None:
    """Print a sweep of the explorer as YAML, to edit and run."""
    sweeps = {"starter": specs.starter_sweep, "demo": specs.demo_sweep}
    if name not in sweeps:
        raise BadInput(f"spec knows starter and demo, got {name!r}.")
    print(sweeps[name]().to_yaml(), end="")


@app.command("fetch-starter")
def fetch_starter() -> None:
    """Download the starter teacher (98 MB).

    Once, with its checksum verified.
    """
    from explorer.models import starter

    console.print(f"The starter teacher is at {starter.fetch_starter()}")


@app.command()
def doctor(
    results: ResultsDir = None,
    as_report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Print facts for a bug report instead, without paths, names, hosts or keys.",
        ),
    ] = False,
) -> None:
    """Check this machine and say what is missing.

    With what to do about it.
    """
    root = root_of(results)
    if as_report:
        print(machine_report.report(root))
        return
    facts = {}
    for package in ("torch", "transformers", "lm-eval", "accelerate", "streamlit", "ray", "plotly"):
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = "missing: install the explorer again"
    from explorer.charts import export
    from explorer.devices import accelerator, torch_build
    from explorer.models import starter

    named = [accelerator.name(device) or str(device) for device in accelerator.found()]
    facts["GPU"] = ", ".join(named) or torch_build.mismatch() or "none; runs use the CPU"
    facts["torch is built for"] = torch_build.built_for() or "CPUs only"
    facts["torch for this machine"] = torch_build.install_command()
    facts["CPU cores"] = str(os.cpu_count())
    present = starter.starter_path().exists()
    facts["starter teacher"] = "present" if present else "missing: explorer fetch-starter"
    folder = machine_report.nearest_folder(root)
    writable = os.access(folder, os.W_OK)
    facts["store"] = f"{root.resolve()}" + ("" if writable else ": no permission to write")
    free = shutil.disk_usage(folder).free
    facts["free disk"] = f"{free / 1e9:.0f} GB" + (" (a run needs 2 GB)" if free < 2e9 else "")
    facts["configuration"] = _configuration()
    missing = "missing: install Chromium, or export HTML"
    facts["browser for PNG and SVG"] = export.find_browser() or missing
    print_facts(facts)
    for problem in open_index(root).problems():
        console.print(problem, markup=False)


def _configuration() -> str:
    """Where the user's configuration is, and what it holds or why it cannot be read."""
    path = paths.config_file()
    try:
        configuration = user_config.read_config()
        folders = user_config.task_folders().values()
        allowed = sum(not grant.listed for grant in trust.in_force().values())
        hosts = len(host_keys.allowed_keys())
    except BadInput as error:
        return str(error)
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    parts = [
        f"{path} is not there"
        if not path.exists()
        else f"{path}: {len(configuration.task_folders)} task folders, "
        f"{len(configuration.allowed_task_code)} places whose task code may run",
        f"explorer trust allows {allowed} sources",
        f"explorer keys gives {hosts} hosts a key",
        *([f"not there: {', '.join(missing)}"] if missing else []),
    ]
    return "; ".join(parts)


@app.command("app")
def open_dashboard(
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 8501,
    results: ResultsDir = None,
    token: Annotated[
        bool | None,
        typer.Option(
            "--token/--no-token",
            help="Whether visitors need the token in the printed address; by default where other "
            "people have accounts on this machine.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Open the dashboard.

    In a fresh installation it shows a copy of the example study.
    """
    root = root_of(results)
    _refuse_taken_port(port)
    if root == paths.user_store() and example_study.copy_to_new_store(root):
        console.print("First start: the example study was copied to your results folder.")
    console.print(f"Results: {root.resolve()}", markup=False)
    environment = {**os.environ, "EXPLORER_RESULTS": str(root.resolve())}
    if token is not None:
        environment["EXPLORER_TOKEN"] = "on" if token else "off"
    # -P: a streamlit.py or explorer/ in the working directory is not imported.
    command = [sys.executable, "-P", "-m", "streamlit", "run", str(DASHBOARD)]
    command += ["--server.port", str(port)]
    sys.stdout.flush()
    # In place of this process: whoever ends it ends the dashboard, and the port is free again.
    os.execve(sys.executable, command, environment)  # noqa: S606 - our own Python, no shell


def _refuse_taken_port(port: int) -> None:
    """Check that the dashboard can listen on the port.

    Raises:
        BadInput: It cannot. The message names the program on the port if it is the queue's.
    """
    with socket.socket() as probe:
        # As the server binds it: a connection that has just ended does not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return
        except PermissionError as error:
            raise BadInput(
                f"Port {port} requires administrator rights. Choose 1024 or higher."
            ) from error
        except OSError:
            pass
    from explorer import jobs

    free = port - 1 if port == 65_535 else port + 1
    choose_another = f"or choose another port: explorer app --port {free}"
    process = jobs.engine_process_on(port)
    if process is not None:
        raise BadInput(
            f"Port {port} is held by the queue's Ray head (process {process}), which an older "
            f"version of the explorer started. Stop it with `explorer jobs --stop`, "
            f"{choose_another}. Stopping it interrupts its runs; `explorer resume` continues them."
        )
    raise BadInput(
        f"Port {port} is in use. If it is a dashboard, it is at http://127.0.0.1:{port}. "
        f"End that program, {choose_another}."
    )
