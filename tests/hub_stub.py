"""A model hub on loopback: as much of its protocol as huggingface_hub's client needs.

The name of a repository says how it is answered: any model of FOLDERS properly, others wrongly.
"""

import hashlib
import json
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tests.running_server import running

COMMITS = {"main": "a" * 40, "v1": "b" * 40, "refs/pr/1": "c" * 40}
TOKEN = "hf_right"
REFUSALS = {
    "gated": (403, "GatedRepo", "Access to model org/gated is restricted"),
    "missing": (404, "RepoNotFound", "Repository not found"),
    "disabled": (403, "", "Access to this resource is disabled."),
    "limited": (429, "", "Too many requests"),
    "down": (503, "", "Maintenance"),
}


class HubStub(ThreadingHTTPServer):
    """Serves the files of a folder as the models org/*."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.breaks_left = 0
        """How many downloads of weights end in the middle."""
        self.claimed_bytes: int | None = None
        """A size of the weights that is not theirs."""
        self.requests: list[tuple[str, str, str | None]] = []
        """Method, path and Range of each request."""

    @property
    def url(self) -> str:
        """What HF_ENDPOINT names."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        """Nothing: tests read `requests`."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = urlsplit(self.path).path.replace("%2F", "/")
        self.server.requests.append((self.command, path, self.headers.get("Range")))
        parts = path.strip("/").split("/")
        if len(parts) < 4:
            return self._refuse(404, "", "Not found")
        name = parts[3] if parts[0] == "api" else parts[1]
        authorization = self.headers.get("Authorization")
        if authorization not in (None, f"Bearer {TOKEN}"):
            return self._refuse(401, "", "Invalid credentials in Authorization header")
        if name == "private" and authorization is None:
            return self._refuse(401, "RepoNotFound", "Repository not found")
        if name in REFUSALS:
            return self._refuse(*REFUSALS[name])
        if name == "no_hub":
            return self._send(b"<html>hello</html>", "text/html")
        if parts[0] == "api" and parts[4] == "revision":
            return self._revision("/".join(parts[5:]))
        if parts[0] == "api" and parts[4] == "tree":
            return self._send(json.dumps(self._tree()).encode(), "application/json")
        return self._file(parts[3], "/".join(parts[4:]), with_body)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Message", message)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, body: bytes, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _revision(self, revision: str) -> None:
        commit = COMMITS.get(revision, revision)
        if commit not in COMMITS.values():
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self._send(json.dumps({"id": "org/m", "sha": commit}).encode(), "application/json")

    def _tree(self) -> list[dict]:
        return [
            {"type": "file", "path": file.name, "size": self._size(file), "oid": _oid(file)}
            for file in sorted(self.server.folder.iterdir())
        ]

    def _size(self, file: Path) -> int:
        claimed = self.server.claimed_bytes
        return claimed if claimed and file.suffix == ".safetensors" else file.stat().st_size

    def _file(self, revision: str, name: str, with_body: bool) -> None:
        file = self.server.folder / name
        if not file.is_file():
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        data = file.read_bytes()
        first = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        self.send_response(206 if first else 200)
        self.send_header("X-Repo-Commit", COMMITS.get(revision, revision))
        self.send_header("ETag", f'"{_oid(file)}"')
        self.send_header("Accept-Ranges", "bytes")
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        size = self._size(file) if not with_body else len(data)
        self.send_header("Content-Length", str(size - first))
        self.end_headers()
        if with_body:
            rest = data[first:]
            if file.suffix == ".safetensors" and self.server.breaks_left:
                self.server.breaks_left -= 1
                rest = rest[: len(rest) // 2]
            self.wfile.write(rest)


def _oid(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


def serving_hub(folder: Path) -> AbstractContextManager[HubStub]:
    """A hub that runs until the block ends."""
    return running(HubStub(folder))
