"""Which documents a limit takes: a seeded sample, stratified, that no model changes.

sample.choose("arc_easy", sample.strata(task), limit=100, seed=0)
"""

import hashlib
from collections.abc import Sequence

from lm_eval.api.task import Task

from explorer.tasks import task_loading

STRATUM_FIELDS = ("subject", "category", "level", "type")
"""What documents of lm-eval's tasks say of their kind; the first that all of them have counts."""


def document_strata(task: Task) -> list[str]:
    """The stratum of each document: its kind, and which choice is the right one.

    The kind is the field that the task's metadata names (`stratum`), else one of `FIELDS`.
    """
    documents = task.eval_docs
    said = task_loading.metadata(task).get("stratum")
    names = STRATUM_FIELDS if said is None else (said,)
    field = next((name for name in names if all(name in one for one in documents)), None)
    return [f"{one[field] if field else ''}/{_right(task, one)}" for one in documents]


def _right(task: Task, document: dict[str, object]) -> str:
    if task.OUTPUT_TYPE != "multiple_choice":
        return ""
    try:
        target = task.doc_to_target(document)
    except Exception:
        # A task's own templates or code; where the document is asked, lm-eval says what is wrong.
        return ""
    # A target in words is an answer of its own, no place among the choices.
    return str(target) if isinstance(target, int) else ""


def choose_documents(task: str, strata: Sequence[str], limit: int | None, seed: int) -> list[int]:
    """Positions of the documents to ask, ascending.

    Each stratum gives its share of the sample, up to rounding. Documents are ranked by a hash,
    so a larger limit keeps all documents of a smaller one, each is as likely as any other over
    the seeds, and the choice is the same on every machine and version.

    Args:
        task: Its name, part of the hash.
        strata: Of each document, as `strata` names them.
        limit: How many; None takes all.
        seed: Another one takes others.
    """
    everything = list(range(len(strata)))
    if limit is None or limit >= len(strata):
        return everything

    def draw(what: object) -> bytes:
        return hashlib.sha256(f"{seed}/{task}/{what}".encode()).digest()

    members: dict[str, list[int]] = {}
    for i, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(i)
    place: dict[int, tuple[float, bytes]] = {}
    for stratum, own in members.items():
        # Every stratum is spread evenly over [0, 1), from a beginning of its own.
        begins = int.from_bytes(draw(f"stratum {stratum}")[:6], "big") / 2**48
        for rank, i in enumerate(sorted(own, key=draw)):
            place[i] = ((rank + begins) / len(own), draw(i))
    return sorted(sorted(everything, key=place.__getitem__)[:limit])
