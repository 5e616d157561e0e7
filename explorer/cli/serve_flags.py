"""The options of `explorer run` that time the model in a server: they replace `latency.serve`."""

from typing import Annotated

import typer

from explorer.errors import BadInput
from explorer.specs import LatencySpec, RunSpec

Serve = Annotated[
    str | None,
    typer.Option(
        "--serve",
        help="Time the model in a server that the run starts: auto, vllm, sglang, llama.cpp or "
        "transformers.",
        show_default=False,
    ),
]
Arguments = Annotated[
    str | None,
    typer.Option(
        "--serve-arguments",
        help="Arguments of that server, in one text: '--max-model-len 4096'.",
        show_default=False,
    ),
]


def applied_to(spec: RunSpec, engine: str | None, arguments: str | None) -> RunSpec:
    """The spec with this server; the same one if no option was given.

    Raises:
        BadInput: A value is not valid, or there are arguments for no server.
    """
    if engine is None and arguments is None:
        return spec
    latency = spec.latency or LatencySpec()
    before = latency.serve.model_dump() if latency.serve else {}
    if engine is None and not before:
        raise BadInput("--serve-arguments needs a server. Add --serve auto, or name one.")
    given = {"engine": engine, "arguments": arguments}
    serve = before | {name: value for name, value in given.items() if value is not None}
    return spec.with_(latency=latency.model_dump() | {"serve": serve})
