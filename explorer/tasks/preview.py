"""Previews a task's prompts in a separate process, so the dashboard never imports lm-eval."""

import pydantic
from pydantic import BaseModel

from explorer.errors import ExplorerError
from explorer.processes import cli_subprocess

TIMEOUT_S = 300
"""Long enough to download the dataset first."""


class Question(BaseModel):
    """One document as the model sees it."""

    doc_id: int
    prompt: str
    choices: list[str] = []
    """The possible continuations of the prompt; empty for generation tasks."""
    right: list[int] = []
    """Indices of the correct choices."""
    target: str = ""
    """The expected answer of a generation task."""
    until: list[str] = []
    """Stop sequences."""


class TaskPreview(BaseModel):
    """The first documents of a task."""

    task: str
    num_documents: int
    num_fewshot: int
    questions: list[Question]


def preview_in_subprocess(name: str, include_path: str | None = None) -> TaskPreview:
    """Render the first prompts of a task with `explorer tasks preview --json`.

    Raises:
        BadInput: The task or its documents can't be used; the message says why.
        ExplorerError: The process failed for another reason.
    """
    command = ["tasks", "preview", "--json", name]
    if include_path is not None:
        command += ["--include-path", include_path]
    output = cli_subprocess.output(command, f"The prompts of {name}", timeout_s=TIMEOUT_S)
    try:
        return TaskPreview.model_validate_json(output)
    except pydantic.ValidationError as error:
        raise ExplorerError(f"The prompts of {name} could not be read: {error}") from error
