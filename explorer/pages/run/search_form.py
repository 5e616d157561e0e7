"""The Run page's tournament form: widgets in, variants of one of the order's runs out."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from explorer.errors import BadInput, ExplorerError
from explorer.pages.run import form
from explorer.pages.shared import glossary, submitting, text_format
from explorer.search import queued as tunes
from explorer.specs import DistillSpec, RunSpec, TuneSpec

HELP = glossary.TERMS
SETTINGS = {
    "learning_rate": "Learning rate",
    "loss": "Compared by",
    "choice": "Which layers stay",
    "kd_weight": "Weight of distillation",
    "method": "The teacher gives",
    "hidden_weight": "Weight of hidden states",
    "on_policy_fraction": "Share that the student writes",
    "blocks_per_step": "Blocks per step",
    "warmup_fraction": "Share of warm-up",
    "train_embeddings": "Train the embedding",
    "train_layers": "Layers trained",
}
NAMED: dict[str, Mapping[Any, str]] = {
    "loss": form.LOSSES,
    "choice": form.CHOICES,
    "method": form.METHODS,
    "train_layers": form.TRAINED,
    "train_embeddings": {True: "Yes", False: "No"},
}
"""Settings whose values have names to choose from; the others' are typed."""


def ask(specs: list[RunSpec], root: Path) -> None:
    """Which settings of the order to try with which values, what that takes, and the start."""
    taught = [one for one in specs if one.student and one.distill and not one.gguf]
    if not taught:
        return
    with st.expander("Try variants of it first, in a tournament"):
        st.caption(HELP["tune"])
        try:
            spec = _asked(taught)
            if spec is None:
                return
            st.caption(text_format.md(_takes(spec)))
        except ExplorerError as error:
            st.error(text_format.md(str(error)), icon=":material/error:")
            return
        text = spec.to_yaml()
        left, right = st.columns(2)
        if left.button(
            "Start the tournament",
            key="tune_start",
            icon=":material/trophy:",
            width="stretch",
            disabled=submitting.is_running(root, submitting.TOURNAMENT),
        ):
            submitting.begin(
                root,
                submitting.TOURNAMENT,
                f"the tournament {spec.name}",
                lambda on_progress: tunes.submit(spec, root, on_progress),
            )
            st.rerun()
        right.download_button(
            "Download as YAML",
            lambda: text,
            f"{spec.name}.yaml",
            "application/yaml",
            key="tune_download",
            on_click="ignore",
            width="stretch",
            help=f"In a shell: explorer tune {spec.name}.yaml --queue",
        )


def _asked(taught: list[RunSpec]) -> TuneSpec | None:
    """The tournament that the widgets hold; None before there is a variant.

    Raises:
        BadInput: A value cannot be.
    """
    one, two, three, four = st.columns([3, 2, 1, 1])
    named = {spec.name: spec for spec in taught}
    run = named[one.selectbox("Run to improve", list(named), key="tune_run", help=HELP["tune_run"])]
    assert run.distill is not None, "only taught runs are offered"
    budget = two.number_input(
        "Tokens of the last round",
        256,
        value=run.distill.max_tokens,
        step=10_000,
        key=f"tune_tokens_{run.distill.max_tokens}",
        help=HELP["max_tokens"],
    )
    rounds = three.number_input("Rounds", 1, 10, 3, key="tune_rounds", help=HELP["tune_rounds"])
    keep = four.number_input("Keep 1 in", 2, 10, 2, key="tune_keep", help=HELP["tune_keep"])
    settings = st.multiselect(
        "Settings to vary",
        list(SETTINGS),
        default=["learning_rate"],
        format_func=lambda name: SETTINGS[name],
        key="tune_settings",
        help=HELP["tune_settings"],
    )
    together = st.checkbox("In all combinations", key="tune_together", help=HELP["tune_together"])
    variants = variants_of({name: _values(name) for name in settings}, together=together)
    if not variants:
        st.caption("Give at least one value.")
        return None
    return TuneSpec.parse(
        {
            "name": f"{run.name}-tune"[:77],
            "run": run.with_(distill=run.distill.with_(max_tokens=budget).model_dump()),
            "variants": variants,
            "rounds": rounds,
            "keep": keep,
        },
        "The tournament",
    )


def _values(name: str) -> list[Any]:
    if name in NAMED:
        return st.multiselect(
            SETTINGS[name],
            list(NAMED[name]),
            format_func=lambda value: NAMED[name][value],
            key=f"tune_{name}",
        )
    return numbers_in(
        st.text_input(
            SETTINGS[name],
            "1e-3, 3e-4" if name == "learning_rate" else "",
            key=f"tune_{name}",
            placeholder="comma-separated values",
        ),
        SETTINGS[name],
    )


def numbers_in(text: str, name: str) -> list[float]:
    """Numbers that were typed, comma-separated.

    Raises:
        BadInput: Something in it is no number.
    """
    found = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(float(word))
        except ValueError as error:
            raise BadInput(f"{name} takes comma-separated numbers, got {word!r}.") from error
    return found


def variants_of(values: Mapping[str, list[Any]], *, together: bool) -> list[dict[str, Any]]:
    """One variant a value, or one for each way to take a value of every setting."""
    given = {name: found for name, found in values.items() if found}
    if together and given:
        chosen = [dict(zip(given, one, strict=True)) for one in itertools.product(*given.values())]
    else:
        chosen = [{name: value} for name, found in given.items() for value in found]
    return [_as_changes(one) for one in chosen]


def _as_changes(one: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under the part of a run's spec that holds them."""
    changes: dict[str, Any] = {}
    for name, value in one.items():
        part = "distill" if name in DistillSpec.model_fields else "student"
        changes.setdefault(part, {})[name] = value
    return changes


def _takes(spec: TuneSpec) -> str:
    """What the tournament trains, round by round."""
    going, parts, total = len(spec.contenders()), [], 0
    for number in range(spec.rounds):
        tokens = spec.tokens_of_round(number)
        parts.append(f"{text_format.plural(going, 'training')} of {tokens:,} tokens")
        total += going * tokens
        going = spec.survivors(going)
    return f"{', then '.join(parts)}: {total:,} tokens in all."
