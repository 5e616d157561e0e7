"""Runs that were timed while other processes used the machine.

Their scores are as good as any, but their times, and what is computed from them, say little
about the model: such a run is marked wherever it is shown, and no conclusion rests on it.

    interference.quiet(frames.runs(records))
"""

import pandas as pd

MARK = "machine was busy"
"""How such a run is marked, everywhere."""
IDLE_TIMING = "a timing on an idle machine"
"""What is missing where only such a run could tell."""
TIMED = (
    "ttft_ms",
    "tpot_ms",
    "latency_ms",
    "output_tokens_per_s",
    "ttft_p95_ms",
    "tpot_p95_ms",
    "latency_p95_ms",
    "tpot_spread",
    "tpot_low_ms",
    "tpot_high_ms",
    "teacher_ttft_ms",
    "teacher_tpot_ms",
    "teacher_latency_ms",
    "ttft_ratio",
    "tpot_ratio",
    "ttft_ratio_low",
    "ttft_ratio_high",
    "tpot_ratio_low",
    "tpot_ratio_high",
    "load_s",
    "joules_per_token",
    "peak_memory_bytes",
)
"""Columns of the store's frame that the timing measured."""


def was_busy(runs: pd.DataFrame) -> "pd.Series[bool]":
    """Where a run was timed on a busy machine; False where nothing was timed, or nobody says."""
    if "machine_busy" not in runs:
        return pd.Series(False, index=runs.index, dtype=bool)
    return runs["machine_busy"].eq(True)


def without_busy(runs: pd.DataFrame) -> pd.DataFrame:
    """The other runs: those on whose times a conclusion may rest."""
    return runs[~was_busy(runs)]


def rests_on_times(column: str) -> bool:
    """Whether a column of the store's frame, or of `cost.add`, would be another on a busy machine.

    A model's size is what it is.
    """
    return column in TIMED or column.startswith("usd")


def without_times(runs: pd.DataFrame) -> pd.DataFrame:
    """All runs; of those timed on a busy machine, what the timing measured is missing."""
    timed = [name for name in TIMED if name in runs]
    return runs.assign(**{name: runs[name].where(~was_busy(runs)) for name in timed})


def left_out_sentence(number: int, done: str = "left out") -> str:
    """`1 run timed on a busy machine is left out`; nothing where there is none."""
    if not number:
        return ""
    runs, verb = ("1 run", "is") if number == 1 else (f"{number:,} runs", "are")
    return f"{runs} timed on a busy machine {verb} {done}"


def retiming_advice(run_ids: list[str]) -> str:
    """How to time these runs again, a command a line; nothing where there is none."""
    if not run_ids:
        return ""
    which, whose, them = ("this run was", "its", "it")
    if len(run_ids) > 1:
        which, whose, them = ("these runs were", "their", "them")
    commands = [f"  explorer run {run_id} --again" for run_id in run_ids]
    return "\n".join(
        [
            f"The machine was busy while {which} timed, so no conclusion uses {whose} times. "
            f"Time {them} again on an idle machine:",
            *commands,
        ]
    )
