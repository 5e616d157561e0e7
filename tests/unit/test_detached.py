import json
import os
import socket
import sys

import psutil
import pytest
from typer.testing import CliRunner

from explorer.cli import app
from explorer.errors import JobError
from explorer.jobs import detached

REPORT = """
import json, os, signal, sys
links = {name: os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")}
with open(sys.argv[1], "w") as out:
    json.dump({"cwd": os.getcwd(), "session": os.getsid(0), "pid": os.getpid(),
               "sockets": [link for link in links.values() if "socket:" in link],
               "secret": os.environ.get("SECRET")}, out)
signal.pause()
"""


@pytest.fixture
def listening():
    """A socket as a web server holds it: its children may inherit it."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.set_inheritable(True)
        yield server


def test_a_detached_process_holds_nothing_of_its_starter(tmp_path, listening):
    """What outlives the dashboard has no socket of it, so its port is free once it ends."""
    answer = tmp_path / "answer"
    os.mkfifo(answer)
    port = listening.getsockname()[1]

    pid = detached.start(
        [sys.executable, "-c", REPORT, str(answer)],
        {"SECRET": "handed over"},
        folder=tmp_path,
        log=tmp_path / "log",
    )
    try:
        # Opening waits until the process is there.
        report = json.loads(answer.read_text())
        assert report == {
            "cwd": str(tmp_path),
            "session": pid,
            "pid": pid,
            "sockets": [],
            "secret": "handed over",
        }
        listening.close()
        with socket.socket() as again:
            again.bind(("127.0.0.1", port))
        assert psutil.Process(pid).ppid() != os.getpid()
    finally:
        psutil.Process(pid).kill()


def test_a_program_that_cannot_start_is_one_sentence(tmp_path):
    """A missing program is named, with the system's reason, not a traceback."""
    with pytest.raises(JobError, match=r"Could not start /no/such/program: .*No such file"):
        detached.start(["/no/such/program"], {}, folder=tmp_path, log=tmp_path / "log")


def test_a_taken_port_is_said_before_the_dashboard_starts(listening, monkeypatch, tmp_path):
    """`explorer app` on a port in use says so and how to choose another."""
    monkeypatch.setenv("EXPLORER_CACHE", str(tmp_path))
    port = listening.getsockname()[1]

    result = CliRunner().invoke(app, ["app", "--port", str(port)])

    assert result.exit_code != 0
    assert f"Port {port} is in use" in str(result.exception)
    assert "--port" in str(result.exception)
