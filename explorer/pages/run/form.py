"""The study form: widgets in, a spec out.

Each part of the form returns plain fields. The specs validate them, so the form and a YAML file
refuse the same input with the same message.
"""

from pathlib import Path
from typing import Any

import streamlit as st

from explorer.errors import BadInput
from explorer.index import Snapshot
from explorer.pages.run import (
    endpoint_form,
    evaluation_form,
    form_defaults,
    latency_form,
    run_spec,
    students_form,
    training_form,
    yaml_form,
)
from explorer.pages.shared import glossary
from explorer.specs import (
    CapabilitySpec,
    DistillSpec,
    LatencySpec,
    RunSpec,
    SweepSpec,
    outside_torch,
)

HELP = glossary.TERMS
DISTILL_DETAILS = (
    "kd_weight",
    "temperature",
    "learning_rate",
    "seed",
    "teacher_bits",
    "precision",
    "vocab_sample",
    "train_layers",
    "prefetch",
    "compile",
)


def study_form(root: Path, snapshot: Snapshot) -> SweepSpec | RunSpec:
    """Show the form and return the study that it describes.

    Raises:
        BadInput: The form does not describe a valid study.
    """
    usual = form_defaults.usual_order(root, snapshot)
    _step(1, "Model")
    head = students_form.teacher_and_name(root, snapshot)
    outside = outside_torch(head["teacher"])
    if not outside:
        _step(2, "Sizes")
    head |= students_form.students(root, snapshot, head["teacher"])
    formats: dict[str, list[Any]] = {}
    if not outside:
        _step(3, "Formats")
        formats = latency_form.formats(usual)
    _step(4 if not outside else 2, "Tests")
    evaluation: dict[str, Any] | None = None
    if outside != "endpoint":
        evaluation = evaluation_form.tasks_and_limit(snapshot)
    elif endpoint_form.evaluation_wanted():
        evaluation = evaluation_form.tasks_and_limit(snapshot)
        evaluation |= endpoint_form.endpoint_fields(root, head["teacher"], evaluation["tasks"])
    as_yaml = bool(st.session_state.get("run_as_yaml"))
    with st.expander("Layers, training, timing, device", expanded=as_yaml):
        training = (
            dict(training_form.NO_TRAINING)
            if outside
            else training_form.corpus_and_signal(usual.distill)
        )
        details = training_form.training_details(head["kind"], training.get("method"), usual)
        timing = latency_form.timing()
        include_path = evaluation_form.task_folder()
        as_yaml = st.toggle("Edit as YAML instead", key="run_as_yaml", help=HELP["yaml"])
    if as_yaml:
        return yaml_form.edited_yaml()
    shared: dict[str, Any] = {
        "teacher": head["teacher"],
        "name": head["name"],
        "device": details["device"],
        "num_devices": details["num_devices"],
        "capability": evaluation
        and CapabilitySpec.parse(
            {**evaluation, "seed": details["seed"], "include_path": include_path.strip() or None},
            "Evaluate on",
        ),
        "latency": LatencySpec.parse(timing, "Timing"),
    }
    return _study(head, training, details, formats, shared)


def _step(number: int, title: str) -> None:
    st.html(f'<p class="step"><b>{number}</b> {title}</p>')


def _study(
    head: dict[str, Any],
    training: dict[str, Any],
    details: dict[str, Any],
    formats: dict[str, list[Any]],
    shared: dict[str, Any],
) -> SweepSpec | RunSpec:
    """The spec of everything in the form."""
    students = run_spec.students(
        head["kind"],
        head["sizes"],
        details["choice"],
        head["start_from"],
        sample_blocks=details["sample_blocks"],
    )
    if not head["teacher"]:
        raise BadInput("Name a teacher: starter, a hub id (org/name), a folder or gguf:FILE.")
    if outside_torch(head["teacher"]):
        return RunSpec.parse(shared, "The study")
    if not students and not any(formats.values()):
        # The run that every student of this study would need: measured once, used by all.
        any_student = RunSpec.parse({**shared, "student": {"num_layers": 1}}, "The study")
        teacher = any_student.teacher_run()
        assert teacher is not None, "a run with a student has a teacher's run"
        return teacher
    distill = None
    control = training.pop("control")
    if training["corpus"] is not None:
        fields = {**training, **{key: details[key] for key in DISTILL_DETAILS}}
        if head["kind"] == "fresh":
            # Random weights include the embedding, which has to be trained.
            fields["train_embeddings"] = True
        distill = DistillSpec.parse(fields, "Train on")
    return SweepSpec.parse(
        {**shared, "students": students, "distill": distill, "control": control, **formats},
        "The study",
    )
