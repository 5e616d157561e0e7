"""Answers of a task that is under way, so that a killed evaluation asks only what is missing.

lm-eval's response cache by its own hook and its own hashes, kept as lines of JSON: one line for a
batch, written when the batch is done. lm-eval's database holds pickles, which a store that others
may write into must not load.

    log = AnswerLog(path, key="fingerprint and all else that decides the answers", on_answer=print)
    lm.set_cache_hook(log)
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.model import CacheHook, hash_args


class AnswerLog(CacheHook):
    """What lm-eval calls with every answer, and what knows the answers of before."""

    def __init__(self, path: Path, key: str, on_answer: Callable[[], None]) -> None:
        """Read what an earlier process left under the same key; anything else is dropped.

        Args:
            path: A file of lines; made when the first batch is kept.
            key: Everything that decides the answers.
            on_answer: Called once for each request that has its answer, known or new.
        """
        super().__init__(None)
        self._path, self._key, self._on_answer = path, key, on_answer
        self._known: dict[str, Any] = {}
        self._batch: dict[str, Any] = {}
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
                self._known |= found["answers"]
            except (ValueError, KeyError, TypeError):
                # The process was killed while it wrote.
                break
            whole.append(line + "\n")
        if lines and len(whole) < len(lines):
            path.write_text("".join(whole), encoding="utf-8")

    def find(self, attr: str, requests: Iterable[tuple[Any, ...]]) -> list[Any] | None:
        """The answers to all these requests, which then count, or None when one is missing."""
        found = [self._known.get(hash_args(attr, request)) for request in requests]
        if any(answer is None for answer in found):
            return None
        for _ in found:
            self._on_answer()
        return found

    def add_partial(self, attr: str, req: Iterable[Any], res: Any) -> None:
        """Count an answer, and keep it for the next `commit`."""
        key = hash_args(attr, req)
        if key not in self._known:
            self._batch[key] = res
        self._on_answer()

    def commit(self) -> None:
        """Put the answers since the last commit on disk, in one line."""
        if not self._batch:
            return
        line = json.dumps({"key": self._key, "answers": self._batch})
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self._known |= self._batch
        self._batch = {}


def known(hook: CacheHook, attr: str, requests: Sequence[Any]) -> list[Any] | None:
    """Answers of before to a whole batch.

    A batch that misses one is asked again as a whole, because what else is in a batch moves
    the last digits of a log-likelihood.
    """
    if not isinstance(hook, AnswerLog) or None in requests:
        return None
    return hook.find(attr, requests)


def commit(hook: CacheHook) -> None:
    """Keep a batch's answers where there is a log for them."""
    if isinstance(hook, AnswerLog):
        hook.commit()
