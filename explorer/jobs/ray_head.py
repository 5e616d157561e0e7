"""The Ray that runs the jobs: the cluster RAY_ADDRESS names, or a head of our own.

The first job starts our own head, a process in its own session that outlives the page, listens
on loopback only and requires a token that only this user can read. What is remembered of it is
in the cache, one folder per host:

    ray/<host>/head.json   its address, process and session folder
               token       mode 0600; given to Ray as a file, never on a command line
               head.log    what `ray start` printed
"""

import hashlib
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil

from explorer.errors import DamagedStore, JobError
from explorer.files import durable_files
from explorer.jobs import detached, submit_lock
from explorer.processes import child_process

if TYPE_CHECKING:
    from explorer.jobs.ray_client import Client

START_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 15.0
STARTING = "Starting the queue engine, up to half a minute the first time"
SESSION_PREFIX = "explorer-ray-"
SHORT_FOLDERS = ("/tmp", "/var/tmp")  # noqa: S108 - mkdtemp makes a private folder there
"""Where the head's folder goes if TMPDIR is too long for sockets."""
LONGEST_TMPDIR = 103 - len(
    f"/{SESSION_PREFIX}12345678/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
)
"""Letters that are left of the path of a Unix socket: 107 on Linux, 103 on macOS."""
TEN_YEARS_S = 10 * 365 * 24 * 3600


@dataclass(frozen=True)
class Head:
    """A Ray head we started."""

    address: str
    pid: int
    session_folder: str
    """Ray's temporary folder. Its unique name is on the command line and identifies the head."""
    submission_s: float = 0.0
    """What an older version wrote; unused."""
    submission: int = 0
    """Number of the submission that started it; the head has no job of an earlier one. 0 if an
    older version started it."""

    def process(self) -> psutil.Process | None:
        """The `ray start` process; None if it is gone."""
        try:
            process = psutil.Process(self.pid)
            ours = any(self.session_folder in word for word in process.cmdline())
        except psutil.Error:
            return None
        return process if ours and process.status() != psutil.STATUS_ZOMBIE else None


def cluster_address() -> str | None:
    """The cluster that RAY_ADDRESS names; None if the queue uses a head of our own."""
    return os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or None


def place() -> Literal["queue", "cluster"]:
    """Whether queued runs run on this machine, or on those of a cluster."""
    return "cluster" if cluster_address() else "queue"


def queue_id() -> str:
    """What tells our queue from another user's, another machine's or a cluster's."""
    where = cluster_address() or str(submit_lock.host_folder())
    return hashlib.sha256(where.encode()).hexdigest()[:16]


def connect(*, start: bool = False, on_start: Callable[[], None] = lambda: None) -> "Client | None":
    """Connect to the Ray that runs the jobs; None if none runs and `start` is false.

    Args:
        start: Start our own head if none runs; the caller holds `submit_lock.submitting`.
        on_start: Called before a head starts, which can take half a minute.

    Raises:
        JobError: The server does not answer or refuses us, or our head did not start.
    """
    remote = cluster_address()
    if remote:
        return _client(remote, None)
    head = _saved_head()
    if head and head.process():
        return _connect_when_ready(head) if start else _client(head.address, _token())
    if not start:
        return None
    if head:
        _terminate(head)
    on_start()
    return _connect_when_ready(_start())


def engine_status() -> dict[str, Any]:
    """The state of the Ray that runs the jobs, as plain data.

    Keys: running, local, address, pid, num_nodes, num_cpus, num_gpus, error; None if unknown.
    Starts nothing, and imports Ray only if a head was started or a cluster is named.
    """
    head = None if cluster_address() else _saved_head()
    status: dict[str, Any] = {
        "running": False,
        "local": cluster_address() is None,
        "address": cluster_address() or (head.address if head else None),
        "pid": head.pid if head else None,
        "num_nodes": None,
        "num_cpus": None,
        "num_gpus": None,
        "error": None,
    }
    try:
        client = connect()
        nodes = nodes_of(client) if client else []
    except JobError as error:
        starting = head is not None and submit_lock.submission_under_way() is not None
        message = "The queue engine is starting. Try again soon." if starting else str(error)
        return {**status, "error": message}
    if client is None:
        return {**status, "address": None, "pid": None}
    cpus, gpus = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("CPU", "GPU"))
    counts = {"num_nodes": len(nodes), "num_cpus": cpus, "num_gpus": gpus}
    return {**status, "running": True, **counts}


def stop_engine() -> bool:
    """Stop the head we started; returns whether it was running.

    Its runs are interrupted and can be resumed. A cluster that RAY_ADDRESS names is never
    stopped.
    """
    with submit_lock.submitting():
        head = _saved_head()
        if head is None:
            return False
        was_running = head.process() is not None
        _terminate(head)
        return was_running


def engine_process_on(port: int) -> int | None:
    """Process id of our head, or of a child, that listens on this port; None if none does.

    Heads started by an older version hold the port of the dashboard that started them.
    """
    head = _saved_head()
    for process in _processes_of(head) if head else []:
        with suppress(psutil.Error):
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return int(process.pid)
    return None


def nodes_of(client: "Client") -> list[dict[str, float]]:
    """The resources of every living node.

    Raises:
        JobError: The server does not answer.
    """
    with ray_errors_in_words():
        return client.nodes()


@contextmanager
def ray_errors_in_words() -> Iterator[None]:
    """Turn the errors of Ray's client into one sentence.

    Raises:
        JobError: Instead of the errors of Ray and of the network.
    """
    # The errors of requests are OSErrors; RuntimeError and RayError come from Ray.
    from ray.exceptions import RayError

    try:
        yield
    except (OSError, RuntimeError, ValueError, RayError) as error:
        cluster = cluster_address()
        where = f"the Ray cluster {cluster}" if cluster else "the local Ray head"
        advice = (
            "Check RAY_ADDRESS and that cluster, or unset it to use this machine."
            if cluster
            else "The machine may be busy. Wait a moment and try again."
        )
        reason = " ".join(str(error).split())[:300]
        raise JobError(f"Could not reach {where}: {reason} {advice}") from error


def began_after(submission: int) -> bool:
    """Whether our head is younger than a job of this submission; the job is then lost."""
    head = None if cluster_address() else _saved_head()
    return head is not None and submission < head.submission


@lru_cache(maxsize=4)
def _connected(address: str, token: str | None) -> "Client":
    from explorer.jobs.ray_client import Client

    return Client(address, token)


def _client(address: str, token: str | None) -> "Client":
    with ray_errors_in_words():
        return _connected(address, token)


def _saved_head() -> Head | None:
    try:
        head = durable_files.read_json(submit_lock.host_folder() / "head.json", dict[str, Any])
        return Head(**head)
    except (FileNotFoundError, DamagedStore, TypeError):
        return None


def _token() -> str:
    """Our token, created on the first call; only this user can read it."""
    path = submit_lock.host_folder() / "token"
    with suppress(FileExistsError):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w", encoding="ascii") as out:
            out.write(secrets.token_hex(32))
    path.chmod(0o600)
    return path.read_text(encoding="ascii").strip()


def _start() -> Head:
    """Start a head and save it at once, so that it is found even if this process dies now."""
    _token()
    session_folder = new_session_folder()
    port = child_process.free_port()
    command = [
        # -P keeps the script's folder off sys.path: `queue.py` there would shadow Python's own.
        sys.executable,
        "-P",
        str(Path(__file__).with_name("ray_start.py")),
        "--head",
        "--block",
        "--disable-usage-stats",
        "--no-monitor",
        "--include-log-monitor=false",
        "--include-dashboard=true",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={port}",
        "--node-ip-address=127.0.0.1",
        "--port=0",
        "--dashboard-agent-listen-port=0",
        "--min-worker-port=0",
        "--max-worker-port=0",
        # Jobs are commands and put nothing into the object store.
        "--object-store-memory=80000000",
        # Inside our own folder, because Ray lets everyone on the machine read its own.
        f"--temp-dir={session_folder}/ray",
    ]
    try:
        log = submit_lock.host_folder() / "head.log"
        pid = detached.start(command, _environment(), folder=Path(session_folder), log=log)
    except JobError:
        shutil.rmtree(session_folder, ignore_errors=True)
        raise
    number = submit_lock.latest_submission()
    head = Head(f"http://127.0.0.1:{port}", pid, session_folder, submission=number)
    durable_files.write_json(submit_lock.host_folder() / "head.json", asdict(head))
    return head


def new_session_folder() -> str:
    """A new folder that only this user can read, with room for the names of Ray's sockets.

    Raises:
        JobError: Neither TMPDIR nor a shorter folder will do.
    """
    wanted = tempfile.gettempdir()
    for place in (wanted, *SHORT_FOLDERS):
        if len(os.fsencode(place)) <= LONGEST_TMPDIR and os.access(place, os.W_OK | os.X_OK):
            return tempfile.mkdtemp(prefix=SESSION_PREFIX, dir=place)
    raise JobError(
        f"The queue's sockets need a temporary folder of at most {LONGEST_TMPDIR} letters, but "
        f"TMPDIR gives {wanted} ({len(os.fsencode(wanted))}), and {' and '.join(SHORT_FOLDERS)} "
        "cannot be written. Set TMPDIR to a shorter folder, or use `explorer run`, which needs no "
        "queue."
    )


def _environment() -> dict[str, str]:
    """Our environment with settings that make Ray private and patient."""
    ray_only = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN")
    return {name: value for name, value in os.environ.items() if name not in ray_only} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(submit_lock.host_folder() / "token"),
        # Otherwise `ray start` replaces 127.0.0.1 by the machine's network address.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # A job that waits longer fails; the default is 15 minutes.
        "RAY_JOB_START_TIMEOUT_SECONDS": str(TEN_YEARS_S),
        # Ray's 60 seconds are too short on a busy machine.
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": str(int(START_TIMEOUT_S)),
    }


def _connect_when_ready(head: Head) -> "Client":
    """Connect to a head that may still be starting; returns once it has a node for jobs."""
    deadline = time.monotonic() + START_TIMEOUT_S
    problem = ""
    while head.process():
        try:
            client = _client(head.address, _token())
            if nodes_of(client):
                return client
        except JobError as error:
            problem = str(error)
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    _terminate(head)
    log = (submit_lock.host_folder() / "head.log").read_text(encoding="utf-8", errors="replace")
    errors = re.findall(r"^[\w.]*(?:Error|Exception): \S.*$", log, flags=re.MULTILINE)
    reason = errors[-1] if errors else problem or "it was not ready in time"
    raise JobError(
        f"The local Ray head did not start: {reason[:300]} (full log: "
        f"{submit_lock.host_folder() / 'head.log'}). Try again, or use `explorer run`, which needs "
        "no Ray."
    )


def _terminate(head: Head) -> None:
    """End a head, its processes and what a dead head left behind, then forget it."""
    leftovers = _processes_of(head)
    process = head.process()
    if process:
        process.terminate()
        psutil.wait_procs([process], timeout=STOP_TIMEOUT_S)
    _, alive = psutil.wait_procs(leftovers, timeout=2)
    for left in alive:
        with suppress(psutil.Error):
            left.kill()
    psutil.wait_procs(alive, timeout=STOP_TIMEOUT_S)
    shutil.rmtree(head.session_folder, ignore_errors=True)
    (submit_lock.host_folder() / "head.json").unlink(missing_ok=True)
    _connected.cache_clear()


def _processes_of(head: Head) -> list[psutil.Process]:
    """All processes of the head's session and their children, jobs included.

    The system does not reuse a process id while a session has it. So if another program has the
    head's id, the session has ended.
    """
    if psutil.pid_exists(head.pid) and not head.process():
        with suppress(psutil.Error):
            if psutil.Process(head.pid).status() != psutil.STATUS_ZOMBIE:
                return []
    processes: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == head.pid:
                family = [process, *process.children(recursive=True)]
                processes |= {member.pid: member for member in family}
    return list(processes.values())
