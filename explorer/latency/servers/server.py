"""A server's life: a free port of 127.0.0.1, the wait until it is healthy, its death, its log.

The server runs under a keeper (`keeper`), so it ends with the run, however that ends. It counts as
healthy when it says so and the port is its own: whoever else listens there is not measured.

    with server.running(which, program, target, arguments, log_path=path, wait_s=600,
                        on_wait=lambda: None) as live:
        time_endpoint(live.endpoint, ...)
"""

import contextlib
import dataclasses
import functools
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil

from explorer.errors import RunFailed
from explorer.files import durable_files
from explorer.latency.servers import engines, keeper
from explorer.latency.servers.engines import Server, Target
from explorer.models.endpoint import Endpoint
from explorer.processes import child_process

MAX_PORTS = 3
"""How many ports to try, where others take them between our look and the server's."""
LOOK_EVERY_S = 0.25
REPLY_S = 10.0
"""Seconds that one question about its health may take."""
PATIENCE_S = keeper.STOP_S + 5.0
TAIL_LINES, TAIL_CHARACTERS = 5, 200
TAKEN = re.compile(
    r"address already in use|EADDRINUSE|errno 98|errno 48|couldn't bind|port \d+ is (in use|used)",
    re.IGNORECASE,
)
"""What servers say of a port that somebody else has."""


class PortTaken(RunFailed):
    """Another process has the port that was meant for the server."""


@dataclasses.dataclass
class LiveServer:
    """A server that was started here."""

    server: Server
    command: list[str]
    port: int
    log_path: Path
    process: "subprocess.Popen[bytes]"
    """Its keeper."""
    load_s: float = 0.0
    """From its start until it was healthy."""
    version: str | None = None
    model: str = engines.SERVED_NAME

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers completions."""
        return Endpoint(f"http://127.0.0.1:{self.port}/v1/completions", self.model)

    def check_alive(self) -> None:
        """Refuse to go on without the server.

        Raises:
            RunFailed: It ended; the message has its last words.
        """
        code = self.process.poll()
        if code is not None:
            name = f", {_signal_name(code)}" if code > 128 else ""
            raise RunFailed(
                f"The {self.server.runtime} ended by itself (exit code {code}{name}). "
                f"{self.words()}"
            )

    def check_healthy(self) -> None:
        """Refuse times whose server is gone, or answers no more.

        Raises:
            RunFailed: The message has its last words.
        """
        seen, is_healthy = _health(self)
        if is_healthy and self.owns_port():
            return
        # Its keeper clears up what it started, and ends a moment later.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE_S)
        self.check_alive()
        raise RunFailed(f"The {self.server.runtime} answers no more: {seen}. {self.words()}")

    def words(self) -> str:
        """The last lines of the server's log, and where the rest is."""
        text = self.log_path.read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()][1:]
        last = " | ".join(line[:TAIL_CHARACTERS] for line in lines[-TAIL_LINES:])
        said = f"Its last lines: {last}" if last else "It said nothing."
        return f"{said} The whole log: {self.log_path}"

    def ask(self, route: str) -> Any:
        """The JSON of one of its routes; None if it does not answer, or with something else."""
        try:
            reply = _get(self.port, route)
            return reply.json() if reply.status_code == 200 else None
        except (httpx2.HTTPError, ValueError):
            return None

    def owns_port(self) -> bool:
        """Whether the port's listener is this server; true where the system does not say."""
        try:
            pids = [self.process.pid, *(child.pid for child in keeper.family(self.process.pid))]
            listening = [
                connection.laddr.port
                for pid in pids
                for connection in psutil.Process(pid).net_connections(kind="tcp")
                if connection.status == psutil.CONN_LISTEN
            ]
        except psutil.NoSuchProcess:
            return False
        except psutil.Error:
            return True
        return self.port in listening

    def stop(self) -> None:
        """End the server and all that it started."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                for member in [*keeper.family(self.process.pid), self.process]:
                    with contextlib.suppress(psutil.Error):
                        member.kill()
                self.process.wait()


@contextlib.contextmanager
def running(
    server: Server,
    program: Path,
    target: Target,
    arguments: tuple[str, ...],
    *,
    log_path: Path,
    wait_s: float,
    on_wait: Callable[[], None],
    environment: dict[str, str] | None = None,
) -> Iterator[LiveServer]:
    """Start a server, wait until it is healthy, and stop it at the end.

    Args:
        server: Which.
        program: Its program.
        target: The model.
        arguments: Those of the spec, which `arguments.refuse` has accepted.
        log_path: Where its output goes.
        wait_s: Seconds that it may take.
        on_wait: Called again and again meanwhile; may raise to give up.
        environment: Variables that it gets besides ours.

    Raises:
        RunFailed: It ended, or was not healthy in time; the message has its last words.
        DamagedStore: The log is a link, through which nothing is written.
    """
    with engines.readable(server, target) as readable:
        for attempt in range(1, MAX_PORTS + 1):
            port = child_process.free_port()
            command = engines.command(server, program, readable, arguments, port)
            live = _start(server, command, port, log_path, environment or {})
            try:
                try:
                    live.load_s = _wait_until_healthy(live, wait_s, on_wait)
                except PortTaken:
                    if attempt == MAX_PORTS:
                        raise
                    continue
                live.version = engines.version(server, program, live.ask)
                live.model = server.model_name or str(readable.files)
                # A record names the model, not a link to it that is gone when the server is.
                live.command = engines.command(server, program, target, arguments, port)
                yield live
                return
            finally:
                live.stop()


def _start(
    server: Server,
    command: list[str],
    port: int,
    log_path: Path,
    environment: dict[str, str],
) -> LiveServer:
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with durable_files.refuse_link(log_path).open("wb") as log_file:
        log_file.write(f"$ {shlex.join(command)}\n".encode())
        log_file.flush()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", keeper.__name__, *command],
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            env={**child_process.environment(), **environment},
        )
    return LiveServer(server, command, port, log_path, process)


def _wait_until_healthy(live: LiveServer, wait_s: float, on_wait: Callable[[], None]) -> float:
    """Seconds until the server says that it is healthy."""
    began = time.monotonic()
    seen = "nothing listens on its port"
    while True:
        on_wait()
        if live.process.poll() is not None:
            _say_if_taken(live)
            live.check_alive()
        seen, is_healthy = _health(live)
        if is_healthy:
            if not live.owns_port():
                raise PortTaken(
                    f"Another process answers on port {live.port}, which was meant for the "
                    f"{live.server.runtime}. {live.words()}"
                )
            return time.monotonic() - began
        if time.monotonic() - began > wait_s:
            raise RunFailed(
                f"The {live.server.runtime} was not healthy after {wait_s:g} s: {seen}. Raise "
                f"latency.serve.wait_s if it needs longer. {live.words()}"
            )
        time.sleep(LOOK_EVERY_S)


def _say_if_taken(live: LiveServer) -> None:
    words = live.words()
    if TAKEN.search(words):
        raise PortTaken(
            f"The {live.server.runtime} found port {live.port} taken, as it found {MAX_PORTS} "
            f"ports. {words}"
        )


def _health(live: LiveServer) -> tuple[str, bool]:
    """What the server says of its health, and whether it can be asked for completions."""
    for route in live.server.ready_routes:
        try:
            status = _get(live.port, route).status_code
        except httpx2.HTTPError as error:
            return f"{route} did not answer ({type(error).__name__})", False
        # A server without a route for its health still lists its models.
        if status != 200 and not (route == "/health" and status == 404):
            return f"{route} answered with status {status}", False
    return "it is healthy", True


def _get(port: int, route: str) -> httpx2.Response:
    return _client().get(f"http://127.0.0.1:{port}{route}")


@functools.cache
def _client() -> httpx2.Client:
    """One for all requests: each would read the certificates anew, beside a server that starts."""
    # A proxy of the environment does not know this machine's ports.
    no_idle = httpx2.Limits(max_keepalive_connections=0)
    return httpx2.Client(trust_env=False, timeout=REPLY_S, limits=no_idle)


def _signal_name(code: int) -> str:
    try:
        return signal.Signals(code - 128).name
    except ValueError:
        return "a signal"
