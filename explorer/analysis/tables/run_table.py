"""Runs as tables: text for people, numbers for programs."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from explorer.analysis import interference, numbers
from explorer.analysis.cost import unit_cost
from explorer.analysis.stats.retention import INTERVALS
from explorer.records.rows import row_dicts
from explorer.store import columns

PANDAS_TYPES: dict[str, str | type] = {"text": "str", "list": "str", "flag": bool}
"""Types of columns that are not numbers."""
LENGTHS = "Prompt + answer (tokens)"
"""Heading of the lengths of the timing, for which the cost per token holds."""
PREFILL = "Prefill $/1M in"
DECODE = "Decode $/1M out"
BLENDED = "Blended $/1M in + out"


def comparison_table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per model, as text: teachers on top, then students by retention.

    Args:
        runs: As `frames.runs`, with the columns of `retention.add` and `cost.add` where known.

    Returns:
        Text in every cell; an en dash where a value is missing. The heading of the cost per
        token states the utilisation.
    """
    ordered = ordered_for_people(runs)
    per_token = unit_cost.heading_of(ordered)
    rows = [_row(row, per_token) for row in row_dicts(ordered)]
    return pd.DataFrame(rows, columns=list(_row({}, per_token)), index=ordered.index)


def without_equal_lengths(cells: pd.DataFrame) -> pd.DataFrame:
    """The table without the column of lengths if all timed rows share them.

    Args:
        cells: A table of `comparison_table` or `economics_table`.
    """
    stated = set(cells[LENGTHS]) - {numbers.MISSING}
    return cells if len(stated) > 1 else cells.drop(columns=LENGTHS)


def published_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per published student and source table, as text, with the source's address last.

    Args:
        rows: `rows` of `published_retention.collect_published`.
    """
    cells = [
        {
            "Student": row["student"],
            "Compared with": row["compared_to"],
            "Relation": row["relation"],
            "Method": row["method"],
            "Parameters": numbers.parameters(_billions(row["params_b"])),
            "Times smaller": numbers.times(row["shrink"], 2),
            "Raw ratio": numbers.percent(row["raw_ratio"]),
            "Above chance": numbers.percent(row["retention"]),
            "Worst": f"{row['worst']} {numbers.percent(row['raw_min'])}",
            "Benchmarks": f"{row['num_benchmarks']}",
            "API $/1M output tokens": numbers.dollars(row["api_usd_per_mtok_output"]),
            "$/hour, estimated": numbers.dollars(row["usd_per_hour"]),
            "Table": row["table_id"],
            "Source": row["source_url"],
        }
        for row in row_dicts(rows)
    ]
    return pd.DataFrame(cells, index=rows.index)


def economics_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per candidate, as text, with intervals where there are any.

    Args:
        rows: As `economics.candidates`, with `retention` and its interval where known.
    """
    cells = []
    per_token = unit_cost.heading_of(rows)
    for row in row_dicts(rows):
        student = row["role"] == "student"
        devices = "" if numbers.missing(row["replicas"]) else f"{row['replicas']:.0f}"
        cells.append(
            {
                "Model": _marked(str(row["label"]), row.get("machine_busy")),
                "Retention [95 %]": numbers.percent(
                    row.get("retention"), row.get("retention_low"), row.get("retention_high")
                ),
                "Devices": (
                    devices + _ends(row, "replicas", lambda value: f"{value:.0f}")
                    if devices
                    else numbers.MISSING
                ),
                "Fleet $/hour": numbers.dollars(row["fleet_usd_per_hour"]),
                "Fleet $/month": numbers.dollars(row["usd_per_month"])
                + _ends(row, "usd_per_month", numbers.dollars),
                per_token: numbers.dollars(row["usd_per_mtok"]),
                LENGTHS: _lengths(row),
                "$/1,000 requests": numbers.dollars(_thousand(row["usd_per_request"]))
                + _ends(row, "usd_per_request", lambda value: numbers.dollars(1e3 * value)),
                PREFILL: numbers.dollars(row["usd_per_mtok_prefill"]),
                DECODE: numbers.dollars(row["usd_per_mtok_decode"]),
                BLENDED: numbers.dollars(row["usd_per_mtok_blended"]),
                "Bill": numbers.dollars(row["bill_usd"]) if student else numbers.MISSING,
                "Paid back after": numbers.duration(
                    None
                    if numbers.missing(row["payback_hours"])
                    else 3600 * float(row["payback_hours"])
                ),
                "API break-even": numbers.percent(row["break_even_utilisation"]),
            }
        )
    return pd.DataFrame(cells, index=rows.index)


def _ends(row: dict[Any, Any], name: str, write: Any) -> str:
    """` [$1.10, $1.30]`, or empty."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if numbers.missing(low) or numbers.missing(high) or low == high:
        return ""
    return f" [{write(low)}, {write(high)}]"


def _thousand(value: Any) -> Any:
    return None if numbers.missing(value) else 1e3 * value


def device_fit_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per model, device and precision, as text; every figure is an estimate.

    Args:
        rows: As from `device_fit.device_fit`.
    """
    per_token = f"Estimated {unit_cost.heading_of(rows)}"
    cells = [
        {
            "Model": row["model"],
            "Bits": f"{row['bits']}",
            "Devices": numbers.MISSING
            if numbers.missing(row["num_devices"])
            else f"{row['num_devices']:.0f} {row['hardware']}",
            "Memory": f"{numbers.significant(row['memory_gb'])} GB",
            "Rent $/hour": numbers.MISSING
            if numbers.missing(row["usd_per_hour"])
            else f"{numbers.dollars(row['usd_per_hour'])} to "
            f"{numbers.dollars(row['usd_per_hour_high'])}",
            "TTFT": numbers.milliseconds(row["ttft_ms"]),
            "TPOT": numbers.milliseconds(row["tpot_ms"]),
            "Tokens/s": numbers.significant(row["tokens_per_s"]),
            per_token: numbers.dollars(row["usd_per_mtok"]),
            "Not known": row["missing"] or "",
        }
        for row in row_dicts(rows)
    ]
    return pd.DataFrame(cells, index=rows.index)


def _billions(value: Any) -> Any:
    return None if numbers.missing(value) else 1e9 * value


def raw_table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per run, as numbers with units in the column names; lists become text.

    The columns and their types are the same for any runs, so that tables of several stores can be
    read together: text, flags, and floating-point numbers, also where all values are missing.
    """
    plain = ordered_for_people(runs).reset_index(drop=True)
    if "kept_layers" in plain:
        plain["kept_layers"] = [
            " ".join(map(str, layers)) if isinstance(layers, list | tuple) else None
            for layers in plain["kept_layers"]
        ]
    known = {**columns.RECORD, **columns.RETENTION, **columns.COST}
    kinds = {name: known[name].kind if name in known else "number" for name in plain.columns}
    return plain.astype({name: PANDAS_TYPES.get(kind, float) for name, kind in kinds.items()})


def ordered_for_people(runs: pd.DataFrame) -> pd.DataFrame:
    """Teachers first, then students by retention; missing values last."""
    unknown = pd.Series(index=runs.index, dtype=float)
    keys = pd.DataFrame(
        {
            "student": runs["role"] != "teacher",
            "retention": -runs.get("retention", unknown),
            "size": -runs["num_parameters"].astype(float),
        },
        index=runs.index,
    )
    order = keys.reset_index(drop=True).sort_values(
        ["student", "retention", "size"], kind="stable", na_position="last"
    )
    return runs.iloc[order.index]


def _lengths(row: dict[Any, Any]) -> str:
    """`128 + 64`: prompt and answer of a timed request, in tokens."""
    ends = row.get("prompt_tokens"), row.get("output_tokens")
    if any(numbers.missing(length) for length in ends):
        return numbers.MISSING
    return " + ".join(f"{length:,.0f}" for length in ends)


def _marked(name: str, was_busy: Any, notes: Sequence[str] = ()) -> str:
    """`15 layers (machine was busy)`; the name alone without notes."""
    notes = [*notes, interference.MARK] if was_busy is True else notes
    return f"{name} ({', '.join(notes)})" if notes else name


def _row(run: dict[str, Any], per_token: str) -> dict[str, str]:
    """The cells of a run; an empty dict gives the columns. `per_token` heads the cost per token."""

    def share(name: str) -> str:
        low, high = INTERVALS[name]
        return numbers.percent(run.get(name), run.get(low), run.get(high))

    teacher = run.get("role") == "teacher"
    name = run.get("teacher", "") if teacher else run.get("label", "")
    layers = run.get("num_layers")
    ratio = 1.0 if teacher and not numbers.missing(run.get("tpot_ms")) else run.get("tpot_ratio")
    notes = ["teacher"] if teacher else []
    return {
        "Model": _marked(str(name), run.get("machine_busy"), notes),
        "Layers": numbers.MISSING if numbers.missing(layers) else f"{layers:.0f}",
        "Parameters": numbers.parameters(run.get("num_parameters")),
        "Retention [95 %]": share("retention"),
        "Raw ratio [95 %]": share("raw_ratio"),
        "KL (nats)": numbers.significant(run.get("kl_after")),
        "TPOT (ms)": numbers.significant(run.get("tpot_ms")),
        "TTFT (ms)": numbers.significant(run.get("ttft_ms")),
        "Latency vs teacher": numbers.times(ratio),
        per_token: numbers.dollars(run.get("usd_per_mtok")),
        LENGTHS: _lengths(run),
        "$/hour at load": numbers.dollars(run.get("usd_per_hour_at_load")),
        "Memory": numbers.size(run.get("peak_memory_bytes")),
        "Weights": numbers.size(run.get("weight_bytes")),
    }
