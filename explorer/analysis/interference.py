"""Runs that were timed while other processes used the machine.

Their scores are valid, but their times, and everything computed from them, say little about
the model. Such a run is marked wherever it is shown, and no conclusion uses its times.

    interference.without_busy(frames.runs(records))
"""

import pandas as pd

from explorer.store.columns import RECORD

MARK = "machine was busy"
"""The mark of such a run, everywhere."""
IDLE_TIMING = "a timing on an idle machine"
"""What is missing where only such a run has been timed."""
TIMED = tuple(name for name, column in RECORD.items() if column.timed)
"""Columns of the frame of runs that the timing measured."""


def was_busy(runs: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each run was timed on a busy machine; False if not timed or not recorded."""
    if "machine_busy" not in runs:
        return pd.Series(False, index=runs.index, dtype=bool)
    return runs["machine_busy"].eq(True)


def without_busy(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs whose times a conclusion may use."""
    return runs[~was_busy(runs)]


def rests_on_times(column: str) -> bool:
    """Whether a column depends on the timing; a model's size, for one, does not."""
    return column in TIMED or "usd" in column


def without_times(runs: pd.DataFrame) -> pd.DataFrame:
    """All runs; the timed columns are missing for those timed on a busy machine."""
    timed = [name for name in TIMED if name in runs]
    return runs.assign(**{name: runs[name].where(~was_busy(runs)) for name in timed})


def left_out_sentence(number: int, done: str = "left out") -> str:
    """`1 run timed on a busy machine is left out`; empty for none."""
    if not number:
        return ""
    runs, verb = ("1 run", "is") if number == 1 else (f"{number:,} runs", "are")
    return f"{runs} timed on a busy machine {verb} {done}"


def retiming_advice(run_ids: list[str]) -> str:
    """How to time these runs again, one command per line; empty for no runs."""
    if not run_ids:
        return ""
    subject, its, them = ("this run was", "its", "it")
    if len(run_ids) > 1:
        subject, its, them = ("these runs were", "their", "them")
    commands = [f"  explorer run {run_id} --again" for run_id in run_ids]
    return "\n".join(
        [
            f"The machine was busy while {subject} timed, so no conclusion uses {its} times. "
            f"Time {them} again on an idle machine:",
            *commands,
        ]
    )
