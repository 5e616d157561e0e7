"""A server on loopback that answers each request as a function says, down to the bytes."""

import contextlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.running_server import running

USAGE = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
JSON = "application/json"
STREAM = "text/event-stream"

Answer = tuple[int, str, bytes]
"""Status, content type and body; the connection closes after it."""


class ScriptedServer(ThreadingHTTPServer):
    """Keeps every request, and answers it by `answer`."""

    daemon_threads = True

    def __init__(self, answer: Callable[[dict], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.asked: list[dict] = []

    def name(self, path: str = "/v1", model: str = "m") -> str:
        """The model's name as a spec writes it."""
        return f"endpoint:http://127.0.0.1:{self.server_port}{path}#{model}"


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        """Nothing: tests read what the client says."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        status, content_type, body = self.server.answer(asked)
        self.send_response(status)
        if content_type:
            self.send_header("Content-Type", content_type)
        if 300 <= status < 400:
            self.send_header("Location", body.decode())
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(body)


def scripted(answer: Callable[[dict], Answer]) -> AbstractContextManager[ScriptedServer]:
    """A server that runs until the block ends."""
    return running(ScriptedServer(answer))


def error(status: int, message: str, **fields) -> Answer:
    """An error as OpenAI writes it."""
    body = {"error": {"message": message, **fields}}
    return status, JSON, json.dumps(body).encode()


def chat(text: str | None = "four", finish_reason: str = "stop") -> Answer:
    """A whole answer to a chat."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return 200, JSON, json.dumps({"choices": [choice], "usage": USAGE}).encode()


def event(*deltas: dict, usage: dict | None = None, **choice) -> str:
    """An event with a choice per delta."""
    choices = [{"index": 0, "delta": delta, **choice} for delta in deltas]
    return "data: " + json.dumps({"choices": choices, **({"usage": usage} if usage else {})})


def stream(*parts: str) -> Answer:
    """A stream of these bytes."""
    return 200, STREAM, "".join(parts).encode()


def whole_stream(num_tokens: int = 4, field: str = "content") -> Answer:
    """A proper stream of so many tokens."""
    events = [event({field: f"w{number} "}) for number in range(num_tokens)]
    usage = USAGE | {"completion_tokens": num_tokens}
    ends = [event(usage=usage), "data: [DONE]"]
    return stream(*(text + "\n\n" for text in [*events, *ends]))
