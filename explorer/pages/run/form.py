"""The order form: widgets in, a list of runs out.

Each part of the form gives plain data; the specs check it, so the form and a YAML file
refuse the same things with the same sentences.
"""

from pathlib import Path
from typing import Any, get_args

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from explorer import paths
from explorer.errors import BadInput
from explorer.models import sizes as model_sizes
from explorer.pages.run import endpoint_form, latency_form, run_spec
from explorer.pages.shared import glossary, text_format
from explorer.pages.shared.store_cache import Shelf
from explorer.specs import (
    CapabilitySpec,
    DistillSpec,
    LatencySpec,
    RunSpec,
    SweepSpec,
    format_count,
    outside_torch,
)
from explorer.tasks import user_config

HELP = glossary.TERMS
CORPORA = {
    "starter": "Starter corpus",
    "path": "File here",
    "upload": "Upload",
    "teacher": "Written by the teacher",
    "none": "Nothing",
}
METHODS = {
    "cached": "Its distributions, cached",
    "live": "Its distributions, live",
    "text": "Its text",
    "labels": "Not at all (control arm)",
}
LOSSES = {
    "forward_kl": "Forward KL",
    "reverse_kl": "Reverse KL",
    "jsd": "Jensen-Shannon",
    "skew_forward_kl": "Skewed forward KL",
    "skew_reverse_kl": "Skewed reverse KL",
    "adaptive_kl": "Adaptive KL",
    "total_variation": "Total variation",
}
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
    "greedy": "One by one, by the KL (slow)",
}
TRAINED = {"all": "All of them", "auto": "Those behind the first cut"}
ELSEWHERE = {
    "endpoint": "A server's model is timed as it is served, and tested if you like. The API key is "
    "read from EXPLORER_ENDPOINT_KEY on the machine that runs the job. Students that it teaches "
    "are ordered as YAML: they are made from a model of their own (docs/distill.md).",
    "llamacpp": "A GGUF file is tested and timed as it is, in llama.cpp: no students.",
}
HALVES = [3, 2]
ASKED_TASKS, ASKED_FOLDER = "test_with", "more_tasks"
"""What the Tasks page puts into this page's address."""


def ask(root: Path, shelf: Shelf) -> SweepSpec | RunSpec:
    """Show the form and return what it asks for.

    Raises:
        BadInput: Something that was typed cannot be.
    """
    head = _teacher_and_sizes(root, shelf)
    elsewhere = outside_torch(head["teacher"])
    untaught: dict[str, Any] = {"corpus": None, "control": False}
    taught = untaught if elsewhere else _corpus_and_budget()
    if elsewhere == "endpoint":
        tested = None
        if endpoint_form.wanted():
            tested = _tasks(shelf)
            tested |= endpoint_form.ask(root, head["teacher"], tested["tasks"])
    else:
        tested = _tasks(shelf)
    head["formats"] = {} if elsewhere else latency_form.formats()
    how = _details(head["kind"], taught.get("method"))
    if how.pop("as_yaml"):
        return _as_yaml()
    return _spec(head, taught, tested, how)


def _teacher_and_sizes(root: Path, shelf: Shelf) -> dict[str, Any]:
    left, right = st.columns(HALVES)
    teacher = left.selectbox(
        "Teacher",
        run_spec.teachers(root, shelf.runs),
        key="run_teacher",
        accept_new_options=True,
        help=HELP["teacher"] + " Type a hub id (org/name), a folder, gguf:FILE, llamacpp:FILE or "
        "endpoint:URL#MODEL.",
    )
    name = right.text_input("Name", "my-study", key="run_name", max_chars=60, help=HELP["name"])
    asked = {"teacher": (teacher or "").strip(), "name": name.strip(), "kind": "depth"}
    elsewhere = outside_torch(asked["teacher"])
    if elsewhere:
        st.caption(ELSEWHERE[elsewhere])
        return {**asked, "sizes": [], "start_from": None}
    asked["kind"] = st.segmented_control(
        "Students",
        list(KINDS),
        default="depth",
        required=True,
        format_func=lambda key: KINDS[key],
        key="run_kind",
        wrap=True,
        help=HELP["kind"],
    )
    return {**asked, **_sizes(root, shelf, asked["teacher"] or "starter", asked["kind"])}


def _sizes(root: Path, shelf: Shelf, teacher: str, kind: str) -> dict[str, Any]:
    """The students' sizes in the unit of their kind, and what they are cut from."""
    if kind == "checkpoint":
        models = st.multiselect(
            "Models",
            run_spec.starts(root, teacher, shelf.runs),
            key="run_models",
            accept_new_options=True,
            placeholder="org/name, a folder, gguf:FILE or run:RUN_ID",
            help=HELP["checkpoint"],
        )
        return {"sizes": models, "start_from": None}
    left, right = st.columns(HALVES)
    below = st.container()
    starts = run_spec.starts(root, teacher, shelf.runs) if kind != "fresh" else []
    start = None
    if starts:
        start = below.selectbox(
            "Cut from",
            [None, *starts],
            format_func=lambda run: run or "the teacher",
            key="run_start_from",
            help=HELP["start_from"],
        )
    # A student is smaller than what it is cut from.
    offer = _layers if kind == "depth" else _parameters
    asked = offer(left, right, shelf, start or teacher)
    try:
        for student in run_spec.students(kind, asked, "uniform", start):
            model_sizes.check_student(student, teacher, root)
    except BadInput as error:
        # Beside the field; the button, which may be out of sight, says it again.
        right.caption(f":red[{text_format.md(str(error))}]")
    return {"sizes": asked, "start_from": start}


def _layers(left: DeltaGenerator, right: DeltaGenerator, shelf: Shelf, model: str) -> list[int]:
    offered = run_spec.sizes(run_spec.layers_of(model, shelf.runs))
    chosen = left.pills(
        "Layers kept",
        offered,
        selection_mode="multi",
        default=[size for size in offered if size in (20, 10)] or offered[1:4:2] or offered,
        # Another model offers other sizes: a key of its own forgets the old choice.
        key=f"run_sizes_{'_'.join(map(str, offered))}",
        help=HELP["layers"] + " Choose none to measure only the teacher.",
    )
    typed = right.text_input(
        "Other sizes", key="run_other_sizes", placeholder="12, 8", help=HELP["layers"]
    )
    return [*chosen, *run_spec.other_sizes(typed)]


def _parameters(left: DeltaGenerator, right: DeltaGenerator, shelf: Shelf, model: str) -> list[int]:
    offered = run_spec.targets(run_spec.parameters_of(model, shelf.runs))
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
        left.caption("The teacher's size is not known yet, so type the students'.")
    typed = right.text_input(
        "Other sizes", key="run_other_targets", placeholder="60M, 45M", help=HELP["target"]
    )
    return [*chosen, *run_spec.other_targets(typed)]


def _corpus_and_budget() -> dict[str, Any]:
    left, right = st.columns(HALVES)
    source = left.segmented_control(
        "Teach with",
        list(CORPORA),
        default="starter",
        required=True,
        format_func=lambda key: CORPORA[key],
        key="run_corpus",
        wrap=True,
        help=HELP["corpus"],
    )
    budget = right.number_input(
        "Budget, in tokens",
        min_value=256,
        value=DistillSpec().max_tokens,
        step=10_000,
        key="run_max_tokens",
        disabled=source == "none",
        help=HELP["max_tokens"],
    )
    corpus: str | None = "starter"
    if source == "path":
        corpus = st.text_input(
            "Path of the corpus", key="run_path", placeholder="/data/my-text.jsonl"
        )
    if source == "upload":
        corpus = _uploaded()
    if source == "teacher":
        corpus = "teacher"
    if source == "none":
        return {"corpus": None, "control": False}
    return {"corpus": corpus, "max_tokens": budget, **_method()}


def _method() -> dict[str, Any]:
    """How the teacher teaches, and whether a control arm goes along."""
    one, two, three = st.columns([3, 2, 2], vertical_alignment="bottom")
    method = one.selectbox(
        "The teacher gives",
        list(METHODS),
        format_func=lambda key: METHODS[key],
        key="run_method",
        help=HELP["method"],
    )
    by_distributions = method in ("cached", "live")
    loss = two.selectbox(
        "Compared by",
        list(LOSSES),
        format_func=lambda key: LOSSES[key],
        key="run_loss",
        disabled=not by_distributions,
        help=HELP["loss"],
    )
    control = three.checkbox(
        "With a control arm", key="run_control", disabled=not by_distributions, help=HELP["control"]
    )
    found: dict[str, Any] = {"method": method, "control": control and by_distributions}
    if by_distributions:
        found["loss"] = loss
    if loss == "jsd" and by_distributions:
        found["beta"] = st.slider(
            "Beta of the Jensen-Shannon divergence",
            0.0,
            1.0,
            DistillSpec().beta,
            key="run_beta",
            help=HELP["beta"],
        )
    if loss in ("skew_forward_kl", "skew_reverse_kl") and by_distributions:
        found["skew"] = st.slider(
            "Skew of the KL", 0.0, 0.99, DistillSpec().skew, key="run_skew", help=HELP["skew"]
        )
    if method == "live":
        one, two, three = st.columns([3, 2, 2])
        found["on_policy_fraction"] = one.slider(
            "Share that the student writes",
            0.0,
            1.0,
            0.0,
            key="run_on_policy",
            help=HELP["on_policy"],
        )
        found["hidden_weight"] = two.number_input(
            "Weight of hidden states", 0.0, value=0.0, key="run_hidden", help=HELP["hidden"]
        )
        found["hidden_loss"] = three.selectbox(
            "Hidden states by", ["mse", "cosine"], key="run_hidden_loss", help=HELP["hidden"]
        )
    return found


def _uploaded() -> str:
    """The path under which an uploaded corpus is kept; empty before there is one."""
    upload = st.file_uploader(
        "Corpus",
        type=list(run_spec.CORPUS_TYPES),
        max_upload_size=run_spec.UPLOAD_MB,
        key="run_upload",
    )
    if upload is None:
        return ""
    folder = paths.cache_dir() / "uploads"
    return str(run_spec.save_upload(folder, upload.name, upload.getvalue()))


def _tasks(shelf: Shelf) -> dict[str, Any]:
    left, right = st.columns(HALVES)
    _say_which_folder_is_ignored()
    _take_from_the_address("run_tasks", st.query_params.get_all(ASKED_TASKS))
    asked = st.session_state.setdefault("run_tasks", ["starter"])
    tasks = left.multiselect(
        "Test with",
        list(dict.fromkeys(["starter", *asked, *shelf.scores["task"].unique()])),
        key="run_tasks",
        accept_new_options=True,
        help=HELP["tasks"],
    )
    limit = right.number_input(
        "Documents per task",
        min_value=1,
        value=None,
        key="run_limit",
        placeholder="all",
        help=HELP["limit"],
    )
    return {"tasks": tasks, "limit": limit}


def _say_which_folder_is_ignored() -> None:
    name = st.query_params.get(ASKED_FOLDER, "")
    if name and name not in user_config.task_folders():
        st.warning(
            text_format.md(
                f"The address asks for the task folder {name!r:.80}, which task_folders in "
                f"{paths.config_file()} does not list. It was not read."
            ),
            icon=":material/shield:",
        )


def _take_from_the_address(key: str, asked: list[str] | str) -> None:
    """Let the address fill a widget, once: what is changed by hand afterwards stays."""
    if asked and st.session_state.get(f"{key}_asked") != asked:
        st.session_state[key] = st.session_state[f"{key}_asked"] = asked


def _task_folder() -> str:
    """A folder that the server's configuration lists, or a path that a person types here.

    The address can choose a listed folder by its name, and nothing else.
    """
    folders = user_config.task_folders()
    name = st.query_params.get(ASKED_FOLDER, "")
    if name in folders:
        _take_from_the_address("run_include_path", name)
    chosen = st.selectbox(
        "Folder with more tasks",
        list(folders),
        index=None,
        key="run_include_path",
        accept_new_options=True,
        placeholder="None",
        help=HELP["include_path"],
    )
    return str(folders.get(chosen or "", chosen or ""))


def _details(kind: str, method: str | None) -> dict[str, Any]:
    with st.expander("Layers, learning, timing, device"):
        one, two, three = st.columns(3)
        found: dict[str, Any] = {
            "choice": one.selectbox(
                "Which layers stay",
                list(CHOICES),
                format_func=lambda key: CHOICES[key],
                key="run_choice",
                disabled=kind not in {"depth", "both"},
                help=HELP["layer_choice"],
            ),
            "kd_weight": two.slider(
                "Weight of distillation",
                0.0,
                1.0,
                DistillSpec().kd_weight,
                key="run_kd_weight",
                help=HELP["kd_weight"],
            ),
            "temperature": three.number_input(
                "Temperature",
                0.1,
                20.0,
                DistillSpec().temperature,
                key="run_temperature",
                help=HELP["temperature"],
            ),
        }
        one, two, three = st.columns(3)
        found["learning_rate"] = one.number_input(
            "Learning rate",
            min_value=1e-6,
            max_value=0.1,
            value=DistillSpec().learning_rate,
            format="%.1e",
            key="run_learning_rate",
            help=HELP["learning_rate"],
        )
        found["seed"] = two.number_input("Seed", 0, value=0, key="run_seed", help=HELP["seed"])
        found["device"] = three.selectbox(
            "Device", ["auto", "cpu", "cuda"], key="run_device", help=HELP["run_device"]
        )
        one, two, three = st.columns(3)
        found["teacher_bits"] = one.selectbox(
            "Teacher rounded to",
            [None, *latency_form.BITS],
            format_func=lambda key: latency_form.BITS.get(key, "nothing"),
            key="run_teacher_bits",
            help=HELP["teacher_bits"],
        )
        found["precision"] = two.selectbox(
            "Precision",
            get_args(DistillSpec.model_fields["precision"].annotation),
            key="run_precision",
            help=HELP["precision"],
        )
        drawn = three.number_input(
            "Tokens drawn",
            min_value=1,
            value=None,
            step=1_024,
            key="run_vocab_sample",
            placeholder="all",
            disabled=method != "cached",
            help=HELP["vocab_sample"],
        )
        found["vocab_sample"] = drawn if method == "cached" else None
        trained = st.segmented_control(
            "Layers trained",
            list(TRAINED),
            default=DistillSpec().train_layers,
            format_func=lambda key: TRAINED[key],
            required=True,
            key="run_train_layers",
            disabled=kind != "depth",
            help=HELP["train_layers"],
        )
        found["train_layers"] = trained if kind == "depth" else "all"
        found["timing"] = latency_form.ask()
        found["include_path"] = _task_folder()
        found["as_yaml"] = st.toggle(
            "Edit the order as YAML instead", key="run_as_yaml", help=HELP["yaml"]
        )
    return found


def _as_yaml() -> SweepSpec | RunSpec:
    """The order as its author edits it; the form's last order is where it starts."""
    text = st.text_area(
        "Order", st.session_state.get("run_last_yaml", ""), height=420, key="run_yaml"
    )
    return run_spec.from_yaml(text)


def _spec(
    head: dict[str, Any],
    taught: dict[str, Any],
    tested: dict[str, Any] | None,
    how: dict[str, Any],
) -> SweepSpec | RunSpec:
    """One typed value of all that the form holds."""
    students = run_spec.students(head["kind"], head["sizes"], how["choice"], head["start_from"])
    shared: dict[str, Any] = {
        "teacher": head["teacher"],
        "name": head["name"],
        "device": how["device"],
        "capability": tested
        and CapabilitySpec.parse(
            {**tested, "seed": how["seed"], "include_path": how["include_path"].strip() or None},
            "Test with",
        ),
        "latency": LatencySpec.parse(how["timing"], "Timing"),
    }
    if not head["teacher"]:
        raise BadInput("Name a teacher: starter, a hub id (org/name), a folder or gguf:FILE.")
    if outside_torch(head["teacher"]):
        return RunSpec.parse(shared, "The order")
    if not students and not any(head["formats"].values()):
        # The same run that any student's order would start: measured once, used by all.
        any_student = RunSpec.parse({**shared, "student": {"num_layers": 1}}, "The order")
        teacher = any_student.teacher_run()
        assert teacher is not None, "a run with a student has a teacher's run"
        return teacher
    distill = None
    control = taught.pop("control")
    if taught["corpus"] is not None:
        run_spec.check_corpus(taught["corpus"])
        asked = (
            "kd_weight",
            "temperature",
            "learning_rate",
            "seed",
            "teacher_bits",
            "precision",
            "vocab_sample",
            "train_layers",
        )
        learning = {key: how[key] for key in asked}
        if head["kind"] == "fresh":
            # Random weights include the embedding, which must not stay so.
            learning["train_embeddings"] = True
        distill = DistillSpec.parse({**taught, **learning}, "Teach with")
    return SweepSpec.parse(
        {
            **shared,
            "students": students,
            "distill": distill,
            "control": control,
            **head["formats"],
        },
        "The order",
    )


def shown(asked: SweepSpec | RunSpec) -> None:
    """The order as YAML, to read and to take away."""
    text = asked.to_yaml()
    if not st.session_state.get("run_as_yaml"):
        st.session_state["run_last_yaml"] = text
    with st.expander("The order as YAML"):
        st.code(text, language="yaml", height=320)
        st.download_button(
            "Download",
            lambda: text,
            f"{asked.name}.yaml",
            "application/yaml",
            key="run_download",
            on_click="ignore",
            help=HELP["yaml"],
        )
