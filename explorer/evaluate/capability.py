"""What a model can do: lm-evaluation-harness, one task at a time.

lm-eval owns the tasks, prompts, metrics and aggregation. Each task's result is on disk, in
lm-eval's own formats, before the next one starts; a finished task is not asked again as
long as nothing that decides its answers has changed.

A task that is cut off keeps its answers batch by batch and goes on from there.

    explorer run spec.yaml

Source: github.com/EleutherAI/lm-evaluation-harness, `evaluator.py` (the seeds and the few-shot
rule repeated here).
"""

import contextlib
import dataclasses
import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import pandas as pd
import torch
import transformers
from lm_eval import evaluator
from lm_eval.api.model import CacheHook, TemplateLM
from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.utils import handle_non_serializable, hash_string

from explorer.distill import distributed
from explorer.errors import BadInput, NoRoom
from explorer.evaluate import subset, task_output, task_scores
from explorer.evaluate.backends import api_cost, api_lm, prefix_lm
from explorer.evaluate.backends.api_lm import ApiLM
from explorer.evaluate.backends.llama_lm import LlamaLM
from explorer.evaluate.backends.prefix_lm import PrefixLM
from explorer.evaluate.backends.request_progress import RequestProgress
from explorer.evaluate.response_cache import ResponseCache
from explorer.evaluate.task_output import TaskFiles
from explorer.models.loading import Loaded
from explorer.records import Capability, TaskScore, Usage
from explorer.specs import CapabilitySpec
from explorer.store.progress import Progress
from explorer.tasks import task_loading

BOOTSTRAP_DRAWS = 1000
"""For standard errors that have no formula; lm-eval draws 100,000 and takes minutes."""


@dataclasses.dataclass(frozen=True)
class Backend:
    """What answers lm-eval's requests: its name and version for the files, and how it is made."""

    name: str
    version: int
    """Bump it to invalidate cached answers."""
    make: Callable[[Callable[[RequestProgress], None]], PrefixLM | LlamaLM | ApiLM]
    """Given whom to tell how far it is."""
    answers: frozenset[str] = api_lm.ALL_OUTPUT_TYPES
    """lm-eval's output types that it can answer."""
    why_not: str = ""
    """Why it cannot answer the others, and what to do."""
    before: Callable[[Usage], None] | None = None
    """Told what an API will count at most, before the first request; may refuse it."""
    split: bool = False
    """Whether every rank of a launch evaluates, each its share of the batches; else rank 0 does."""


def torch_backend(loaded: Loaded, spec: CapabilitySpec) -> Backend:
    """A model in torch, asked as trees; the ranks of a launch share the batches."""

    def make(on_progress: Callable[[RequestProgress], None]) -> PrefixLM:
        return PrefixLM(
            loaded.model,
            tokenizer=loaded.tokenizer,
            batch_size=spec.batch_size,
            on_progress=on_progress,
            split=True,
        )

    return Backend(prefix_lm.NAME, prefix_lm.VERSION, make, split=True)


def evaluate(
    loaded: Loaded,
    spec: CapabilitySpec,
    folder: Path,
    progress: Progress,
    *,
    fingerprint: str,
    device: torch.device,
    back_end: Backend | None = None,
) -> tuple[Capability, pd.DataFrame]:
    """Ask the model all tasks of the spec that `folder` does not hold yet.

    Args:
        loaded: The model, on its device.
        spec: Tasks, documents, shots and batch size.
        folder: Where results_*.json, samples_*.jsonl and finished_*.json go.
        progress: Told of every answered request; may raise to stop the evaluation.
        fingerprint: Of the model's weights, tokenizer and dtype; decides with the spec
            whether a finished task still counts.
        device: Written into lm-eval's results file.
        back_end: What answers lm-eval's requests; None is torch.

    Returns:
        The scores, and the answers: task, metric, doc_id (position in the task's own data),
        doc_hash, value and, where they are known, chance and cluster.

    Raises:
        UnknownTask: A name that lm-eval and the folders do not know.
        BadInput: Documents that are not here, or a chat template that the model lacks.
        NoRoom: Memory or disk is full.
        RunCancelled: Passed through from `progress`.
    """
    if spec.apply_chat_template and not loaded.tokenizer.chat_template:
        raise BadInput(
            f"apply_chat_template is on, but {loaded.name} has no chat template. Switch it off, or "
            "use an instruction-tuned model."
        )
    back_end = back_end or torch_backend(loaded, spec)
    progress("capability", 0, 0, "requests")
    plans = _planned(loaded, spec, folder, fingerprint, back_end)
    if back_end.split:
        distributed.check_same(
            [plan.files.key for plan in plans],
            f"has other weights under the name {loaded.name} than process 0, other documents of "
            "its tasks or another lm-eval. Give all machines the same files.",
        )
    count = _Count(progress)
    count.planned = {plan.name: _num_requests(plan.task, plan.doc_ids) for plan in plans}
    lm: PrefixLM | LlamaLM | ApiLM | None = None
    scores: list[TaskScore] = []
    answers: list[pd.DataFrame] = []
    for plan in plans:
        done = distributed.from_main(plan.files.read) if back_end.split else plan.files.read()
        if done is None:
            if lm is None:
                with task_loading.quiet(), _enough_memory(plan.name, spec, device):
                    lm = back_end.make(count.worked)
                    if back_end.before:
                        back_end.before(_ahead(plans, lm, spec))
            count.start(plan.name)
            lm.set_cache_hook(
                ResponseCache(plan.files.partial_answers, plan.files.key, count.answered)
                if distributed.is_main()
                else CacheHook(None)
            )
            done = _ask(lm, plan, spec, loaded, fingerprint, device, back_end)
        count.finish(plan.name)
        scores += done[0]
        answers.append(task_scores.answer_rows(plan.task, plan.name, done[1]))
    capability = Capability(
        lm_eval_version=lm_eval.__version__,
        scores=scores,
        seconds=sum({score.task: score.seconds or 0.0 for score in scores}.values()),
    )
    return capability, pd.concat(answers, ignore_index=True)


def estimate_usage(
    loaded: Loaded, spec: CapabilitySpec, folder: Path, *, fingerprint: str, back_end: Backend
) -> Usage:
    """What an API will count at most for the tasks that `folder` does not hold yet.

    Raises:
        ExplorerError: As `evaluate`, before anything is asked.
    """
    plans = _planned(loaded, spec, folder, fingerprint, back_end)
    return _ahead(plans, back_end.make(lambda work: None), spec)


def _ahead(plans: "list[_Plan]", lm: TemplateLM, spec: CapabilitySpec) -> Usage:
    left = [(plan.task, plan.doc_ids) for plan in plans if plan.files.read() is None]
    with task_loading.quiet():
        return api_cost.estimate_request_usage(left, lm, spec)


def _planned(
    loaded: Loaded, spec: CapabilitySpec, folder: Path, fingerprint: str, back_end: Backend
) -> "list[_Plan]":
    """The tasks with their documents, each refused here where it cannot be asked."""
    plans = []
    for name, task in task_loading.load_tasks(spec.tasks, spec.include_path).items():
        _settle(task, spec)
        task_scores.check_metadata_fields(task, name)
        if task.OUTPUT_TYPE not in back_end.answers:
            raise BadInput(
                f"The task {name} is of the type {task.OUTPUT_TYPE}, which {loaded.name} cannot "
                f"answer: {back_end.why_not}."
            )
        doc_ids = list(range(len(task.eval_docs)))
        if spec.limit is not None:
            doc_ids = subset.choose_documents(
                name, subset.document_strata(task), spec.limit, spec.seed
            )
        key = _key(task, doc_ids, spec, loaded, fingerprint, back_end)
        plans.append(_Plan(name, task, doc_ids, TaskFiles(folder, name, key)))
    return plans


@dataclasses.dataclass
class _Plan:
    """One task, what to ask of it, and where it says that it is done."""

    name: str
    task: Task
    doc_ids: list[int]
    files: TaskFiles


class _Count:
    """Requests answered of all tasks together, told to the run's progress."""

    def __init__(self, progress: Progress) -> None:
        self.planned: dict[str, int] = {}
        self._progress = progress
        self._done, self._task = 0, ""
        self._work: RequestProgress | None = None

    def start(self, task: str) -> None:
        self._task, self._work = task, None
        self._tell()

    def worked(self, work: RequestProgress) -> None:
        """The plan is an estimate; this is the number."""
        self._work = work
        self.planned[self._task] = max(self.planned[self._task], work.total_requests)

    def answered(self) -> None:
        self._done += 1
        self._tell()

    def finish(self, task: str) -> None:
        """Also for a task that was finished before: all of it counts as done."""
        names = list(self.planned)
        self._task, self._work = task, None
        self._done = sum(self.planned[name] for name in names[: names.index(task) + 1])
        self._tell()

    def _tell(self) -> None:
        total = sum(self.planned.values())
        left = self._seconds_left()
        numbers = {} if left is None else {"seconds_left": round(left, 1)}
        self._progress("capability", self._done, total, "requests", task=self._task, **numbers)

    def _seconds_left(self) -> float | None:
        """This task's by its tokens, the later ones' at this task's pace for a request."""
        work = self._work
        if work is None or work.seconds_per_token is None or work.seconds_left is None:
            return None
        names = list(self.planned)
        later = sum(self.planned[name] for name in names[names.index(self._task) + 1 :])
        seconds_per_request = work.seconds_per_token * work.total_tokens / work.total_requests
        return work.seconds_left + later * seconds_per_request


def _settle(task: Task, spec: CapabilitySpec) -> None:
    """Fix a task's shots and their choice as `lm_eval.simple_evaluate` does.

    A task whose own file says zero shots keeps zero.
    """
    own = task.get_config("num_fewshot")
    if spec.num_fewshot is not None and own != 0:
        task.set_config(key="num_fewshot", value=spec.num_fewshot)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)


def _num_requests(task: Task, doc_ids: list[int]) -> int:
    """About how many requests a task makes, taking its first document for all."""
    per_document = 1
    if task.OUTPUT_TYPE == "multiple_choice":
        per_document = len(task.doc_to_choice(task.eval_docs[doc_ids[0]]))
    return len(doc_ids) * per_document


def _key(
    task: Task,
    doc_ids: list[int],
    spec: CapabilitySpec,
    loaded: Loaded,
    fingerprint: str,
    back_end: Backend,
) -> str:
    """A hash of everything that decides the answers."""
    digest, documents = hashlib.sha256(), task.eval_docs
    for doc_id in doc_ids:
        text = json.dumps(documents[doc_id], default=handle_non_serializable)
        digest.update(text.encode())
    decides = {
        "fingerprint": fingerprint,
        "config": task.dump_config(),
        "version": task.VERSION,
        "doc_ids": doc_ids,
        "documents": digest.hexdigest(),
        "apply_chat_template": spec.apply_chat_template,
        "batch_size": spec.batch_size,
        "chat_template": loaded.tokenizer.chat_template if spec.apply_chat_template else None,
        "dtype": str(loaded.model.dtype),
        "lm_eval": lm_eval.__version__,
        "back_end": back_end.version,
    }
    text = json.dumps(decides, sort_keys=True, default=handle_non_serializable)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _ask(
    lm: PrefixLM | LlamaLM | ApiLM,
    plan: _Plan,
    spec: CapabilitySpec,
    loaded: Loaded,
    fingerprint: str,
    device: torch.device,
    back_end: Backend,
) -> tuple[list[TaskScore], list[dict[str, Any]]]:
    """Evaluate one task and put its files on disk, the marker last."""
    began, began_at = time.monotonic(), time.time()
    random.seed(DEFAULT_RANDOM_SEED)
    # lm-eval's tasks and metrics draw from numpy's global generator.
    np.random.seed(DEFAULT_OTHER_SEED)  # noqa: NPY002
    torch.manual_seed(DEFAULT_OTHER_SEED)
    with task_loading.quiet(), _enough_memory(plan.name, spec, device):
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
            "model": back_end.name,
            "back_end_version": back_end.version,
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
        "model_source": back_end.name,
        "model_name": loaded.name,
        "chat_template": loaded.tokenizer.chat_template if spec.apply_chat_template else None,
        "total_evaluation_time_seconds": str(seconds),
    }
    samples = [task_output.as_logged_sample(one) for one in samples]
    scores = task_scores.score_rows(plan.task, plan.name, results, samples, seconds)
    if distributed.is_main():
        plan.files.write(results, samples, scores)
    return scores, samples


@contextlib.contextmanager
def _enough_memory(task: str, spec: CapabilitySpec, device: torch.device) -> Iterator[None]:
    """Say what to do where the memory is too small."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        raise NoRoom(
            f"The memory of {device} is too small for the task {task} with batch_size "
            f"{spec.batch_size}. Lower batch_size in the spec's capability part."
        ) from error


def _is_out_of_memory(error: BaseException) -> bool:
    """CUDA has a class for it; the CPU's allocator only a sentence."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error)
