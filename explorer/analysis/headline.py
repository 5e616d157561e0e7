"""The finding of a study in one to three sentences."""

import pandas as pd

from explorer.analysis import interference, numbers

TARGET_RETENTION = 0.95
"""The share that distillation is said to keep: the line on the chart."""


def headline(runs: pd.DataFrame, *, target: float = TARGET_RETENTION) -> str:
    """What the runs show: a sentence on the students, and one on the teacher in other formats.

    Each speaks of the smallest model that reaches the target. Where none does, it says so
    and speaks of the one that comes closest. What is not known is left out of the sentence.

    A sentence states latency and cost, so it never speaks of a run that was timed on a busy
    machine. How many were is a sentence of its own, because one of them may reach the target.

    Args:
        runs: With the columns of `retention.add`; those of `cost.add` are used if there.
        target: Share of the teacher's capability, 1.0 is all of it.
    """
    finished = runs[runs["status"] == "finished"]
    if finished.empty:
        return "No finished runs yet."
    students = finished[finished["role"] == "student"]
    if students.empty:
        return "No student is measured yet, so there is nothing to compare the teacher with."
    known = students.dropna(subset=["retention"])
    if known.empty:
        reasons = students["excluded_tasks"].replace("", pd.NA).dropna()
        why = f" ({reasons.iloc[0]})" if len(reasons) else ""
        return f"What the students keep is not known yet{why}."
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
        sentences.append(f"The teacher itself{_format(best)} {_keeps(best, runs)}.")
    if num_busy:
        sentences.append(f"{interference.left_out_sentence(num_busy)}.")
    return " ".join(sentences)


def is_converted(runs: pd.DataFrame) -> pd.Series:
    """Where a run is a teacher in another number format, which was not distilled."""
    return runs["format"].notna() & runs["kind"].isna()


def _finding(
    students: pd.DataFrame, runs: pd.DataFrame, target: float, *, some_are_busy: bool
) -> str:
    one, reaches = _best(students, target)
    if reaches:
        return f"{_capital(_name(one))} {_keeps(one, runs)}."
    # A student that is left out may reach it.
    which = "No student timed on an idle machine" if some_are_busy else "No student"
    return (
        f"{which} reaches {numbers.percent(target, digits=2)}: "
        f"the closest is {_name(one)} that {_keeps(one, runs)}."
    )


def _best(known: pd.DataFrame, target: float) -> tuple[pd.Series, bool]:
    """The smallest that reaches the target, or else the closest to it; and whether it does.

    Of several that come as close, to the whole percent that is said, it is the smallest too.
    """
    reaching = known[known["retention"] >= target]
    fit = known if reaching.empty else reaching
    # Formats of one model differ in bytes, not in parameters.
    by = [name for name in ("num_parameters", "num_layers", "weight_bytes") if name in fit]
    if reaching.empty:
        whole_percent = fit["retention"].round(2)
        fit = fit[whole_percent == whole_percent.max()]
    return fit.sort_values(by, kind="stable").iloc[0], not reaching.empty


def _keeps(one: pd.Series, runs: pd.DataFrame) -> str:
    """`keeps 83 % [79, 87] of the teacher's capability at 0.52 times its latency ...`."""
    share = numbers.percent(one["retention"], one["retention_low"], one["retention_high"], digits=2)
    several = runs.loc[runs["role"] == "student", "teacher"].nunique() > 1
    whose = f"{one['teacher']}'s" if several else "the teacher's"
    ratios = [
        f"{numbers.significant(ratio, 2)} times its {what}"
        for ratio, what in (
            (one["tpot_ratio"], "latency"),
            (_cost_ratio(one, runs), "cost per hour"),
        )
        if not numbers.missing(ratio)
    ]
    at = f" at {' and '.join(ratios)}" if ratios else ""
    return f"keeps {share} of {whose} capability{at}"


def _cost_ratio(one: pd.Series, runs: pd.DataFrame) -> float | None:
    """What serving the load costs with the student, over what it costs with its teacher."""
    if "usd_per_hour_at_load" not in runs:
        return None
    teacher = runs.loc[runs["run_id"] == one["teacher_run_id"], "usd_per_hour_at_load"].dropna()
    if teacher.empty or numbers.missing(one["usd_per_hour_at_load"]):
        return None
    return float(one["usd_per_hour_at_load"] / teacher.iloc[0])


def _name(one: pd.Series) -> str:
    """`a 15-layer student`, `an 8-layer student as q8_0 in llama.cpp`, `the student 60M wide`."""
    if one.get("kind", "depth") != "depth" and isinstance(one.get("label"), str):
        return f"the student {one['label']}"
    if numbers.missing(one["num_layers"]):
        return f"a student{_format(one)}"
    layers = f"{one['num_layers']:.0f}"
    article = "an" if layers in {"11", "18"} or layers.startswith("8") else "a"
    return f"{article} {layers}-layer student{_format(one)}"


def _format(one: pd.Series) -> str:
    """The number format that a model was brought into."""
    place = " in llama.cpp" if one.get("runtime") == "llama.cpp" else ""
    return "" if numbers.missing(one["format"]) else f" as {one['format']}{place}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
