"""A model evaluated and timed on this machine: in torch, or as GGUF in llama.cpp."""

import logging
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from explorer.distill import distributed
from explorer.errors import BadInput
from explorer.evaluate import capability
from explorer.evaluate.backends import llama_lm
from explorer.evaluate.backends.backend import Backend
from explorer.evaluate.backends.llama_lm import LlamaLM
from explorer.latency import device_lock, timing
from explorer.latency.runtimes import open_runtime
from explorer.latency.runtimes.gguf_check import write_checked
from explorer.latency.runtimes.llamacpp import LlamaCppRuntime
from explorer.latency.runtimes.protocol import Runtime
from explorer.models import facts
from explorer.models.facts import fingerprint
from explorer.models.gguf.gguf_facts import gguf_facts
from explorer.models.loading import Loaded, pick_dtype
from explorer.pipeline import run_guard
from explorer.pipeline.context import RunContext
from explorer.records import Capability, Environment, Latency, ModelFacts
from explorer.specs import GgufType, LatencySpec
from explorer.store import disk

log = logging.getLogger("explorer")


def measure_in_torch(run: RunContext, model: Loaded, stored_as: str) -> None:
    """Evaluate and time a model in transformers; `stored_as` names its files.

    A model that a server times (`served_stage`) is only evaluated, here and in llama.cpp.
    """
    model_facts = facts.model_facts(model)
    run.record_parts["model"] = model_facts
    if run.spec.capability:
        run.record_parts["capability"] = evaluate(run, model, model_facts.fingerprint)
    if run.spec.latency and not run.spec.server and distributed.is_main():
        runtime = open_runtime.from_loaded(model, run.spec.latency, stored_as=stored_as)
        run.record_parts["latency"] = _time(run, runtime, model_facts, stored_as)


def measure_as_gguf(run: RunContext, model: Loaded, kind: GgufType) -> Path:
    """Write a model as GGUF, once for all runs of the same weights; evaluate and time the file."""
    path = run.work / "gguf" / f"{fingerprint(model)}-{kind}.gguf"
    with run_guard.exclusive(run.root, f"gguf-{path.stem}", run.progress):
        if not path.exists():
            run.progress("convert")
            with run.timed("convert"):
                write_checked(model, kind, path)
    measure_in_llama_cpp(run, model.name, path, model.tokenizer)
    return path


def measure_in_llama_cpp(
    run: RunContext, name: str, path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Evaluate a GGUF file, then time it, each in a llama.cpp context of its own.

    Raises:
        BadInput: The run's device is not the CPU.
    """
    if run.device.type != "cpu":
        raise BadInput(
            f"llama.cpp is measured on the CPU, and this run's device is {run.device}. Write "
            "device: cpu, so that the teacher is timed there too."
        )
    model_facts = gguf_facts(name, path)
    run.record_parts["model"] = model_facts
    if run.spec.capability:
        runtime = LlamaCppRuntime(path)
        backend = Backend(
            llama_lm.NAME,
            llama_lm.VERSION,
            lambda on_progress: LlamaLM(runtime, tokenizer, on_progress=on_progress),
        )
        # An evaluation reads only the name, the tokenizer, the number format and the size.
        model = Loaded(name, cast(Any, runtime), tokenizer)
        fingerprint = model_facts.fingerprint
        run.record_parts["capability"] = evaluate(run, model, fingerprint, backend)
        runtime.close()
    if run.spec.latency and not run.spec.server:
        timed = LlamaCppRuntime(path)
        stored_as = f"{open_runtime.LLAMA_CPP}{path}"
        run.record_parts["latency"] = _time(run, timed, model_facts, stored_as)
        timed.close()


def evaluate(
    run: RunContext, model: Loaded, fingerprint: str, backend: Backend | None = None
) -> Capability:
    """Evaluate a model on the spec's tasks and store its answers.

    Args:
        run: The run; its spec has a capability part.
        model: The model, or what stands for one behind a server.
        fingerprint: Identifies its weights; the answers are stored under it.
        backend: Answers the requests; None is the one for models in torch.
    """
    run.stage = "capability"
    spec = run.spec.capability
    assert spec is not None, "skipped otherwise"
    with run.timed("capability"):
        scores, answers = capability.evaluate(
            model,
            spec,
            run.folder / disk.CAPABILITY,
            run.progress,
            fingerprint=fingerprint,
            device=run.device,
            backend=backend,
        )
    if distributed.is_main():
        disk.write_answers(run.root, run.spec.run_id, answers)
    for score in scores.scores:
        if score.headline:
            log.info("%s: %s %.4f", score.task, score.metric, score.score)
    return scores


def latency_inputs(
    spec: LatencySpec, environment: Environment, model: str, teacher: str | None
) -> dict[str, Any]:
    """Everything that decides a timing, which is repeated if any of it changes.

    Args:
        spec: How the model is timed.
        environment: The machine and its software.
        model: Fingerprint of the timed model.
        teacher: Fingerprint of the teacher that is timed in turns with it; None for no teacher.
    """
    return {
        "model": model,
        "teacher": teacher,
        "spec": spec.identity(),
        # One process times a model, however many trained it.
        "environment": environment.model_dump(exclude={"num_processes"}),
    }


def _time(run: RunContext, runtime: Runtime, model: ModelFacts, stored_as: str) -> Latency:
    """Time a model in turns with its teacher."""
    run.stage = "latency"
    run.use_all_threads()
    spec = run.spec.latency
    assert spec is not None, "skipped otherwise"
    # A teacher on a server cannot take turns with a student on this device.
    teacher = None if run.spec.is_teacher or run.teacher_endpoint else run.teacher
    decides = latency_inputs(
        spec, run.environment, model.fingerprint, run.teacher_fingerprint if teacher else None
    )

    def measure() -> Latency:
        return timing.time_in_turns(
            runtime,
            open_runtime.from_loaded(teacher, spec, stored_as=run.spec.teacher)
            if teacher
            else None,
            spec,
            run.progress,
            load_name=stored_as,
            dtype=pick_dtype(run.spec.dtype, run.device),
            bits=run.spec.torch_bits,
            trust_remote_code=run.spec.trust_remote_code,
        )

    return run.cached_stage("latency", decides, Latency, measure, alone=alone_on_device(run))


def alone_on_device(run: RunContext) -> AbstractContextManager[None]:
    """Keep other timings on this machine off the run's device, those of other users included."""
    sentence = "waiting until another timing on this device ends"
    return device_lock.held(device_lock.name_of(run.device), lambda: run.progress(sentence))
