"""The finding of a study in one to three sentences."""

import pandas as pd

from explorer.analysis import interference, numbers

TARGET_RETENTION = 0.95
"""The share of the teacher that a good student should keep: the line on the chart."""


def headline(runs: pd.DataFrame, *, target: float = TARGET_RETENTION) -> str:
    """The finding: one sentence on the students, one on the teacher in other number formats.

    Each names the smallest model that reaches the target, or else says that none does and names
    the closest. Unknown figures are left out of the sentence.

    The sentences state latency and cost, so they never name a run that was timed on a busy
    machine. A last sentence counts those runs, because one of them may reach the target.

    Args:
        runs: With the columns of `retention.add_retention`, and perhaps of `unit_cost.add_costs`.
        target: Share of the teacher's capability; 1.0 is all of it.
    """
    finished = runs[runs["status"] == "finished"]
    if finished.empty:
        return "No finished runs yet."
    students = finished[finished["role"] == "student"]
    if students.empty:
        return "No student has been measured yet, so there is nothing to compare with the teacher."
    known = students.dropna(subset=["retention"])
    if known.empty:
        reasons = students["excluded_tasks"].replace("", pd.NA).dropna()
        why = f" ({reasons.iloc[0]})" if len(reasons) else ""
        return f"The students' retention is not known yet{why}."
    quiet = interference.without_busy(known)
    num_busy = len(known) - len(quiet)
    if quiet.empty:
        which = "The only student was" if num_busy == 1 else f"All {num_busy:,} students were"
        return (
            f"{which} timed on a busy machine, so there is no finding on latency or cost. "
            f"Time {'it' if num_busy == 1 else 'them'} again on an idle machine."
        )
    converted = is_converted(quiet)
    sentences = []
    if not quiet[~converted].empty:
        sentences.append(_finding(quiet[~converted], runs, target, some_are_busy=num_busy > 0))
    if converted.any():
        best, _ = _best(quiet[converted], target)
        sentences.append(f"The teacher itself{_format(best)} {_keeps_in_short(best)}.")
    if num_busy:
        sentences.append(f"{interference.left_out_sentence(num_busy)}.")
    return " ".join(sentences)


def is_converted(runs: pd.DataFrame) -> pd.Series:
    """Where a run is its teacher in another number format, without distillation."""
    return runs["format"].notna() & runs["kind"].isna()


def _finding(
    students: pd.DataFrame, runs: pd.DataFrame, target: float, *, some_are_busy: bool
) -> str:
    best, reaches = _best(students, target)
    if reaches:
        return f"{_capitalised(_name(best))} {_keeps(best, runs)}."
    # A student that is left out may reach the target.
    which = "No student timed on an idle machine" if some_are_busy else "No student"
    return (
        f"{which} reaches {numbers.percent(target, digits=2)}: "
        f"the closest is {_name(best)} that {_keeps(best, runs)}."
    )


def _best(known: pd.DataFrame, target: float) -> tuple[pd.Series, bool]:
    """The smallest run that reaches the target, or else the closest; and whether it reaches it.

    Of several that are equally close, to the whole percent shown, the smallest.
    """
    reaching = known[known["retention"] >= target]
    candidates = known if reaching.empty else reaching
    # Formats of one model differ in bytes, not in parameters.
    by = [name for name in ("num_parameters", "num_layers", "weight_bytes") if name in candidates]
    if reaching.empty:
        whole_percent = candidates["retention"].round(2)
        candidates = candidates[whole_percent == whole_percent.max()]
    return candidates.sort_values(by, kind="stable").iloc[0], not reaching.empty


def _keeps(run: pd.Series, runs: pd.DataFrame) -> str:
    """`keeps 83 % [79, 87] of the teacher's capability at 0.52 times its latency ...`."""
    share = numbers.percent(run["retention"], run["retention_low"], run["retention_high"], digits=2)
    several = runs.loc[runs["role"] == "student", "teacher"].nunique() > 1
    owner = f"{_teacher_name(run, runs)}'s" if several else "the teacher's"
    ratios = [
        f"{numbers.significant(ratio, 2)} times its {quantity}"
        for ratio, quantity in (
            (run["tpot_ratio"], "latency"),
            (_cost_ratio(run, runs), "cost per hour"),
        )
        if not numbers.missing(ratio)
    ]
    at = f" at {' and '.join(ratios)}" if ratios else ""
    return f"keeps {share} of {owner} capability{at}"


def _teacher_name(run: pd.Series, runs: pd.DataFrame) -> str:
    """The name of a student's teacher: an older import names the student's own model."""
    named = runs.loc[runs["run_id"] == run["teacher_run_id"], "teacher"]
    return str(run["teacher"] if named.empty else named.iloc[0])


def _keeps_in_short(run: pd.Series) -> str:
    """`keeps 95 % [92, 99] at 0.13 times its own latency`."""
    share = numbers.percent(run["retention"], run["retention_low"], run["retention_high"], digits=2)
    if numbers.missing(run["tpot_ratio"]):
        return f"keeps {share}"
    return f"keeps {share} at {numbers.significant(run['tpot_ratio'], 2)} times its own latency"


def _cost_ratio(run: pd.Series, runs: pd.DataFrame) -> float | None:
    """Cost of serving the load with the student over the cost with its teacher."""
    if "usd_per_hour_at_load" not in runs:
        return None
    teacher = runs.loc[runs["run_id"] == run["teacher_run_id"], "usd_per_hour_at_load"].dropna()
    if teacher.empty or numbers.missing(run["usd_per_hour_at_load"]):
        return None
    return float(run["usd_per_hour_at_load"] / teacher.iloc[0])


def _name(run: pd.Series) -> str:
    """`a 15-layer student`, `an 8-layer student as q8_0`, `the student 60M wide`."""
    if run.get("kind", "depth") != "depth" and isinstance(run.get("label"), str):
        return f"the student {run['label']}"
    if numbers.missing(run["num_layers"]):
        return f"a student{_format(run)}"
    layers = f"{run['num_layers']:.0f}"
    article = "an" if layers in {"11", "18"} or layers.startswith("8") else "a"
    return f"{article} {layers}-layer student{_format(run)}"


def _format(run: pd.Series) -> str:
    """` as q8_0`: the number format, if the model was converted."""
    return "" if numbers.missing(run["format"]) else f" as {run['format']}"


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]
