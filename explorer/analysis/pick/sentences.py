"""The decision in words: the reason, the runner-up, what each run lacks."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from explorer.analysis import numbers
from explorer.analysis.cost import unit_cost
from explorer.analysis.pick import candidates
from explorer.analysis.pick.limits import NUMERIC, OBJECTIVES, Limits, Numeric, objective_text
from explorer.analysis.stats import bootstrap
from explorer.records.rows import missing, row_dicts

if TYPE_CHECKING:
    from explorer.analysis.pick.decide import Broken, Decision, NearMiss

Row = Mapping[Any, Any]
SUPERLATIVES = {
    "cheapest": "the cheapest",
    "fastest": "the fastest",
    "smallest": "the smallest",
    "capable": "the most capable",
}


def reason(
    best: Row | None,
    fitting: pd.DataFrame,
    eligible: pd.DataFrame,
    misses: "Sequence[NearMiss]",
    limits: Limits,
    objective: str,
    considered: pd.DataFrame,
) -> str:
    """Why this model, in two or three sentences; or why none, and what to loosen."""
    if best is None:
        return _why_none(eligible, misses, limits, considered)
    if len(eligible) == 1:
        place = "the only model that can be picked, and meets every limit"
    elif len(fitting) == 1:
        place = f"the only one of {_models(len(eligible))} that meets every limit"
    else:
        place = f"{SUPERLATIVES[objective]} of {_models(len(fitting))} that meet every limit"
    first = f"{_capitalised(best['label'])} is {place}: {objective_text(objective, best)}."
    return " ".join([first, _keeps(best, limits), *_quantising(best, fitting, objective)])


def _keeps(run: Row, limits: Limits) -> str:
    if run["role"] == "teacher":
        return "It is the teacher, so it keeps all of its capability."
    kept = numbers.percent(run["retention"], run["retention_low"], run["retention_high"], digits=2)
    return f"It keeps {kept} of the teacher's capability: {sure_text(run, limits)}."


def sure_text(run: Row, limits: Limits) -> str:
    """`at least 80 % with 93 % confidence`."""
    return f"at least {share_text(limits.min_retention)} with {_sure(run['sure'])} confidence"


def share_text(share: float) -> str:
    """A share that people stated, as they wrote it: `80 %`, `97.5 %`."""
    return f"{100 * share:g} %"


def _sure(share: float) -> str:
    """A share of the draws in whole percent. Resampled documents do not show certainty."""
    if share > 0.99:
        return "over 99 %"
    return "under 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def _quantising(best: Row, fitting: pd.DataFrame, objective: str) -> list[str]:
    """Says so where the teacher in another number format beats every student."""
    if missing(best["kind"]) and best["format"] != candidates.TORCH:
        students = fitting[fitting["kind"].notna()]
        if students.empty:
            return ["Quantising beats distilling here: no distilled student meets the limits."]
        rival = row_dicts(students)[0]
        return [
            f"Quantising beats distilling here: the best student, {rival['label']}, has "
            f"{objective_text(objective, rival)}."
        ]
    return []


def _why_none(
    eligible: pd.DataFrame,
    misses: "Sequence[NearMiss]",
    limits: Limits,
    considered: pd.DataFrame,
) -> str:
    if considered.empty:
        return "There are no runs yet. Start with: explorer demo"
    if eligible.empty:
        counts = considered["removed"].value_counts()
        parts = [
            f"{counts[name]:,} {text}"
            for name, text in candidates.REASONS.items()
            if name in counts
        ]
        return f"No run can be picked. Of {len(considered):,}: {'; '.join(parts)}.{_advice(counts)}"
    nearest = misses[0]
    impossible = [_unmet(limit, eligible, limits) for limit in NUMERIC]
    loosen = " and ".join(filter(None, (_loosened(nearest.run, one) for one in nearest.broken)))
    return " ".join(
        [
            f"None of {_models(len(eligible))} meets every limit.",
            *filter(None, impossible),
            f"The nearest is {nearest.text}",
            *([f"It fits if you {loosen}."] if loosen else []),
        ]
    )


def _advice(counts: "pd.Series[int]") -> str:
    """What helps where runs lack the figure that decides, or what they are compared with."""
    if "no_objective" in counts:
        return (
            " Set a price for the device to compare costs per token (explorer price), or choose "
            "another objective, such as smallest."
        )
    if set(counts.index) == {"no_retention"}:
        return (
            " Retention compares a run with its teacher on the same tasks: measure the teacher "
            "(explorer run), or import its scores."
        )
    return ""


def _unmet(limit: Numeric, eligible: pd.DataFrame, limits: Limits) -> str:
    """A sentence on a limit that no run meets, whatever the others are; else empty."""
    bound = getattr(limits, limit.name)
    if bound is None:
        return ""
    values = eligible[limit.column].dropna()
    if values.empty:
        return f"{limit.title} was not measured for any of them."
    best = values.max() if limit.is_minimum else values.min()
    if limit.allows(best, bound):
        return ""
    extreme = "highest" if limit.is_minimum else "lowest"
    return f"{limit.title}: the {extreme} is {limit.write(best)}, the limit {limit.write(bound)}."


def _loosened(run: Row, broken: "Broken") -> str:
    """How far to move a limit so that the run meets it: `allow $0.284`."""
    if broken.limit == "min_retention":
        return f"ask for {share_text(math.floor(100 * max(run['sure_low'], 0)) / 100)}"
    by_name = {limit.name: limit for limit in NUMERIC}
    if broken.limit not in by_name or broken.value is None:
        return ""
    # Rounded to three digits, a maximum may come out below the value itself.
    limit = by_name[broken.limit]
    value = float(broken.value) * (0.995 if limit.is_minimum else 1.005)
    return f"allow {limit.write(value)}"


def past_limit(limit: Numeric, value: float, bound: float) -> str:
    """`Time per token 12.3 ms, 2.3 ms over the limit`."""
    side = "under" if limit.is_minimum else "over"
    title, distance = _uncapitalised(limit.title), limit.write(abs(value - bound))
    return f"{title} {limit.write(value)}, {distance} {side} the limit"


def not_measured(limit: Numeric) -> str:
    """`peak memory is not known`."""
    return f"{_uncapitalised(limit.title)} is not known"


def too_little_retention(run: Row, limits: Limits) -> str:
    """`keeps 83 % and is only 84 % sure to keep 80 %`."""
    floor = share_text(limits.min_retention)
    kept = numbers.percent(run["retention"], digits=2)
    if run["retention"] >= limits.min_retention:
        return f"keeps {kept} but is only {_sure(run['sure'])} sure to keep {floor}"
    return f"keeps {kept}, which is under {floor} ({_sure(run['sure'])} sure to keep it)"


def near_miss(run: Row, broken: "Sequence[Broken]", utilisation: float | None) -> str:
    """A run and every limit that it breaks, as one sentence."""
    text = f"{run['label']}: {'; '.join(one.text for one in broken)}."
    if utilisation is not None:
        text += f" It fits at {numbers.percent(utilisation, digits=2)} utilisation."
    return text


def runner_up(best: Row, second: Row, objective: str, draws: pd.DataFrame) -> str:
    """What the second best would cost or gain, compared with the pick."""
    difference_D = draws[second["run_id"]] - draws[best["run_id"]]
    low, high = bootstrap.percentile_interval(difference_D.to_numpy())
    points = 100 * (second["retention"] - best["retention"])
    size = f"{numbers.significant(abs(points), 2)} points"
    ends = numbers.interval(100 * low, 100 * high, 2)
    if low <= 0 <= high:
        capability = (
            f"the difference in retention, {numbers.significant(points, 2)} points {ends}, "
        )
        capability += "is within chance"
    else:
        capability = f"it keeps {size} {'more' if points > 0 else 'less'} {ends}"
    column = OBJECTIVES[objective] if objective != "capable" else OBJECTIVES["cheapest"]
    return f"{_capitalised(second['label'])}{_relative(second, best, column)}; {capability}."


def _relative(run: Row, best: Row, column: str) -> str:
    """` costs 12 % more`, from the ratio of two values."""
    verbs = {
        "usd_per_mtok": ("costs", "more", "less"),
        "tpot_ms": ("takes", "longer per token", "less time per token"),
        "weight_bytes": ("needs", "more disk", "less disk"),
    }
    if missing(run[column]) or missing(best[column]):
        return " is next"
    verb, more, less = verbs[column]
    share = run[column] / best[column] - 1
    if share > 1:
        return f" {verb} {numbers.significant(share + 1, 2)} times as much"
    return f" {verb} {numbers.percent(abs(share), digits=2)} {more if share >= 0 else less}"


def _models(number: int) -> str:
    return "1 model" if number == 1 else f"{number:,} models"


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def details(decision: "Decision", runs: pd.DataFrame) -> dict[str, list[str]]:
    """Everything else about a decision: titles and the sentences under each, none of them empty."""
    labels = dict(zip(runs["run_id"], runs["label"], strict=True))
    parts = {
        "Runner-up": [decision.runner_up_text],
        "How sure": [confidence(decision, labels)],
        "Near misses": [miss.text for miss in decision.near_misses],
        "Removed": removed(decision),
        "What would settle it": [
            decision.next_measurement.text if decision.next_measurement else ""
        ],
        "Assumed": assumed(decision, runs),
    }
    return {title: lines for title, lines in parts.items() if any(lines)}


def confidence(decision: "Decision", labels: Mapping[str, str]) -> str:
    """How often the same rule picks the same model, and what it picks otherwise."""
    if decision.pick is None or decision.confidence is None:
        return ""
    others = [
        f"{labels[run_id]} in {_sure(share)}"
        for run_id, share in decision.shares.items()
        if run_id != decision.pick["run_id"] and share >= 0.01
    ]
    first = f"With other documents the rule picks it again in {_sure(decision.confidence)} of draws"
    return f"{first}{', ' if others else ''}{', '.join(others[:3])}."


def removed(decision: "Decision") -> list[str]:
    """One line per reason or limit, with the number of runs it removes."""
    lines = []
    for name, run_ids in decision.removed.items():
        number = len(run_ids)
        if name in candidates.REASONS:
            lines.append(f"{number:,} {candidates.REASONS[name]}")
        else:
            lines.append(f"{number:,} by {limit_text(name, decision.limits)}")
    return lines


def limit_text(name: str, limits: Limits) -> str:
    """A limit as people would say it: `time per token at most 10.0 ms`."""
    bound = getattr(limits, name)
    if name == "min_retention":
        return (
            f"keeping at least {share_text(bound)} with {share_text(limits.confidence)} confidence"
        )
    for limit in NUMERIC:
        if limit.name == name:
            side = "at least" if limit.is_minimum else "at most"
            return f"{_uncapitalised(limit.title)} {side} {limit.write(bound)}"
    return f"the {name} {bound}"


def assumed(decision: "Decision", runs: pd.DataFrame) -> list[str]:
    """What the decision rests on besides the limits."""
    shown = runs[runs["device_name"].isin([decision.device])]
    if decision.teacher is None or shown.empty:
        return []
    documents = shown.loc[shown["run_id"].eq(decision.teacher), ["num_documents", "num_tasks"]]
    where = f"timed on {decision.device}" if decision.device else "not timed"
    lines = [f"Teacher {decision.teacher}, {where}."]
    if len(documents):
        row = row_dicts(documents)[0]
        tasks = "1 task" if row["num_tasks"] == 1 else f"{row['num_tasks']:,} tasks"
        lines.append(f"Retention over {row['num_documents']:,} documents of {tasks}.")
    if shown["usd_per_mtok"].notna().any():
        lines.append(f"{unit_cost.conditions_text(shown)}.")
    return [*lines, *(f"Price: {note}." for note in shown["price_note"].dropna().unique())]


def _uncapitalised(text: str) -> str:
    return text[0].lower() + text[1:]
