"""Which tasks and documents an evaluation covers, and the key under which their answers count."""

import dataclasses
import hashlib
import json
from pathlib import Path

import lm_eval
from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.utils import handle_non_serializable

from explorer.errors import BadInput
from explorer.evaluate import subset, task_scores
from explorer.evaluate.backends.backend import Backend
from explorer.evaluate.task_output import TaskFiles
from explorer.models.loading import Loaded
from explorer.specs import CapabilitySpec
from explorer.tasks import document_checks, task_loading


@dataclasses.dataclass(frozen=True)
class TaskPlan:
    """One task, the documents to evaluate, and its files."""

    name: str
    task: Task
    doc_ids: list[int]
    files: TaskFiles

    @property
    def num_requests(self) -> int:
        """Approximate number of requests, from the number of choices of the first document."""
        per_document = 1
        if self.task.OUTPUT_TYPE == "multiple_choice":
            per_document = len(self.task.doc_to_choice(self.task.eval_docs[self.doc_ids[0]]))
        return len(self.doc_ids) * per_document


def plan_tasks(
    loaded: Loaded, spec: CapabilitySpec, folder: Path, fingerprint: str, backend: Backend
) -> list[TaskPlan]:
    """The spec's tasks with their documents.

    Raises:
        UnknownTask: A name that neither lm-eval nor the task folders know.
        BadInput: A task that this backend cannot answer, or whose data is missing.
    """
    plans = []
    for name, task in task_loading.take_checked(spec.tasks, spec.include_path).items():
        _set_few_shots(task, spec)
        task_scores.check_metadata_fields(task, name)
        if task.OUTPUT_TYPE not in backend.output_types:
            raise BadInput(
                f"The task {name} is of the type {task.OUTPUT_TYPE}, which {loaded.name} cannot "
                f"answer: {backend.why_not}."
            )
        doc_ids = checked_documents(name, task, spec)
        key = _key(task, doc_ids, spec, loaded, fingerprint, backend)
        plans.append(TaskPlan(name, task, doc_ids, TaskFiles(folder, name, key)))
    return plans


def checked_documents(name: str, task: Task, spec: CapabilitySpec) -> list[int]:
    """The positions of the documents that a spec evaluates.

    Raises:
        BadInput: Some of them can't be asked or scored.
    """
    doc_ids = list(range(len(task.eval_docs)))
    if spec.limit is not None:
        doc_ids = subset.choose_documents(name, subset.document_strata(task), spec.limit, spec.seed)
    document_checks.check_documents(name, task, doc_ids)
    return doc_ids


def _set_few_shots(task: Task, spec: CapabilitySpec) -> None:
    """Set the number and the seed of few-shot examples as `lm_eval.simple_evaluate` does.

    A task whose own file sets zero examples keeps zero.
    """
    own = task.get_config("num_fewshot")
    if spec.num_fewshot is not None and own != 0:
        task.set_config(key="num_fewshot", value=spec.num_fewshot)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)


def _key(
    task: Task,
    doc_ids: list[int],
    spec: CapabilitySpec,
    loaded: Loaded,
    fingerprint: str,
    backend: Backend,
) -> str:
    """A hash of everything that decides the answers."""
    digest, documents = hashlib.sha256(), task.eval_docs
    for doc_id in doc_ids:
        text = json.dumps(documents[doc_id], default=handle_non_serializable)
        digest.update(text.encode())
    deciding = {
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
        "back_end": backend.version,
    }
    text = json.dumps(deciding, sort_keys=True, default=handle_non_serializable)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
