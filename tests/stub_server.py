"""Stands in for the program of a server: its routes, its answers, and every way to go wrong.

As a program it serves on the --port of its arguments. `STUB` in the environment is a JSON file with
the fault, and gets the arguments.
"""

import json
import os
import stat
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FAULTS = (
    "",
    "unhealthy",
    "no list of models",
    "dies at once",
    "dies in the middle",
    "leaves a child",
)
VERSION = "9.8.7"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    num_answers = 0

    def log_message(self, *arguments) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        """Say its health, its models or its version."""
        if self.path == "/health" and self.server.fault == "unhealthy":
            return self._reply(503, {"error": {"message": "Loading model"}})
        if self.path == "/v1/models" and self.server.fault == "no list of models":
            return self._reply(500, {"error": {"message": "Cache directory not found"}})
        replies = {
            "/health": {},
            "/v1/models": {"data": [{"id": "model"}]},
            "/version": {"version": VERSION},
            "/get_server_info": {"version": VERSION},
            "/props": {"build_info": VERSION},
        }
        return self._reply(200 if self.path in replies else 404, replies.get(self.path, {}))

    def _reply(self, status: int, body: dict) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        """Stream an answer of the requested length."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers.get("Authorization") is None
        Handler.num_answers += 1
        if self.server.fault == "dies in the middle" and Handler.num_answers > 4:
            print("CUDA error: an illegal memory access was encountered", flush=True)
            os._exit(7)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        num_tokens = asked["max_tokens"]
        for i in range(num_tokens):
            self._event({"choices": [{"text": f" {i}"}]})
        num_prompt = len(asked["prompt"].split())
        usage = {"prompt_tokens": num_prompt, "completion_tokens": num_tokens}
        self._event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, content: dict) -> None:
        self.wfile.write(f"data: {json.dumps(content)}\n\n".encode())


def install(folder: Path, *names: str) -> Path:
    """Make programs of these names in a folder; returns the file that tells them what to do."""
    folder.mkdir(exist_ok=True)
    orders = folder / "stub.json"
    for name in names:
        program = folder / name
        program.write_text(f'#!/bin/sh\nSTUB={orders} exec {sys.executable} {__file__} "$@"\n')
        program.chmod(program.stat().st_mode | stat.S_IEXEC)
    orders.write_text(json.dumps({"fault": ""}))
    return orders


def main() -> None:
    path = Path(os.environ["STUB"])
    orders = json.loads(path.read_text())
    arguments = sys.argv[1:]
    if arguments == ["version"]:
        print(VERSION)
        return
    print("Starting", flush=True)
    fault = orders["fault"]
    child = None
    if fault == "dies at once":
        sys.exit("ValueError: The model's architecture is not supported")
    if fault == "leaves a child":
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(120)"
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", code]).pid
        time.sleep(0.5)
    server = ThreadingHTTPServer(
        ("127.0.0.1", int(arguments[arguments.index("--port") + 1])), Handler
    )
    server.fault = fault
    server.daemon_threads = True
    told = {"arguments": arguments, "pid": os.getpid(), "child": child}
    path.write_text(json.dumps(orders | told))
    server.serve_forever()


if __name__ == "__main__":
    main()
