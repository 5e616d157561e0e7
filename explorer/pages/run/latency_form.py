"""The form's fields for number formats and timing."""

from collections.abc import Collection
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from explorer.pages.run import run_spec
from explorer.pages.run.form_defaults import UsualOrder
from explorer.pages.shared import glossary
from explorer.specs import WORKLOADS, LatencySpec

HELP = glossary.TERMS
FORMATS = {"q8_0": "Q8_0", "q4_k_m": "Q4_K_M", "f16": "F16"}
BITS = {8: "8 bits", 4: "4 bits"}
LEVELS_RULE = "Load levels are whole numbers, such as 1, 2, 4"
RUNTIMES = {"eager": "transformers", "compiled": "transformers, compiled"}
SERVERS = {
    "auto": "a server: the installed one",
    "vllm": "a server: vLLM",
    "sglang": "a server: SGLang",
    "llama.cpp": "a server: llama.cpp",
    "transformers": "a server: transformers",
}


def formats(usual: UsualOrder) -> dict[str, list[Any]]:
    """Ask for number formats in which every model is measured too; by the spec's keys."""
    left, right = st.columns([3, 2])
    return {
        "gguf": _format_pills(left, "Also as GGUF", FORMATS, "gguf", usual.gguf),
        "torch_bits": _format_pills(
            right, "Also quantised in torch", BITS, "torch_bits", usual.torch_bits
        ),
    }


def _format_pills(
    where: Any, label: str, names: dict[Any, str], field: str, usual: Collection[Any]
) -> list[Any]:
    chosen: list[Any] = where.pills(
        label,
        list(names),
        selection_mode="multi",
        default=[name for name in names if name in usual],
        format_func=names.__getitem__,
        key=f"run_{field}",
        help=HELP[field],
    )
    return chosen


def timing() -> dict[str, Any]:
    """Ask for the fields of the spec's latency part.

    Raises:
        BadInput: The load levels are not whole numbers.
    """
    defaults = LatencySpec()
    left, middle, right = st.columns(3)
    workload = left.selectbox(
        "Request lengths",
        [None, *WORKLOADS],
        format_func=_workload_label,
        key="run_workload",
        help=HELP["workload"],
    )
    fields: dict[str, Any] = {"workload": workload}
    if workload is None:
        fields["prompt_tokens"] = _tokens(middle, "Prompt", 1, defaults.prompt_tokens, "prompt")
        fields["output_tokens"] = _tokens(right, "Answer", 2, defaults.output_tokens, "output")
    left, middle, right = st.columns(3)
    fields["repeats"] = left.number_input(
        "Timed answers", 2, value=defaults.repeats, key="run_repeats", help=HELP["repeats"]
    )
    runtime = middle.selectbox(
        "Runtime",
        [*RUNTIMES, *SERVERS],
        format_func=(RUNTIMES | SERVERS).__getitem__,
        key="run_runtime",
        help=HELP["runtime"],
    )
    levels = right.text_input(
        "Load levels", key="run_levels", placeholder="1, 2, 4, 8", help=HELP["levels"]
    )
    fields["concurrency"] = sorted(set(run_spec.whole_numbers(levels, LEVELS_RULE)))
    if runtime in RUNTIMES:
        return fields | {"runtime": runtime}
    arguments = st.text_input(
        "Server arguments",
        key="run_server_arguments",
        placeholder="--max-model-len 4096",
        help=HELP["server_arguments"],
    )
    return fields | {"serve": {"engine": runtime, "arguments": arguments}}


def _workload_label(workload: str | None) -> str:
    """A workload with its lengths: `Chat, 512 + 128 tokens`."""
    if workload is None:
        return "Custom"
    prompt_tokens, output_tokens = WORKLOADS[workload]
    return f"{workload.capitalize()}, {prompt_tokens} + {output_tokens} tokens"


def _tokens(column: DeltaGenerator, label: str, minimum: int, default: int, name: str) -> int:
    return column.number_input(
        f"{label} tokens", minimum, value=default, key=f"run_{name}", help=HELP[f"{name}_tokens"]
    )
