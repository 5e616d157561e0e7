"""A model asked and timed on this machine: in torch, or as GGUF in llama.cpp."""

import logging
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from explorer.errors import BadInput
from explorer.evaluate import capability
from explorer.evaluate.backends import llama_lm
from explorer.evaluate.backends.llama_lm import LlamaLM
from explorer.latency import timing
from explorer.latency.runtimes import open_runtime
from explorer.latency.runtimes.llamacpp import LlamaCpp
from explorer.latency.runtimes.protocol import Runtime
from explorer.models.facts import facts, fingerprint
from explorer.models.gguf import header
from explorer.models.gguf.convert import to_gguf
from explorer.models.loading import Loaded, pick_dtype
from explorer.pipeline import run_guard
from explorer.pipeline.state import Run
from explorer.records import Capability, Latency, ModelFacts
from explorer.specs import GgufType
from explorer.store import disk

log = logging.getLogger("explorer")


def _gguf_file(run: Run, model: Loaded, kind: GgufType) -> Path:
    """The model as GGUF, written once for all runs of the same weights."""
    path = run.work / "gguf" / f"{fingerprint(model)}-{kind}.gguf"
    with run_guard.alone(run.root, f"gguf-{path.stem}", run.progress):
        if not path.exists():
            run.progress("convert")
            with run.timed("convert"):
                to_gguf(model, kind, path)
    return path


def in_torch(run: Run, model: Loaded, load_name: str) -> None:
    """Test and time a model in transformers; `load_name` is where its files are."""
    run.parts["model"] = facts(model)
    if run.spec.capability:
        run.parts["capability"] = evaluate(run, model, run.parts["model"].fingerprint)
    if run.spec.latency:
        runtime = open_runtime.of_loaded(model, run.spec.latency, stored_as=load_name)
        run.parts["latency"] = _latency(run, runtime, run.parts["model"], load_name)


def as_gguf(run: Run, model: Loaded, kind: GgufType) -> None:
    """Write a model as GGUF, then test and time that file."""
    in_llama_cpp(run, model.name, _gguf_file(run, model, kind), model.tokenizer)


def in_llama_cpp(run: Run, name: str, path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Test and time a GGUF file as it is; each in a context of its own."""
    if run.device.type != "cpu":
        raise BadInput(
            "llama.cpp is measured on the processor, and this run's device is "
            f"{run.device}. Write device: cpu, so that the teacher is timed there too."
        )
    load_name = f"{open_runtime.LLAMA_CPP}{path}"
    run.parts["model"] = header.facts(name, path)
    if run.spec.capability:
        asked = LlamaCpp(path)
        # The evaluation wants only a name, a tokenizer, the number format and the size.
        described = Loaded(name, cast(Any, asked), tokenizer)
        run.parts["capability"] = evaluate(
            run,
            described,
            run.parts["model"].fingerprint,
            capability.BackEnd(
                llama_lm.NAME,
                llama_lm.VERSION,
                lambda on_progress: LlamaLM(asked, tokenizer, on_progress=on_progress),
            ),
        )
        asked.close()
    if run.spec.latency:
        timed = LlamaCpp(path)
        run.parts["latency"] = _latency(run, timed, run.parts["model"], load_name)
        timed.close()


def evaluate(
    run: Run, model: Loaded, fingerprint: str, back_end: capability.BackEnd | None = None
) -> Capability:
    """Ask a model the spec's tasks and keep its answers."""
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
            back_end=back_end,
        )
    disk.write_answers(run.root, run.spec.run_id, answers)
    for score in scores.scores:
        if score.headline:
            log.info("%s: %s %.4f", score.task, score.metric, score.score)
    return scores


def _latency(run: Run, runtime: Runtime, what: ModelFacts, load_name: str) -> Latency:
    run.stage = "latency"
    spec = run.spec.latency
    assert spec is not None, "skipped otherwise"
    # A server cannot be timed in turns with this device.
    teacher = None if run.spec.is_teacher or run.served else run.teacher
    decides = {
        "model": what.fingerprint,
        "teacher": teacher and run.teacher_fingerprint,
        "spec": spec.decisive(),
        "environment": run.environment.model_dump(),
    }

    def measure() -> Latency:
        stored_as = run.spec.teacher
        return timing.time_in_turns(
            runtime,
            open_runtime.of_loaded(teacher, spec, stored_as=stored_as) if teacher else None,
            spec,
            run.progress,
            load_name=load_name,
            dtype=pick_dtype(run.spec.dtype, run.device),
            bits=run.spec.torch_bits,
        )

    return run.keyed("latency", decides, Latency, measure)
