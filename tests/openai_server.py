"""A small OpenAI-compatible server on loopback: a real model, and every way to go wrong.

The standard library's HTTP server over a transformers model. The name of the model that a
request asks for says how it is answered: `tiny` properly, anything of FAULTS wrongly.
"""

import contextlib
import json
import threading
import time
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from explorer.models import loading
from tests.running_server import running

FAULTS = (
    "stalls",
    "garbage",
    "closes",
    "error",
    "no_usage",
    "no_stream",
    "status",
    "miscounts",
    "refuses_extras",
    "empty",
    "stays_alive",
    "never_ends",
    "counts_more",
    "every_third_fails",
    "not_an_object",
    "echoes_key",
)
SECRET = "sk-very-secret"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments) -> None:
        """Nothing: tests read what the client says."""

    def do_POST(self) -> None:
        server = self.server
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.asked.append(asked | {"authorization": self.headers.get("Authorization")})
        fault = asked["model"]
        if fault == "status" or (fault == "refuses_extras" and "ignore_eos" in asked):
            return self._error(422, {"error": {"message": "no such model"}})
        if fault == "echoes_key":
            return self._error(401, {"error": {"message": f"Incorrect API key {SECRET}"}})
        if fault == "every_third_fails" and len(server.asked) % 3 == 0:
            return self._error(500, {"error": "overloaded"})
        if fault == "no_stream":
            return self._error(200, {"choices": []})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._stream(asked, fault)
        return None

    def _error(self, status: int, body: dict) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, asked: dict, fault: str) -> None:
        import torch

        server = self.server
        chat = "messages" in asked
        text = asked["messages"][0]["content"] if chat else asked["prompt"]
        ids = server.loaded.tokenizer(text, return_tensors="pt").input_ids
        num_tokens = 0 if fault == "empty" else asked["max_tokens"]
        if fault == "never_ends":
            num_tokens = 200
        cache, next_ids = None, ids
        for number in range(num_tokens):
            if fault == "stalls" and number == 1:
                return time.sleep(server.stall_s)
            if fault == "stays_alive" and number == 1:
                return self._comments()
            if fault == "closes" and number == 2:
                return None
            if fault == "garbage" and number == 1:
                return self._raw("data: {not json\n\n")
            if fault == "not_an_object" and number == 1:
                return self._raw("data: [1, 2]\n\n")
            if fault == "error" and number == 1:
                return self._event({"error": {"message": "CUDA out of memory"}})
            with server.lock, torch.inference_mode():
                out = server.loaded.model(next_ids, past_key_values=cache, use_cache=True)
            cache, next_ids = out.past_key_values, out.logits[:, -1].argmax(-1, keepdim=True)
            # A character a token: a random model's bytes are seldom UTF-8.
            piece = chr(0x4E00 + int(next_ids))
            choice = {"delta": {"content": piece}} if chat else {"text": piece}
            self._event({"choices": [{"index": 0, **choice}]})
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
        counted = {"miscounts": 1, "counts_more": num_tokens + 1}.get(fault, num_tokens)
        usage = {"prompt_tokens": ids.shape[1], "completion_tokens": counted}
        if fault != "no_usage" and asked.get("stream_options", {}).get("include_usage"):
            self._event({"choices": [], "usage": usage})
        return self._raw("data: [DONE]\n\n")

    def _comments(self) -> None:
        """What keeps a connection alive while nothing happens."""
        ends = time.monotonic() + self.server.stall_s
        while time.monotonic() < ends:
            self._raw(": still here\n\n")
            time.sleep(0.05)

    def _event(self, event: dict) -> None:
        self._raw(f"data: {json.dumps(event)}\n\n")

    def _raw(self, text: str) -> None:
        self.wfile.write(text.encode())
        self.wfile.flush()


class Server(ThreadingHTTPServer):
    """Serves one model; keeps what it was asked."""

    daemon_threads = True
    handler = _Handler

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), self.handler)
        self.loaded = loading.load(str(folder), dtype="float32")
        self.lock = threading.Lock()
        self.asked: list[dict] = []
        self.stall_s = 1.0

    def name(self, model: str = "tiny", path: str = "/v1") -> str:
        """The model's name as a spec writes it."""
        return f"endpoint:http://127.0.0.1:{self.server_port}{path}#{model}"


def serving(folder: Path, of: type[Server] = Server) -> AbstractContextManager[Server]:
    """A server that runs until the block ends."""
    return running(of(folder), poll_interval=0.02)
