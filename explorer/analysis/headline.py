"""The finding of a study in one to three sentences: what wins, and where distilling pays."""

from collections.abc import Collection

import numpy as np
import pandas as pd

from explorer.analysis import baseline, interference, numbers
from explorer.analysis.baseline import is_converted as is_converted
from explorer.analysis.pick import candidates

TARGET_RETENTION = 0.95
"""The share of the teacher that a good student should keep: the line on the chart."""


def headline(
    runs: pd.DataFrame,
    *,
    target: float = TARGET_RETENTION,
    reaching: Collection[str] | None = None,
    against: str = baseline.SAME,
) -> str:
    """The finding in at most two sentences: what wins, and below which size distilling pays.

    Where the teacher was also measured in other number formats, the smallest model that reaches
    the target wins, and students that no format of the teacher beats pay below its size.
    Otherwise the sentence names the smallest student that reaches the target, or else the
    closest. Unknown figures are left out.

    The sentences state latency and cost, so they never name a run that was timed on a busy
    machine. A last sentence counts those runs, because one of them may reach the target.

    Args:
        runs: With the columns of `retention.add_retention`, and perhaps of `unit_cost.add_costs`.
        target: Share of the teacher's capability; 1.0 is all of it.
        reaching: Ids of the runs that reach the target, as `pick` decides it; None compares the
            measured retention with the target.
        against: What ratios compare with: a key of `baseline.CHOICES`.
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
    if reaching is None:
        reaching = set(quiet.loc[quiet["retention"] >= target, "run_id"])
    shown = quiet.assign(
        reaches=quiet["run_id"].isin(reaching),
        tpot_times=_times(runs, "tpot_ms", against, quiet),
        usd_times=_times(runs, "usd_per_hour_at_load", against, quiet),
        baseline=baseline.baselines(runs, against).reindex(quiet.index),
    )
    main = candidates.main_teacher(shown)
    if main is not None and is_converted(shown).any():
        # One teacher's students are not held against another's formats.
        shown = shown[shown["teacher_run_id"] == main]
    converted = is_converted(shown)
    sentences = []
    if not converted.any():
        sentences.append(_of_students(shown, runs, target, some_are_busy=num_busy > 0))
    elif converted.all():
        sentences.append(_of_formats(shown))
    else:
        sentences += _contest(shown[~converted], shown[converted], target)
    if num_busy:
        sentences.append(f"{interference.left_out_sentence(num_busy)}.")
    return " ".join(sentences)


def _times(
    runs: pd.DataFrame, column: str, against: str, shown: pd.DataFrame
) -> "pd.Series[float]":
    """Multiples of the baseline's value; missing where the column is."""
    if column not in runs:
        return pd.Series(float("nan"), index=shown.index)
    return baseline.times(runs, column, against).reindex(shown.index)


def _of_formats(formats: pd.DataFrame) -> str:
    """The teacher in other number formats, where no student was measured."""
    best = _best(formats)
    own = numbers.significant(best["tpot_ratio"], 2)
    times = "" if numbers.missing(best["tpot_ratio"]) else f" at {own} times its own latency"
    return f"The teacher itself{_format(best)} {_keeps_in(best)}{times}."


def _contest(students: pd.DataFrame, formats: pd.DataFrame, target: float) -> list[str]:
    """Who wins, students or the teacher in other number formats; and where students pay."""
    converted, student = _best(formats, by_file=True), _best(students, by_file=True)
    if student["reaches"] and not (converted["reaches"] and not _smaller(student, converted)):
        return [f"Distilling wins here: {_name(student)} {_keeps_in(student)}{_at(student)}."]
    if converted["reaches"]:
        first = f"Quantising wins here: the teacher{_format(converted)} {_keeps_in(converted)}."
    else:
        is_student = student["retention"] > converted["retention"]
        best = student if is_student else converted
        name = _name(best) if is_student else f"the teacher{_format(best)}"
        reach = numbers.percent(target, digits=2)
        first = f"Nothing here reaches {reach}: {name} comes closest and {_keeps_in(best)}."
    return [first, _where_students_pay(students, formats)]


def _where_students_pay(students: pd.DataFrame, formats: pd.DataFrame) -> str:
    """The most capable student that is smaller than every format that keeps as much."""
    sizes = formats.dropna(subset=["weight_bytes"]) if "weight_bytes" in formats else formats[:0]
    if sizes.empty:
        return "Whether distilling pays is open: the sizes of the models are not known."
    known = students.dropna(subset=["weight_bytes"])
    # The smallest format that keeps as much as each student; infinite if none does.
    by_retention = sizes.sort_values("retention")
    smallest = np.minimum.accumulate(by_retention["weight_bytes"].to_numpy(float)[::-1])[::-1]
    places = np.searchsorted(by_retention["retention"].to_numpy(float), known["retention"])
    limits = np.append(smallest, np.inf)[places]
    pays = known.assign(limit=limits)
    pays = pays[(pays["weight_bytes"] < pays["limit"]) & (pays["retention"] > 0)]
    if pays.empty:
        return "Distilling does not pay here: no student is smaller than a format that keeps more."
    student = pays.sort_values(["retention", "weight_bytes"], ascending=[False, True]).iloc[0]
    below = "" if np.isinf(student["limit"]) else f" below {numbers.size(student['limit'])}"
    return f"Distilling pays{below}: {_name(student)} {_keeps_in(student)}{_at(student)}."


def _smaller(run: pd.Series, other: pd.Series) -> bool:
    """Whether a model's file is smaller; by parameters where sizes are unknown."""
    known = not any(numbers.missing(one.get("weight_bytes")) for one in (run, other))
    by = "weight_bytes" if known else "num_parameters"
    return bool(run[by] < other[by])


def _of_students(
    students: pd.DataFrame, runs: pd.DataFrame, target: float, *, some_are_busy: bool
) -> str:
    best = _best(students)
    if best["reaches"]:
        return f"{_capitalised(_name(best))} {_keeps(best, runs)}."
    # A student that is left out may reach the target.
    which = "No student timed on an idle machine" if some_are_busy else "No student"
    may = best["retention"] >= target
    return (
        f"{which} {'surely ' if may else ''}reaches {numbers.percent(target, digits=2)}: "
        f"the closest is {_name(best)} that {_keeps(best, runs)}."
    )


def _best(known: pd.DataFrame, *, by_file: bool = False) -> pd.Series:
    """The smallest run that reaches the target, or else the closest.

    Of several that are equally close, to the whole percent shown, the smallest: by parameters,
    or by the size of its file.
    """
    reaching = known[known["reaches"]]
    eligible = known if reaching.empty else reaching
    # Formats of one model differ in bytes, not in parameters.
    order = ["num_parameters", "num_layers", "weight_bytes"]
    by = [name for name in (order[::-1] if by_file else order) if name in eligible]
    if reaching.empty:
        whole_percent = eligible["retention"].round(2)
        eligible = eligible[whole_percent == whole_percent.max()]
    return eligible.sort_values(by, kind="stable").iloc[0]


def _keeps(run: pd.Series, runs: pd.DataFrame) -> str:
    """`keeps 83 % [79, 87] of the teacher's capability at 0.52 times its latency ...`."""
    several = runs.loc[runs["role"] == "student", "teacher"].nunique() > 1
    owner = f"{_teacher_name(run, runs)}'s" if several else "the teacher's"
    ratios = [
        f"{numbers.significant(ratio, 2)} times its {quantity}"
        for ratio, quantity in ((run["tpot_times"], "latency"), (run["usd_times"], "cost per hour"))
        if not numbers.missing(ratio)
    ]
    at = f" at {' and '.join(ratios)}{_unlike(run)}" if ratios else ""
    return f"keeps {_share(run)} of {owner} capability{at}"


def _unlike(run: pd.Series) -> str:
    """` in torch`: said where a converted model is compared with the teacher as it is."""
    is_original = run["baseline"] == run["teacher_run_id"]
    return " in torch" if is_original and not numbers.missing(run["format"]) else ""


def _share(run: pd.Series) -> str:
    return numbers.percent(run["retention"], run["retention_low"], run["retention_high"], digits=2)


def _keeps_in(run: pd.Series) -> str:
    """`keeps 95 % [92, 99] in 104 MB`."""
    size = run.get("weight_bytes")
    return f"keeps {_share(run)}" + ("" if numbers.missing(size) else f" in {numbers.size(size)}")


def _at(run: pd.Series) -> str:
    """` at 0.81 times the latency of the teacher as q4_k_m`."""
    if numbers.missing(run["tpot_times"]):
        return ""
    which = _unlike(run) or ("" if run["baseline"] == run["teacher_run_id"] else _format(run))
    return (
        f" at {numbers.significant(run['tpot_times'], 2)} times the latency of the teacher{which}"
    )


def _teacher_name(run: pd.Series, runs: pd.DataFrame) -> str:
    """The name of a student's teacher: an older import names the student's own model."""
    named = runs.loc[runs["run_id"] == run["teacher_run_id"], "teacher"]
    return str(run["teacher"] if named.empty else named.iloc[0])


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
