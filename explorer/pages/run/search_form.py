"""The tournament form: widgets in, variants of one of the study's runs out."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from explorer.errors import BadInput, ExplorerError
from explorer.jobs.queue import OnProgress
from explorer.pages.run import students_form, training_form
from explorer.pages.shared import findings, glossary, submitting, text_format
from explorer.search import queued
from explorer.specs import DistillSpec, RunSpec, TuneSpec

HELP = glossary.TERMS
SETTINGS = {
    "learning_rate": "Learning rate",
    "loss": "Loss",
    "choice": "Layer selection",
    "kd_weight": "Distillation weight",
    "method": "Teacher signal",
    "hidden_weight": "Hidden-state weight",
    "on_policy_fraction": "On-policy share",
    "blocks_per_step": "Blocks per step",
    "warmup_fraction": "Warm-up share",
    "train_embeddings": "Train embeddings",
    "train_layers": "Layers trained",
}
NAMED_VALUES: dict[str, Mapping[Any, str]] = {
    "loss": training_form.LOSSES,
    "choice": students_form.CHOICES,
    "method": training_form.METHODS,
    "train_layers": training_form.TRAINED,
    "train_embeddings": {True: "Yes", False: "No"},
}
"""Settings whose values are chosen from a list; values of the others are typed."""


def tournament_form(specs: list[RunSpec], root: Path) -> None:
    """Ask which settings to vary with which values, say what that takes, and start it."""
    trained = [spec for spec in specs if spec.student and spec.distill and not spec.gguf]
    if not trained:
        return
    with st.expander("Find better training settings first, in a tournament"):
        st.caption(HELP["tune"])
        try:
            spec = _tune_spec(trained)
            if spec is None:
                return
            st.caption(text_format.md(_rounds(spec)))
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
                lambda on_progress: _checked_submit(spec, root, on_progress),
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


def _checked_submit(spec: TuneSpec, root: Path, on_progress: OnProgress) -> None:
    on_progress(submitting.CHECKING, 0, 0)
    findings.refuse(spec.last_round(), root)
    queued.submit(spec, root, on_progress)


def _tune_spec(trained: list[RunSpec]) -> TuneSpec | None:
    """The tournament that the widgets describe; None before there is a variant.

    Raises:
        BadInput: A value is invalid.
    """
    columns = st.columns([3, 2, 1, 1])
    by_name = {spec.name: spec for spec in trained}
    run = by_name[
        columns[0].selectbox("Run to improve", list(by_name), key="tune_run", help=HELP["tune_run"])
    ]
    assert run.distill is not None, "only trained runs are offered"
    budget = columns[1].number_input(
        "Tokens in the last round",
        256,
        value=run.distill.max_tokens,
        step=10_000,
        key=f"tune_tokens_{run.distill.max_tokens}",
        help=HELP["max_tokens"],
    )
    rounds = columns[2].number_input(
        "Rounds", 1, 10, 3, key="tune_rounds", help=HELP["tune_rounds"]
    )
    keep = columns[3].number_input("Keep 1 in", 2, 10, 2, key="tune_keep", help=HELP["tune_keep"])
    settings = st.multiselect(
        "Settings to vary",
        list(SETTINGS),
        default=["learning_rate"],
        format_func=lambda name: SETTINGS[name],
        key="tune_settings",
        help=HELP["tune_settings"],
    )
    together = st.checkbox("All combinations", key="tune_together", help=HELP["tune_together"])
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
    if name in NAMED_VALUES:
        return st.multiselect(
            SETTINGS[name],
            list(NAMED_VALUES[name]),
            format_func=lambda value: NAMED_VALUES[name][value],
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
    """Parse comma-separated numbers.

    Raises:
        BadInput: The text holds something else.
    """
    values = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        try:
            values.append(float(word))
        except ValueError as error:
            raise BadInput(f"{name} takes comma-separated numbers, got {word!r}.") from error
    return values


def variants_of(values: Mapping[str, list[Any]], *, together: bool) -> list[dict[str, Any]]:
    """One variant per value, or with `together` one per combination of values."""
    varied = {name: options for name, options in values.items() if options}
    if together and varied:
        combinations = itertools.product(*varied.values())
        variants = [dict(zip(varied, combination, strict=True)) for combination in combinations]
    else:
        variants = [{name: value} for name, options in varied.items() for value in options]
    return [_as_changes(variant) for variant in variants]


def _as_changes(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, nested under the part of a run's spec that holds them."""
    changes: dict[str, Any] = {}
    for name, value in settings.items():
        part = "distill" if name in DistillSpec.model_fields else "student"
        changes.setdefault(part, {})[name] = value
    return changes


def _rounds(spec: TuneSpec) -> str:
    """How much the tournament trains, round by round."""
    contenders, parts, total = len(spec.contenders()), [], 0
    for number in range(spec.rounds):
        tokens = spec.tokens_of_round(number)
        parts.append(f"{text_format.plural(contenders, 'training')} of {tokens:,} tokens")
        total += contenders * tokens
        contenders = spec.survivors(contenders)
    return f"{', then '.join(parts)}: {total:,} tokens in all."
