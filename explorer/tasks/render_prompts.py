"""Renders a task's first prompts exactly as a model gets them. Needs no model.

explorer tasks preview starter_facts
"""

from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED

from explorer.errors import BadInput, ExplorerError
from explorer.tasks import document_checks, task_loading
from explorer.tasks.preview import Question, TaskPreview


def render_preview(
    name: str, include_path: str | None = None, *, source: str = "", num: int = 3
) -> TaskPreview:
    """Render the prompts of a task's first documents.

    Args:
        name: The task's name.
        include_path: A folder with more tasks.
        source: The task's file if known, which avoids reading all of lm-eval's files.
        num: Number of documents.

    Raises:
        BadInput: The task's file or documents can't be read, or the explorer does not support
            this kind of task.
    """
    task = task_loading.load_task(name, include_path, source)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    total = len(task.eval_docs)
    if not total:
        raise BadInput(f"The task {name} has no documents.")
    document_checks.check_documents(name, task, range(min(num, total)))
    try:
        with task_loading.quiet_lm_eval():
            task.build_all_requests(samples=list(range(min(num, total))))
    except ExplorerError:
        raise
    except Exception as error:
        raise BadInput(
            f"The task {name} could not build prompts: {type(error).__name__}: {error}. "
            "Correct its task file."
        ) from error
    by_document: dict[int, list[Instance]] = {}
    for instance in task.instances:
        by_document.setdefault(instance.doc_id, []).append(instance)
    return TaskPreview(
        task=name,
        num_documents=total,
        num_fewshot=int(task.config.num_fewshot or 0),
        questions=[_question(task, doc_id, instances) for doc_id, instances in by_document.items()],
    )


def _question(task: Task, doc_id: int, instances: list[Instance]) -> Question:
    first = instances[0]
    if first.request_type == "loglikelihood_rolling":
        return Question(doc_id=doc_id, prompt=first.args[0])
    if first.request_type == "generate_until":
        target = task.doc_to_target(first.doc)
        until = first.args[1].get("until") or []
        return Question(
            doc_id=doc_id,
            prompt=str(first.args[0]),
            target=", ".join(map(str, target)) if isinstance(target, list) else str(target),
            until=[until] if isinstance(until, str) else [str(stop) for stop in until],
        )
    if task.OUTPUT_TYPE != "multiple_choice":
        return Question(doc_id=doc_id, prompt=first.args[0], choices=[first.args[1]], right=[0])
    choices = list(task.doc_to_choice(first.doc))
    target = task.doc_to_target(first.doc)
    targets = target if isinstance(target, list) else [target]
    right = [_choice_index(target, choices) for target in targets]
    # Requests after the choices are for acc_mutual_info.
    prompts = {instance.args[0] for instance in instances[: len(choices)]}
    return Question(
        doc_id=doc_id,
        # Where the choice sits inside the prompt, each choice has its own prompt.
        prompt=prompts.pop() if len(prompts) == 1 else "",
        choices=[
            instance.args[1] if not prompts else "".join(instance.args)
            for instance in instances[: len(choices)]
        ],
        right=[index for index in right if index is not None],
    )


def _choice_index(target: Any, choices: list[Any]) -> int | None:
    if isinstance(target, int):
        return target
    if target in choices:
        return choices.index(target)
    return int(target) if isinstance(target, str) and target.isdecimal() else None
