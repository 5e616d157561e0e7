"""The store as frames, re-read only where a record changed.

A page asks for the frames at every rerun. Reading ten thousand records takes far longer
than a person waits, so rows are kept in memory, and in one file in the cache folder for
the next process. The file can always be made again, so a bad one is thrown away.
"""

import dataclasses
import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

import explorer.records
import explorer.specs
from explorer.analysis import frontier
from explorer.analysis.stats import bootstrap, pairing, retention
from explorer.errors import BadInput, DamagedStore
from explorer.paths import cache_dir
from explorer.records.rows import row_dicts
from explorer.store import disk, frames, trash

LOOK_EVERY_S = 1.0
"""Seconds for which a look at the folders counts as fresh: reruns come in bursts."""

MANY_RUNS = 60
"""From here on the frontier is drawn as if it were certain."""

RETENTION_COLUMNS = [
    "retention",
    "retention_low",
    "retention_high",
    "raw_ratio",
    "raw_low",
    "raw_high",
    "num_tasks",
    "excluded_tasks",
]


@dataclasses.dataclass(frozen=True)
class Shelf:
    """What the store held at one look."""

    runs: pd.DataFrame
    """As `frames.runs`."""
    scores: pd.DataFrame
    """As `frames.scores`."""
    problems: list[str]
    """One sentence for each folder that could not be read."""
    versions: dict[str, str]
    """Run id to a text that changes when its record does."""
    hidden: frozenset[str] = frozenset()
    """Ids of hidden runs; their rows are in `runs` all the same, since others rest on them."""


class Index:
    """The incremental reader of one store; safe to share between sessions."""

    def __init__(self, root: Path, folder: Path | None = None) -> None:
        """Read `root`; keep what was read under `folder`, the cache by default."""
        self.root = root
        name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
        self._path = (folder or cache_dir()) / "index" / f"{name}.json"
        self._lock = threading.Lock()
        self._looked_at = -LOOK_EVERY_S
        self._shelf: Shelf | None = None
        self._read: dict[str, dict[str, Any]] = {}
        self._retention: dict[str, dict[str, Any]] = {}
        self._draws: tuple[tuple[str, ...], pd.DataFrame] | None = None
        self._load()

    def shelf(self) -> Shelf:
        """The frames of now, or of a second ago."""
        with self._lock:
            now = time.monotonic()
            if self._shelf is None or now - self._looked_at >= LOOK_EVERY_S:
                self._look()
                self._looked_at = now
            assert self._shelf is not None, "_look sets the shelf"
            return self._shelf

    def look_again(self) -> None:
        """Let the next frames be those of now: this process wrote to the store itself."""
        with self._lock:
            self._looked_at = -LOOK_EVERY_S

    def with_retention(self, runs: pd.DataFrame, task: str | None = None) -> pd.DataFrame:
        """`retention.add_retention` for these runs, each (run, teacher run, task) computed once.

        Args:
            runs: Rows of the shelf.
            task: Only this task counts; None takes all.

        Returns:
            The same rows with `RETENTION_COLUMNS`.
        """
        shelf = self.shelf()
        with self._lock:
            keys = self._keys(shelf, runs, task)
            missing = [key not in self._retention for key in keys]
            if any(missing):
                self._compute(shelf, runs[missing], task)
                self._save()
            added = pd.DataFrame(
                [self._retention[key] for key in keys], columns=RETENTION_COLUMNS, index=runs.index
            ).astype(dict.fromkeys(RETENTION_COLUMNS[:-2], float))
        return pd.concat([runs, added], axis=1)

    def frontier_share(
        self, runs: pd.DataFrame, x: str, task: str | None = None
    ) -> "pd.Series[float]":
        """How sure each run's place on the frontier of retention against `x` is.

        Args:
            runs: With the columns of `retention.add_retention`, and `x`.
            x: The column that should be small.
            task: Only this task counts; None takes all.

        Returns:
            Shares of bootstrap draws, in [0, 1], on the index of `runs`; missing where there
            are more than `MANY_RUNS`, for which the draws would take too long.
        """
        if len(runs) > MANY_RUNS:
            return pd.Series(float("nan"), index=runs.index)
        shelf = self.shelf()
        with self._lock:
            key = tuple(self._keys(shelf, runs, task))
            if self._draws is None or self._draws[0] != key:
                scores, answers = self._evidence(shelf, runs, task)
                self._draws = key, retention.draws_by_run(runs, scores, answers)
            draws = self._draws[1]
        return frontier.membership(runs, draws, maximise="retention", minimise=x)

    def _keys(self, shelf: Shelf, runs: pd.DataFrame, task: str | None) -> list[str]:
        ids = runs[["run_id", "teacher_run_id"]]
        return [self._key(shelf, row, task) for row in row_dicts(ids)]

    def _key(self, shelf: Shelf, row: Mapping[Any, Any], task: str | None) -> str:
        teacher = row["teacher_run_id"] or ""
        parts = [row["run_id"], shelf.versions.get(row["run_id"], "")]
        return "|".join([*parts, teacher, shelf.versions.get(teacher, ""), task or ""])

    def _compute(self, shelf: Shelf, runs: pd.DataFrame, task: str | None) -> None:
        """Fill the retention of these runs."""
        scores, answers = self._evidence(shelf, runs, task)
        for row in row_dicts(retention.add_retention(runs, scores, answers)):
            self._retention[self._key(shelf, row, task)] = {
                name: row[name] for name in RETENTION_COLUMNS
            }

    def _evidence(
        self, shelf: Shelf, runs: pd.DataFrame, task: str | None
    ) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
        """Scores and answers of these runs and of their teachers, perhaps of one task only."""
        ids = {*runs["run_id"], *runs["teacher_run_id"].dropna()}
        scores = shelf.scores[shelf.scores["run_id"].isin(ids)]
        answers = {run_id: self.answers(run_id) for run_id in sorted(ids)}
        if task is not None:
            scores = scores[scores["task"] == task]
            answers = {run_id: a[a["task"] == task] for run_id, a in answers.items()}
        return scores, answers

    def answers(self, run_id: str) -> pd.DataFrame:
        """A run's answers; none where the file is damaged, since its record still counts."""
        try:
            return disk.answers(self.root, run_id)
        except DamagedStore:
            return pd.DataFrame(columns=["task", "metric", "doc_id", "doc_hash", "value"])

    def _look(self) -> None:
        """Compare the folders with what was read, and read what changed."""
        versions, problems = {}, []
        changed = False
        for run_id in disk.run_ids(self.root):
            folder = self.root / run_id
            try:
                stat = (folder / disk.RECORD).stat()
            except OSError:
                if not (folder / disk.SPEC).exists():
                    problems.append(
                        f"{folder} is not a run: it has neither {disk.SPEC} nor {disk.RECORD}."
                    )
                continue
            version = f"{stat.st_mtime_ns:x}-{stat.st_size:x}"
            if self._read.get(run_id, {}).get("version") != version:
                self._read[run_id] = {"version": version, **self._read_run(run_id)}
                changed = True
            versions[run_id] = version
            if problem := self._read[run_id].get("problem"):
                problems.append(problem)
        try:
            hidden = trash.hidden(self.root)
        except DamagedStore as error:
            hidden = frozenset()
            problems.append(str(error))
        gone = self._read.keys() - versions.keys()
        for run_id in gone:
            del self._read[run_id]
        before = self._shelf and (self._shelf.problems, self._shelf.hidden)
        if changed or gone or before != (problems, hidden):
            read = [self._read[run_id] for run_id in versions]
            rows = [one["row"] for one in read if "row" in one]
            scores = [score for one in read for score in one.get("scores", [])]
            self._shelf = Shelf(
                pd.DataFrame(rows, columns=frames.COLUMNS),
                frames.scores_of(scores),
                problems,
                {run_id: v for run_id, v in versions.items() if "row" in self._read[run_id]},
                hidden,
            )
        if changed:
            self._save()

    def _read_run(self, run_id: str) -> dict[str, Any]:
        try:
            record = disk.load(self.root, run_id)
        except (DamagedStore, BadInput) as error:
            return {"problem": str(error)}
        return {"row": frames.row(record), "scores": row_dicts(frames.scores([record]))}

    def _load(self) -> None:
        """Take over what an earlier process read, if the same code read it."""
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            if kept["code"] == _code():
                self._read, self._retention = kept["read"], kept["retention"]
        except (OSError, ValueError, KeyError, TypeError):
            return

    def _save(self) -> None:
        """Keep what was read for the next process; without a cache folder, do without."""
        partial = self._path.with_suffix(f".{os.getpid()}.partial")
        kept = {"code": _code(), "read": self._read, "retention": self._retention}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(kept, default=_plain), encoding="utf-8")
            partial.replace(self._path)
        except OSError:
            partial.unlink(missing_ok=True)


def _code() -> str:
    """A text that changes when the code that makes rows does: old rows are then read anew."""
    modules = (disk, frames, explorer.records, retention, pairing, bootstrap)
    sources = [Path(str(module.__file__)) for module in modules]
    sources += sorted(Path(str(explorer.specs.__file__)).parent.glob("*.py"))
    found = hashlib.sha256()
    for source in sources:
        found.update(source.read_bytes())
    return found.hexdigest()[:16]


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's."""
    return value.item()
