"""A server that is started for the timing of a model, and stopped after it.

latency:
  serve: {engine: vllm, arguments: [--max-model-len, 4096]}
  concurrency: [1, 2, 4, 8]
"""

import re
import shlex
from typing import Any, Literal, Self

import pydantic
from pydantic import Field, PositiveFloat

from explorer.specs.base import Spec

Engine = Literal["vllm", "sglang", "llama.cpp", "transformers"]
"""Servers whose programs a run may start."""
FOLDER_ENGINES: tuple[Engine, ...] = ("vllm", "sglang", "transformers")
"""Engines that read a folder of safetensors, in the order in which auto takes them."""
GGUF_ENGINES: tuple[Engine, ...] = ("llama.cpp",)
"""Engines that read a GGUF file."""
ADDRESS = "the server gets a free port of 127.0.0.1, which others cannot reach"
MODEL = "the server gets the run's own model"
ONE_DEVICE = "a run is timed and priced on one device"
SET_HERE = {
    **dict.fromkeys(("--host", "--port", "--uds", "--listen", "--unix-socket"), ADDRESS),
    **dict.fromkeys(("--model", "-m", "--model-path", "--model-url", "-mu"), MODEL),
    **dict.fromkeys(("--hf-repo", "-hf", "-hfr", "--models-dir", "--model-impl"), MODEL),
    **dict.fromkeys(("--served-model-name", "--alias", "-a"), MODEL),
    **dict.fromkeys(("--tensor-parallel-size", "-tp", "--tp", "--tp-size"), ONE_DEVICE),
    **dict.fromkeys(("--pipeline-parallel-size", "-pp", "--pp", "--pp-size"), ONE_DEVICE),
    **dict.fromkeys(("--data-parallel-size", "-dp", "--dp", "--dp-size"), ONE_DEVICE),
    **dict.fromkeys(("--device", "-dev", "--main-gpu", "-mg", "--nnodes"), ONE_DEVICE),
    "--trust-remote-code": "write trust_remote_code: true in the spec, which asks for permission",
    "--api-key": "records store arguments, and a server on 127.0.0.1 needs no key",
}
"""Arguments that a spec may not hold, and why."""
NUMBER = re.compile(r"-\d")


class ServeSpec(Spec):
    """A real server, started with these arguments, timed through its endpoint, and stopped."""

    engine: Literal["auto", Engine] = "auto"
    """The server: vllm, sglang and transformers (`transformers serve`) read safetensors, llama.cpp
    reads GGUF. auto takes the first of them that is installed and reads the run's model."""
    arguments: tuple[str, ...] = ()
    """Arguments of the server's command. Those that only set how it computes need no permission;
    see docs/measure.md."""
    wait_s: PositiveFloat = Field(900.0, le=86_400)
    """Seconds that the server may take until it is healthy."""

    @pydantic.field_validator("arguments", mode="before")
    @classmethod
    def _read_numbers_and_one_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return _split(value)
        if isinstance(value, list | tuple):
            return [str(item) if _is_number(item) else item for item in value]
        return value

    @pydantic.model_validator(mode="after")
    def _refuse_what_is_set_here(self) -> Self:
        for name, _ in options(self.arguments):
            if reason := SET_HERE.get(name):
                raise ValueError(f"arguments may not have {name}: {reason}; remove it")
        return self


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(
            f"is not a command's arguments ({error}); write a list of texts, such as "
            '[--max-model-len, "4096"]'
        ) from error


def _is_number(item: Any) -> bool:
    return isinstance(item, int | float) and not isinstance(item, bool)


def options(arguments: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    """Each option with its values: `--name value` and `--name=value` alike, underscores as dashes.

    Raises:
        ValueError: The first argument is not an option.
    """
    found: list[tuple[str, list[str]]] = []
    for argument in arguments:
        if argument.startswith("-") and not NUMBER.match(argument):
            name, equals, value = argument.partition("=")
            found.append((name.replace("_", "-"), [value] if equals else []))
        elif found:
            found[-1][1].append(argument)
        else:
            raise ValueError(
                f"arguments should begin with an option such as --max-model-len, got {argument!r}"
            )
    return found
