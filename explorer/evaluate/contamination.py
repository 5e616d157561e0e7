"""How much of a test the distillation text gives away.

A document counts when one of its readings (the question with one of its choices) shares a
run of 13 words with the corpus: lower-cased words of letters and digits, punctuation and
spacing aside. A reading shorter than 13 words but of at least 8 counts when all its words
stand in the corpus in one run. Still shorter ones are never counted, because such runs
(`the capital of France is`) occur everywhere by chance: a task that has only such documents
always shows 0, which then says nothing.

Source of the 13: Brown et al. 2020, arXiv:2005.14165, appendix C.
"""

import re
from collections.abc import Iterable

from explorer.tasks import task_loading

MIN_WORDS = 8
"""Shortest reading that can be counted."""
BREAK = "\x1e"
"""Between two readings of a document, as a question with each of its choices; no run crosses it."""
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def count_overlaps(
    texts: Iterable[str], documents: dict[str, list[str]], n: int = 13
) -> dict[str, int]:
    """Number of each task's documents that share a run of `n` words with the texts.

    Args:
        texts: The corpus, a document an item; runs do not cross from one to the next.
        documents: Task to the texts of its documents, as `task_documents` gives them.
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
    found: set[tuple[str, int]] = set()
    for text in texts:
        words = _words(text)
        for length, runs in owners.items():
            for run in _runs(words, length):
                found |= runs.get(run, set())
    return {task: sum(owner == task for owner, _ in found) for task in documents}


def task_documents(names: Iterable[str], include_path: str | None = None) -> dict[str, list[str]]:
    """What a model could have read of each document: the question with each of its choices.

    Args:
        names: Tasks, groups or tags, as in a spec.
        include_path: A folder with more tasks.

    Returns:
        Leaf task to one text a document: its readings, with `BREAK` between them.
    """
    result: dict[str, list[str]] = {}
    with task_loading.quiet():
        for name, task in task_loading.load(names, include_path).items():
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
