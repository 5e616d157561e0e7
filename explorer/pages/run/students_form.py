"""The teacher and the students: what they are, how large, and what they are cut from."""

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from explorer.errors import BadInput
from explorer.index import Snapshot
from explorer.models import size_limits
from explorer.pages.run import run_spec
from explorer.pages.shared import glossary, text_format
from explorer.specs import format_count, outside_torch

HELP = glossary.TERMS
KINDS = {
    "depth": "Fewer layers",
    "width": "Narrower",
    "both": "Both",
    "checkpoint": "Existing model",
    "fresh": "From scratch",
}
CHOICES = {
    "block_influence": "By importance",
    "uniform": "Evenly",
    "greedy": "Greedily, by KL (slow)",
}
OUTSIDE_TORCH_NOTES = {
    "endpoint": "The server's model is timed as it is served, and evaluated if you like. The API "
    "key is read from the variable that its host may have (explorer keys) on the machine that runs "
    "the job. To train students from this teacher, edit the study as YAML: they start from another "
    "model (docs/distill.md).",
    "llamacpp": "A GGUF file is evaluated and timed in llama.cpp. Students cannot be "
    "trained from it.",
}
COLUMN_WIDTHS = [3, 2]


def teacher_and_name(root: Path, snapshot: Snapshot) -> dict[str, Any]:
    """Ask for `teacher` and `name`."""
    left, right = st.columns(COLUMN_WIDTHS)
    teacher = left.selectbox(
        "Teacher",
        run_spec.teachers(root, snapshot.runs),
        key="run_teacher",
        accept_new_options=True,
        help=HELP["teacher"] + " Type a hub id (org/name), a folder, gguf:FILE, llamacpp:FILE or "
        "endpoint:URL#MODEL.",
    )
    name = right.text_input("Name", "my-study", key="run_name", max_chars=60, help=HELP["name"])
    return {"teacher": (teacher or "").strip(), "name": name.strip()}


def students(root: Path, snapshot: Snapshot, teacher: str) -> dict[str, Any]:
    """Ask for the students.

    Returns:
        `kind`, `sizes` in the kind's unit, and `start_from`.
    """
    outside = outside_torch(teacher)
    if outside:
        st.caption(OUTSIDE_TORCH_NOTES[outside])
        return {"kind": "depth", "sizes": [], "start_from": None}
    kind = st.segmented_control(
        "Students",
        list(KINDS),
        default="depth",
        required=True,
        format_func=lambda key: KINDS[key],
        key="run_kind",
        wrap=True,
        help=HELP["kind"],
    )
    return {"kind": kind, **_sizes(root, snapshot, teacher or "starter", kind)}


def _sizes(root: Path, snapshot: Snapshot, teacher: str, kind: str) -> dict[str, Any]:
    """The students' sizes in the unit of their kind, and the model to cut them from."""
    if kind == "checkpoint":
        models = st.multiselect(
            "Models",
            run_spec.starts(root, teacher, snapshot.runs),
            key="run_models",
            accept_new_options=True,
            placeholder="org/name, a folder, gguf:FILE or run:RUN_ID",
            help=HELP["checkpoint"],
        )
        return {"sizes": models, "start_from": None}
    left, right = st.columns(COLUMN_WIDTHS)
    below = st.container()
    starts = run_spec.starts(root, teacher, snapshot.runs) if kind != "fresh" else []
    start = None
    if starts:
        start = below.selectbox(
            "Cut from",
            [None, *starts],
            format_func=lambda run: run or "the teacher",
            key="run_start_from",
            help=HELP["start_from"],
        )
    # A student is smaller than the model it is cut from.
    widgets_for_sizes = _layers if kind == "depth" else _parameters
    sizes = widgets_for_sizes(left, right, snapshot.runs, start or teacher)
    try:
        for student in run_spec.students(kind, sizes, "uniform", start):
            size_limits.check_student(student, teacher, root)
    except BadInput as error:
        # Beside the field. The Start button, which may be off screen, shows it too.
        right.caption(f":red[{text_format.md(str(error))}]")
    return {"sizes": sizes, "start_from": start}


def _layers(
    left: DeltaGenerator, right: DeltaGenerator, runs: pd.DataFrame, model: str
) -> list[int]:
    offered = run_spec.sizes(run_spec.layers_of(model, runs))
    chosen = left.pills(
        "Layers kept",
        offered,
        selection_mode="multi",
        # The smaller ones lose more than half at once, which goes better in two steps.
        default=offered[:2],
        # Another model offers other sizes; its own key drops the old selection.
        key=f"run_sizes_{'_'.join(map(str, offered))}",
        help=HELP["layers"] + " Choose none to measure only the teacher.",
    )
    typed = right.text_input(
        "Other sizes", key="run_other_sizes", placeholder="12, 8", help=HELP["layers"]
    )
    return [*chosen, *run_spec.other_sizes(typed)]


def _parameters(
    left: DeltaGenerator, right: DeltaGenerator, runs: pd.DataFrame, model: str
) -> list[int]:
    offered = run_spec.targets(run_spec.parameters_of(model, runs))
    chosen = []
    if offered:
        chosen = left.pills(
            "Parameters",
            offered,
            selection_mode="multi",
            default=offered[1:4:2],
            format_func=format_count,
            key=f"run_targets_{'_'.join(map(str, offered))}",
            help=HELP["target"],
        )
    else:
        left.caption("The teacher's size is not known yet: type the students' sizes.")
    typed = right.text_input(
        "Other sizes", key="run_other_targets", placeholder="60M, 45M", help=HELP["target"]
    )
    return [*chosen, *run_spec.other_targets(typed)]
