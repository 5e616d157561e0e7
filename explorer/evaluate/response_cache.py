"""Answers of an unfinished task, so that a killed evaluation computes only what is missing.

One line of JSON per batch, written when the batch is complete. lm-eval's own response cache
stores pickles, which must not be loaded from a store that others can write to. It also caches
single requests; but the other requests in a batch change the last digits of a log-likelihood, so
a batch is reused or computed again as a whole.

    cache = ResponseCache(path, key="hash of all that decides the answers", on_answer=print)
    lm.set_cache_hook(cache)
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.model import CacheHook, hash_args

from explorer.errors import DamagedStore
from explorer.files import durable_files


class ResponseCache(CacheHook):
    """Stores batches of answers on disk; lm-eval calls it with every answer."""

    def __init__(self, path: Path, key: str, on_answer: Callable[[], None]) -> None:
        """Read the batches that an earlier process stored under the same key; drop all others.

        Args:
            path: The JSON Lines file; created with the first batch.
            key: A hash of everything that decides the answers.
            on_answer: Called once per answered request, cached or new.
        """
        super().__init__(None)
        self._path, self._key, self._on_answer = path, key, on_answer
        self._batches: dict[str, list[list[Any]]] = {}
        try:
            lines = durable_files.read_text(path, durable_files.MAX_JOURNAL_BYTES).splitlines()
        except FileNotFoundError:
            lines = []
        except DamagedStore as error:
            durable_files.set_aside(path, str(error))
            lines = []
        valid_lines = []
        for line in lines:
            try:
                entry = durable_files.parse_json(line)
                if entry["key"] != key:
                    break
                self._batches.setdefault(entry["batch"], []).append(list(entry["answers"]))
            except (ValueError, KeyError, TypeError):
                # The process was killed while it wrote this line, or the disk changed it.
                break
            valid_lines.append(line + "\n")
        if lines and len(valid_lines) < len(lines):
            durable_files.write_text(path, "".join(valid_lines))

    def lookup(self, attr: str, requests: Sequence[Any]) -> list[Any] | None:
        """The cached answers to this batch, counted as answered; None where there are none.

        Equal batches are cached one by one, and each entry is returned once.
        """
        entries = self._batches.get(_batch_key(attr, requests))
        if not entries:
            return None
        for _ in requests:
            self._on_answer()
        return entries.pop(0)

    def add_partial(self, attr: str, req: Iterable[Any], res: Any) -> None:
        """Count an answer; `store` writes the batch."""
        self._on_answer()

    def store(self, attr: str, requests: Sequence[Any], answers: Sequence[Any]) -> None:
        """Append a batch to the file."""
        batch = _batch_key(attr, requests)
        durable_files.append_object(
            self._path, {"key": self._key, "batch": batch, "answers": list(answers)}
        )


def _batch_key(attr: str, requests: Sequence[Any]) -> str:
    """A hash of a batch's requests in their order."""
    hashes = "".join(hash_args(attr, request) for request in requests)
    return hashlib.sha256(hashes.encode()).hexdigest()


def cached_answers(hook: CacheHook, attr: str, requests: Sequence[Any]) -> list[Any] | None:
    """The cached answers to a whole batch; None where it has to be computed."""
    if not isinstance(hook, ResponseCache) or None in requests:
        return None
    return hook.lookup(attr, requests)


def cache_answers(
    hook: CacheHook, attr: str, requests: Sequence[Any], answers: Sequence[Any]
) -> None:
    """Pass a new batch to lm-eval's cache or to ours; a request without its text is not cached."""
    if None in requests:
        return
    for request, answer in zip(requests, answers, strict=True):
        hook.add_partial(attr, request, answer)
    if isinstance(hook, ResponseCache):
        hook.store(attr, requests, answers)
