"""The documents that a `limit` selects: a seeded, stratified sample, the same for every model.

subset.choose_documents("arc_easy", subset.document_strata(task), limit=100, seed=0)
"""

import hashlib
from collections.abc import Sequence

from lm_eval.api.task import Task

from explorer.tasks import task_loading

STRATUM_FIELDS = ("subject", "category", "level", "type")
"""Fields that label documents in lm-eval's tasks; the first that all documents have counts."""


def document_strata(task: Task) -> list[str]:
    """The stratum of each document: its label, and the position of the right choice.

    The label is the field that the task's metadata names (`stratum`), else one of
    `STRATUM_FIELDS`.
    """
    documents = task.eval_docs
    named = task_loading.task_metadata(task).get("stratum")
    names = STRATUM_FIELDS if named is None else (named,)
    field = next((name for name in names if all(name in doc for doc in documents)), None)
    return [f"{doc[field] if field else ''}/{_right_choice(task, doc)}" for doc in documents]


def _right_choice(task: Task, document: dict[str, object]) -> str:
    if task.OUTPUT_TYPE != "multiple_choice":
        return ""
    try:
        target = task.doc_to_target(document)
    except Exception:
        # The task's own template or code failed; lm-eval reports it during the evaluation.
        return ""
    # A target in words is an answer of its own, not a position among the choices.
    return str(target) if isinstance(target, int) else ""


def choose_documents(task: str, strata: Sequence[str], limit: int | None, seed: int) -> list[int]:
    """Indices of the selected documents, ascending.

    Each stratum contributes its share of the sample, up to rounding. Documents are ranked by a
    hash: a larger limit keeps all documents of a smaller one, over the seeds every document is
    equally likely, and the selection is the same on every machine and version.

    Args:
        task: The task's name, part of the hash.
        strata: The stratum of each document, from `document_strata`.
        limit: Number of documents; None selects all.
        seed: Part of the hash.
    """
    doc_ids = list(range(len(strata)))
    if limit is None or limit >= len(strata):
        return doc_ids

    def draw(item: object) -> bytes:
        return hashlib.sha256(f"{seed}/{task}/{item}".encode()).digest()

    members: dict[str, list[int]] = {}
    for doc_id, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(doc_id)
    rank_of: dict[int, tuple[float, bytes]] = {}
    for stratum, stratum_ids in members.items():
        # Each stratum is spread evenly over [0, 1), from an offset of its own.
        offset = int.from_bytes(draw(f"stratum {stratum}")[:6], "big") / 2**48
        for rank, doc_id in enumerate(sorted(stratum_ids, key=draw)):
            rank_of[doc_id] = ((rank + offset) / len(stratum_ids), draw(doc_id))
    return sorted(sorted(doc_ids, key=rank_of.__getitem__)[:limit])
