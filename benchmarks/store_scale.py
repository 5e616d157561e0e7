"""How do pages and commands behave with 1,000, 10,000 and 100,000 runs?

    python benchmarks/store_scale.py                  1,000 and 10,000 runs, and 100 sessions
    python benchmarks/store_scale.py --runs 1000
    python benchmarks/store_scale.py --large          100,000 runs as well: 12 GB of disk

Each run is a student of the committed study with other seeds, answers and times: a record and the
answers to 1,356 documents, but no samples. One run in a hundred is a teacher. The stores lie in a
temporary folder, which the script removes; `--keep FOLDER` leaves them there for another call.

Every step is a process of its own, as a person would start it: the index is built once; then
`explorer ls`, `export` and `compare` of 100 runs; then the Explore page is opened, filtered by
device, and given another axis, by Streamlit's own test client without a browser. "ls over help" is
the time above that of `explorer --help`. `cpu_s` is the processor time of a step, `peak_mb` its
largest resident memory, `load` the machine's load average at its end: other work on the machine
lengthens every time. The sessions are websockets of one client script to one dashboard on 1,000
runs; each opens Explore and stays connected. The last line is JSON.
"""

import argparse
import asyncio
import dataclasses
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from explorer.specs import RunSpec

ROOT = Path(__file__).parents[1]
APP = ROOT / "app.py"
SCRIPT = ROOT / "explorer" / "pages" / "dashboard" / "script.py"
STUDY = ROOT / "results"
LAYERS = (24, 20, 15, 10, 6)
STUDENTS_PER_TEACHER = 99
SEEDS = 3
FLIPPED = 0.08
"""Share of documents that another run answers differently."""
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
DEVICES = ("AMD EPYC 7R13, 2 cores", "Intel Xeon 8488C, 4 cores", "NVIDIA H200")
COMPARED = 100
SESSIONS = 100
SESSIONS_RUNS = 1_000
PATIENCE_S = 900.0
"""What is not ready by then is given up."""


@dataclasses.dataclass(frozen=True)
class Template:
    """A committed run, ready to be varied."""

    spec: RunSpec
    record: dict[str, Any]
    answers: pa.Table


def templates() -> tuple[Template, dict[tuple[int, bool], Template]]:
    """The committed teacher, and its students by number of layers and whether labels only."""
    teacher, students = None, {}
    for folder in sorted(STUDY.iterdir()):
        if not (folder / "answers.parquet").is_file():
            continue
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        spec = RunSpec.from_yaml((folder / "spec.yaml").read_text(encoding="utf-8"), str(folder))
        template = Template(spec, record, pq.read_table(folder / "answers.parquet"))
        if spec.format is None and spec.is_teacher:
            teacher = template
        elif spec.format is None and spec.student.kind == "depth":
            students[spec.student.num_layers, spec.distill.method == "labels"] = template
    assert teacher is not None, f"{STUDY} holds no teacher"
    assert len(students) > len(LAYERS), f"{STUDY} holds no control arm"
    return teacher, students


def generate(root: Path, num_runs: int) -> None:
    """Write a store of `num_runs` finished runs."""
    teacher, students = templates()
    rng = np.random.default_rng(num_runs)
    teacher_id = ""
    for number in range(num_runs):
        family, place = divmod(number, STUDENTS_PER_TEACHER + 1)
        group, seed = divmod(place, SEEDS)
        if place == 0:
            spec = teacher.spec.with_(latency=teacher.spec.latency.with_(seed=family))
            teacher_id = spec.run_id
            template = teacher
        else:
            is_control = group % 5 == 4
            # The arm of the group before it.
            layers = 10 if is_control else LAYERS[group % len(LAYERS)]
            template = students[layers, is_control]
            spec = template.spec.with_(
                name=f"scale-{layers}l{'-labels' if is_control else ''}",
                latency=template.spec.latency.with_(seed=family),
                distill=template.spec.distill.with_(
                    seed=seed, max_tokens=200_000 + 1024 * (34 * family + group - is_control)
                ).model_dump(),
            )
        if (root / spec.run_id).exists():
            # An id ends in eight hex digits: two of 100,000 specs may have the same.
            spec = spec.with_(name=f"{spec.name}-again")
        write_run(root, template, spec, teacher_id, number, rng)


def write_run(
    root: Path,
    template: Template,
    spec: RunSpec,
    teacher_id: str,
    number: int,
    rng: np.random.Generator,
) -> None:
    """Write one run's spec, record and answers."""
    values = template.answers["value"].to_numpy().copy()
    if not spec.is_teacher:
        flipped = rng.random(len(values)) < FLIPPED
        values[flipped] = 1 - values[flipped]
    place = template.answers.schema.get_field_index("value")
    answers = template.answers.set_column(place, "value", pa.array(values))
    record = json.loads(json.dumps(template.record))
    began = FIRST_DAY + timedelta(minutes=5 * number)
    device = DEVICES[number // (STUDENTS_PER_TEACHER + 1) % len(DEVICES)]
    record |= {
        "environment": record["environment"] | {"device_name": device},
        "run_id": spec.run_id,
        "teacher_run_id": None if spec.is_teacher else teacher_id,
        "spec": json.loads(spec.model_dump_json()),
        "started_at": began.isoformat(timespec="seconds"),
        "finished_at": (began + timedelta(minutes=4)).isoformat(timespec="seconds"),
    }
    tasks = answers["task"].to_numpy(zero_copy_only=False)
    metrics = answers["metric"].to_numpy(zero_copy_only=False)
    for score in record["capability"]["scores"]:
        mine = values[(tasks == score["task"]) & (metrics == score["metric"])]
        score["score"] = float(mine.mean())
        score["stderr"] = float(mine.std() / np.sqrt(len(mine)))
    factor = float(rng.lognormal(0, 0.05))
    for request in record["latency"]["own"]["turns"]:
        request["ttft_ms"] *= factor
        request["latency_ms"] *= factor
    folder = root / spec.run_id
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(spec.to_yaml(), encoding="utf-8")
    pq.write_table(answers, folder / "answers.parquet", compression="snappy")
    (folder / "record.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


def timed(command: list[str], environment: dict[str, str]) -> tuple[dict[str, float], bytes]:
    """Run a command; returns its seconds, memory and load, and its output.

    Raises:
        RuntimeError: It failed; the message ends with its last words.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=out, stderr=err, cwd=ROOT
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command[:5])} failed: {err.read().decode()[-2000:]}")
        facts = {
            "wall_s": wall_s,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "peak_mb": usage.ru_maxrss / 1024,
            "load": os.getloadavg()[0],
        }
        return facts, out.read()


def measure_store(folder: Path, num_runs: int) -> dict[str, dict[str, float]]:
    """Generate a store, and time every step on it."""
    root = folder / "results"
    environment = environment_of(folder)
    explorer = [sys.executable, "-m", "explorer"]
    steps: dict[str, dict[str, float]] = {}
    if not root.exists():
        start = time.perf_counter()
        generate(root, num_runs)
        steps["generate"] = {"wall_s": time.perf_counter() - start}
        show(num_runs, "generate", steps["generate"])
    shutil.rmtree(folder / "index", ignore_errors=True)
    students = sorted(path.name for path in root.iterdir() if path.name.startswith("scale-"))
    chosen = students[:: max(1, len(students) // COMPARED)][:COMPARED]
    commands = {
        "index build": [sys.executable, __file__, "--build", str(root)],
        "help": [*explorer, "--help"],
        "ls": [*explorer, "ls"],
        "export": [*explorer, "export", "--out", str(folder / "export.csv")],
        "compare": [*explorer, "compare", *chosen],
        "page": [sys.executable, __file__, "--page", str(root)],
    }
    for name, command in commands.items():
        steps[name], output = timed(command, environment)
        show(num_runs, name, steps[name])
        if name == "page":
            facts = json.loads(output.splitlines()[-1])
            steps |= facts["actions"]
            steps[name]["rss_mb"] = facts["rss_mb"]
            for action in facts["actions"]:
                show(num_runs, action, steps[action])
    steps["ls over help"] = {"wall_s": steps["ls"]["wall_s"] - steps["help"]["wall_s"]}
    sizes = (path.stat().st_size for path in (folder / "index").iterdir())
    steps["index file"] = {"mb": sum(sizes) / 1e6}
    show(num_runs, "index file", steps["index file"])
    return steps


def environment_of(folder: Path) -> dict[str, str]:
    """What a process on the generated store needs to find it."""
    return {
        "EXPLORER_RESULTS": str(folder / "results"),
        "EXPLORER_INDEX": str(folder / "index"),
        "EXPLORER_TOKEN": "off",
        "HF_HUB_OFFLINE": "1",
    }


def show(num_runs: int, name: str, facts: dict[str, float]) -> None:
    """Print one step's line."""
    words = "  ".join(f"{key} {value:,.2f}" for key, value in facts.items())
    print(f"{num_runs:>7,} runs  {name:12}  {words}", flush=True)


def build_index(root: Path) -> None:
    """Read every record and compute every retention, as the first command on a store does."""
    from explorer.index import index_of

    index = index_of(root)
    index.update()
    index.with_retention(index.runs())


def use_page() -> None:
    """Open Explore, filter it, choose another axis; print the seconds of each as JSON."""
    from streamlit.testing.v1 import AppTest

    page = AppTest.from_file(str(SCRIPT), default_timeout=PATIENCE_S)
    steps = {}

    def act(name: str, action: Callable[[], Any]) -> None:
        start, cpu_start = time.perf_counter(), time.process_time()
        action()
        steps[name] = {
            "wall_s": time.perf_counter() - start,
            "cpu_s": time.process_time() - cpu_start,
        }
        assert not page.exception, page.exception[0].value

    act("open", page.run)
    act("rerun", page.run)
    act("filter", lambda: page.multiselect(key="device").set_value([DEVICES[0]]).run())
    act("no filter", lambda: page.multiselect(key="device").set_value([]).run())
    act("axis", lambda: page.selectbox(key="x").set_value("ttft_ms").run())
    rss_mb = psutil.Process().memory_info().rss / 2**20
    print(json.dumps({"actions": steps, "rss_mb": rss_mb}))


@contextmanager
def dashboard(environment: dict[str, str]) -> Iterator[tuple[int, psutil.Process]]:
    """A dashboard on a free port of this machine; yields the port and the process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(APP), "--server.headless=true"]
    command += [f"--server.port={port}", "--server.address=127.0.0.1"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5)
                break
            except OSError:
                time.sleep(0.2)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


async def open_session(port: int, ready_s: list[float], stay: asyncio.Event) -> None:
    """One browser's websocket: open Explore, note how long it took, stay until told to leave."""
    start = time.perf_counter()
    async with websockets.connect(
        f"ws://127.0.0.1:{port}/_stcore/stream",
        subprotocols=["streamlit"],
        origin=f"http://127.0.0.1:{port}",
        max_size=None,
        open_timeout=PATIENCE_S,
        ping_interval=None,
    ) as connection:
        message = BackMsg()
        message.rerun_script.query_string = ""
        await connection.send(message.SerializeToString())
        async for data in connection:
            answer = ForwardMsg()
            answer.ParseFromString(data)
            if answer.WhichOneof("type") == "script_finished":
                ready_s.append(time.perf_counter() - start)
                break
        await stay.wait()


async def open_sessions(port: int, num_sessions: int, process: psutil.Process) -> dict[str, float]:
    """Open all sessions at once; returns their times and the dashboard's memory.

    Raises:
        RuntimeError: One of them was refused or cut off.
    """
    ready_s: list[float] = []
    stay = asyncio.Event()
    before_mb = process.memory_info().rss / 2**20
    sessions = [asyncio.create_task(open_session(port, ready_s, stay)) for _ in range(num_sessions)]
    deadline = time.monotonic() + PATIENCE_S
    while len(ready_s) < num_sessions and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        failed = [session for session in sessions if session.done() and session.exception()]
        if failed:
            raise RuntimeError(f"{len(failed)} sessions failed: {failed[0].exception()!r}")
    after_mb = process.memory_info().rss / 2**20
    stay.set()
    for session in sessions:
        if not session.done():
            session.cancel()
    await asyncio.gather(*sessions, return_exceptions=True)
    return {
        "sessions": float(len(ready_s)),
        "median_s": statistics.median(ready_s),
        "last_s": max(ready_s),
        "mb_before": before_mb,
        "mb_with_all": after_mb,
        "load": os.getloadavg()[0],
    }


def measure_sessions(folder: Path, num_sessions: int) -> dict[str, float]:
    """Sessions on a dashboard that one visit has warmed up."""
    with dashboard(environment_of(folder)) as (port, process):
        first = asyncio.run(open_sessions(port, 1, process))
        facts = asyncio.run(open_sessions(port, num_sessions, process))
    return {"first_visit_s": first["last_s"], **facts}


def main() -> None:
    """Generate the stores, time the steps, print the lines and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--large", action="store_true", help="100,000 runs, too")
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("--keep", type=Path, help="leave the stores here, and use those that are")
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--page", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        build_index(options.build)
        return
    if options.page:
        use_page()
        return
    results: dict[str, Any] = {"cpus": os.cpu_count(), "runs": {}}
    for num_runs in [*options.runs, *([100_000] if options.large else [])]:
        if options.keep:
            folder = options.keep / str(num_runs)
        else:
            folder = Path(tempfile.mkdtemp(prefix="store-scale-"))
        try:
            steps = measure_store(folder, num_runs)
            if num_runs == SESSIONS_RUNS and options.sessions:
                results["sessions"] = measure_sessions(folder, options.sessions)
                show(num_runs, "sessions", results["sessions"])
        finally:
            if not options.keep:
                shutil.rmtree(folder, ignore_errors=True)
        results["runs"][num_runs] = {
            name: {key: round(value, 2) for key, value in facts.items()}
            for name, facts in steps.items()
        }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
