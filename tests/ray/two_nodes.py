"""A Ray cluster of two nodes on this machine, started by the commands of docs/cluster.md.

Where network namespaces are to be had, each node is a host of its own: its own address, ports and
host name, joined by a bridge that nothing outside this machine reaches. Elsewhere both are on
127.0.0.1, and only the ports tell them apart.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import requests

START_TIMEOUT_S = 180.0
NETWORK = "10.213.77"
"""Of the namespaces; private, and on this machine alone."""


def namespaces_available() -> bool:
    """Whether this user may make hosts of their own."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare"))):
        return False
    probe = f"explorer-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False)
    if made.returncode:
        return False
    subprocess.run(["ip", "netns", "del", probe], check=False)
    uts = subprocess.run(
        ["unshare", "--uts", "hostname", "probe"], capture_output=True, check=False
    )
    return uts.returncode == 0


class Node:
    """One machine of the cluster: what it was started with, and how to kill it."""

    def __init__(self, name: str, address: str, prefix: list[str], folder: Path) -> None:
        self.name, self.address, self.prefix = name, address, prefix
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str, environment: dict[str, str]) -> None:
        """`ray start` with these options, in the foreground of a session of its own."""
        ray = str(Path(sys.executable).with_name("ray"))
        command = [*self.prefix, ray, "start", "--block", "--disable-usage-stats", *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, f"--node-ip-address={self.address}"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Pull the plug: kill -9 for every process of the node, its jobs included."""
        if self.process is None or self.process.poll() is not None:
            return
        root = psutil.Process(self.process.pid)
        doomed = [root, *root.children(recursive=True)]
        for process in doomed:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        self.process.wait()
        psutil.wait_procs(doomed, timeout=30)


class TwoNodes:
    """A head and a worker; `with TwoNodes(...) as cluster`."""

    def __init__(self, folder: Path, *, cpus: tuple[int, int], gpus: tuple[int, int]) -> None:
        """Nothing runs yet.

        Args:
            folder: For logs and the token.
            cpus: Of the head and of the worker, simulated.
            gpus: Likewise.
        """
        self.folder, self.cpus, self.gpus = folder, cpus, gpus
        self.separate = namespaces_available()
        """Whether the nodes are hosts of their own."""
        self.token = folder / "token"
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """What RAY_ADDRESS has to be."""
        return f"http://{self.head.address}:{self._dashboard_port}"

    def __enter__(self) -> "TwoNodes":
        with self._stack:
            self.token.write_text("0123456789abcdef" * 4)
            self.token.chmod(0o600)
            self.head, self.worker = self._hosts() if self.separate else self._one_host()
            temp = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="two-", dir="/tmp"))
            environment = {
                **{k: v for k, v in os.environ.items() if not k.startswith("RAY_ADDRESS")},
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(self.token),
                # So that a killed node is noticed in seconds.
                "RAY_health_check_initial_delay_ms": "2000",
                "RAY_health_check_period_ms": "1000",
                "RAY_health_check_failure_threshold": "5",
            }
            # Otherwise `ray start --head` replaces 127.0.0.1 by the machine's network address.
            loopback = {} if self.separate else {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
            gcs_port = 6379 if self.separate else _free_port()
            self._dashboard_port = 8265 if self.separate else _free_port()
            small = ("--object-store-memory=80000000", "--dashboard-agent-listen-port=0")
            self.head.start(
                "--head",
                f"--port={gcs_port}",
                f"--dashboard-host={self.head.address}",
                f"--dashboard-port={self._dashboard_port}",
                f"--num-cpus={self.cpus[0]}",
                f"--num-gpus={self.gpus[0]}",
                f"--temp-dir={temp}/ray",
                *small,
                environment=environment | loopback,
            )
            self._stack.callback(self.head.kill)
            self._wait_for_nodes(1)
            self.worker.start(
                f"--address={self.head.address}:{gcs_port}",
                f"--num-cpus={self.cpus[1]}",
                f"--num-gpus={self.gpus[1]}",
                *small,
                environment=environment,
            )
            self._stack.callback(self.worker.kill)
            self._wait_for_nodes(2)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _wait_for_nodes(self, number: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        headers = {"Authorization": f"Bearer {self.token.read_text()}"}
        alive: list[object] = []
        while len(alive) < number:
            assert time.monotonic() < deadline, self._logs()
            for node in (self.head, self.worker)[:number]:
                assert node.process is None or node.process.poll() is None, self._logs()
            with suppress(requests.RequestException, KeyError, TypeError, ValueError):
                answer = requests.get(
                    f"{self.url}/api/v0/nodes",
                    headers=headers,
                    timeout=5,
                    proxies={"http": "", "https": ""},
                )
                nodes = answer.json()["data"]["result"]["result"]
                alive = [node for node in nodes if node["state"] == "ALIVE"]
            time.sleep(0.5)

    def _logs(self) -> str:
        logs = [node.log for node in (self.head, self.worker) if node.log.exists()]
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in logs)

    def _one_host(self) -> tuple[Node, Node]:
        return (
            Node("node-a", "127.0.0.1", [], self.folder),
            Node("node-b", "127.0.0.1", [], self.folder),
        )

    def _hosts(self) -> tuple[Node, Node]:
        """Two namespaces on a bridge; removed at the end."""
        tag = f"x{os.getpid() % 100_000}"
        bridge = f"{tag}br"
        self._ip("link", "add", bridge, "type", "bridge")
        self._stack.callback(self._ip, "link", "del", bridge)
        self._ip("address", "add", f"{NETWORK}.254/24", "dev", bridge)
        self._ip("link", "set", bridge, "up")
        nodes = []
        for number, name in enumerate(("node-a", "node-b"), start=1):
            space, outside = f"{tag}{name}", f"{tag}v{number}"
            self._ip("netns", "add", space)
            self._stack.callback(self._ip, "netns", "del", space)
            self._ip("link", "add", outside, "type", "veth", "peer", "eth0", "netns", space)
            self._ip("link", "set", outside, "master", bridge, "up")
            self._ip("-n", space, "link", "set", "lo", "up")
            self._ip("-n", space, "address", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            self._ip("-n", space, "link", "set", "eth0", "up")
            named = ["unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh"]
            prefix = ["ip", "netns", "exec", space, *named]
            nodes.append(Node(name, f"{NETWORK}.{number}", prefix, self.folder))
        return nodes[0], nodes[1]

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
