"""Documents whose prompts an endpoint refused for good: scored without them, and reported.

A content filter or a prompt longer than the context is no answer, so it is neither right nor
wrong. lm-eval scores the other documents; the refused ones are named in the record.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.api.task import Task

from explorer.errors import RunFailed
from explorer.evaluate.backends.api_lm import ApiLM


@contextlib.contextmanager
def scored_without_refused(
    lm: TemplateLM, task: Task, name: str, doc_ids: list[int]
) -> Iterator[dict[int, str]]:
    """Let lm-eval score only the documents whose prompts `lm` answered.

    Args:
        lm: Only an endpoint can refuse a prompt.
        task: The task, whose requests lm-eval will build and send inside the block.
        name: Its name.
        doc_ids: The documents to evaluate, in the order of the task's data.

    Yields:
        The refused documents' ids and the server's reasons; filled when the answers are there.

    Raises:
        RunFailed: The server refused every prompt of the task.
    """
    refused: dict[int, str] = {}
    if not isinstance(lm, ApiLM):
        yield refused
        return
    lm.begin_task()
    all_documents = task.doc_iterator

    def answered_documents(**options: Any) -> Iterator[tuple[int, Any]]:
        # lm-eval counts documents from 0 within the selection.
        reasons = lm.refused_documents(task.instances) if lm.refusals else {}
        refused.update({doc_ids[number]: reason for number, reason in reasons.items()})
        if reasons and len(reasons) == len(doc_ids):
            raise RunFailed(
                f"The endpoint refused all {len(doc_ids)} prompts of the task {name}, so there is "
                f"nothing to score: {next(iter(reasons.values()))}. Shorten the prompts, for "
                "example with fewer shots, or leave the task out."
            )
        return (item for item in all_documents(**options) if item[0] not in reasons)

    task.doc_iterator = answered_documents
    try:
        yield refused
    finally:
        del task.doc_iterator
