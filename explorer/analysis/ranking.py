"""Models in the order of what they keep, and which of them can't be told apart.

    ranking = rank(runs, index.draws(runs))
    print(" ".join(sentences(ranking)))

Two models are told apart if one keeps more than the other in 97.5 % of the paired draws, as
`explorer pick` does. A group is a stretch of the order in which no two are told apart. Groups may
overlap: the first may be no better than the second, the second no better than the third, and yet
the first better than the third.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pandas as pd

from explorer.analysis import numbers, studies
from explorer.analysis.pick import candidates
from explorer.analysis.pick.decide import CERTAIN
from explorer.records.rows import row_dicts

# Shape letters: D draws, R models.

MOST_MODELS = 40
"""A ranking of more could not be read; it holds the first of them."""
REASONS = ("failed", "other_teacher", "no_retention", "other_documents")
"""Why a run has no place: keys of `candidates.REASONS`. The timing does not matter."""
WORTHWHILE = 20
"""More documents are suggested up to this many times those of now."""
MOST_GROUPS = 3
"""A text names at most this many groups; the chart and the table mark all."""
NAMES = 6
"""A sentence names at most this many models."""
WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The order, its groups, and what has no place in it."""

    rows: pd.DataFrame
    """The ranked runs, best first: `run_id`, `name` (unique), `retention` with its interval."""
    groups: list[list[str]]
    """Ids of at least two neighbours of which no two are told apart, the best group first."""
    left_out: dict[str, list[str]]
    """Ids of the other runs, by reason: a key of `candidates.REASONS`."""
    num_ranked: int
    """Models that have a place, also those beyond `MOST_MODELS`."""
    settling: "Settling | None"
    """How many documents would tell the best two of the first group apart."""


@dataclasses.dataclass(frozen=True)
class Settling:
    """Two neighbours, and the documents that would likely tell them apart."""

    better: str
    worse: str
    num_documents: int


def eligible(runs: pd.DataFrame, *, teacher: str | None = None) -> pd.DataFrame:
    """The runs with `removed`: a key of `REASONS`, missing where a run has a place.

    Args:
        runs: With the columns of `retention.add_retention`.
        teacher: The teacher's run; by default the one that most students name.
    """
    teacher = teacher or candidates.main_teacher(runs)
    return candidates.with_removal(
        runs, None, teacher=teacher, device=None, objective="retention", reasons=REASONS
    )


def best_of(runs: pd.DataFrame, *, teacher: str | None = None) -> pd.DataFrame:
    """The runs whose draws a ranking needs: those that have a place, best first, not too many."""
    placed = eligible(runs, teacher=teacher)
    return _ordered(placed[placed["removed"].isna()]).head(MOST_MODELS)


def rank(runs: pd.DataFrame, draws: pd.DataFrame, *, teacher: str | None = None) -> Ranking:
    """Order models by what they keep, and find those that can't be told apart.

    Args:
        runs: With the columns of `retention.add_retention`.
        draws: `retention.draws_by_run` of at least the runs of `best_of`. A model without draws
            has no place: nobody knows how sure its retention is.
        teacher: The teacher's run; by default the one that most students name.
    """
    considered = eligible(runs, teacher=teacher)
    left_out = {
        reason: considered.loc[considered["removed"] == reason, "run_id"].tolist()
        for reason in REASONS
    }
    placed = _ordered(considered[considered["removed"].isna()])
    first = placed.head(MOST_MODELS)
    drawn = first["run_id"].isin(draws.columns)
    left_out["no_retention"] += first.loc[~drawn, "run_id"].tolist()
    first = first[drawn]
    values_DR = draws[first["run_id"].tolist()].to_numpy(float)
    groups = _groups(values_DR)
    ids = first["run_id"].tolist()
    return Ranking(
        rows=first.assign(name=unique_names(first)),
        groups=[ids[start:end] for start, end in groups],
        left_out={reason: run_ids for reason, run_ids in left_out.items() if run_ids},
        num_ranked=len(placed) - int((~drawn).sum()),
        settling=_settling(first, values_DR, groups),
    )


def unique_names(runs: pd.DataFrame) -> "pd.Series[str]":
    """The label of each run, with the end of its id where two runs share a label."""
    return studies.told_apart(runs["label"].astype(str), runs["run_id"])


def _ordered(runs: pd.DataFrame) -> pd.DataFrame:
    """Best first; of equal ones the teacher, then the smaller, then by id."""
    student = (runs["role"] != "teacher").rename("student")
    keys = runs.assign(student=student)
    order = keys.sort_values(
        ["retention", "student", "num_parameters", "run_id"],
        ascending=[False, True, True, True],
        kind="stable",
    )
    return runs.loc[order.index]


def _groups(values_DR: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """Start and end of each longest stretch of columns in which no two are told apart."""
    num_models = values_DR.shape[1]
    groups: list[tuple[int, int]] = []
    for start in range(num_models):
        end = start + 1
        while end < num_models and not _told_apart(values_DR[:, start:end], values_DR[:, end]):
            end += 1
        if end - start > 1 and (not groups or end > groups[-1][1]):
            groups.append((start, end))
    return groups


def _told_apart(
    better_DR: npt.NDArray[np.float64], worse_D: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_] | bool:
    """Whether any of these keeps more than the last one in almost all draws."""
    return bool(((worse_D[:, None] < better_DR).mean(axis=0) >= CERTAIN).any())


def _settling(
    rows: pd.DataFrame, values_DR: npt.NDArray[np.float64], groups: Sequence[tuple[int, int]]
) -> Settling | None:
    """The documents at which the measured difference of the best two would be real.

    The spread of a difference falls with the root of the number of documents.
    """
    if not groups or groups[0][0] != 0:
        return None
    difference = rows["retention"].iloc[0] - rows["retention"].iloc[1]
    spread = float((values_DR[:, 0] - values_DR[:, 1]).std())
    now = float(rows["num_documents"].iloc[1])
    if difference <= 0 or spread == 0 or not now:
        return None
    needed = now * (NormalDist().inv_cdf(CERTAIN) * spread / difference) ** 2
    if not now < needed <= WORTHWHILE * now:
        return None
    return Settling(
        better=rows["run_id"].iloc[0],
        worse=rows["run_id"].iloc[1],
        num_documents=math.ceil((needed - now) / 100) * 100,
    )


def sentences(ranking: Ranking) -> list[str]:
    """What may be said of the order, and what may not: one sentence each, the best first."""
    rows = ranking.rows
    if rows.empty:
        return ["No model has a retention with an interval, so there is nothing to rank."]
    names = dict(zip(rows["run_id"], rows["name"], strict=True))
    if len(rows) == 1:
        only = next(iter(names.values()))
        return [f"{_capitalised(only)} is the only model that can be ranked."]
    texts = []
    best = rows["run_id"].iloc[0]
    if not ranking.groups or ranking.groups[0][0] != best:
        text = _capitalised(names[best])
        texts.append(f"{text} keeps more than every other model here, and not by chance.")
    for group in ranking.groups[:MOST_GROUPS]:
        at_top = group[0] == best
        warning = "Do not call any of them the best" if at_top else "Their order may be chance"
        texts.append(f"{_these(group, names)} can't be told apart. {warning}.")
    if (more := len(ranking.groups) - MOST_GROUPS) > 0:
        groups = "group is" if more == 1 else "groups are"
        texts.append(f"{more:,} more such {groups} marked.")
    if ranking.settling:
        settling = ranking.settling
        texts.append(
            f"About {settling.num_documents:,} more documents would likely tell "
            f"{names[settling.better]} and {names[settling.worse]} apart."
        )
    return texts


def _these(group: Sequence[str], names: Mapping[str, str]) -> str:
    """`These four (24 layers, 20 layers, ...)`."""
    number = WORDS[len(group) - 2] if len(group) - 2 < len(WORDS) else f"{len(group):,}"
    listed = [names[run_id] for run_id in group]
    if len(listed) > NAMES:
        more = f"{len(listed) - NAMES + 1:,} more"
        listed = [*listed[: NAMES - 1], more]
    return f"These {number}, {', '.join(listed[:-1])} and {listed[-1]},"


def left_out_lines(ranking: Ranking) -> list[str]:
    """One line per reason, with the number of runs; and how many models are not shown."""
    lines = []
    for reason, run_ids in ranking.left_out.items():
        runs = "1 run" if len(run_ids) == 1 else f"{len(run_ids):,} runs"
        text = (
            "without retention or its interval"
            if reason == "no_retention"
            else candidates.REASONS[reason]
        )
        lines.append(f"{runs} {text}")
    beyond = ranking.num_ranked - len(ranking.rows)
    if beyond:
        lines.append(f"the {beyond:,} that keep least, of {ranking.num_ranked:,} models")
    return lines


def table(ranking: Ranking) -> pd.DataFrame:
    """The ranking as text: place, model, retention, and the groups that it belongs to."""
    letters = {
        run_id: [
            chr(ord("a") + number % 26)
            for number, group in enumerate(ranking.groups)
            if run_id in group
        ]
        for run_id in ranking.rows["run_id"]
    }
    return pd.DataFrame(
        {
            "Place": [f"{place}" for place in range(1, len(ranking.rows) + 1)],
            "Model": ranking.rows["name"].tolist(),
            "Retention [95 %]": [
                numbers.percent(row["retention"], row["retention_low"], row["retention_high"])
                for row in row_dicts(ranking.rows)
            ],
            "Not told apart": [" ".join(letters[run_id]) for run_id in ranking.rows["run_id"]],
            "Run": ranking.rows["run_id"].tolist(),
        }
    )


def as_json(ranking: Ranking) -> dict[str, object]:
    """The ranking as JSON values."""
    columns = ["run_id", "label", "retention", "retention_low", "retention_high"]
    return {
        "models": row_dicts(ranking.rows[columns]),
        "groups": ranking.groups,
        "left_out": ranking.left_out,
        "num_ranked": ranking.num_ranked,
        "settling": None if ranking.settling is None else dataclasses.asdict(ranking.settling),
        "sentences": sentences(ranking),
    }


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]
