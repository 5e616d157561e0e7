"""Which Ray the jobs go to: the cluster that RAY_ADDRESS names, or our own head.

Our own is started by the first job, as a process of its own session that outlives the
page, bound to loopback, with a token that only this user can read. What is remembered
of it lies in the cache, a folder a host (homes are shared):

    ray/<host>/head.json   its address, process and session folder
               token       mode 0600; given to Ray as a file, never on a command line
               head.log    what `ray start` printed
               lock        held while a head is started or jobs are submitted
               since       when the latest submission began
"""

import json
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import psutil

from explorer import paths
from explorer.errors import JobError, NoRoom
from explorer.jobs import detached
from explorer.store import disk

if TYPE_CHECKING:
    from explorer.jobs.ray_client import Client

START_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 15.0
STARTING = "Starting the queue engine, up to half a minute the first time"
TEN_YEARS_S = 10 * 365 * 24 * 3600


@dataclass(frozen=True)
class Head:
    """A Ray head that we started."""

    address: str
    pid: int
    session_folder: str
    """Ray's temporary folder; its name, which nothing else has, is in the command line."""
    submission_s: float = 0.0
    """When the submission began that started it, in seconds since 1970: it never had a job that
    was queued before. 0 where an older version started it."""

    def process(self) -> psutil.Process | None:
        """The `ray start` process, or None when it is gone."""
        try:
            process = psutil.Process(self.pid)
            ours = any(self.session_folder in word for word in process.cmdline())
        except psutil.Error:
            return None
        return process if ours and process.status() != psutil.STATUS_ZOMBIE else None


def cluster_address() -> str | None:
    """The cluster that the user named, as Ray reads it."""
    return os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or None


def connect(*, start: bool = False, on_start: Callable[[], None] = lambda: None) -> "Client | None":
    """A client of the Ray that jobs go to; None where none runs and none should be started.

    Args:
        start: Start our own head where none runs; only under `submitting()`.
        on_start: Called before a head is started, which takes a while.

    Raises:
        JobError: The server does not answer, refuses us, or our head did not start.
    """
    remote = cluster_address()
    if remote:
        return _client(remote, None)
    head = _remembered()
    if head and head.process():
        return _await(head) if start else _client(head.address, _token())
    if not start:
        return None
    if head:
        _end(head)
    on_start()
    return _await(_start())


def engine_status() -> dict[str, Any]:
    """What runs the jobs now: running, address, local, pid, num_nodes, num_cpus, num_gpus, error.

    Starts nothing, and does not import Ray where no head was ever started.
    """
    head = None if cluster_address() else _remembered()
    found: dict[str, Any] = {
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
        starting = head is not None and submitting_since() is not None
        return {**found, "error": "It is starting: look again soon." if starting else str(error)}
    if client is None:
        return {**found, "address": None, "pid": None}
    cpus, gpus = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("CPU", "GPU"))
    counts = {"num_nodes": len(nodes), "num_cpus": cpus, "num_gpus": gpus}
    return {**found, "running": True, **counts}


def stop_engine() -> bool:
    """End the head that we started, and only that; say whether there was one.

    Runs that it was running are interrupted and can be resumed. A cluster that
    RAY_ADDRESS names is never stopped.
    """
    with submitting():
        head = _remembered()
        if head is None:
            return False
        running = head.process() is not None
        _end(head)
        return running


def engine_process_on(port: int) -> int | None:
    """The process of our head that listens on this port; None where none does.

    An older version's head keeps the port of the dashboard that started it.
    """
    head = _remembered()
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
    """Turn whatever Ray's client raises into one sentence.

    Raises:
        JobError: Instead of Ray's and the network's own errors.
    """
    # OSError holds the errors of requests; RuntimeError and RayError are Ray's.
    from ray.exceptions import RayError

    try:
        yield
    except (OSError, RuntimeError, ValueError, RayError) as error:
        cluster = cluster_address()
        where = f"the Ray cluster {cluster}" if cluster else "the local Ray head"
        advice = (
            "Check RAY_ADDRESS and that cluster, or unset it to use this machine."
            if cluster_address()
            else "The machine may be busy: wait a moment and try again."
        )
        said = " ".join(str(error).split())[:300]
        raise JobError(f"Could not speak to {where}: {said} {advice}") from error


@contextmanager
def submitting(on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Be the only one on this host who starts a head or submits jobs.

    Args:
        on_wait: Called where somebody else is at it, before waiting for them.

    Raises:
        JobError: Somebody else has been at it for minutes.
        NoRoom: The cache folder cannot be written.
    """
    try:
        _folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = filelock.FileLock(_folder() / "lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            on_wait()
            lock.acquire(timeout=2 * START_TIMEOUT_S)
    except filelock.Timeout as error:
        raise JobError(
            f"Somebody else has held {_folder() / 'lock'} for {2 * START_TIMEOUT_S:.0f} s. "
            "Wait for that submission, or end its process."
        ) from error
    except OSError as error:
        raise NoRoom(
            f"Could not write {_folder()}: {error.strerror or error}. "
            "Set EXPLORER_CACHE to a folder that you may write."
        ) from error
    try:
        # In it, not its own time: a shared disk has a clock of its own.
        disk.write_text(_folder() / "since", repr(time.time()))
        yield
    finally:
        lock.release()


def submitting_since() -> float | None:
    """When the submission began that is under way on this host, in seconds since 1970.

    None where nobody is submitting. What was queued before it has its job, or is lost.
    """
    path = _folder() / "lock"
    if not path.exists():
        return None
    try:
        with filelock.FileLock(path, timeout=0):
            return None
    except filelock.Timeout:
        return _latest_submission_s()


def began_after(queued_s: float) -> bool:
    """Whether our own head began after a job was queued then, so that the job is lost."""
    head = None if cluster_address() else _remembered()
    return head is not None and queued_s < head.submission_s


def _latest_submission_s() -> float:
    try:
        return float((_folder() / "since").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0.0


@lru_cache(maxsize=4)
def _connected(address: str, token: str | None) -> "Client":
    from explorer.jobs.ray_client import Client

    return Client(address, token)


def _client(address: str, token: str | None) -> "Client":
    with ray_errors_in_words():
        return _connected(address, token)


def _folder() -> Path:
    return (paths.cache_dir() / "ray" / socket.gethostname()).resolve()


def _remembered() -> Head | None:
    try:
        return Head(**json.loads((_folder() / "head.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _token() -> str:
    """Our token, made at the first call and readable by this user only."""
    path = _folder() / "token"
    with suppress(FileExistsError):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w", encoding="ascii") as out:
            out.write(secrets.token_hex(32))
    path.chmod(0o600)
    return path.read_text(encoding="ascii").strip()


def _start() -> Head:
    """Start a head and remember it at once, so that it is found even if we die now."""
    _token()
    session_folder = tempfile.mkdtemp(prefix="explorer-ray-")
    port = _free_port()
    command = [
        # -P: beside that script lie modules of ours that bear names of Python's own.
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
        # Jobs are commands: nothing of ours goes through the object store.
        "--object-store-memory=80000000",
        # Inside our folder, because Ray opens its own to everyone on the machine.
        f"--temp-dir={session_folder}/ray",
    ]
    try:
        pid = detached.start(
            command, _environment(), folder=Path(session_folder), log=_folder() / "head.log"
        )
    except JobError:
        shutil.rmtree(session_folder, ignore_errors=True)
        raise
    head = Head(f"http://127.0.0.1:{port}", pid, session_folder, _latest_submission_s())
    disk.write_text(_folder() / "head.json", json.dumps(asdict(head)))
    return head


def _environment() -> dict[str, str]:
    """Our environment, and what makes Ray private and patient."""
    theirs = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN")
    return {name: value for name, value in os.environ.items() if name not in theirs} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(_folder() / "token"),
        # Without it `ray start` replaces 127.0.0.1 by the machine's address in the network.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # A job that waits longer than this fails; by default after 15 minutes.
        "RAY_JOB_START_TIMEOUT_SECONDS": str(TEN_YEARS_S),
        # Ray's own 60 seconds are too few on a machine that is busy with something else.
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": str(int(START_TIMEOUT_S)),
    }


def _await(head: Head) -> "Client":
    """A client of a head that may still be starting, once it has a node to run jobs on."""
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
    _end(head)
    log = (_folder() / "head.log").read_text(encoding="utf-8", errors="replace")
    errors = re.findall(r"^[\w.]*(?:Error|Exception): \S.*$", log, flags=re.MULTILINE)
    why = errors[-1] if errors else problem or "it did not come up in time"
    raise JobError(
        f"The local Ray head did not start: {why[:300]} (all of it: {_folder() / 'head.log'}). "
        "Try again, or use `explorer run`, which needs no Ray."
    )


def _end(head: Head) -> None:
    """End a head with all its processes and forget it; a dead one's leftovers too."""
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
    (_folder() / "head.json").unlink(missing_ok=True)
    _connected.cache_clear()


def _processes_of(head: Head) -> list[psutil.Process]:
    """The members of the head's session and what they started, jobs included.

    A process id is not given out again while a session carries it: if a stranger has the
    head's, nothing is left of the session.
    """
    if psutil.pid_exists(head.pid) and not head.process():
        with suppress(psutil.Error):
            if psutil.Process(head.pid).status() != psutil.STATUS_ZOMBIE:
                return []
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == head.pid:
                family = [process, *process.children(recursive=True)]
                found |= {member.pid: member for member in family}
    return list(found.values())


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
