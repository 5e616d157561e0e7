"""The single checks of a run before it starts, each about one key of its spec.

A check raises an `ExplorerError`, whose message becomes an error, or yields warnings. It does what
the stage itself would do first, by the same functions, and nothing that takes the device. Checks
that are not `full` use only files on this machine and are quick.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from explorer.analysis.planning import run_memory
from explorer.catalogue import terms
from explorer.distill import corpus, distributed, synthesise
from explorer.errors import BadInput, NoRoom
from explorer.evaluate import task_plan, task_scores
from explorer.latency import timing
from explorer.latency.load_test import check_endpoint_timing
from explorer.latency.runtimes import open_runtime
from explorer.latency.runtimes.pytorch import check_compiles
from explorer.models import check, endpoint, hub, size_limits, weight_checks
from explorer.models.facts import model_without_weights
from explorer.models.gguf import convert
from explorer.models.layers import layer_list
from explorer.models.loading import load_config, load_tokenizer, locate
from explorer.pipeline import (
    corpus_stage,
    device_checks,
    endpoint_check,
    endpoint_stage,
    endpoint_teacher,
    forecast,
    served_stage,
)
from explorer.specs import (
    MAX_SHARE_PER_CUT,
    DepthStudent,
    FreshStudent,
    RunSpec,
    outside_torch,
    why_not_served,
)
from explorer.students import depth
from explorer.students.vocabulary import check_same_ids
from explorer.tasks import task_loading

INSIST = "EXPLORER_INSIST"
"""If set to 1, a run starts even if the arithmetic says that it does not fit."""

Look = Callable[[RunSpec, Path], Iterable[str] | None]


@dataclasses.dataclass(frozen=True)
class Check:
    """One check: what it looks at, and how."""

    name: str
    field: str
    """The key of the spec that its findings are about."""
    reads: tuple[str, ...]
    """The fields of the spec that decide its findings; runs that agree in them share these."""
    look: Look
    full: bool = False
    """Whether it reads whole files, takes more than a second or uses the network."""
    after: tuple[str, ...] = ()
    """Checks without whose success this one means nothing."""


def _teacher(spec: RunSpec, root: Path) -> list[str]:
    return _model(spec, spec.teacher)


def _terms(spec: RunSpec, root: Path) -> Iterator[str]:
    """Warn where the teacher's licence or its API's terms are known to restrict training."""
    if spec.student is None:
        return
    found = terms.training_terms(spec.teacher, terms.licence_of(spec.teacher, root))
    if found:
        yield found.in_words(spec.teacher)


def _start(spec: RunSpec, root: Path) -> list[str]:
    return _model(spec, spec.student.start) if spec.student and spec.student.start else []


def _model(spec: RunSpec, name: str) -> list[str]:
    """What is wrong with a model's files, if it is on this machine."""
    if name.startswith(endpoint.PREFIX):
        endpoint.parse_endpoint(name)
    return check.check_model(
        name,
        trust_remote_code=spec.trust_remote_code,
        block_tokens=spec.distill.block_tokens if spec.distill else None,
    )


def _tokenizers(spec: RunSpec, root: Path) -> None:
    """Load what a model needs before its weights, from the hub if it has to be."""
    for name in _torch_models(spec):
        load_config(name, trust_remote_code=spec.trust_remote_code)
        tokenizer = load_tokenizer(name, trust_remote_code=spec.trust_remote_code)
        capability = spec.capability
        if capability and capability.apply_chat_template and not tokenizer.chat_template:
            raise BadInput(
                f"apply_chat_template is on, but {name} has no chat template. Switch it off, or "
                "use an instruction-tuned model."
            )


def is_here(name: str) -> bool:
    """Whether a model that torch runs is on this machine; a wrong name is "here", too.

    The starter counts as elsewhere: its sizes are constants, and finding it may fetch it.
    """
    if name == "starter":
        return False
    source = locate(name)
    if source.gguf_file or Path(source.path).is_dir():
        return True
    return hub.cached_folder(source.path) is not None


def _torch_models(spec: RunSpec) -> list[str]:
    """The models of a run whose weights torch loads."""
    start = spec.student.start if spec.student else None
    outside = (endpoint.PREFIX, open_runtime.LLAMA_CPP)
    return [name for name in (spec.teacher, start) if name and not name.startswith(outside)]


def _student(spec: RunSpec, root: Path) -> None:
    """The student has a possible shape, and the training fits it."""
    student, distill = spec.student, spec.distill
    if student is None:
        return
    size_limits.check_student(student, spec.teacher, root)
    start = student.start or spec.teacher
    if isinstance(student, FreshStudent) and distill and not distill.train_embeddings:
        raise BadInput(
            "A fresh student starts with random embeddings, and they would stay random. Write "
            "distill.train_embeddings: true."
        )
    if distill and distill.compile and distributed.num_shards() > 1:
        raise BadInput(
            "distill.compile compiles a student that is whole on each device, and this launch "
            "shards it. Remove it, or launch without shards."
        )
    if is_here(start) and student.kind in ("depth", "both"):
        model = model_without_weights(start, trust_remote_code=spec.trust_remote_code)
        _, layers = layer_list(model)
        if isinstance(student, DepthStudent):
            whose = start if student.start else f"the teacher {start}"
            size_limits.check_num_layers(student.num_layers, len(layers), whose)
            if student.choice == "uniform":
                depth.check_uniform(model, student.num_layers)
    whole, planned = _sizes(spec, root)
    if whole is None or planned is None or distill is None:
        return
    if distill.hidden_weight and whole.hidden_size != planned.hidden_size:
        raise BadInput(
            f"distill.hidden_weight compares hidden states, but the student's size is "
            f"{planned.hidden_size} and the teacher's {whole.hidden_size}. Write hidden_weight: "
            "0, or take a depth student."
        )
    if distill.uses_distributions and distill.top_k >= whole.vocab_size > 0:
        raise BadInput(
            f"distill.top_k must be below the {whole.vocab_size:,} tokens of the vocabulary, so "
            f"that something is left for the tail; got {distill.top_k:,}."
        )


def _sizes(spec: RunSpec, root: Path) -> tuple[Any, Any]:
    """As `forecast.model_sizes`; nothing for models that are not on this machine."""
    if outside_torch(spec.teacher) and spec.student is None:
        return None, None
    names = [name for name in _torch_models(spec) if name != "starter"]
    if not all(is_here(name) for name in names):
        return None, None
    return forecast.model_sizes(spec, root)


def memory_bytes(spec: RunSpec, root: Path) -> float | None:
    """The memory that a run takes; None where the sizes of its models are unknown.

    Raises:
        ExplorerError: A model does not exist, or the student cannot have the size.
    """
    whole, student = _sizes(spec, root)
    if whole is None or student is None:
        return None
    machine = forecast.machine_of(spec, root)
    return sum(run_memory.memory_parts(spec, whole, student, machine).values())


def _room(spec: RunSpec, root: Path) -> None:
    """Memory and disk suffice, unless `INSIST` is set."""
    if os.environ.get(INSIST) == "1":
        return
    whole, student = _sizes(spec, root)
    if whole is None or student is None:
        return
    machine = forecast.machine_of(spec, root)
    if problem := run_memory.refusal(spec, whole, student, machine):
        raise NoRoom(f"{problem} To try anyway: explorer run --insist, or {INSIST}=1.")
    need = sum(run_memory.memory_parts(spec, whole, student, machine).values())
    if problem := device_checks.taken(spec, need):
        raise NoRoom(f"{problem} To try anyway: explorer run --insist, or {INSIST}=1.")


def _large_cut(spec: RunSpec, root: Path) -> Iterator[str]:
    """Warn of a student that loses most of its parameters in one cut."""
    if spec.student is None or spec.student.kind not in ("depth", "width", "both"):
        return
    alone = RunSpec(teacher=spec.student.start or spec.teacher, student=spec.student)
    start, planned = _sizes(alone, root)
    if start is None or 1 - planned.num_parameters / start.num_parameters <= MAX_SHARE_PER_CUT:
        return
    share = 1 - planned.num_parameters / start.num_parameters
    yield (
        f"{spec.student.label()}: this removes {share:.0%} of the parameters at once. Distil a "
        "larger student first, then cut that one (student.start_from)."
    )


def _timing(spec: RunSpec, root: Path) -> None:
    """What is to be timed can be."""
    if spec.latency is None:
        return
    if spec.teacher.startswith(endpoint.PREFIX) and spec.student is None:
        check_endpoint_timing(endpoint.parse_endpoint(spec.teacher), spec.latency)
        return
    if not spec.server:
        timing.check_load(spec.latency)
    for name in _torch_models(spec):
        if is_here(name):
            config = load_config(name, trust_remote_code=spec.trust_remote_code)
            timing.check_context(name, check.num_positions(config), spec.latency)
            if spec.latency.runtime == "compiled":
                trusted = spec.trust_remote_code
                check_compiles(name, model_without_weights(name, trust_remote_code=trusted))


def _server(spec: RunSpec, root: Path) -> Iterator[str]:
    """The server that times the model is installed, and may get its arguments."""
    if spec.latency is None or spec.latency.serve is None:
        return
    if reason := why_not_served(spec):
        if not spec.teacher.startswith(endpoint.PREFIX):
            yield f"latency.serve does not apply to {spec.name}: {reason}. It is timed without."
        return
    served_stage.check(spec)


def _endpoint(spec: RunSpec, root: Path) -> None:
    """An endpoint can teach or answer what it is to."""
    if not spec.teacher.startswith(endpoint.PREFIX):
        return
    if spec.student is not None:
        endpoint_teacher.check_can_teach(spec)
    elif spec.capability:
        endpoint_stage.check_can_answer(spec)


def _key_allowed(spec: RunSpec, root: Path) -> None:
    """The endpoint's host may have the key that the spec names."""
    if spec.teacher.startswith(endpoint.PREFIX):
        where = endpoint.parse_endpoint(spec.teacher)
        endpoint.key_variable_for(where, endpoint_teacher.api_settings(spec).key_variable)


def _key(spec: RunSpec, root: Path) -> None:
    """The environment variable with the endpoint's key is set."""
    if spec.teacher.startswith(endpoint.PREFIX):
        where = endpoint.parse_endpoint(spec.teacher)
        endpoint.key_for(where, endpoint_teacher.api_settings(spec).key_variable)


def _costs(spec: RunSpec, root: Path) -> None:
    """The endpoint's tasks can be asked, and cost at most what may be spent."""
    if spec.teacher.startswith(endpoint.PREFIX) and spec.student is None and spec.capability:
        endpoint_stage.check_requests(spec, root)


def _first_request(spec: RunSpec, root: Path) -> None:
    """The endpoint answers one small request of each kind."""
    endpoint_check.check_endpoint(spec)


def _tasks_exist(spec: RunSpec, root: Path) -> None:
    """The tasks are known, and their data is here."""
    if spec.capability:
        task_loading.check_tasks(spec.capability.tasks, spec.capability.include_path, quick=True)


def _tasks_whole(spec: RunSpec, root: Path) -> None:
    """The tasks load, with all their documents."""
    if spec.capability:
        task_loading.check_tasks(spec.capability.tasks, spec.capability.include_path)
        tasks = task_loading.load_to_check(spec.capability.tasks, spec.capability.include_path)
        for name, task in tasks.items():
            task_scores.check_metadata_fields(task, name)
            task_plan.checked_documents(name, task, spec.capability)


def _corpus_exists(spec: RunSpec, root: Path) -> None:
    """The corpus exists, and its first documents are text."""
    if spec.distill and spec.distill.corpus != "teacher":
        corpus.check_corpus(spec.distill.corpus)


def _corpus_whole(spec: RunSpec, root: Path) -> None:
    """The corpus reads as text, as far as the budget reaches, and is long enough."""
    if spec.student is None or spec.distill is None:
        return
    names = [None if spec.teacher.startswith(endpoint.PREFIX) else spec.teacher, spec.student.start]
    code = spec.trust_remote_code
    tokenizers = [load_tokenizer(name, trust_remote_code=code) for name in names if name]
    if spec.distill.corpus == "teacher" and tokenizers:
        synthesise.turn_opening(spec.teacher, tokenizers[0])
    corpus_stage.check_text(spec.distill, *tokenizers)


def _rows(spec: RunSpec, root: Path) -> None:
    """No text has a token for which a model's embedding has no row."""
    for name in _torch_models(spec):
        if not is_here(name):
            continue
        model = model_without_weights(name, trust_remote_code=spec.trust_remote_code)
        tokenizer = load_tokenizer(name, trust_remote_code=spec.trust_remote_code)
        beyond = weight_checks.tokens_beyond(tokenizer, model)
        for where, text in _texts(spec) if beyond else ():
            for token in beyond:
                if token in text:
                    num_rows = weight_checks.num_embedding_rows(model)
                    raise BadInput(
                        weight_checks.beyond_refusal(name, where, token, beyond, num_rows)
                    )


def _texts(spec: RunSpec) -> Iterator[tuple[str, str]]:
    """The texts that the models of a run read, each with where it is from."""
    distill = spec.distill
    if spec.student and distill and distill.corpus != "teacher":
        text = corpus.read_corpus(distill.corpus, corpus_stage.budget_tokens(distill))
        yield from ((text.name, document) for document in text.documents())
    if spec.capability:
        tasks = task_loading.load_tasks(spec.capability.tasks, spec.capability.include_path)
        for name, task in tasks.items():
            for document in task.eval_docs:
                yield f"The task {name}", " ".join(map(str, document.values()))


def _vocabularies(spec: RunSpec, root: Path) -> None:
    """Teacher and student have the same tokens, where the method compares their distributions."""
    student, distill = spec.student, spec.distill
    if student is None or distill is None or not student.start or not distill.uses_distributions:
        return
    teacher = spec.teacher
    if teacher.startswith(endpoint.PREFIX):
        api = spec.capability and spec.capability.api
        if not api or not api.tokenizer:
            return
        teacher = api.tokenizer
    trust = spec.trust_remote_code
    check_same_ids(
        spec.teacher,
        load_tokenizer(teacher, trust_remote_code=trust and teacher == spec.teacher),
        student.start,
        load_tokenizer(student.start, trust_remote_code=trust),
    )


def _gguf(spec: RunSpec, root: Path) -> None:
    """The model's family can be written as GGUF."""
    if spec.gguf:
        for name in _torch_models(spec)[-1:]:
            if is_here(name):
                trusted = spec.trust_remote_code
                convert.check_model(
                    name,
                    model_without_weights(name, trust_remote_code=trusted),
                    load_tokenizer(name, trust_remote_code=trusted),
                )


def _store(spec: RunSpec, root: Path) -> None:
    """The store can be written to."""
    existing = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise NoRoom(f"No permission to write {existing}. Change it, or choose --results.")


_MODEL = ("teacher", "trust_remote_code")
_CUT = (*_MODEL, "student")

CHECKS = (
    Check("store", "--results", (), _store),
    Check(
        "device",
        "device",
        (
            "num_devices",
            "device",
            "dtype",
            "gguf",
            "torch_bits",
            "distill",
            *_CUT,
            "capability",
            "latency",
        ),
        device_checks.check_device,
    ),
    Check("teacher", "teacher", (*_MODEL, "distill"), _teacher),
    Check("terms", "teacher", ("teacher", "student"), _terms),
    Check("start", "student", (*_CUT, "distill"), _start),
    Check("student", "student", (*_CUT, "distill"), _student, after=("teacher", "start")),
    Check(
        "room",
        "distill",
        (*_CUT, "distill", "device", "dtype", "torch_bits"),
        _room,
        after=("device", "student"),
    ),
    Check("cut", "student", _CUT, _large_cut, after=("student",)),
    Check("gguf", "gguf", (*_CUT, "gguf"), _gguf, after=("teacher", "start")),
    Check("timing", "latency", (*_CUT, "latency"), _timing, after=("teacher", "start")),
    Check("server", "latency.serve", ("name", *_CUT, "gguf", "torch_bits", "latency"), _server),
    Check("host", "capability.api", ("teacher", "capability"), _key_allowed, after=("teacher",)),
    Check("key", "capability.api", ("teacher", "capability"), _key, after=("host",)),
    Check("endpoint", "teacher", (*_CUT, "distill", "capability"), _endpoint, after=("key",)),
    Check("corpus", "distill.corpus", ("distill",), _corpus_exists),
    Check("tasks", "capability.tasks", ("capability",), _tasks_exist),
    Check(
        "tokenizers",
        "teacher",
        (*_CUT, "capability"),
        _tokenizers,
        full=True,
        after=("teacher", "start"),
    ),
    Check(
        "documents", "capability.tasks", ("capability",), _tasks_whole, full=True, after=("tasks",)
    ),
    Check(
        "costs",
        "capability",
        (*_CUT, "capability"),
        _costs,
        full=True,
        after=("documents", "endpoint"),
    ),
    Check(
        "request",
        "teacher",
        (*_CUT, "distill", "capability", "latency"),
        _first_request,
        full=True,
        after=("endpoint", "key", "timing", "costs"),
    ),
    Check(
        "vocabularies",
        "student",
        (*_CUT, "distill"),
        _vocabularies,
        full=True,
        after=("tokenizers",),
    ),
    # Students of one teacher have its tokens.
    Check(
        "text",
        "distill.corpus",
        (*_MODEL, "distill"),
        _corpus_whole,
        full=True,
        after=("corpus", "tokenizers"),
    ),
    Check(
        "rows",
        "teacher",
        (*_CUT, "distill", "capability"),
        _rows,
        full=True,
        after=("documents", "text"),
    ),
)
"""In the order in which they are reported."""

OF_THE_MACHINE = {
    "here": frozenset[str](),
    "queue": frozenset({"key", "request"}),
    "cluster": frozenset({"host", "key", "request", "device", "room", "store", "server"}),
}
"""Where an order will run, and the checks whose answer may be another there."""
