"""The servers that a run may start: their programs, what they read, their commands and versions.

Only these programs are started, from the user's PATH or from where the user's own configuration
says (`consent.user_config`), never what a spec or a store names.

    engines.choose("auto", reads_gguf=False).label
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from explorer import paths
from explorer.consent import user_config
from explorer.errors import BadInput
from explorer.latency.runtimes import endpoint_stream
from explorer.specs import FOLDER_ENGINES, GGUF_ENGINES
from explorer.specs.serve import Engine

SERVED_NAME = "model"
"""What requests call the model, where the server lets us choose."""
VERSION_TIMEOUT_S = 120.0


@dataclasses.dataclass(frozen=True)
class Target:
    """What is to be served, and how."""

    files: Path
    """A folder of safetensors, or a GGUF file."""
    dtype: str
    """The weights' number format, as torch names it; GGUF files have their own."""
    device: str
    """`cpu`, or an accelerator as torch names it."""
    threads: int
    num_clients: int
    """Requests that will be in progress at the same time."""
    num_tokens: int
    """Tokens of one prompt and its answer."""
    trust_remote_code: bool = False


@dataclasses.dataclass(frozen=True)
class Server:
    """One of the known servers."""

    engine: Engine
    label: str
    """Its name for people."""
    program: str
    install: str
    """How to install it."""
    options: Callable[[Target], list[tuple[str, str | None]]]
    """Options set here, each with its value; an argument of the spec replaces the same option."""
    subcommand: tuple[str, ...] = ()
    model_option: str | None = None
    """The option before the model's files; None takes them as they are."""
    other_names: dict[str, str] = dataclasses.field(default_factory=dict)
    """Short names of options that are set here."""
    version_at: tuple[str, str] | None = None
    """The route that says the server's version, and the key in its reply."""
    version_command: tuple[str, ...] = ()
    """The arguments with which the program prints its version, where no route says it."""
    needs: tuple[str, ...] = ()
    """Modules without which the program is there, but cannot serve."""
    fixed_length: Callable[[int], dict[str, Any]] = endpoint_stream.ignore_eos
    """The fields of a request whose answer is to have this many tokens."""
    ready_routes: tuple[str, ...] = ("/health", "/v1/models")
    """The routes that have to answer before it is measured."""
    revision_sign: str | None = None
    """A sign that ends the model's name and begins a revision, also in a path."""

    @property
    def runtime(self) -> str:
        """The name of the runtime in records."""
        return f"{self.label} server"

    @property
    def model_name(self) -> str | None:
        """What requests call the model; None for the path of its files."""
        return SERVED_NAME if self.engine != "transformers" else None


def _vllm(target: Target) -> list[tuple[str, str | None]]:
    return [("--served-model-name", SERVED_NAME), ("--dtype", target.dtype), *_trust(target)]


def _sglang(target: Target) -> list[tuple[str, str | None]]:
    kind = [("--device", target.device)] if target.device == "cpu" else []
    return [("--served-model-name", SERVED_NAME), ("--dtype", target.dtype), *kind, *_trust(target)]


def _llama_cpp(target: Target) -> list[tuple[str, str | None]]:
    # Each request in progress has a slot of its own; the context is shared among the slots.
    num_tokens = target.num_clients * -(-(target.num_tokens + CONTEXT_MARGIN) // 256) * 256
    return [
        ("--alias", SERVED_NAME),
        ("--device", "none"),
        ("--threads", str(target.threads)),
        ("--parallel", str(target.num_clients)),
        ("--ctx-size", str(num_tokens)),
    ]


def _transformers(target: Target) -> list[tuple[str, str | None]]:
    return [("--dtype", target.dtype), ("--device", target.device), *_trust(target)]


def _min_new_tokens(num_tokens: int) -> dict[str, Any]:
    # transformers serve refuses ignore_eos, and takes its own settings as JSON in a text.
    return {"generation_config": json.dumps({"min_new_tokens": num_tokens})}


def _trust(target: Target) -> list[tuple[str, str | None]]:
    return [("--trust-remote-code", None)] if target.trust_remote_code else []


CONTEXT_MARGIN = 64
"""Tokens of a request beyond those that were asked for: the words are calibrated, not counted."""
SERVERS: dict[Engine, Server] = {
    "vllm": Server(
        "vllm",
        "vLLM",
        "vllm",
        "pip install vllm, in an environment of its own if its torch is another",
        _vllm,
        subcommand=("serve",),
        version_at=("/version", "version"),
    ),
    "sglang": Server(
        "sglang",
        "SGLang",
        "sglang",
        "pip install sglang, in an environment of its own if its torch is another",
        _sglang,
        subcommand=("serve",),
        model_option="--model-path",
        version_at=("/get_server_info", "version"),
    ),
    "llama.cpp": Server(
        "llama.cpp",
        "llama.cpp",
        "llama-server",
        "brew install llama.cpp, or build the target llama-server of github.com/ggml-org/llama.cpp",
        _llama_cpp,
        model_option="--model",
        other_names={"-t": "--threads", "-np": "--parallel", "-c": "--ctx-size"},
        version_at=("/props", "build_info"),
    ),
    "transformers": Server(
        "transformers",
        "transformers",
        "transformers",
        "pip install 'transformers[serving]'",
        _transformers,
        subcommand=("serve",),
        version_command=("version",),
        needs=("fastapi", "uvicorn", "openai"),
        fixed_length=_min_new_tokens,
        # It listens once its model is loaded. Its list is of the hub's cache, which may be missing.
        ready_routes=("/health",),
        revision_sign="@",
    ),
}


def candidates(engine: Literal["auto"] | Engine, *, reads_gguf: bool) -> list[Server]:
    """The servers that a spec's `engine` may mean for a model, the first choice first."""
    able = GGUF_ENGINES if reads_gguf else FOLDER_ENGINES
    return [SERVERS[name] for name in able if engine in ("auto", name)]


def choose(engine: Literal["auto"] | Engine, *, reads_gguf: bool) -> tuple[Server, Path]:
    """The first server that is installed and reads the model, and its program.

    Raises:
        BadInput: None is installed; the message says how to install each.
    """
    able = candidates(engine, reads_gguf=reads_gguf)
    for server in able:
        program = find(server)
        if program is not None:
            return server, program
    lines = "; ".join(f"{server.label}: {server.install}" for server in able)
    none = _why_not(able[0]) if len(able) == 1 else "no server that reads safetensors is installed"
    raise BadInput(
        f"latency.serve is to time the model in a server, but {none}. Install it ({lines}), or "
        f"name its program under servers in {paths.config_file()}."
    )


def _why_not(server: Server) -> str:
    """What is missing of one server."""
    lacks = _lacks(server)
    if lacks and _on_path(server) is not None:
        return f"{server.label} is here without {' and '.join(lacks)}, which it needs to serve"
    return f"{server.label} is not installed: no program {server.program} is on PATH"


def find(server: Server) -> Path | None:
    """The program of a server: the one that the user named, else the first on PATH.

    None if there is none, or if it is ours and lacks what it needs to serve.

    Raises:
        BadInput: The user's configuration can't be read, or names no program.
    """
    named = user_config.read_config().servers.get(server.engine)
    if named is not None:
        program = Path(named).expanduser()
        if not program.is_file() or not os.access(program, os.X_OK):
            raise BadInput(
                f"{paths.config_file()} names {program} as the program of {server.label}, which is "
                "not a program that can be run. Correct the path under servers."
            )
        return program
    found = _on_path(server)
    is_ours = found is not None and found.parent == Path(sys.executable).parent
    return None if is_ours and _lacks(server) else found


def _on_path(server: Server) -> Path | None:
    """Its program, in this environment or on PATH."""
    ours = Path(sys.executable).parent
    where = os.pathsep.join([str(ours), os.environ.get("PATH", os.defpath)])
    found = shutil.which(server.program, path=where)
    return Path(found) if found else None


def _lacks(server: Server) -> list[str]:
    """Modules that it needs and this environment has not."""
    return [name for name in server.needs if importlib.util.find_spec(name) is None]


@contextlib.contextmanager
def readable(server: Server, target: Target) -> Iterator[Target]:
    """The target under a path that the server takes whole: a link to it, where its own is not."""
    if server.revision_sign is None or server.revision_sign not in str(target.files):
        yield target
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, SERVED_NAME)
        link.symlink_to(target.files.absolute(), target_is_directory=target.files.is_dir())
        yield dataclasses.replace(target, files=link)


def command(
    server: Server, program: Path, target: Target, arguments: tuple[str, ...], port: int
) -> list[str]:
    """The command that serves a model on a port of 127.0.0.1.

    The address comes last, where it wins over whatever came before.
    """
    names = {name.replace("_", "-").partition("=")[0] for name in arguments}
    given = names | {server.other_names[name] for name in names & server.other_names.keys()}
    options: list[str] = []
    for name, value in server.options(target):
        if name not in given:
            options += [name] if value is None else [name, value]
    model = [server.model_option] if server.model_option else []
    address = ["--host", "127.0.0.1", "--port", str(port)]
    files = str(target.files)
    return [str(program), *server.subcommand, *model, files, *options, *arguments, *address]


def version(server: Server, program: Path, ask: Callable[[str], Any]) -> str | None:
    """What the running server says its version is; None if it does not say.

    Args:
        server: Which.
        program: Its program.
        ask: Returns the JSON of one of its routes, or None.
    """
    if server.version_at:
        route, key = server.version_at
        reply = ask(route)
        value = reply.get(key) if isinstance(reply, dict) else None
        return str(value)[:200] if value else None
    try:
        done = subprocess.run(
            [str(program), *server.version_command],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=VERSION_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.split()
    return lines[-1][:200] if done.returncode == 0 and lines else None
