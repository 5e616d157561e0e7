"""The order form's part on endpoints: whether their model is tested, how, and for what money."""

from pathlib import Path
from typing import Any

import streamlit as st

from explorer.catalogue import api_prices
from explorer.models import endpoint
from explorer.pages import glossary, widgets, words
from explorer.specs import ApiSpec

HELP = glossary.TERMS


def wanted() -> bool:
    """Whether the model is to be tested: it costs tokens, so only on request."""
    return st.toggle("Test it as well", key="run_api", help=HELP["api_test"])


def ask(root: Path, teacher: str) -> dict[str, Any]:
    """Fields of the spec's capability part that only an endpoint has.

    Args:
        root: The store, for the user's own prices.
        teacher: The endpoint's name.

    Raises:
        BadInput: It is none.
    """
    where, plain = endpoint.parse(teacher), ApiSpec()
    one, two, three = st.columns(3)
    found: dict[str, Any] = {
        "num_concurrent": one.number_input(
            "Requests at once", 1, value=plain.num_concurrent, key="run_api_at_once",
            help=HELP["api_at_once"],
        ),
        "max_usd": two.number_input(
            "At most, in $", 0.01, value=None, key="run_api_usd", placeholder="no limit",
            help=HELP["api_usd"],
        ),
        "key_variable": three.text_input(
            "Variable with the key", key="run_api_key", placeholder="as usual",
            help=HELP["api_key"],
        ).strip() or None,
    }  # fmt: skip
    if where.is_chat:
        st.caption("A chat is asked tasks in which the model writes, such as gsm8k and ifeval.")
    else:
        found["tokenizer"] = (
            st.text_input("Tokenizer", key="run_api_tokenizer", help=HELP["api_tokenizer"]).strip()
            or None
        )
    price = widgets.attempt(lambda: api_prices.of_endpoint(root, where.url, where.model))
    if price is not None:
        st.caption(
            words.md(
                f"${price.input_usd_per_mtok:g} per million tokens read, "
                f"${price.output_usd_per_mtok:g} written ({price.in_words()}). What the tasks will "
                "take at most is in the log before the first request."
            )
        )
    return {"api": found, "apply_chat_template": where.is_chat}
