"""The first prompts of a task as a model would get them; no model is needed.

explorer tasks preview starter_facts
"""

from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED

from explorer.errors import BadInput, ExplorerError
from explorer.tasks import task_loading
from explorer.tasks.preview import Preview, Question


def preview(
    name: str, include_path: str | None = None, *, source: str = "", num: int = 3
) -> Preview:
    """What a model is asked by the first documents of a task.

    Args:
        name: A task.
        include_path: A folder with more tasks.
        source: The task's file, where it is known: saves the reading of all of lm-eval's.
        num: Documents.

    Raises:
        BadInput: The task's file or documents cannot be read, or it is one that we do not run.
    """
    task = task_loading.load_task(name, include_path, source)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    total = len(task.eval_docs)
    if not total:
        raise BadInput(f"The task {name} has no documents.")
    try:
        with task_loading.quiet():
            task.build_all_requests(samples=list(range(min(num, total))))
    except ExplorerError:
        raise
    except Exception as error:
        raise BadInput(
            f"The task {name} makes no prompt of its documents: {type(error).__name__}: {error}. "
            "Correct its task file."
        ) from error
    asked: dict[int, list[Instance]] = {}
    for instance in task.instances:
        asked.setdefault(instance.doc_id, []).append(instance)
    return Preview(
        task=name,
        num_documents=total,
        num_fewshot=int(task.config.num_fewshot or 0),
        questions=[_question(task, number, instances) for number, instances in asked.items()],
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
            until=[until] if isinstance(until, str) else [str(one) for one in until],
        )
    if task.OUTPUT_TYPE != "multiple_choice":
        return Question(doc_id=doc_id, prompt=first.args[0], choices=[first.args[1]], right=[0])
    choices = list(task.doc_to_choice(first.doc))
    target = task.doc_to_target(first.doc)
    right = [_place(one, choices) for one in (target if isinstance(target, list) else [target])]
    # Beyond the choices lie the requests of mutual information.
    prompts = {instance.args[0] for instance in instances[: len(choices)]}
    return Question(
        doc_id=doc_id,
        # Choices that differ before their end are asked as prompts of their own.
        prompt=prompts.pop() if len(prompts) == 1 else "",
        choices=[
            instance.args[1] if not prompts else "".join(instance.args)
            for instance in instances[: len(choices)]
        ],
        right=[place for place in right if place is not None],
    )


def _place(target: Any, choices: list[Any]) -> int | None:
    if isinstance(target, int):
        return target
    if target in choices:
        return choices.index(target)
    return int(target) if isinstance(target, str) and target.isdecimal() else None
