"""Tokens of an API: about how many a task will take, and how many were counted.

log = UsageLog(folder / "usage.jsonl")
log.add(Usage(num_replies=1, prompt_tokens=120, output_tokens=9))
log.total()
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pydantic
from lm_eval.api.model import TemplateLM
from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED

from explorer.records import Usage
from explorer.specs import ApiSpec, CapabilitySpec

CHARACTERS_PER_TOKEN = 4.0
"""Of English text, where the tokenizer is not known."""


class UsageLog:
    """Each reply's tokens, a line each, so that those of an earlier process count too."""

    def __init__(self, path: Path) -> None:
        """Go on in this file; made with the first reply."""
        self._path = path

    def add(self, usage: Usage) -> None:
        """Write one reply's tokens down."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(usage.model_dump_json() + "\n")

    def total(self) -> Usage:
        """All replies together; a line that was cut off counts as a reply without tokens."""
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return Usage()
        found = Usage()
        for line in lines:
            try:
                found += Usage.model_validate_json(line)
            except pydantic.ValidationError:
                found += Usage(num_replies=1, num_uncounted=1)
        return found


def estimate_request_usage(
    tasks: Iterable[tuple[Task, list[int]]], lm: TemplateLM, spec: CapabilitySpec
) -> Usage:
    """What tasks would take, before anything is asked: the prompts, and answers at their longest.

    Args:
        tasks: Each with the documents that will be asked.
        lm: For its chat template and, where it has one, its tokenizer.
        spec: How they are asked.
    """
    api, found = spec.api or ApiSpec(), Usage()
    for task, doc_ids in tasks:
        task.build_all_requests(
            samples=doc_ids,
            apply_chat_template=spec.apply_chat_template,
            fewshot_as_multiturn=spec.apply_chat_template,
            chat_template=lm.apply_chat_template if spec.apply_chat_template else None,
            tokenizer_name=lm.tokenizer_name,
        )
        for request in task.instances:
            found += _of_request(request.request_type, request.args, lm, api)
        # The examples are drawn again when the task is asked.
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    return found


def _of_request(request_type: str, arguments: Any, lm: TemplateLM, api: ApiSpec) -> Usage:
    prompt, longest = _text(arguments[0]), 1
    if request_type == "generate_until":
        settings = arguments[1]
        longest = settings.get("max_gen_toks") or settings.get("max_tokens") or api.max_gen_toks
    elif len(arguments) > 1:
        prompt += str(arguments[1])
    tokenizer = getattr(lm, "tokenizer", None)
    num_tokens = (
        math.ceil(len(prompt) / CHARACTERS_PER_TOKEN)
        if tokenizer is None
        else len(tokenizer(prompt, add_special_tokens=False).input_ids)
    )
    return Usage(num_replies=1, prompt_tokens=num_tokens, output_tokens=int(longest))


def _text(prompt: Any) -> str:
    """The words of a prompt; a chat comes as JSON in a tuple of its own."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(str(turn.get("content", "")) for turn in json.loads(prompt.prompt))
