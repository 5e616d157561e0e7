"""Records as frames with one row per run, per score or per timed request.

`columns.py` explains each column.
"""

import json
import shlex
from typing import Any

import numpy as np
import pandas as pd

from explorer.records import Capability, Latency, RunRecord, Timing
from explorer.records.quantiles import median_interval, percentile
from explorer.store.columns import RECORD

SCORE_COLUMNS = [
    "run_id",
    "task",
    "metric",
    "filter",
    "score",
    "stderr",
    "chance",
    "higher_is_better",
    "headline",
    "num_documents",
    "num_documents_total",
    "num_fewshot",
    "task_version",
    "task_hash",
    "seconds",
    "lm_eval_version",
    "chat_template",
    "dtype",
]
COLUMNS = list(RECORD)


def runs(records: list[RunRecord]) -> pd.DataFrame:
    """One row a run, in the units that end the names; what is unknown is missing."""
    return pd.DataFrame([row(record) for record in records], columns=COLUMNS)


def scores(records: list[RunRecord]) -> pd.DataFrame:
    """One row a run, task and metric, with the conditions in which rows must agree."""
    return scores_of([row for record in records for row in score_rows(record)])


def score_rows(record: RunRecord) -> list[dict[str, Any]]:
    """The rows of `scores` that one record gives."""
    if record.capability is None:
        return []
    evaluation, model = record.spec.capability, record.model or record.imported
    template = None if evaluation is None else "on" if evaluation.apply_chat_template else "off"
    if template and record.imported and record.imported.system_prompt:
        template += f" with system prompt {record.imported.system_prompt}"
    conditions = {
        "run_id": record.run_id,
        "lm_eval_version": record.capability.lm_eval_version,
        "chat_template": template,
        "dtype": model.dtype if model else None,
    }
    return [conditions | score.model_dump() for score in record.capability.scores]


def scores_of(rows: list[Any]) -> pd.DataFrame:
    """Rows of `scores`, dictionaries or tuples, as its frame; flags are flags without rows too."""
    frame = pd.DataFrame(rows, columns=SCORE_COLUMNS)
    return frame.astype({"higher_is_better": bool, "headline": bool})


def row(record: RunRecord) -> dict[str, Any]:
    """One run as a flat row of the store's frame."""
    spec, model, training = record.spec, record.model, record.distillation
    flat: dict[str, Any] = {
        "run_id": record.run_id,
        "name": spec.name,
        "status": record.status,
        "role": "teacher" if spec.is_teacher and not record.teacher_run_id else "student",
        "kind": spec.student.kind if spec.student else None,
        "basis": "imported" if record.imported else "measured",
        "teacher": spec.teacher,
        "teacher_run_id": record.teacher_run_id,
        "teacher_licence": record.teacher_licence,
        "model": record.model_name,
        "device_name": record.device_name,
        "label": label(record),
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "machine_busy": False,
        "distilled": training is not None,
        "method": spec.distill.method if spec.distill else None,
        "recipe": spec.recipe(),
        "arm": spec.arm(),
        "format": spec.format,
        "error": record.error.message if record.error else None,
    }
    if record.environment:
        flat |= record.environment.model_dump(
            include={"device", "device_name", "num_cpus", "memory_bytes", "commit"}
        )
    if model:
        flat |= model.model_dump(
            include={"num_layers", "num_parameters", "weight_bytes", "dtype", "fingerprint"}
        )
        flat["kept_layers"] = model.kept_layers
    if record.capability:
        flat["lm_eval_version"] = record.capability.lm_eval_version
        flat["task_scores"] = _task_scores(record.capability)
    if record.latency:
        flat |= _latency_columns(record.latency.own, record.latency.teacher)
        flat |= _interference_columns(record.latency)
        if spec.server:
            flat["server_arguments"] = shlex.join(spec.server.arguments) or None
    if training:
        flat |= training.model_dump(
            include={
                "scored_tokens",
                "device_hours",
                "kl_before",
                "kl_after",
                "top1_before",
                "top1_after",
            }
        )
        flat["train_seconds"] = training.seconds
        flat["targets_seconds"] = training.targets.seconds if training.targets else None
        flat["corpus"] = training.corpus.name
    if training and spec.distill and record.environment:
        narrow = spec.distill.in_bfloat16(record.environment.device)
        flat["train_dtype"] = "bfloat16" if narrow else "float32"
        flat["vocab_sample"] = spec.distill.vocab_sample
    return flat


def _task_scores(capability: Capability) -> str | None:
    """The score of each task as JSON, by the metric that represents the task."""
    scores = {score.task: score.score for score in capability.scores if score.headline}
    return json.dumps(scores) if scores else None


def label(record: RunRecord) -> str:
    """A short name for charts: `teacher`, `15 layers`, `60M wide, labels only`, `teacher q8_0`."""
    spec = record.spec
    if record.imported:
        return spec.name
    if spec.student is None:
        label = "teacher"
    else:
        label = spec.student.label(record.model.num_parameters if record.model else None)
    if spec.format:
        label = f"{label} {spec.format}"
    if spec.distill is not None and spec.distill.method == "labels":
        label = f"{label}, labels only"
    # A server's times include its requests, so they are told apart wherever a run is named.
    runtime = record.latency.own.runtime if record.latency else None
    return f"{label}, {runtime.name}" if runtime and runtime.command else label


def _latency_columns(own: Timing, teacher: Timing | None) -> dict[str, Any]:
    """Medians and 95th percentiles of one timing, and its ratio to the teacher's."""
    flat: dict[str, Any] = {
        "batch_size": own.batch_size,
        "prompt_tokens": own.prompt_tokens,
        "output_tokens": own.output_tokens,
        "peak_memory_bytes": own.peak_memory_bytes,
    }
    if own.runtime:
        flat |= own.runtime.model_dump(include={"load_s", "disk_bytes"})
        flat["runtime"] = own.runtime.name
    if own.energy:
        flat["joules_per_token"] = own.energy.joules_per_token
    flat["num_failed_requests"] = own.num_failed
    flat["output_tokens_per_s"] = own.output_tokens_per_s
    if own.summary:
        flat |= own.summary.model_dump(exclude={"num_requests", "prompt_tokens", "output_tokens"})
        flat["output_tokens_per_s"] = own.output_tokens_per_s
    if not own.turns:
        return flat
    values = _samples(own)
    for name, samples in values.items():
        flat[name] = np.nanmedian(samples) if own.summary else np.median(samples)
        flat[name.replace("_ms", "_p95_ms")] = percentile(list(samples), 0.95)
    flat["tpot_low_ms"], flat["tpot_high_ms"] = median_interval(list(values["tpot_ms"])) or (
        None,
        None,
    )
    low, high = np.percentile(values["tpot_ms"], [25, 75])
    flat["tpot_spread"] = (high - low) / flat["tpot_ms"]
    if teacher and teacher.turns:
        theirs = _samples(teacher)
        for name, samples in theirs.items():
            flat[f"teacher_{name}"] = np.median(samples)
        for name in ("ttft", "tpot"):
            # Turn by turn, so that a slow moment of the machine slows both sides of a ratio.
            pairs = zip(values[f"{name}_ms"], theirs[f"{name}_ms"], strict=False)
            ratios = [mine / other for mine, other in pairs]
            flat[f"{name}_ratio"] = np.median(ratios)
            ends = median_interval(ratios) or (None, None)
            flat[f"{name}_ratio_low"], flat[f"{name}_ratio_high"] = ends
    return flat


def _interference_columns(latency: Latency) -> dict[str, Any]:
    """Whether the machine was busy while a run was timed, and by how much."""
    flat: dict[str, Any] = {
        "latency_warning": latency.warning,
        "machine_busy": latency.was_busy,
    }
    if others := latency.interference:
        flat |= {
            "busy_share_before": others.cpu_share_before,
            "busy_share_during": others.cpu_share_during,
            "busy_threshold": others.cpu_threshold,
            "busy_gpu_share_before": others.gpu_share_before,
            "busy_gpu_threshold": others.gpu_threshold,
            "num_other_gpu_processes": others.num_other_gpu_processes,
        }
    return flat


def _samples(timing: Timing) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Each time of each turn, in ms; not a number where a turn has no TPOT."""
    rows = [(turn.ttft_ms, turn.tpot_ms, turn.latency_ms) for turn in timing.turns]
    columns = np.array(rows, dtype=float).reshape(-1, 3).T
    return dict(zip(("ttft_ms", "tpot_ms", "latency_ms"), columns, strict=True))


def turns(timing: Timing) -> pd.DataFrame:
    """A timing's counted turns: ttft_ms, tpot_ms, latency_ms, num_output_tokens."""
    num_tokens = [float(turn.num_output_tokens) for turn in timing.turns]
    return pd.DataFrame({**_samples(timing), "num_output_tokens": num_tokens}, dtype=float)
