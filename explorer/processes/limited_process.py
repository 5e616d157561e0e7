"""Reads what somebody uploaded in a process of its own, with limits on its memory and its time.

A small file can grow: 300 kB of a zip hold 300 MB, and those take 6 GB as Python's objects. So the
dashboard never reads such a file itself. Whatever happens to the reader, the page gets a sentence.

    limited_process.call("explorer.tasks.question_files:rows_of", "quiz.csv", path="/tmp/0.csv")

The function is named, not passed, so that the dashboard does not import what only the reader needs.
"""

import importlib
import json
import os
import resource
import subprocess
import sys
from typing import Any

import psutil

from explorer.errors import BadInput, ExplorerError
from explorer.processes import child_process

MEMORY_BYTES = 2_000_000_000
"""What a reader may take beyond its program. Linux keeps to it; macOS does not."""
TIMEOUT_S = 300.0
SMALL = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_IO_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
"""Each thread's stack and each pool's reserve would count as memory."""


def call(
    function: str,
    upload: str,
    *,
    timeout_s: float = TIMEOUT_S,
    memory_bytes: int = MEMORY_BYTES,
    folder: str | None = None,
    **arguments: Any,
) -> Any:
    """What a function returns in a process with limits.

    Args:
        function: `module:function`; takes and returns what JSON can say.
        upload: Its name, for messages.
        timeout_s: Seconds after which the process is ended.
        memory_bytes: Bytes that it may take.
        folder: Where it may leave temporary files; the caller removes them.
        arguments: The function's.

    Raises:
        ExplorerError: The function's own, or the process met a limit.
    """
    request = {
        "function": function,
        "upload": upload,
        "arguments": arguments,
        "memory_bytes": memory_bytes,
    }
    environment = {**child_process.environment(), **SMALL}
    if folder is not None:
        environment["TMPDIR"] = folder
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            input=json.dumps(request),
            stdout=subprocess.PIPE,
            encoding="utf-8",
            timeout=timeout_s,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise BadInput(
            f"{upload} takes longer than {timeout_s:g} s to read. Use a smaller file, or the "
            "shell, which has no such limit."
        ) from error
    if done.returncode or not done.stdout:
        raise BadInput(
            f"{upload} ended the process that read it (code {done.returncode}); the dashboard's "
            "own output says why. Use another file, or the shell."
        )
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise _kind(answer["kind"])(answer["error"])
    return answer["result"]


def _kind(name: str) -> type[ExplorerError]:
    """The error of that name, if this process knows it."""
    kinds: list[type[ExplorerError]] = [ExplorerError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return next((kind for kind in kinds if kind.__name__ == name), BadInput)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    module, _, function = request["function"].partition(":")
    read = getattr(importlib.import_module(module), function)
    _limit_memory(request["memory_bytes"])
    try:
        return {"result": read(**request["arguments"])}
    except ExplorerError as error:
        return {"kind": type(error).__name__, "error": str(error)}
    except (MemoryError, RecursionError):
        limit = f"{request['memory_bytes'] / 1e9:g} GB"
        return {
            "kind": "BadInput",
            "error": f"{request['upload']} takes more than {limit} of memory to read. Use a "
            "smaller file, or the shell, which has no such limit.",
        }


def _limit_memory(num_bytes: int) -> None:
    """Let this process take so much beyond what its program takes by now."""
    taken = getattr(psutil.Process().memory_info(), "data", 0)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = taken + num_bytes
    resource.setrlimit(
        resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
    )
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Answer one request."""
    child_process.end_with_parent()
    # What a library prints must not stand beside the answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    json.dump(_answer(json.load(sys.stdin)), answers)
    answers.flush()


if __name__ == "__main__":
    main()
