"""Which runs may be picked. The others are removed with a reason, never silently."""

from collections.abc import Callable, Collection

import pandas as pd

from explorer.analysis import interference
from explorer.errors import BadInput

TORCH = "torch"
"""The format of models that were not converted."""
CONTROL = "labels"
"""`method` of a control arm, which was trained without the teacher."""
REASONS = {
    "failed": "not finished",
    "other_teacher": "of another teacher",
    "control": "control arms, trained without the teacher",
    "no_retention": "without retention",
    "other_documents": "scored on other documents",
    "other_device": "measured on another device",
    "other_load": "timed with another number of requests at once",
    "busy": "timed on a busy machine",
    "no_objective": "without the figure that the objective compares",
}
"""Why a run cannot be picked, in the order in which it is asked; a run has its first reason."""


def formats(runs: pd.DataFrame) -> "pd.Series[str]":
    """The number format of each run; `torch` where the model was not converted."""
    return runs["format"].astype(object).where(runs["format"].notna(), TORCH)


def main_teacher(runs: pd.DataFrame) -> str | None:
    """The teacher's run that most scored students name, else any scored teacher; None if none."""
    scored = runs[(runs["status"] == "finished") & runs["retention"].notna()]
    named = _most_frequent(scored["teacher_run_id"])
    return named or _most_frequent(scored.loc[scored["role"] == "teacher", "run_id"])


def main_device(runs: pd.DataFrame) -> str | None:
    """The device on which most of these runs were timed; None if none was."""
    return _most_frequent(runs.loc[runs["tpot_ms"].notna(), "device_name"])


def _most_frequent(values: "pd.Series[str]") -> str | None:
    """The most frequent value; of equally frequent ones, the first in alphabetical order."""
    counts = values.dropna().value_counts()
    return min(counts[counts == counts.max()].index) if len(counts) else None


def chosen(name: str | None, known: "pd.Series[str]", what: str, default: str | None) -> str | None:
    """A name that people gave, or the default.

    Raises:
        BadInput: No run has this name.
    """
    if name is None:
        return default
    names = sorted(known.dropna().unique())
    if name not in names:
        raise BadInput(f"No run has the {what} {name!r}. Choose {' or '.join(names) or 'none'}.")
    return name


def sure(runs: pd.DataFrame, draws: pd.DataFrame, min_retention: float) -> "pd.Series[float]":
    """Share of its draws in which each run keeps at least `min_retention`; missing without draws.

    Args:
        runs: With `run_id`.
        draws: As from `retention.draws_by_run`.
        min_retention: Share of the teacher's capability to keep.
    """
    shares = (draws >= min_retention).mean()
    return runs["run_id"].map(shares).astype(float)


def with_removal(
    runs: pd.DataFrame,
    draws: pd.DataFrame | None,
    *,
    teacher: str | None,
    device: str | None,
    objective: str,
    reasons: Collection[str] = tuple(REASONS),
) -> pd.DataFrame:
    """The runs with `removed`: a key of `REASONS`, or missing if the run may be picked.

    Args:
        runs: With the columns of `retention.add_retention`, `unit_cost.add_costs` and
            `num_documents`.
        draws: As from `retention.draws_by_run`; None asks for no draws.
        teacher: The run of the teacher; None if no scored run has one.
        device: Where a model must have been timed.
        objective: The column that decides.
        reasons: The only reasons that count.
    """
    # Without any teacher no run is of another one: it has no retention.
    own_teacher = runs["run_id"].isin([teacher]) | runs["teacher_run_id"].isin([teacher])
    own_teacher |= teacher is None
    rules: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
        "failed": lambda rest: rest["status"].ne("finished"),
        "other_teacher": lambda rest: ~own_teacher[rest.index],
        "control": lambda rest: rest["method"].eq(CONTROL),
        "no_retention": lambda rest: rest["retention"].isna() | ~_drawn(rest, draws),
        "other_documents": lambda rest: ~_on_common_documents(rest),
        "other_device": lambda rest: ~rest["device_name"].isin([device]) & rest["tpot_ms"].notna(),
        "other_load": lambda rest: ~_under_common_load(rest),
        "busy": interference.was_busy,
        "no_objective": lambda rest: rest[objective].isna(),
    }
    assert list(rules) == list(REASONS)
    removed = pd.Series(None, index=runs.index, dtype=object)
    for reason in (reason for reason in rules if reason in reasons):
        rest = runs[removed.isna()]
        if not rest.empty:
            removed[rest.index[rules[reason](rest).to_numpy(bool)]] = reason
    return runs.assign(removed=removed)


def _drawn(runs: pd.DataFrame, draws: pd.DataFrame | None) -> "pd.Series[bool]":
    if draws is None:
        return pd.Series(True, index=runs.index)
    return runs["run_id"].isin(draws.columns)


def _under_common_load(runs: pd.DataFrame) -> "pd.Series[bool]":
    """Whether a run was timed with as many requests at once as most; also one that was not timed.

    Measured runs agree unless their specs say otherwise; imported timings have any load.
    """
    if "batch_size" not in runs:
        return pd.Series(True, index=runs.index)
    load = runs["batch_size"].where(runs["tpot_ms"].notna())
    return load.isna() | load.isin([_most_frequent(load)])


def _on_common_documents(runs: pd.DataFrame) -> "pd.Series[bool]":
    """Whether a run was scored on the documents that most runs share, by tasks and number."""
    documents = runs["num_tasks"].astype(str) + "/" + runs["num_documents"].astype(str)
    return documents.isin([_most_frequent(documents)])
