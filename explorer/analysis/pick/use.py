"""How to use the picked model: its file or folder, how to serve it, how to measure it again."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from explorer.records.rows import missing

GGUF_RUNTIME = "llama.cpp"
"""How the runtimes of GGUF files begin: in this process, or `llama.cpp server`."""
COMMANDS = {
    "vLLM server": ("vllm", "serve"),
    "SGLang server": ("sglang", "serve", "--model-path"),
    "transformers server": ("transformers", "serve"),
}
"""How a folder of weights is served, by the runtime that was timed."""


def use(run: Mapping[Any, Any], weights: Path | None) -> dict[str, str]:
    """Facts and commands by name, in the order in which a person needs them.

    Args:
        run: A row of the frame of runs.
        weights: The folder of the student's weights, if they are on this machine.
    """
    if run["basis"] == "imported":
        return {"Model": str(run["model"])}
    is_student = not missing(run["kind"])
    source = f"run:{run['run_id']}" if is_student else str(run["teacher"])
    steps = {}
    if is_student and weights is None:
        steps["Train it on this machine"] = f"explorer run {shlex.quote(run['run_id'])}"
    extra = run.get("server_arguments")
    arguments = [] if missing(extra) else shlex.split(str(extra))
    if str(run["runtime"]).startswith(GGUF_RUNTIME):
        file = re.sub(r"[^\w.-]+", "-", str(run["label"])) + ".gguf"
        steps["Write its file"] = shlex.join(
            ["explorer", "convert", source, file, "--to", str(run["format"])]
        )
        steps["Serve it"] = shlex.join(["llama-server", "-m", file, *arguments])
    elif is_student and weights is not None:
        steps["Weights"] = str(weights)
        command = COMMANDS.get(str(run["runtime"]), COMMANDS["vLLM server"])
        steps["Serve it"] = shlex.join([*command, str(weights), *arguments])
    elif not is_student:
        steps["Model"] = source
    if not missing(run["fingerprint"]):
        steps["Fingerprint of the weights"] = str(run["fingerprint"])
    steps["Measure it again"] = f"explorer run {shlex.quote(run['run_id'])} --again"
    return steps
