"""The index of one store: its runs, and what is computed from their answers, once.

Retention, its draws and the packed answers are computed when they are first asked for.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Hashable, ItemsView, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from explorer import paths
from explorer.analysis import frontier
from explorer.analysis.stats import control_pairs, differences, pairing, retention
from explorer.analysis.stats.pairing import ScoredModel, TaskAnswers
from explorer.errors import DamagedStore
from explorer.index import kept_retention, packed_answers
from explorer.index.database import in_list
from explorer.index.records_index import (
    DELETE_RUNS,
    NEW_GENERATION,
    RUNS_PER_TRANSACTION,
    OnProgress,
    RecordsIndex,
    parameters,
    repaired,
    where_in,
)
from explorer.records.rows import row_dicts
from explorer.store import disk

T = TypeVar("T")

LOOK_EVERY_S = 1.0
"""A look at the folders is reused for this many seconds, because reruns come in bursts."""
MANY_RUNS = 60
"""Above this number of runs the frontier is drawn without its certainty."""
COUPLES_AT_ONCE = 200
"""Pairs of runs whose answers are in memory at once."""
VERSIONS = "SELECT run_id, record_stamp FROM folders JOIN runs USING (run_id)"
EFFECT_COLUMNS = ("run_id", "status", "method", "recipe", "arm", "role", "teacher_run_id")
"""What tells a student's control arm."""
FEW_RUNS = 500
"""For up to this many runs only their own rows of retention are read, not the whole table."""
TASKS_KEPT = 4
"""Retention tables in memory: one for all tasks, and one per task chosen on a page."""
NUM_REMEMBERED = 8
"""Results that pages share: one for each set of limits and filters that somebody looks at."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The store at one moment. All sessions share it, so callers must not change it."""

    runs: pd.DataFrame
    """As `frames.runs`, sorted by run id."""
    problems: list[str]
    """One sentence for each folder that could not be read."""
    versions: dict[str, str]
    """Run id to a text that changes when its record does."""
    hidden: frozenset[str]
    """Ids of hidden runs; their rows are in `runs` all the same, since others rest on them."""
    index: "StoreIndex"
    _remembered: dict[Hashable, Any] = dataclasses.field(
        default_factory=dict, init=False, repr=False
    )

    def remembered(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` returns, or what it returned for this key while the store stayed as it is.

        Sessions share the last `NUM_REMEMBERED` results, so nobody may change one.
        """
        with self.index.lock:
            if key in self._remembered:
                kept: T = self._remembered[key]
                return kept
        value = compute()
        with self.index.lock:
            self._remembered[key] = value
            while len(self._remembered) > NUM_REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
        return value

    @functools.cached_property
    def scores(self) -> pd.DataFrame:
        """As `frames.scores`; read when first asked for, since a large store has many rows."""
        return self.index.scores()

    @functools.cached_property
    def tasks(self) -> list[str]:
        """Names of all tasks that have a score, sorted."""
        return self.index.tasks()


def index_of(root: Path) -> "StoreIndex":
    """The index of a store; a process has one per store."""
    return _index_of(root.resolve(), paths.index_dir())


@functools.lru_cache(maxsize=8)
def _index_of(root: Path, folder: Path) -> "StoreIndex":
    return StoreIndex(root, folder)


class StoreIndex(RecordsIndex):
    """The index of one store; safe to share between threads, and its file between processes."""

    def forget(self) -> None:
        """Take nothing in memory for what is in the file."""
        super().forget()
        self._documents: dict[str, dict[str, Any]] = {}
        self._snapshot: tuple[object, Snapshot] | None = None
        self._retention: dict[str, tuple[int, pd.DataFrame]] = {}
        self._draws: tuple[str | None, ItemsView[str, str], dict[str, Any]] | None = None

    @repaired
    def snapshot(self) -> Snapshot:
        """The store of now, or of a second ago."""
        self.update(LOOK_EVERY_S)
        key = self._snapshot_key()
        if self._snapshot is None or self._snapshot[0] != key:
            versions = dict(self.query(VERSIONS))
            snapshot = Snapshot(self.runs(), self.problems(), versions, self.hidden(), self)
            self._snapshot = key, snapshot
        return self._snapshot[1]

    def _snapshot_key(self) -> object:
        return self.database.generation(), tuple(self._foreign), self._hidden, self._hidden_problem

    # Answers and what is computed from them

    def answers(self, run_id: str) -> pd.DataFrame:
        """A run's answers; none where the file is damaged, since its record still counts."""
        try:
            return disk.load_answers(self.root, run_id)
        except DamagedStore:
            return pd.DataFrame(columns=["task", "metric", "doc_id", "doc_hash", "value"])

    @repaired
    def models(self, run_ids: Collection[str], task: str | None = None) -> dict[str, ScoredModel]:
        """The headline scores of these runs and the answers behind them, ready to be paired.

        Args:
            run_ids: Those that have no score are left out of the result.
            task: Only this task; None takes all.
        """
        self._pack(run_ids)
        scores = self.scores(run_ids, task)
        answers: dict[str, dict[tuple[str, str], TaskAnswers]] = {}
        where = where_in(run_ids) + ("" if task is None else " AND task = ?")
        for run_id, name, metric, key, packed in self.query(
            f"SELECT run_id, task, metric, documents, packed FROM answers {where}",
            [*parameters(run_ids), *([] if task is None else [task])],
        ):
            own = answers.setdefault(run_id, {})
            own[name, metric] = packed_answers.unpack_answers(self._document(key), packed)
        headline = scores[scores["headline"]].sort_values(["run_id", "task", "metric"])
        by_run: dict[str, dict[str, dict[str, Any]]] = {run_id: {} for run_id in scores["run_id"]}
        for row in row_dicts(headline):
            by_run[row["run_id"]][row["task"]] = row
        return {
            run_id: ScoredModel(rows, answers.get(run_id, {})) for run_id, rows in by_run.items()
        }

    def _document(self, key: str) -> dict[str, Any]:
        if key not in self._documents:
            packed = self.query("SELECT packed FROM documents WHERE key = ?", [key])[0][0]
            if len(self._documents) >= 256:
                self._documents.clear()
            self._documents[key] = packed_answers.unpack_documents(packed)
        return self._documents[key]

    def _pack(self, run_ids: Collection[str]) -> None:
        """Read the answers of those runs whose record has changed since they were read."""
        stale = self.query(
            "SELECT run_id, f.record_stamp, p.problem "
            "FROM folders f LEFT JOIN packed_runs p USING (run_id) "
            f"{where_in(run_ids)} AND f.record_stamp IS NOT NULL "
            "AND (p.record_stamp IS NOT f.record_stamp OR p.problem IS NOT NULL)",
            parameters(run_ids),
        )
        for start in range(0, len(stale), RUNS_PER_TRANSACTION):
            batch = {row[0]: row[1:] for row in stale[start : start + RUNS_PER_TRANSACTION]}
            headline: dict[str, set[tuple[str, str]]] = {}
            for run_id, task, metric in self.query(
                f"SELECT run_id, task, metric FROM scores {where_in(batch)} AND headline",
                parameters(batch),
            ):
                headline.setdefault(run_id, set()).add((task, metric))
            rows: list[tuple[str, str, str, str, bytes]] = []
            documents: dict[str, bytes] = {}
            problems: dict[str, str] = {}
            for run_id, names in headline.items():
                path = self.root / run_id / disk.ANSWERS
                try:
                    found = packed_answers.read_answers(path, names)
                except DamagedStore as error:
                    problems[run_id] = str(error)
                    continue
                for name, answers in found.items():
                    key = packed_answers.documents_key(answers)
                    if key not in self._documents and key not in documents:
                        documents[key] = packed_answers.pack_documents(answers)
                    values = packed_answers.pack_values(answers.values_N)
                    rows.append((run_id, *name, key, values))
            with self.database.writing() as connection:
                ids = in_list(batch)
                connection.execute(DELETE_RUNS.format("answers"), [ids])
                connection.executemany(
                    "INSERT OR IGNORE INTO documents VALUES (?, ?)", documents.items()
                )
                connection.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, ?)", rows)
                connection.executemany(
                    "INSERT OR REPLACE INTO packed_runs VALUES (?, ?, ?)",
                    [(run_id, stamp, problems.get(run_id)) for run_id, (stamp, _) in batch.items()],
                )
                if problems != {run_id: was for run_id, (_, was) in batch.items() if was}:
                    connection.execute(NEW_GENERATION)

    @repaired
    def with_retention(
        self, runs: pd.DataFrame, task: str | None = None, on_progress: OnProgress | None = None
    ) -> pd.DataFrame:
        """`retention.add_retention` for these runs, computed once for a student and teacher.

        Args:
            runs: Rows of `runs`.
            task: Only this task counts; None takes all.
            on_progress: Called as retention is computed.

        Returns:
            The same rows with the columns of `retention.add_retention`.
        """
        versions = self._versions(runs)
        stamps = kept_retention.stamps_of(runs, versions)
        stored = self._stored_retention(runs, task)
        stale = stored["stamps"].to_numpy() != stamps
        if stale.any():
            self._compute(runs[stale], task, versions, on_progress)
            stored = self._stored_retention(runs, task)
        columns = stored[retention.COLUMNS].set_axis(runs.index)
        added = columns.astype(retention.TYPES)
        return pd.concat([runs.drop(columns=retention.COLUMNS, errors="ignore"), added], axis=1)

    def _versions(self, runs: pd.DataFrame) -> Mapping[str, str]:
        """The stamps of the records of these runs and of their teachers."""
        if self._snapshot is not None and self._snapshot[0] == self._snapshot_key():
            return self._snapshot[1].versions
        ids = {*runs["run_id"], *runs["teacher_run_id"].dropna()}
        return dict(self.query(f"{VERSIONS} {where_in(ids)}", parameters(ids)))

    def _stored_retention(self, runs: pd.DataFrame, task: str | None) -> pd.DataFrame:
        """The stored retention of these runs, in their order; missing if it was not computed.

        A request for many runs keeps the rows of all runs in memory.
        """
        name, version = task or "", self.database.computed()
        if name in self._retention and self._retention[name][0] == version:
            return self._retention[name][1].reindex(runs["run_id"])
        columns = ["run_id", "stamps", *retention.COLUMNS]
        select = f"SELECT {', '.join(columns)} FROM retention"
        if len(runs) <= FEW_RUNS:
            where = f"{where_in(runs['run_id'])} AND task = ?"
            rows = self.query(f"{select} {where}", [*parameters(runs["run_id"]), name])
        else:
            rows = self.query(f"{select} WHERE task = ?", [name])
        frame = pd.DataFrame(rows, columns=columns).set_index("run_id")
        frame = frame.astype(
            {name: float for name, kind in retention.TYPES.items() if kind is float}
        )
        if len(runs) > FEW_RUNS:
            while len(self._retention) >= TASKS_KEPT:
                del self._retention[next(iter(self._retention))]
            self._retention[name] = version, frame
        return frame.reindex(runs["run_id"])

    def _compute(
        self,
        runs: pd.DataFrame,
        task: str | None,
        versions: Mapping[str, str],
        on_progress: OnProgress | None,
    ) -> None:
        """Compute the retention of these runs, and keep it."""
        done = 0
        for batch in kept_retention.batches(runs):
            columns, drawn = self._compute_batch(batch, task)
            stamps = dict(
                zip(batch["run_id"], kept_retention.stamps_of(batch, versions), strict=True)
            )
            with self.database.writing() as connection:
                places = ", ".join("?" * (3 + len(retention.COLUMNS)))
                connection.executemany(
                    f"INSERT OR REPLACE INTO retention VALUES ({places})",
                    [
                        (run_id, task or "", stamps[run_id], *row.values())
                        for run_id, row in zip(batch["run_id"], row_dicts(columns), strict=True)
                    ],
                )
                if task is None:
                    connection.executemany(
                        "INSERT OR REPLACE INTO draws VALUES (?, ?, ?)",
                        [
                            (run_id, stamps[run_id], kept_retention.pack_draws(draws_D))
                            for run_id, draws_D in drawn.items()
                        ],
                    )
                connection.execute("UPDATE store SET computed = computed + 1")
            done += len(batch)
            if on_progress:
                on_progress(done, len(runs))

    def _compute_batch(
        self, runs: pd.DataFrame, task: str | None
    ) -> tuple[pd.DataFrame, dict[str, Any]]:
        ids = {*runs["run_id"], *runs["teacher_run_id"].dropna()}
        models = self.models(ids, task)
        return retention.of_pairs(runs, kept_retention.pairs_of(runs, models), set(models))

    @repaired
    def draws(self, runs: pd.DataFrame, task: str | None = None) -> pd.DataFrame:
        """The bootstrap draws of retention, as `retention.draws_by_run`.

        Args:
            runs: With the columns of `retention.add_retention`.
            task: Only this task counts; None takes all.
        """
        stamps = kept_retention.stamps_of(runs, self._versions(runs))
        wanted = dict(zip(runs["run_id"], stamps, strict=True))
        # A page asks for all its runs, and then for those on its chart.
        if self._draws is None or self._draws[0] != task or not wanted.items() <= self._draws[1]:
            if task is None:
                rows = self.query(
                    f"SELECT run_id, stamps, packed FROM draws {where_in(runs['run_id'])}",
                    parameters(runs["run_id"]),
                )
                drawn = {
                    run_id: kept_retention.unpack_draws(packed)
                    for run_id, stamp, packed in rows
                    if stamp == wanted[run_id]
                }
            else:
                drawn = self._compute_batch(runs, task)[1]
            self._draws = task, wanted.items(), drawn
        drawn = self._draws[2]
        return pd.DataFrame({run_id: drawn[run_id] for run_id in wanted if run_id in drawn})

    @repaired
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
        draws = self.draws(runs, task)
        return frontier.membership(runs, draws, maximise="retention", minimise=x)

    def tasks_of(self, run_id: str, teacher_run_id: str) -> pd.DataFrame:
        """`retention.per_task` of a run and its teacher's."""
        models = self.models([run_id, teacher_run_id])
        return retention.per_task_of_pairs(
            pairing.pair_models(_of(models, run_id), _of(models, teacher_run_id))
        )

    def differences(
        self, couples: Collection[tuple[str, str]], allow: Callable[[str, str], Collection[str]]
    ) -> Iterator[tuple[pd.DataFrame, dict[str, Any]]]:
        """`differences.compare_runs` of each run and its reference: a row per task and the suite.

        Args:
            couples: Run and reference.
            allow: Called with both; the conditions in which these two may differ.
        """
        ordered = list(couples)
        for start in range(0, len(ordered), COUPLES_AT_ONCE):
            batch = ordered[start : start + COUPLES_AT_ONCE]
            models = self.models({run_id for couple in batch for run_id in couple})
            for run_id, reference in batch:
                pairs = pairing.pair_models(
                    _of(models, run_id),
                    _of(models, reference),
                    allow(run_id, reference),
                    names=("run", "reference"),
                )
                yield differences.task_differences(pairs), differences.suite_difference(pairs)

    def effects(self, run_ids: Collection[str]) -> dict[str, control_pairs.DistillationEffect]:
        """What distillation added to each of these students that has a control arm here."""
        runs = self.runs(columns=EFFECT_COLUMNS)
        of_recipe = runs.groupby("recipe").indices
        by_recipe: dict[object, control_pairs.DistillationEffect | None] = {}
        effects = {}
        named = runs[runs["run_id"].isin(run_ids) & runs["recipe"].notna()]
        for run_id, recipe, arm in zip(named["run_id"], named["recipe"], named["arm"], strict=True):
            if recipe not in by_recipe:
                places = [place for name in {recipe, arm} for place in of_recipe.get(name, ())]
                by_recipe[recipe] = self._effect(runs.iloc[sorted(places)], run_id)
            if (effect := by_recipe[recipe]) is not None:
                effects[run_id] = effect
        return effects

    def _effect(self, runs: pd.DataFrame, run_id: str) -> control_pairs.DistillationEffect | None:
        own, controls = control_pairs.students_and_controls(runs, run_id)
        if own.empty or controls.empty:
            return None
        both = pd.concat([own, controls])
        models = self.models({*both["run_id"], *both["teacher_run_id"].dropna()})
        return control_pairs.effect_of_pairs(own, controls, kept_retention.pairs_of(both, models))


def _of(models: Mapping[str, ScoredModel], run_id: str) -> ScoredModel:
    """A run's scores and answers; none where it has no score."""
    return models.get(run_id, ScoredModel({}, {}))
