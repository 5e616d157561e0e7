"""The prompts of a task, made by a process of its own: lm-eval stays out of the dashboard."""

import subprocess
import sys

import pydantic
from pydantic import BaseModel

from explorer.errors import BadInput, ExplorerError

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
    command = [sys.executable, "-m", "explorer", "tasks", "preview", "--json", name]
    if include_path is not None:
        command += ["--include-path", include_path]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        if done.returncode == 0:
            return Preview.model_validate_json(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise ExplorerError(
            f"The prompts of {name} were not there after {TIMEOUT_S} s. In a shell it may take "
            f"longer: explorer tasks preview {name}"
        ) from error
    except pydantic.ValidationError as error:
        raise ExplorerError(f"The prompts of {name} could not be read: {error}") from error
    said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    kind = BadInput if said.startswith("error: ") else ExplorerError
    raise kind(said.removeprefix("error: "))
