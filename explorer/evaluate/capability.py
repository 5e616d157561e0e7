"""What a model can do: lm-evaluation-harness, one task after another.

lm-eval owns the tasks, prompts, metrics and aggregation. Each task's result is written, in
lm-eval's own formats, before the next one starts. A finished task is not evaluated again while
everything that decides its answers is unchanged. An interrupted task keeps its answers batch by
batch and continues from there.

    explorer run spec.yaml

Source: github.com/EleutherAI/lm-evaluation-harness, `evaluator.py` (its seeds and few-shot
rule are repeated here).
"""

import contextlib
import random
import time
from collections.abc import Iterator
from pathlib import Path

import lm_eval
import numpy as np
import pandas as pd
import torch
import transformers
from lm_eval import evaluator
from lm_eval.api.model import CacheHook, TemplateLM
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.utils import hash_string

from explorer.devices import memory
from explorer.distill import distributed
from explorer.errors import BadInput, NoRoom
from explorer.evaluate import lm_eval_errors, refused_prompts, task_output, task_scores
from explorer.evaluate.backends import api_cost
from explorer.evaluate.backends.api_lm import ApiLM
from explorer.evaluate.backends.backend import Backend, EvaluatedLM, torch_backend
from explorer.evaluate.response_cache import ResponseCache
from explorer.evaluate.task_output import FinishedTask
from explorer.evaluate.task_plan import TaskPlan, plan_tasks
from explorer.evaluate.task_progress import TaskProgress
from explorer.models.loading import Loaded
from explorer.records import Capability, RefusedPrompt, TaskScore, Usage
from explorer.specs import CapabilitySpec
from explorer.store.progress import Progress
from explorer.tasks import task_loading

BOOTSTRAP_DRAWS = 1000
"""Draws for standard errors without a formula; lm-eval's 100,000 take minutes."""


def evaluate(
    loaded: Loaded,
    spec: CapabilitySpec,
    folder: Path,
    progress: Progress,
    *,
    fingerprint: str,
    device: torch.device,
    backend: Backend | None = None,
) -> tuple[Capability, pd.DataFrame]:
    """Evaluate the model on all tasks of the spec that `folder` does not hold yet.

    Args:
        loaded: The model, on its device.
        spec: Tasks, documents, shots and batch size.
        folder: Where results_*.json, samples_*.jsonl and finished_*.json go.
        progress: Called after every answered request; may raise to stop the evaluation.
        fingerprint: Of the model's weights, tokenizer and dtype. Together with the spec it decides
            whether a finished task still counts.
        device: Written to lm-eval's results file.
        backend: Answers lm-eval's requests; None is torch.

    Returns:
        The scores, and a frame of the answers: task, metric, doc_id (position in the task's data),
        doc_hash, value and, where known, chance and cluster.

    Raises:
        UnknownTask: A name that neither lm-eval nor the task folders know.
        BadInput: Documents that are not on this machine, or a missing chat template.
        NoRoom: Memory or disk is full.
        RunCancelled: Passed through from `progress`.
    """
    if spec.apply_chat_template and not loaded.tokenizer.chat_template:
        raise BadInput(
            f"apply_chat_template is on, but {loaded.name} has no chat template. Switch it off, or "
            "use an instruction-tuned model."
        )
    backend = backend or torch_backend(loaded, spec)
    progress("capability", 0, 0, "requests")
    plans = plan_tasks(loaded, spec, folder, fingerprint, backend)
    if backend.split:
        distributed.check_same(
            [plan.files.key for plan in plans],
            f"has other weights under the name {loaded.name} than process 0, other documents of "
            "its tasks or another lm-eval. Give all machines the same files.",
        )
    task_progress = TaskProgress(progress, {plan.name: plan.num_requests for plan in plans})
    lm: EvaluatedLM | None = None
    scores: list[TaskScore] = []
    answers: list[pd.DataFrame] = []
    refused: list[RefusedPrompt] = []
    changes: dict[str, None] = {}
    for plan in plans:
        finished = distributed.from_main(plan.files.read) if backend.split else plan.files.read()
        if finished is None:
            if lm is None:
                with task_loading.quiet_lm_eval(), _enough_memory(plan.name, spec, device):
                    lm = backend.open(task_progress.on_requests)
                    if backend.check_usage:
                        backend.check_usage(_ahead(plans, lm, spec))
            task_progress.start(plan.name)
            lm.set_cache_hook(
                ResponseCache(plan.files.partial_answers, plan.files.key, task_progress.on_answer)
                if distributed.is_main()
                else CacheHook(None)
            )
            finished = _evaluate_task(lm, plan, spec, loaded, fingerprint, device, backend)
        task_progress.finish(plan.name)
        scores += finished.scores
        answers.append(task_scores.answer_rows(plan.task, plan.name, finished.samples))
        refused += [
            RefusedPrompt(task=plan.name, doc_id=doc_id, reason=reason)
            for doc_id, reason in finished.refused.items()
        ]
        changes |= dict.fromkeys(finished.request_changes)
    by_task = {score.task: score.seconds for score in scores}
    known = [seconds for seconds in by_task.values() if seconds is not None]
    capability = Capability(
        lm_eval_version=lm_eval.__version__,
        scores=scores,
        seconds=sum(known) if len(known) == len(by_task) else None,
        refused=refused,
        request_changes=list(changes),
    )
    return capability, pd.concat(answers, ignore_index=True)


def estimate_usage(
    loaded: Loaded, spec: CapabilitySpec, folder: Path, *, fingerprint: str, backend: Backend
) -> Usage:
    """The most tokens that an API can count for the tasks that `folder` does not hold yet.

    Raises:
        ExplorerError: As `evaluate`, before any request is sent.
    """
    plans = plan_tasks(loaded, spec, folder, fingerprint, backend)
    return _ahead(plans, backend.open(lambda work: None), spec)


def _ahead(plans: list[TaskPlan], lm: TemplateLM, spec: CapabilitySpec) -> Usage:
    left = [(plan.task, plan.doc_ids) for plan in plans if plan.files.read() is None]
    with task_loading.quiet_lm_eval():
        return api_cost.estimate_request_usage(left, lm, spec)


def _evaluate_task(
    lm: EvaluatedLM,
    plan: TaskPlan,
    spec: CapabilitySpec,
    loaded: Loaded,
    fingerprint: str,
    device: torch.device,
    backend: Backend,
) -> FinishedTask:
    """Evaluate one task and write its files, the marker last."""
    began, began_at = time.monotonic(), time.time()
    random.seed(DEFAULT_RANDOM_SEED)
    # lm-eval's tasks and metrics draw from numpy's global generator.
    np.random.seed(DEFAULT_OTHER_SEED)
    torch.manual_seed(DEFAULT_OTHER_SEED)
    with (
        task_loading.quiet_lm_eval(),
        _enough_memory(plan.name, spec, device),
        refused_prompts.scored_without_refused(lm, plan.task, plan.name, plan.doc_ids) as refused,
        lm_eval_errors.named(plan),
    ):
        results = evaluator.evaluate(
            lm,
            {"tasks": {plan.name: plan.task}},
            samples={plan.name: plan.doc_ids},
            bootstrap_iters=BOOTSTRAP_DRAWS,
            apply_chat_template=spec.apply_chat_template,
            fewshot_as_multiturn=spec.apply_chat_template,
        )
    samples = results.pop("samples")[plan.name]
    seconds = time.monotonic() - began
    hashes = "".join(s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in samples)
    results |= {
        "config": {
            "model": backend.name,
            "back_end_version": backend.version,
            "shares_prefixes": lm.shares_prefixes,
            "model_args": {"pretrained": loaded.name, "fingerprint": fingerprint}
            | ({"bits": loaded.bits} if loaded.bits else {}),
            "model_num_parameters": loaded.model.num_parameters(),
            "model_dtype": str(loaded.model.dtype) if loaded.model.dtype else None,
            "batch_size": spec.batch_size,
            "device": str(device),
            "limit": spec.limit,
            "limit_seed": spec.seed,
            "bootstrap_iters": BOOTSTRAP_DRAWS,
            "random_seed": DEFAULT_RANDOM_SEED,
            "numpy_seed": DEFAULT_OTHER_SEED,
            "torch_seed": DEFAULT_OTHER_SEED,
            "fewshot_seed": DEFAULT_OTHER_SEED,
        },
        "date": began_at,
        "transformers_version": transformers.__version__,
        "lm_eval_version": lm_eval.__version__,
        "task_hashes": {plan.name: hash_string(hashes)},
        "model_source": backend.name,
        "model_name": loaded.name,
        "chat_template": loaded.tokenizer.chat_template if spec.apply_chat_template else None,
        "total_evaluation_time_seconds": str(seconds),
    }
    samples = [task_output.as_logged_sample(sample) for sample in samples]
    finished = FinishedTask(
        task_scores.score_rows(plan.task, plan.name, results, samples, seconds),
        samples,
        refused,
        lm.request_changes if isinstance(lm, ApiLM) else [],
    )
    if distributed.is_main():
        plan.files.write(results, finished)
    return finished


@contextlib.contextmanager
def _enough_memory(task: str, spec: CapabilitySpec, device: torch.device) -> Iterator[None]:
    """Say what to do when memory is too small."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not memory.ran_out(error):
            raise
        raise NoRoom(
            f"The memory of {device} is too small for the task {task} with batch_size "
            f"{spec.batch_size}. Lower batch_size in the spec's capability part."
        ) from error
