"""The order form's part on endpoints: whether their model is tested, how, and for what money."""

import tempfile
from pathlib import Path
from typing import Any

import streamlit as st

from explorer import cli_subprocess
from explorer.catalogue import api_prices
from explorer.errors import UnknownTask
from explorer.models import endpoint
from explorer.pages.shared import glossary, text_format, widgets
from explorer.specs import ApiSpec, RunSpec
from explorer.tasks import index

HELP = glossary.TERMS
COST_TIMEOUT_S = 600
"""Data may have to be fetched first."""
COST_KEPT_S = 600


def wanted() -> bool:
    """Whether the model is to be tested: it costs tokens, so only on request."""
    return st.toggle("Test it as well", key="run_api", help=HELP["api_test"])


def ask(root: Path, teacher: str, tasks: list[str]) -> dict[str, Any]:
    """Fields of the spec's capability part that only an endpoint has.

    Args:
        root: The store, for the user's own prices.
        teacher: The endpoint's name.
        tasks: That are to be asked.

    Raises:
        BadInput: It is none.
    """
    where, plain = endpoint.parse_endpoint(teacher), ApiSpec()
    one, two, three = st.columns(3)
    found: dict[str, Any] = {
        "num_concurrent": one.number_input(
            "Requests at once",
            1,
            value=plain.num_concurrent,
            key="run_api_at_once",
            help=HELP["api_at_once"],
        ),
        "max_usd": two.number_input(
            "At most, in $",
            0.01,
            value=None,
            key="run_api_usd",
            placeholder="no limit",
            help=HELP["api_usd"],
        ),
        "key_variable": three.text_input(
            "Variable with the key",
            key="run_api_key",
            placeholder="as usual",
            help=HELP["api_key"],
        ).strip()
        or None,
    }
    if where.is_chat:
        _only_written(tasks)
    else:
        found["tokenizer"] = (
            st.text_input("Tokenizer", key="run_api_tokenizer", help=HELP["api_tokenizer"]).strip()
            or None
        )
    price = widgets.attempt(lambda: api_prices.of_endpoint(root, where.url, where.model))
    if price is not None:
        st.caption(
            text_format.md(
                f"API price: ${price.input_usd_per_mtok:g} per million input tokens, "
                f"${price.output_usd_per_mtok:g} per million output tokens ({price.in_words()})."
            )
        )
    return {"api": found, "apply_chat_template": where.is_chat}


def cost(spec: RunSpec, root: Path) -> None:
    """What the run's tasks will take in tokens and dollars, when somebody asks for it."""
    if st.button(
        "Estimate the cost", key="run_api_cost", icon=":material/payments:", help=HELP["api_cost"]
    ):
        st.session_state["run_api_costed"] = spec.run_id
    # What was estimated is of one order: another one has to be asked for again.
    if st.session_state.get("run_api_costed") != spec.run_id:
        return
    with st.spinner("Making the prompts and counting their tokens…"):
        said = widgets.attempt(lambda: _cost(spec.to_yaml(), str(root)))
    if said is not None:
        st.markdown(text_format.md(said))


@st.cache_data(show_spinner=False, ttl=COST_KEPT_S, max_entries=50)
def _cost(order: str, root: str) -> str:
    """The sentence of `explorer run --dry-run`, which makes every prompt and asks nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "order.yaml"
        path.write_text(order, encoding="utf-8")
        command = ["run", str(path), "--dry-run", "--results", root]
        said = cli_subprocess.output(command, "The prompts", timeout_s=COST_TIMEOUT_S)
    # The command breaks its lines for a terminal; what students take of this machine is the
    # preview's.
    told, end, _ = " ".join(said.split()).partition("Nothing was asked.")
    return told + end


def _only_written(tasks: list[str]) -> None:
    """Say what a chat can be asked, and which of these tasks it cannot."""
    said = "A chat is asked tasks in which the model writes (gsm8k, ifeval)"
    # The stamp reads names of files; the list itself is read once for each.
    scored = [name for name in tasks if _is_scored(name, index.stamp())]
    if not scored:
        st.caption(f"{said}.")
        return
    st.warning(
        text_format.md(
            f"{said}. These score given answers, for which it gives no log-probabilities, and will "
            f"be refused: {', '.join(scored)}. Choose others, or an endpoint of plain completions."
        ),
        icon=":material/block:",
    )


@st.cache_data(show_spinner=False, max_entries=200)
def _is_scored(name: str, stamp: str) -> bool:
    """Whether a name means a task of given answers, as far as the list is there to tell.

    The stamp is only part of the key.
    """
    known = index.read()
    if known is None:
        return False
    try:
        leaves = known.leaves(name)
    except UnknownTask:
        return False
    return any(leaf.output_type not in (None, "generate_until") for leaf in leaves)
