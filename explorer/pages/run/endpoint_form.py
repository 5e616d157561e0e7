"""The form's fields for an endpoint: whether to evaluate it, how, and at what cost."""

import tempfile
from pathlib import Path
from typing import Any

import streamlit as st

from explorer.catalogue import api_prices
from explorer.errors import UnknownTask
from explorer.models import endpoint
from explorer.pages.shared import glossary, text_format, widgets
from explorer.processes import cli_subprocess
from explorer.specs import ApiSpec, RunSpec
from explorer.tasks import index

HELP = glossary.TERMS
COST_TIMEOUT_S = 600
"""Long enough to download the tasks' data first."""
COST_TTL_S = 600


def evaluation_wanted() -> bool:
    """Whether to evaluate the model; off by default, because it costs tokens."""
    return st.toggle("Evaluate it too", key="run_api", help=HELP["api_test"])


def endpoint_fields(root: Path, teacher: str, tasks: list[str]) -> dict[str, Any]:
    """Ask for the fields of the spec's capability part that only an endpoint has.

    Args:
        root: The store, for the user's own prices.
        teacher: The endpoint's name.
        tasks: The tasks to evaluate.

    Raises:
        BadInput: `teacher` is not a valid endpoint name.
    """
    address, defaults = endpoint.parse_endpoint(teacher), ApiSpec()
    left, middle, right = st.columns(3)
    fields: dict[str, Any] = {
        "num_concurrent": left.number_input(
            "Concurrent requests",
            1,
            value=defaults.num_concurrent,
            key="run_api_at_once",
            help=HELP["api_at_once"],
        ),
        "max_usd": middle.number_input(
            "Spend at most ($)",
            0.01,
            value=None,
            key="run_api_usd",
            placeholder="no limit",
            help=HELP["api_usd"],
        ),
        "key_variable": right.text_input(
            "API key variable",
            key="run_api_key",
            placeholder="default",
            help=HELP["api_key"],
        ).strip()
        or None,
    }
    if address.is_chat:
        _warn_of_scored_tasks(tasks)
    else:
        fields["tokenizer"] = (
            st.text_input("Tokenizer", key="run_api_tokenizer", help=HELP["api_tokenizer"]).strip()
            or None
        )
    price = widgets.attempt(lambda: api_prices.endpoint_price(root, address.url, address.model))
    if price is not None:
        st.caption(
            text_format.md(
                f"API price: ${price.input_usd_per_mtok:g} per million input tokens, "
                f"${price.output_usd_per_mtok:g} per million output tokens ({price.in_words()})."
            )
        )
    return {"api": fields, "apply_chat_template": address.is_chat}


def cost_estimate(spec: RunSpec, root: Path) -> None:
    """A button that estimates the run's requests, tokens and dollars, and the estimate."""
    if st.button(
        "Estimate the cost", key="run_api_cost", icon=":material/payments:", help=HELP["api_cost"]
    ):
        st.session_state["run_api_costed"] = spec.run_id
    # The estimate holds for one spec; another spec needs another press.
    if st.session_state.get("run_api_costed") != spec.run_id:
        return
    with st.spinner("Building the prompts and counting their tokens…"):
        estimate = widgets.attempt(lambda: _dry_run(spec.to_yaml(), str(root)))
    if estimate is not None:
        st.markdown(text_format.md(estimate))


@st.cache_data(show_spinner=False, ttl=COST_TTL_S, max_entries=50)
def _dry_run(spec: str, root: str) -> str:
    """The output of `explorer run --dry-run`, which builds every prompt and sends none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(spec, encoding="utf-8")
        command = ["run", str(path), "--dry-run", "--unchecked", "--results", root]
        output = cli_subprocess.output(command, "The prompts", timeout_s=COST_TIMEOUT_S)
    # The command wraps its lines. What follows, the time on this machine, is in the preview.
    cost, end, _ = " ".join(output.split()).partition("Nothing was evaluated.")
    return cost + end


def _warn_of_scored_tasks(tasks: list[str]) -> None:
    """Say which tasks a chat endpoint can run, and which of these it can't."""
    rule = "A chat endpoint runs tasks with generated answers (gsm8k, ifeval)"
    # The stamp changes with the list, so that each name is looked up once per list.
    scored = [name for name in tasks if _is_scored(name, index.index_stamp())]
    if not scored:
        st.caption(f"{rule}.")
        return
    st.warning(
        text_format.md(
            f"{rule}. These score given answers and will be refused, because it returns no "
            f"log-probabilities for them: {', '.join(scored)}. Choose others, or a completions "
            "endpoint."
        ),
        icon=":material/block:",
    )


@st.cache_data(show_spinner=False, max_entries=200)
def _is_scored(name: str, stamp: str) -> bool:
    """Whether a task or group scores given answers; False if the task list is not cached.

    `stamp` only makes the cache key change with the list.
    """
    task_index = index.read_cached()
    if task_index is None:
        return False
    try:
        leaves = task_index.leaves(name)
    except UnknownTask:
        return False
    return any(leaf.output_type not in (None, "generate_until") for leaf in leaves)
