"""Refuses documents that lm-eval can't ask or score, before a model runs.

lm-eval notices such a document in the middle of an evaluation, by an assertion that names neither
the task nor the document, or not at all: a right answer beyond the choices counts as wrong.
"""

from collections.abc import Iterable
from typing import Any

from jinja2 import TemplateError
from lm_eval.api.task import ConfigurableTask, Task

from explorer.errors import BadInput, ExplorerError
from explorer.tasks import index

NAMED = 3
"""How many documents an error names; the rest are counted."""


def check_documents(name: str, task: Task, doc_ids: Iterable[int]) -> None:
    """Refuse a task if some of these documents can't be asked or scored.

    Args:
        name: The task's name.
        task: The task; one that is a Python class of its own is not looked at.
        doc_ids: Positions of the documents in the task's data. In tasks of lm-eval, only what
            makes it fail is refused.

    Raises:
        BadInput: The message names the first few documents and what is wrong with each.
    """
    if type(task) is not ConfigurableTask:
        return
    strict = name.partition("::")[0] not in index.shipped_names()
    documents, problems = task.eval_docs, []
    for doc_id in doc_ids:
        if problem := document_problem(task, documents[doc_id], strict=strict):
            problems.append(f"document {doc_id} {problem}")
    if problems:
        more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise BadInput(
            f"The task {name} can't be evaluated: {'; '.join(problems[:NAMED])}{more}. Correct its "
            "documents or its file, or remove the task from the list."
        )


def document_problem(task: ConfigurableTask, doc: dict[str, Any], *, strict: bool) -> str:
    """What is wrong with a document, to go behind its number; empty if nothing is.

    Args:
        task: The document's task, which lm-eval need not have finished building.
        doc: The document.
        strict: Also name what lm-eval takes without a word but scores wrongly.
    """
    part = "question"
    try:
        text = task.doc_to_text(doc)
        part = "choices"
        has_choices = task.config.doc_to_choice is not None
        choices = task.doc_to_choice(doc) if has_choices else None
        part = "right answer"
        target = task.doc_to_target(doc)
    except ExplorerError:
        raise
    except Exception as error:
        return f"has no {part}: {_reason(error)}"
    if choices is not None and (problem := _choices_problem(task, choices, strict)):
        return problem
    by_text = task.OUTPUT_TYPE == "multiple_choice" and isinstance(text, int)
    if not isinstance(text, str) and not (by_text and choices and 0 <= text < len(choices)):
        return f"has the question {text!r:.80}, which is no text"
    if task.OUTPUT_TYPE == "multiple_choice":
        gold = text if by_text else target
        if choices is None:
            return "has no choices: the task's file has no doc_to_choice"
        return _gold_problem(gold, choices) if strict and not task.config.process_results else ""
    if task.OUTPUT_TYPE in ("loglikelihood", "loglikelihood_rolling"):
        fits = isinstance(target, str) and target
        return "" if fits else f"has the text {target!r:.80} to score, which should not be empty"
    if strict and target is None and not task.config.process_results:
        return "has no right answer"
    return ""


def _choices_problem(task: ConfigurableTask, choices: Any, strict: bool) -> str:
    if not isinstance(choices, list) or not choices:
        return f"has the choices {choices!r:.80}, which should be a list of texts"
    for choice in choices:
        if not isinstance(choice, str):
            return f"has the choice {choice!r:.80}, which is no text"
        asked = (
            choice
            if getattr(task, "multiple_input", 0)
            else f"{task.config.target_delimiter}{choice}"
        )
        if not asked or (strict and not choice):
            return f"has an empty choice among {choices!r:.200}"
    return ""


def _gold_problem(gold: Any, choices: list[str]) -> str:
    """What is wrong with the right answers of a multiple-choice document."""
    answers = gold if isinstance(gold, list) else [gold]
    for answer in answers:
        among = answer in choices if isinstance(answer, str) else _is_index(answer, choices)
        if not among:
            return (
                f"has the right answer {answer!r:.80}, which is neither one of its {len(choices)} "
                "choices nor an index of one from 0"
            )
    return "" if answers else "has no right answer"


def _is_index(answer: Any, choices: list[str]) -> bool:
    return isinstance(answer, int) and 0 <= answer < len(choices)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, TemplateError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
