"""The prompts of a task, made by a process of its own: lm-eval stays out of the dashboard."""

import pydantic
from pydantic import BaseModel

from explorer import cli_subprocess
from explorer.errors import ExplorerError

TIMEOUT_S = 300
"""Data may have to be fetched first."""


class Question(BaseModel):
    """One document as a model is asked it."""

    doc_id: int
    prompt: str
    choices: list[str] = []
    """What may follow the prompt; empty where the model writes."""
    right: list[int] = []
    target: str = ""
    """What should be written."""
    until: list[str] = []
    """What ends the answer."""


class Preview(BaseModel):
    """The first documents of a task."""

    task: str
    num_documents: int
    num_fewshot: int
    questions: list[Question]


def preview(name: str, include_path: str | None = None) -> Preview:
    """The first prompts of a task.

    Raises:
        BadInput: What the task or its documents lack, in a sentence.
        ExplorerError: The process that makes the prompts failed otherwise.
    """
    command = ["tasks", "preview", "--json", name]
    if include_path is not None:
        command += ["--include-path", include_path]
    said = cli_subprocess.output(command, f"The prompts of {name}", timeout_s=TIMEOUT_S)
    try:
        return Preview.model_validate_json(said)
    except pydantic.ValidationError as error:
        raise ExplorerError(f"The prompts of {name} could not be read: {error}") from error
