"""The decision: one model under the limits, its runner-up, the near misses and the confidence.

    decision = pick(runs, draws, Limits(min_retention=0.8, max_tpot_ms=10))
    decision.pick["label"], decision.reason

docs/pick.md has the rule so that another person can repeat it from two exported files.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from explorer.analysis.pick import candidates, next_measurement, sentences
from explorer.analysis.pick.limits import NUMERIC, Limits, check_objective
from explorer.records.rows import missing, row_dicts

Row = Mapping[Any, Any]
CERTAIN = 0.975
"""Share of the draws from which two retentions differ: the 95 % interval excludes 0."""


@dataclasses.dataclass(frozen=True)
class Broken:
    """One limit that a run does not meet."""

    limit: str
    """The field of `Limits`."""
    value: float | str | None
    """The run's value; None if it was not measured."""
    bound: float | str
    """The limit."""
    text: str


@dataclasses.dataclass(frozen=True)
class NearMiss:
    """A run that breaks few limits, with all that it breaks."""

    run: Row
    broken: list[Broken]
    text: str
    fits_at_utilisation: float | None
    """The utilisation at which its cost meets the limit, if cost is all that it breaks."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """The pick and everything that explains it."""

    limits: Limits
    objective: str
    teacher: str | None
    device: str | None
    pick: Row | None
    """The picked run's row; None if no run meets the limits."""
    reason: str
    runner_up: Row | None
    runner_up_text: str
    near_misses: list[NearMiss]
    shares: dict[str, float]
    """Share of the draws in which the same rule picks each run, the largest first."""
    removed: dict[str, list[str]]
    """Ids of the runs removed, by reason or limit. A run may break several limits."""
    next_measurement: next_measurement.Suggestion | None
    fitting: list[str]
    """Ids of the runs that meet all limits, the best by the objective first."""

    @property
    def confidence(self) -> float | None:
        """Share of the draws in which the same rule picks the same run; None without a pick."""
        return None if self.pick is None else self.shares.get(self.pick["run_id"], 0.0)

    def as_json(self) -> dict[str, Any]:
        """The decision as JSON values; docs/pick.md explains each key."""
        return {
            "pick": None if self.pick is None else _facts(self.pick),
            "reason": self.reason,
            "runner_up": None
            if self.runner_up is None
            else _facts(self.runner_up) | {"text": self.runner_up_text},
            "near_misses": [
                _facts(miss.run)
                | {
                    "text": miss.text,
                    "broken": [dataclasses.asdict(broken) for broken in miss.broken],
                    "fits_at_utilisation": miss.fits_at_utilisation,
                }
                for miss in self.near_misses
            ],
            "confidence": self.confidence,
            "shares": self.shares,
            "removed": {
                name: {"num_runs": len(run_ids), "run_ids": run_ids}
                for name, run_ids in self.removed.items()
            },
            "next_measurement": None
            if self.next_measurement is None
            else dataclasses.asdict(self.next_measurement),
            "fitting": self.fitting,
            "assumptions": {
                "objective": self.objective,
                "teacher": self.teacher,
                "device": self.device,
                **dataclasses.asdict(self.limits),
            },
        }


FACTS = (
    "run_id",
    "label",
    "retention",
    "retention_low",
    "retention_high",
    "sure",
    "tpot_ms",
    "ttft_ms",
    "latency_ms",
    "output_tokens_per_s",
    "usd_per_hour_at_load",
    "usd_per_mtok",
    "utilisation",
    "prompt_tokens",
    "output_tokens",
    "weight_bytes",
    "peak_memory_bytes",
    "num_parameters",
    "num_layers",
    "runtime",
    "format",
    "device_name",
    "price_note",
)
"""Columns of a run in the JSON of a decision."""


def _facts(run: Row) -> dict[str, Any]:
    return {name: None if missing(run.get(name)) else run[name] for name in FACTS}


def pick(
    runs: pd.DataFrame,
    draws: pd.DataFrame,
    limits: Limits,
    *,
    objective: str = "cheapest",
    teacher: str | None = None,
    device: str | None = None,
) -> Decision:
    """Pick one model under limits.

    Args:
        runs: With the columns of `retention.add_retention`, `unit_cost.add_costs` and
            `num_documents`.
        draws: The bootstrap draws of retention: one row per draw, one column per run id, as from
            `retention.draws_by_run`.
        limits: What the model must meet.
        objective: A key of `limits.OBJECTIVES`.
        teacher: The teacher's run; by default the one that most students name.
        device: Where the models must have been timed; by default where most were.

    Raises:
        BadInput: An unknown objective, teacher or device.
    """
    column = check_objective(objective)
    known = pd.concat([runs["teacher_run_id"], runs.loc[runs["role"] == "teacher", "run_id"]])
    teacher = candidates.chosen(teacher, known, "teacher", candidates.main_teacher(runs))
    ours = runs[runs["run_id"].isin([teacher]) | runs["teacher_run_id"].isin([teacher])]
    device = candidates.chosen(device, runs["device_name"], "device", candidates.main_device(ours))
    considered = candidates.with_removal(
        runs, draws, teacher=teacher, device=device, objective=column
    )
    considered["format"] = candidates.formats(considered)
    low = draws.quantile(1 - limits.confidence)
    considered["sure"] = candidates.sure(considered, draws, limits.min_retention)
    considered["sure_low"] = considered["run_id"].map(low).astype(float)
    eligible = _ordered(considered[considered["removed"].isna()], column)
    broken = {row["run_id"]: broken_limits(row, limits) for row in row_dicts(eligible)}
    fits = eligible["run_id"].map(lambda run_id: not broken[run_id]).astype(bool)
    fitting = _by_capability(eligible[fits], draws) if objective == "capable" else eligible[fits]
    best, second = _first_two(fitting)
    removed = {
        reason: considered.loc[considered["removed"] == reason, "run_id"].tolist()
        for reason in candidates.REASONS
    } | _removed_by_limit(broken)
    misses = _near_misses(eligible[~fits], broken, limits)
    return Decision(
        limits=limits,
        objective=objective,
        teacher=teacher,
        device=device,
        pick=best,
        reason=sentences.reason(best, fitting, eligible, misses, limits, objective, considered),
        runner_up=second,
        runner_up_text=""
        if best is None or second is None
        else sentences.runner_up(best, second, objective, draws),
        near_misses=misses,
        shares=_shares(eligible, broken, draws, limits, objective),
        removed={name: run_ids for name, run_ids in removed.items() if run_ids},
        next_measurement=next_measurement.suggest(
            best, eligible, considered, broken, draws, limits, column
        ),
        fitting=fitting["run_id"].tolist(),
    )


def broken_limits(run: Row, limits: Limits) -> list[Broken]:
    """The limits that a run breaks; one that was not measured is broken."""
    broken = []
    if run["sure"] < limits.confidence:
        text = sentences.too_little_retention(run, limits)
        broken.append(Broken("min_retention", float(run["retention"]), limits.min_retention, text))
    for limit in NUMERIC:
        bound = getattr(limits, limit.name)
        if bound is None:
            continue
        value = run.get(limit.column)
        if value is None or missing(value):
            text = sentences.not_measured(limit)
            broken.append(Broken(limit.name, None, bound, text))
        elif not limit.allows(value, bound):
            text = sentences.past_limit(limit, value, bound)
            broken.append(Broken(limit.name, float(value), bound, text))
    for name in ("runtime", "format"):
        wanted = getattr(limits, name)
        if wanted is not None and run[name] != wanted:
            text = f"its {name} is {run[name]}, not {wanted}"
            broken.append(Broken(name, run[name], wanted, text))
    return broken


def _ordered(runs: pd.DataFrame, column: str) -> pd.DataFrame:
    """Best first by the objective; of equal ones the more capable, then by id."""
    return runs.sort_values(
        [column, "retention", "run_id"], ascending=[column != "retention", False, True]
    )


def _by_capability(fitting: pd.DataFrame, draws: pd.DataFrame) -> pd.DataFrame:
    """The most capable first. Those that cannot be told apart from the best go by cost.

    A run cannot be told apart from the best if it is at least as good in more than one draw of
    forty, as in a two-sided test at 5 %.
    """
    if fitting.empty:
        return fitting
    best_D = draws[fitting["run_id"].iloc[0]]
    tied = fitting["run_id"].map(lambda run_id: (draws[run_id] < best_D).mean() < CERTAIN)
    group = fitting[tied].sort_values(["usd_per_mtok", "weight_bytes", "run_id"])
    return pd.concat([group, fitting[~tied]])


def _first_two(runs: pd.DataFrame) -> tuple[Row | None, Row | None]:
    rows = row_dicts(runs.iloc[:2])
    return (rows[0] if rows else None), (rows[1] if len(rows) > 1 else None)


def _removed_by_limit(broken: Mapping[str, list[Broken]]) -> dict[str, list[str]]:
    names = ["min_retention", *(limit.name for limit in NUMERIC), "runtime", "format"]
    return {
        name: [
            run_id for run_id, limits in broken.items() if any(one.limit == name for one in limits)
        ]
        for name in names
    }


def _near_misses(
    runs: pd.DataFrame, broken: Mapping[str, list[Broken]], limits: Limits, most: int = 5
) -> list[NearMiss]:
    """The runs that break the limits by the smallest shares."""
    rows = sorted(row_dicts(runs), key=lambda run: _excess(run, broken[run["run_id"]]))
    misses = []
    for run in rows[:most]:
        own = broken[run["run_id"]]
        utilisation = None
        if [one.limit for one in own] == ["max_usd_per_mtok"] and own[0].value is not None:
            needed = run["utilisation"] * run["usd_per_mtok"] / limits.max_usd_per_mtok
            utilisation = needed if needed <= 1 else None
        misses.append(NearMiss(run, own, sentences.near_miss(run, own, utilisation), utilisation))
    return misses


def _excess(run: Row, broken: list[Broken]) -> float:
    """By how much the limits are broken, as the sum of shares of the limits.

    The limit on retention is one on the loss: at 80 % to keep, a fifth may be lost.
    """
    total = 0.0
    for one in broken:
        if one.limit == "min_retention":
            total += (1 - run["sure_low"]) / max(1 - float(one.bound), 0.01) - 1
        elif isinstance(one.value, float):
            total += abs(one.value / float(one.bound) - 1)
        else:
            total += 1
    return total


def _shares(
    eligible: pd.DataFrame,
    broken: Mapping[str, list[Broken]],
    draws: pd.DataFrame,
    limits: Limits,
    objective: str,
) -> dict[str, float]:
    """Share of the draws in which the same rule would pick each run; those never picked are absent.

    A draw is another sample of documents. In it a run's retention is the drawn one, and the
    distance from there to its one-sided lower bound is the measured distance. So a run meets
    `min_retention` in a draw if the drawn retention less that distance does. All other limits are
    exact.
    """
    rest = [
        row
        for row in row_dicts(eligible)
        if all(one.limit == "min_retention" for one in broken[row["run_id"]])
    ]
    if not rest:
        return {}
    ids = [row["run_id"] for row in rest]
    drawn_DR = draws[ids].to_numpy()
    distance_R = np.array([row["retention"] - row["sure_low"] for row in rest])
    meets_DR = drawn_DR - distance_R >= limits.min_retention
    if objective == "capable":
        first_D = np.where(meets_DR, drawn_DR, -np.inf).argmax(axis=1)
    else:
        first_D = meets_DR.argmax(axis=1)  # the runs are ordered, the best first
    picked = Counter(ids[place] for place in first_D[meets_DR.any(axis=1)])
    return {run_id: number / len(draws) for run_id, number in picked.most_common()}
