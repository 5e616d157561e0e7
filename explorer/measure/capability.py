"""What a model can do: lm-evaluation-harness, one task at a time.

lm-eval owns the tasks, prompts, metrics and aggregation. Each task's result is on disk, in
lm-eval's own formats, before the next one starts; a finished task is not asked again as
long as nothing that decides its answers has changed.

    explorer run spec.yaml

Sources: github.com/EleutherAI/lm-evaluation-harness, `evaluator.py` (the seeds and the
few-shot rule repeated here) and `loggers/evaluation_tracker.py` (the files).
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import random
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import pandas as pd
import torch
import transformers
from lm_eval import evaluator
from lm_eval.api.model import TemplateLM
from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.utils import handle_non_serializable, hash_string, sanitize_list

from explorer import store
from explorer.errors import BadInput, NoRoom
from explorer.harness.metrics import CHOICE_METRICS, EXACT_METRICS, HEADLINES, first_of
from explorer.measure import task_sets
from explorer.measure.lm import ExplorerLM
from explorer.models.loading import Loaded
from explorer.progress import Progress
from explorer.records import Capability, TaskScore
from explorer.specs import CapabilitySpec

BOOTSTRAP_DRAWS = 1000
"""For standard errors that have no formula; lm-eval draws 100,000 and takes minutes."""
MakeLM = Callable[[Callable[[int], None], Callable[[], None]], TemplateLM]
"""Makes what answers lm-eval's requests, given whom to tell of asked and of answered ones."""
ANSWER_COLUMNS = ["task", "metric", "doc_id", "doc_hash", "value"]


def evaluate(
    loaded: Loaded,
    spec: CapabilitySpec,
    folder: Path,
    progress: Progress,
    *,
    fingerprint: str,
    device: torch.device,
    make_lm: MakeLM | None = None,
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
        make_lm: Makes what answers lm-eval's requests; None is torch.

    Returns:
        The scores, and the answers: task, metric, doc_id (position in the task's own data),
        doc_hash, value.

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
    progress("capability", 0, 0, "requests")
    tasks = task_sets.load(spec.tasks, spec.include_path)
    count = _Count(progress)
    plans = []
    for name, task in tasks.items():
        _settle(task, spec)
        doc_ids = choose_documents(name, len(task.eval_docs), spec.limit, spec.seed)
        key = _key(task, doc_ids, spec, loaded, fingerprint)
        plans.append(_Plan(name, task, doc_ids, key, _marker(folder, name)))
        count.planned[name] = _num_requests(task, doc_ids)
    lm: TemplateLM | None = None
    scores: list[TaskScore] = []
    answers: list[pd.DataFrame] = []
    for plan in plans:
        done = _read_finished(plan)
        if done is None:
            if lm is None:
                with task_sets.quiet():
                    lm = (
                        make_lm(count.asked, count.answered)
                        if make_lm
                        else ExplorerLM(
                            loaded,
                            batch_size=spec.batch_size,
                            on_asked=count.asked,
                            on_answered=count.answered,
                        )
                    )
            count.start(plan.name)
            done = _ask(lm, plan, spec, loaded, fingerprint, device)
        count.finish(plan.name)
        scores += done[0]
        answers.append(done[1])
    capability = Capability(
        lm_eval_version=lm_eval.__version__,
        scores=scores,
        seconds=sum({score.task: score.seconds or 0.0 for score in scores}.values()),
    )
    return capability, pd.concat(answers, ignore_index=True)


def choose_documents(task: str, num_documents: int, limit: int | None, seed: int) -> list[int]:
    """Positions of the documents to ask, ascending: a seeded sample that no model changes.

    Documents are ranked by a hash, so a larger limit keeps all documents of a smaller one,
    and the choice is the same on every machine and version.
    """
    everything = list(range(num_documents))
    if limit is None or limit >= num_documents:
        return everything
    rank = {i: hashlib.sha256(f"{seed}/{task}/{i}".encode()).digest() for i in everything}
    return sorted(sorted(everything, key=rank.__getitem__)[:limit])


@dataclasses.dataclass
class _Plan:
    """One task, what to ask of it, and where it says that it is done."""

    name: str
    task: Task
    doc_ids: list[int]
    key: str
    marker: Path


class _Count:
    """Requests answered of all tasks together, told to the run's progress."""

    def __init__(self, progress: Progress) -> None:
        self.planned: dict[str, int] = {}
        self._progress = progress
        self._done, self._asked, self._task = 0, 0, ""

    def start(self, task: str) -> None:
        self._task, self._asked = task, 0
        self._tell()

    def asked(self, num_requests: int) -> None:
        """The plan is an estimate; this is the number."""
        self._asked += num_requests
        self.planned[self._task] = self._asked

    def answered(self) -> None:
        self._done += 1
        self._tell()

    def finish(self, task: str) -> None:
        """Also for a task that was finished before: all of it counts as done."""
        names = list(self.planned)
        self._task = task
        self._done = sum(self.planned[name] for name in names[: names.index(task) + 1])
        self._tell()

    def _tell(self) -> None:
        total = sum(self.planned.values())
        self._progress("capability", self._done, total, "requests", task=self._task)


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
    task: Task, doc_ids: list[int], spec: CapabilitySpec, loaded: Loaded, fingerprint: str
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
        "dtype": str(loaded.model.dtype),
        "lm_eval": lm_eval.__version__,
    }
    text = json.dumps(decides, sort_keys=True, default=handle_non_serializable)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _file_part(task: str) -> str:
    """A task's name as a part of a file's: group::task and org/task are names too."""
    return re.sub(r"[^\w.-]", "_", task)


def _marker(folder: Path, task: str) -> Path:
    return folder / f"finished_{_file_part(task)}.json"


def _read_finished(plan: _Plan) -> tuple[list[TaskScore], pd.DataFrame] | None:
    """Scores and answers of a task that was finished under the same key, else None."""
    try:
        marker = json.loads(plan.marker.read_text(encoding="utf-8"))
        if marker["key"] != plan.key:
            return None
        scores = [TaskScore.model_validate(score) for score in marker["scores"]]
        lines = (plan.marker.parent / marker["samples"]).read_text(encoding="utf-8").splitlines()
        samples = [json.loads(line) for line in lines]
    except (OSError, ValueError, KeyError, TypeError):
        # Not there, or not whole: the task is asked again.
        return None
    return scores, _answers(plan.name, samples)


def _ask(
    lm: TemplateLM,
    plan: _Plan,
    spec: CapabilitySpec,
    loaded: Loaded,
    fingerprint: str,
    device: torch.device,
) -> tuple[list[TaskScore], pd.DataFrame]:
    """Evaluate one task and put its files on disk, the marker last."""
    began, began_at = time.monotonic(), time.time()
    random.seed(DEFAULT_RANDOM_SEED)
    # lm-eval's tasks and metrics draw from numpy's global generator.
    np.random.seed(DEFAULT_OTHER_SEED)  # noqa: NPY002
    torch.manual_seed(DEFAULT_OTHER_SEED)
    try:
        with task_sets.quiet():
            results = evaluator.evaluate(
                lm,
                {"tasks": {plan.name: plan.task}},
                samples={plan.name: plan.doc_ids},
                bootstrap_iters=BOOTSTRAP_DRAWS,
                apply_chat_template=spec.apply_chat_template,
                fewshot_as_multiturn=spec.apply_chat_template,
            )
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        raise NoRoom(
            f"The memory of {device} is too small for the task {plan.name} with batch_size "
            f"{spec.batch_size}. Lower batch_size in the spec's capability part."
        ) from error
    samples = results.pop("samples")[plan.name]
    seconds = time.monotonic() - began
    hashes = "".join(s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in samples)
    results |= {
        "config": {
            "model": getattr(lm, "registered_as", "explorer-hf"),
            "model_args": {"pretrained": loaded.name, "fingerprint": fingerprint},
            "model_num_parameters": loaded.model.num_parameters(),
            "model_dtype": str(loaded.model.dtype),
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
        "model_source": getattr(lm, "registered_as", "explorer-hf"),
        "model_name": loaded.name,
        "chat_template": loaded.tokenizer.chat_template if spec.apply_chat_template else None,
        "total_evaluation_time_seconds": str(seconds),
    }
    scores = _scores(plan, results, samples, seconds)
    _write(plan, results, [_as_lm_eval_writes(sample) for sample in samples], scores)
    return scores, _answers(plan.name, samples)


def _is_out_of_memory(error: BaseException) -> bool:
    """CUDA has a class for it; the CPU's allocator only a sentence."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error)


def _as_lm_eval_writes(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample in the form of lm-eval's samples_*.jsonl."""
    arguments = {
        f"gen_args_{i}": {f"arg_{j}": part for j, part in enumerate(argument)}
        for i, argument in enumerate(sample["arguments"])
    }
    return {
        **sample,
        "resps": sanitize_list(sample["resps"]),
        "filtered_resps": sanitize_list(sample["filtered_resps"]),
        "arguments": arguments,
        "target": str(sample["target"]),
    }


def _write(
    plan: _Plan, results: dict[str, Any], samples: list[dict[str, Any]], scores: list[TaskScore]
) -> None:
    """Samples, results, then the marker that makes them count; files of an older key go last."""
    folder, name = plan.marker.parent, _file_part(plan.name)
    older = []
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        marker = json.loads(plan.marker.read_text(encoding="utf-8"))
        older = [folder / marker["samples"], folder / marker["results"]]
    date = datetime.now(UTC).replace(tzinfo=None).isoformat().replace(":", "-")

    def dump(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, default=handle_non_serializable, ensure_ascii=False, indent=indent)

    samples_file = f"samples_{name}_{date}.jsonl"
    results_file = f"results_{date}.json"
    store.write_text(folder / samples_file, "".join(dump(s) + "\n" for s in samples))
    store.write_text(folder / results_file, dump(results, indent=1) + "\n")
    marker = {
        "key": plan.key,
        "samples": samples_file,
        "results": results_file,
        "scores": [score.model_dump() for score in scores],
    }
    store.write_text(plan.marker, json.dumps(marker, indent=1) + "\n")
    for path in older:
        path.unlink(missing_ok=True)


def _metric_name(metric: str, filter_name: str, filters: set[str]) -> str:
    """lm-eval's key without the filter, unless the task scores one metric by several."""
    return metric if len(filters) == 1 else f"{metric},{filter_name}"


def _answers(task: str, samples: list[dict[str, Any]]) -> pd.DataFrame:
    """A row a document and metric, for metrics that have a number for a document."""
    filters: dict[str, set[str]] = {}
    for sample in samples:
        for metric in sample["metrics"]:
            filters.setdefault(metric, set()).add(sample["filter"])
    rows = [
        (
            task,
            _metric_name(metric, sample["filter"], filters[metric]),
            int(sample["doc_id"]),
            sample["doc_hash"],
            float(sample[metric]),
        )
        for sample in samples
        for metric in sample["metrics"]
        if isinstance(sample[metric], int | float | np.number)
    ]
    return pd.DataFrame(rows, columns=ANSWER_COLUMNS)


def _scores(
    plan: _Plan, results: dict[str, Any], samples: list[dict[str, Any]], seconds: float
) -> list[TaskScore]:
    """A row a metric of one task; metrics whose value is no finite number are left out."""
    values = results["results"][plan.name]
    keys = [key.partition(",") for key in values if "," in key and "_stderr," not in key]
    filters: dict[str, set[str]] = {}
    for metric, _, filter_name in keys:
        filters.setdefault(metric, set()).add(filter_name)
    higher = results["higher_is_better"].get(plan.name, {})
    rows = []
    for metric, _, filter_name in keys:
        value = values[f"{metric},{filter_name}"]
        if not isinstance(value, int | float | np.number) or not math.isfinite(value):
            continue
        stderr = values.get(f"{metric}_stderr,{filter_name}")
        known = isinstance(stderr, int | float | np.number) and math.isfinite(stderr)
        rows.append(
            TaskScore(
                task=plan.name,
                metric=_metric_name(metric, filter_name, filters[metric]),
                score=float(value),
                stderr=float(stderr) if known else None,
                chance=chance_level(plan.task, metric, samples),
                higher_is_better=higher.get(metric) is not False,
                headline=False,
                num_documents=len(plan.doc_ids),
                num_documents_total=results["n-samples"][plan.name]["original"],
                num_fewshot=int(results["n-shot"].get(plan.name) or 0),
                task_version=str(plan.task.VERSION),
                task_hash=results["task_hashes"][plan.name],
                seconds=round(seconds, 3),
            )
        )
    headline = _headline(plan, [row.metric for row in rows])
    return [row.model_copy(update={"headline": row.metric == headline}) for row in rows]


def _headline(plan: _Plan, metrics: list[str]) -> str | None:
    """The metric that stands for a task: what its file says, else acc_norm, acc, the first."""
    said = task_sets.metadata(plan.task).get("headline_metric")
    found = first_of([said] if said else HEADLINES, metrics)
    if said and found is None:
        raise BadInput(
            f"The task {plan.name} names the headline_metric {said!r}, but its metrics are "
            f"{', '.join(metrics)}. Correct its task file."
        )
    return found or next(iter(metrics), None)


def chance_level(task: Task, metric: str, samples: list[dict[str, Any]]) -> float | None:
    """Score of somebody who guesses, or None where that is not known.

    What the task's file says (`metadata: chance`, a number or one for each metric) goes
    first. Multiple choice: mean over the documents of correct choices by choices. Greedy
    continuations and exact matches of free text: 0.
    """
    said = task_sets.metadata(task).get("chance")
    if isinstance(said, dict):
        said = said.get(metric)
    kind = task.OUTPUT_TYPE
    if metric not in CHOICE_METRICS | EXACT_METRICS:
        return None
    if said is not None:
        return float(said)
    if callable(task.config.process_results):
        # The task scores by its own rules, which we do not know.
        return None
    if kind == "multiple_choice" and metric in CHOICE_METRICS:
        asked_twice = 2 if "acc_mutual_info" in samples[0]["metrics"] else 1
        shares = [
            (len(sample["target"]) if isinstance(sample["target"], list) else 1)
            / (len(sample["arguments"]) / asked_twice)
            for sample in samples
        ]
        return sum(shares) / len(shares)
    return 0.0 if metric in EXACT_METRICS else None
