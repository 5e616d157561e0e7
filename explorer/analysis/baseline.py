"""What a model is compared with: the teacher in the same runtime and format, or as it is.

A GGUF student beside a teacher in torch gains from the runtime, not from distilling. So ratios
compare like with like, unless a person chooses the teacher as it is.

    times(runs, "tpot_ms", SAME)
"""

import pandas as pd

from explorer.analysis import interference
from explorer.analysis.pick import candidates

SAME, ORIGINAL = "same", "original"
CHOICES = {
    SAME: "Teacher in the same format",
    ORIGINAL: "Teacher as it is",
}
"""What to compare with, and its name on pages."""
PAIRED = {"tpot_ms": "tpot_ratio", "ttft_ms": "ttft_ratio"}
"""Columns whose ratio was measured in turns with the teacher, and that ratio."""
LIKE_LATENCY = {
    "latency_ms": 1,
    "usd_per_mtok": 1,
    "output_tokens_per_s": -1,
    "output_tokens_per_usd": -1,
}
"""Columns that go with the end-to-end time, and with which power of it."""


def is_converted(runs: pd.DataFrame) -> "pd.Series[bool]":
    """Where a run is its teacher in another number format, without distillation."""
    return runs["format"].notna() & runs["kind"].isna()


def baselines(runs: pd.DataFrame, choice: str = SAME) -> "pd.Series[str]":
    """Id of the run that each run is compared with, on the index of `runs`; missing if not here.

    The teacher's run stands in where the teacher was not measured in the same runtime and format.

    Args:
        runs: As `frames.runs`.
        choice: A key of `CHOICES`.
    """
    teachers = runs["teacher_run_id"].where(runs["role"] != "teacher", runs["run_id"])
    known = set(runs["run_id"])
    original = teachers.where(teachers.isin(known))
    if choice == ORIGINAL:
        return original
    keys = _keys(runs, teachers)
    is_teacher = (runs["role"] == "teacher") | is_converted(runs)
    usable = is_teacher & runs["status"].eq("finished") & ~interference.was_busy(runs)
    same = dict(zip(keys[usable][::-1], runs.loc[usable, "run_id"][::-1], strict=True))
    return keys.map(same).where(keys.isin(same), original)


def _keys(runs: pd.DataFrame, teachers: "pd.Series[str]") -> "pd.Series[str]":
    """Teacher, runtime with its arguments, format and device of each run as one value."""
    nothing = pd.Series("", index=runs.index)
    names = ("runtime", "server_arguments", "device_name")
    how = [runs.get(name, nothing) for name in names]
    columns = (teachers, *how, candidates.formats(runs))
    # A column without any text is one of numbers, all missing.
    texts = (column.astype(object).where(column.notna(), "") for column in columns)
    parts = zip(*texts, strict=True)
    return pd.Series(["\n".join(part) for part in parts], index=runs.index, dtype=object)


def times(
    runs: pd.DataFrame, column: str, choice: str = SAME, *, fill: bool = False
) -> "pd.Series[float]":
    """Each run's value as a multiple of its baseline's, on the index of `runs`.

    Where times were measured in turns with the teacher, it is the ratio of those ratios, because
    the machine's pace cancels. Missing where either is unknown.

    Args:
        runs: With `column`.
        column: A quantity above zero.
        choice: A key of `CHOICES`.
        fill: Divide times that were not measured in turns, on one device, too.
    """
    reference = baselines(runs, choice)
    values = runs[column].astype(float)
    paired = _in_turns(runs, column)
    if paired is None:
        return _relative(runs, values, reference)
    ratio = paired if choice == ORIGINAL else _relative(runs, paired, reference)
    if not fill:
        return ratio
    devices = dict(zip(runs["run_id"], runs["device_name"], strict=True))
    alike = runs["device_name"].eq(reference.map(devices))
    return ratio.fillna(_relative(runs, values, reference).where(alike))


def _in_turns(runs: pd.DataFrame, column: str) -> "pd.Series[float] | None":
    """Multiples of the teacher's value, measured in turns; None if they never are."""
    if column in PAIRED:
        ratio = runs[PAIRED[column]].astype(float)
    elif column in LIKE_LATENCY and "teacher_latency_ms" in runs:
        ratio = (runs["latency_ms"] / runs["teacher_latency_ms"]) ** LIKE_LATENCY[column]
        ratio = ratio.astype(float).where(runs[column].notna())
    else:
        return None
    return ratio.mask(runs["role"].eq("teacher") & runs[column].notna(), 1.0)


def _relative(
    runs: pd.DataFrame, values: "pd.Series[float]", reference: "pd.Series[str]"
) -> "pd.Series[float]":
    by_run = dict(zip(runs["run_id"], values, strict=True))
    return values / reference.map(by_run).astype(float)


def baseline_name(runs: pd.DataFrame, run_id: str, choice: str = SAME) -> str:
    """What a run is compared with, in words: `the teacher`, `the teacher as q8_0`."""
    ids = baselines(runs, choice)[runs["run_id"] == run_id]
    named = runs[runs["run_id"].isin(ids)]
    formats = candidates.formats(named)
    if named.empty or formats.iloc[0] == candidates.TORCH:
        return "the teacher"
    return f"the teacher as {formats.iloc[0]}"
