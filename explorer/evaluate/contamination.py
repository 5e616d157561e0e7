"""Contamination: how many test documents overlap with the distillation corpus.

A document overlaps when one of its readings (the question with one of its choices) shares a
run of 13 words with the corpus. Words are lower-cased letters and digits; punctuation and
spacing are ignored. A reading of 8 to 12 words overlaps when all its words occur in the corpus
in one run. Shorter readings are never counted, because such runs (`the capital of France is`)
occur everywhere by chance. A task with only such documents always shows 0, which then means
nothing.

Source of the 13: Brown et al. 2020, arXiv:2005.14165, appendix C.
"""

import re
from collections.abc import Iterable

from explorer.tasks import task_loading

MIN_WORDS = 8
"""Shortest reading that can overlap, in words."""
BREAK = "\x1e"
"""Separates the readings of a document; no run crosses it."""
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def count_overlaps(
    texts: Iterable[str], documents: dict[str, list[str]], n: int = 13
) -> dict[str, int]:
    """Number of documents in each task that share a run of `n` words with the texts.

    Args:
        texts: The documents of the corpus; no run crosses from one to the next.
        documents: The texts of each task's documents, from `task_documents`.
        n: Words of a run, at least `MIN_WORDS`.
    """
    owners: dict[int, dict[tuple[str, ...], set[tuple[str, int]]]] = {}
    for task, items in documents.items():
        for index, item in enumerate(items):
            for words in map(_words, item.split(BREAK)):
                length = min(n, len(words))
                if length < MIN_WORDS:
                    continue
                runs = owners.setdefault(length, {})
                for run in _runs(words, length):
                    runs.setdefault(run, set()).add((task, index))
    overlapping: set[tuple[str, int]] = set()
    for text in texts:
        words = _words(text)
        for length, runs in owners.items():
            for run in _runs(words, length):
                overlapping |= runs.get(run, set())
    return {task: sum(owner == task for owner, _ in overlapping) for task in documents}


def task_documents(names: Iterable[str], include_path: str | None = None) -> dict[str, list[str]]:
    """Each document's readings: the question with each of its choices.

    Args:
        names: Tasks, groups or tags, as in a spec.
        include_path: A folder with more tasks.

    Returns:
        For each leaf task one text per document: its readings, separated by `BREAK`.
    """
    result: dict[str, list[str]] = {}
    with task_loading.quiet_lm_eval():
        for name, task in task_loading.load_tasks(names, include_path).items():
            texts = []
            for document in task.eval_docs:
                question = task.doc_to_text(document)
                if task.OUTPUT_TYPE == "multiple_choice":
                    choices = [str(choice) for choice in task.doc_to_choice(document)]
                else:
                    choices = [str(task.doc_to_target(document))]
                if not isinstance(question, str):
                    # Several contexts with one continuation, as in Winogrande.
                    pairs = [f"{choice} {task.doc_to_target(document)}" for choice in choices]
                else:
                    pairs = [f"{question} {choice}" for choice in choices]
                texts.append(BREAK.join(pairs))
            result[name] = texts
    return result


def _words(text: str) -> list[str]:
    return [word.lower() for word in WORD.findall(text)]


def _runs(words: list[str], length: int) -> Iterable[tuple[str, ...]]:
    return (tuple(words[i : i + length]) for i in range(len(words) - length + 1))
