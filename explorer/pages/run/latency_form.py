"""The order form's part on runtimes: what else models are measured as, and how they are timed."""

from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from explorer.pages.run import run_spec
from explorer.pages.shared import glossary
from explorer.specs import WORKLOADS, LatencySpec

HELP = glossary.TERMS
FORMATS = {"q8_0": "Q8_0", "q4_k_m": "Q4_K_M", "f16": "F16"}
BITS = {8: "8 bits", 4: "4 bits"}
WANTED = "Levels of load are whole numbers, as in 1, 2, 4"
RUNTIMES = {"eager": "transformers", "compiled": "transformers, compiled"}


def formats() -> dict[str, list[Any]]:
    """Number formats in which every model of the order is measured as well, by the spec's keys."""
    left, right = st.columns([3, 2])
    return {
        "gguf": _several(left, "Also as GGUF", FORMATS, "gguf"),
        "torch_bits": _several(right, "Also rounded in torch", BITS, "torch_bits"),
    }


def _several(where: Any, label: str, names: dict[Any, str], field: str) -> list[Any]:
    chosen: list[Any] = where.pills(
        label,
        list(names),
        selection_mode="multi",
        format_func=names.__getitem__,
        key=f"run_{field}",
        help=HELP[field],
    )
    return chosen


def ask() -> dict[str, Any]:
    """Fields of the spec's latency part.

    Raises:
        BadInput: The levels of load are no whole numbers.
    """
    plain = LatencySpec()
    one, two, three = st.columns(3)
    workload = one.selectbox(
        "Requests",
        [None, *WORKLOADS],
        format_func=_shape,
        key="run_workload",
        help=HELP["workload"],
    )
    found: dict[str, Any] = {"workload": workload}
    if workload is None:
        found["prompt_tokens"] = _tokens(two, "Prompt", 1, plain.prompt_tokens, "prompt")
        found["output_tokens"] = _tokens(three, "Answer", 2, plain.output_tokens, "output")
    one, two, three = st.columns(3)
    found["repeats"] = one.number_input(
        "Timed answers", 2, value=plain.repeats, key="run_repeats", help=HELP["repeats"]
    )
    found["runtime"] = two.selectbox(
        "Runtime",
        list(RUNTIMES),
        format_func=lambda key: RUNTIMES[key],
        key="run_runtime",
        help=HELP["runtime"],
    )
    levels = three.text_input(
        "Levels of load", key="run_levels", placeholder="1, 2, 4, 8", help=HELP["levels"]
    )
    found["concurrency"] = sorted(set(run_spec.whole_numbers(levels, WANTED)))
    return found


def _shape(workload: str | None) -> str:
    """`Chat, 512 + 128 tokens`."""
    if workload is None:
        return "Own lengths"
    prompt_tokens, output_tokens = WORKLOADS[workload]
    return f"{workload.capitalize()}, {prompt_tokens} + {output_tokens} tokens"


def _tokens(column: DeltaGenerator, label: str, least: int, usual: int, name: str) -> int:
    return column.number_input(
        f"{label}, in tokens", least, value=usual, key=f"run_{name}", help=HELP[f"{name}_tokens"]
    )
