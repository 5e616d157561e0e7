"""Tokens of an API: an estimate before an evaluation, and the count of its replies.

log = UsageLog(folder / "usage.jsonl")
log.add(Usage(num_replies=1, prompt_tokens=120, output_tokens=9))
log.total()
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED

from explorer.files import durable_files
from explorer.records import Usage
from explorer.specs import ApiSpec, CapabilitySpec

CHARACTERS_PER_TOKEN = 4.0
"""For English text, where the tokenizer is unknown."""


class UsageLog:
    """The token counts of every reply, one line each, earlier processes' included."""

    def __init__(self, path: Path) -> None:
        """Continue this file; the first reply creates it."""
        self._path = path

    def add(self, usage: Usage) -> None:
        """Append one reply's token counts."""
        durable_files.append_object(self._path, usage.model_dump())

    def total(self) -> Usage:
        """The sum over all replies; an incomplete line counts as a reply without counts."""
        try:
            lines = durable_files.read_text(self._path).splitlines()
        except FileNotFoundError:
            return Usage()
        total = Usage()
        for line in lines:
            try:
                total += Usage.model_validate(durable_files.parse_json(line))
            except ValueError:
                total += Usage(num_replies=1, num_uncounted=1)
        return total


def estimate_request_usage(
    tasks: Iterable[tuple[Task, list[int]]], lm: TemplateLM, spec: CapabilitySpec
) -> Usage:
    """The most tokens that tasks can use: their prompts, and answers of maximum length.

    Args:
        tasks: Each task with the ids of the documents to evaluate.
        lm: Its chat template and, if it has one, its tokenizer are used.
        spec: How the tasks are evaluated.
    """
    api, total = spec.api or ApiSpec(), Usage()
    for task, doc_ids in tasks:
        task.build_all_requests(
            samples=doc_ids,
            apply_chat_template=spec.apply_chat_template,
            fewshot_as_multiturn=spec.apply_chat_template,
            chat_template=lm.apply_chat_template if spec.apply_chat_template else None,
            tokenizer_name=lm.tokenizer_name,
        )
        for request in task.instances:
            total += _request_usage(request.request_type, request.args, lm, api)
        # So that the evaluation draws the same few-shot examples.
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    return total


def _request_usage(request_type: str, arguments: Any, lm: TemplateLM, api: ApiSpec) -> Usage:
    prompt, max_output = _text(arguments[0]), 1
    if request_type == "generate_until":
        settings = arguments[1]
        max_output = settings.get("max_gen_toks") or settings.get("max_tokens") or api.max_gen_toks
    elif len(arguments) > 1:
        prompt += str(arguments[1])
    tokenizer = getattr(lm, "tokenizer", None)
    num_tokens = (
        math.ceil(len(prompt) / CHARACTERS_PER_TOKEN)
        if tokenizer is None
        else len(tokenizer(prompt, add_special_tokens=False).input_ids)
    )
    return Usage(num_replies=1, prompt_tokens=num_tokens, output_tokens=int(max_output))


def _text(prompt: Any) -> str:
    """The text of a prompt; a chat comes as JSON inside a tuple subclass."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(str(turn.get("content", "")) for turn in json.loads(prompt.prompt))
