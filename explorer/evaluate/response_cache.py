"""Answers of a task that is under way, so that a killed evaluation asks only what is missing.

Lines of JSON, one for a batch, written when the batch is done. lm-eval's own response cache holds
pickles, which a store that others may write into must not load, and knows requests, not batches:
what else is in a batch moves the last digits of a log-likelihood, so a batch is known as a whole
or asked again as a whole.

    log = AnswerLog(path, key="fingerprint and all else that decides the answers", on_answer=print)
    lm.set_cache_hook(log)
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.model import CacheHook, hash_args

from explorer.store import atomic


class ResponseCache(CacheHook):
    """What lm-eval tells every answer, and what knows the answers of before."""

    def __init__(self, path: Path, key: str, on_answer: Callable[[], None]) -> None:
        """Read what an earlier process left under the same key; anything else is dropped.

        Args:
            path: A file of lines; made when the first batch is kept.
            key: Everything that decides the answers.
            on_answer: Called once for each request that has its answer, known or new.
        """
        super().__init__(None)
        self._path, self._key, self._on_answer = path, key, on_answer
        self._known: dict[str, list[list[Any]]] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            lines = []
        whole = []
        for line in lines:
            try:
                found = json.loads(line)
                if found["key"] != key:
                    break
                self._known.setdefault(found["batch"], []).append(list(found["answers"]))
            except (ValueError, KeyError, TypeError):
                # The process was killed while it wrote.
                break
            whole.append(line + "\n")
        if lines and len(whole) < len(lines):
            atomic.write_text(path, "".join(whole))

    def find(self, attr: str, requests: Sequence[Any]) -> list[Any] | None:
        """The answers that an earlier process got to this batch, which then count, or None.

        A batch that was asked twice has two answers, each found once.
        """
        left = self._known.get(_batch(attr, requests))
        if not left:
            return None
        for _ in requests:
            self._on_answer()
        return left.pop(0)

    def add_partial(self, attr: str, req: Iterable[Any], res: Any) -> None:
        """Count an answer; `keep` has the batch."""
        self._on_answer()

    def keep(self, attr: str, requests: Sequence[Any], answers: Sequence[Any]) -> None:
        """Put a batch on disk, in one line."""
        batch = _batch(attr, requests)
        line = json.dumps({"key": self._key, "batch": batch, "answers": list(answers)})
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _batch(attr: str, requests: Sequence[Any]) -> str:
    """What tells a batch apart: its requests in their order."""
    hashes = "".join(hash_args(attr, request) for request in requests)
    return hashlib.sha256(hashes.encode()).hexdigest()


def cached_answers(hook: CacheHook, attr: str, requests: Sequence[Any]) -> list[Any] | None:
    """Answers of before to a whole batch."""
    if not isinstance(hook, ResponseCache) or None in requests:
        return None
    return hook.find(attr, requests)


def cache_answers(
    hook: CacheHook, attr: str, requests: Sequence[Any], answers: Sequence[Any]
) -> None:
    """Tell a new batch to lm-eval's cache or to our log; a request without its text to neither."""
    if None in requests:
        return
    for request, answer in zip(requests, answers, strict=True):
        hook.add_partial(attr, request, answer)
    if isinstance(hook, ResponseCache):
        hook.keep(attr, requests, answers)
