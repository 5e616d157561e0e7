"""Where the time of a request goes: prefill until the first token, decode for all others.

    latency = TTFT + TPOT x (output tokens - 1)

Medians of the timed answers, so the two parts add up to about the median latency, not exactly.
"""

import dataclasses

import pandas as pd

from explorer.analysis import interference, numbers
from explorer.analysis.cost import unit_cost
from explorer.analysis.pick import candidates
from explorer.analysis.ranking import unique_names
from explorer.records.rows import row_dicts

MOST_MODELS = 40
"""Bars of more models could not be read; the fastest are shown."""


@dataclasses.dataclass(frozen=True)
class RequestTimes:
    """The models that can be compared, the fastest first, and what was left out."""

    rows: pd.DataFrame
    """`run_id`, `name` (unique), `prefill_ms`, `decode_ms`, `total_ms`, `role`, `machine_busy`."""
    device: str | None
    lengths: tuple[int, int] | None
    """Prompt and answer in tokens, the same for all rows; None if no run was timed."""
    left_out: dict[str, int]
    """Number of runs by reason."""


def request_times(runs: pd.DataFrame, *, device: str | None = None) -> RequestTimes:
    """Split a request's time for each run that was timed on one device at the same lengths.

    Args:
        runs: As `frames.runs`.
        device: Where they were timed; by default where most were.
    """
    device = device or candidates.main_device(runs)
    timed = runs[["ttft_ms", "tpot_ms", "output_tokens"]].notna().all(axis=1)
    here = timed & runs["device_name"].isin([device])
    lengths = unit_cost.common_lengths(runs[here]) if here.any() else None
    equal = here
    if lengths is not None:
        alike = runs["prompt_tokens"].eq(lengths[0]) & runs["output_tokens"].eq(lengths[1])
        equal = here & alike
    shown = runs[equal]
    decode = shown["tpot_ms"] * (shown["output_tokens"] - 1)
    rows = shown.assign(
        prefill_ms=shown["ttft_ms"],
        decode_ms=decode,
        total_ms=shown["ttft_ms"] + decode,
        machine_busy=interference.was_busy(shown),
    )
    rows = rows.sort_values(["total_ms", "run_id"], kind="stable")
    first = rows.head(MOST_MODELS)
    left_out = {
        "not timed": int((~timed).sum()),
        "timed on another device": int((timed & ~here).sum()),
        "timed with other lengths of prompt and answer": int((here & ~equal).sum()),
        f"slower than the first {MOST_MODELS}": len(rows) - len(first),
    }
    return RequestTimes(
        rows=first.assign(name=unique_names(first)),
        device=device,
        lengths=lengths,
        left_out={reason: number for reason, number in left_out.items() if number},
    )


def sentences(times: RequestTimes) -> list[str]:
    """What takes the time, and how much of each part the fastest model saves."""
    rows = interference.without_busy(times.rows)
    if times.rows.empty:
        return ["No run has both TTFT and TPOT, so there is nothing to split."]
    if rows.empty:
        return ["All of these runs were timed on a busy machine, so there is no finding on time."]
    shares = rows["decode_ms"] / rows["total_ms"]
    ends = [numbers.percent(share, digits=2) for share in (shares.min(), shares.max())]
    span = ends[0] if ends[0] == ends[1] else f"{ends[0].removesuffix(' %')} to {ends[1]}"
    texts = [f"Decoding takes {span} of a request's time ({unit_cost.lengths_text_of(rows)})."]
    teachers = rows[(rows["role"] == "teacher")]
    if teachers.empty or len(rows) == 1:
        return texts
    teacher = row_dicts(teachers)[0]
    fastest = row_dicts(rows)[0]
    if fastest["run_id"] != teacher["run_id"]:
        texts.append(
            f"The fastest, {fastest['name']}, takes "
            f"{numbers.significant(fastest['prefill_ms'] / teacher['prefill_ms'], 2)} times the "
            "teacher's prefill and "
            f"{numbers.significant(fastest['decode_ms'] / teacher['decode_ms'], 2)} times its "
            "decoding."
        )
    return texts


def left_out_lines(times: RequestTimes) -> list[str]:
    """One line per reason, with the number of runs."""
    return [
        f"{'1 run' if number == 1 else f'{number:,} runs'} {reason}"
        for reason, number in times.left_out.items()
    ]


def table(times: RequestTimes) -> pd.DataFrame:
    """The parts as text, the fastest first; runs timed on a busy machine say so."""
    return pd.DataFrame(
        [
            {
                "Model": row["name"] + (f" ({interference.MARK})" if row["machine_busy"] else ""),
                "Prefill (ms)": numbers.significant(row["prefill_ms"]),
                "Decode (ms)": numbers.significant(row["decode_ms"]),
                "Sum (ms)": numbers.significant(row["total_ms"]),
                "Decode share": numbers.percent(row["decode_ms"] / row["total_ms"]),
                "Run": row["run_id"],
            }
            for row in row_dicts(times.rows)
        ],
        columns=["Model", "Prefill (ms)", "Decode (ms)", "Sum (ms)", "Decode share", "Run"],
    )


def as_json(times: RequestTimes) -> dict[str, object]:
    """The parts as JSON values."""
    columns = ["run_id", "label", "prefill_ms", "decode_ms", "total_ms", "machine_busy"]
    return {
        "models": row_dicts(times.rows[columns]),
        "device": times.device,
        "lengths": times.lengths,
        "left_out": times.left_out,
        "sentences": sentences(times),
    }
