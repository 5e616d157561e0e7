"""Points that were not measured here, to lay over the chart: published students and estimates.

Each has the columns of a run that the chart draws, and `basis` says how it is known. No
frontier, finding or pick sees them.
"""

import pandas as pd

from explorer.analysis import baseline
from explorer.analysis.cost import unit_cost
from explorer.analysis.pick import candidates
from explorer.analysis.planning import device_fit
from explorer.records.rows import row_dicts

PUBLISHED, ESTIMATED = "published:", "estimated:"
"""What the ids of these points begin with; a run's id has no colon."""
MOST_ESTIMATES = 60
BITS = {candidates.TORCH: 16, "q8_0": 8, "q4_k_m": 4}
"""Bits of a weight by number format, as estimates count them; other formats have no estimate."""
ESTIMATED_COLUMNS = (
    "ttft_ms",
    "tpot_ms",
    "latency_ms",
    "output_tokens_per_s",
    "usd_per_mtok",
    "output_tokens_per_usd",
)


def published_points(rows: pd.DataFrame) -> pd.DataFrame:
    """Published students as points: what they keep of their larger model, by size and API price.

    Multiples of the larger model's price are of one seller that has both.

    Args:
        rows: `rows` of `published_retention.collect_published`.
    """
    usd_per_mtok, share = (
        rows[name].astype(float) for name in ("api_usd_per_mtok_output", "price_share")
    )
    return pd.DataFrame(
        {
            "run_id": [f"{PUBLISHED}{point}" for point in rows.index],
            "role": "student",
            "basis": "published",
            "kind": "published",
            "label": rows["student"].to_list(),
            "teacher": rows["compared_to"].to_list(),
            "retention": rows["retention"].to_list(),
            "raw_ratio": rows["raw_ratio"].to_list(),
            "num_parameters": (1e9 * rows["params_b"].astype(float)).to_list(),
            "num_parameters_times": (1 / rows["shrink"].astype(float)).to_list(),
            "usd_per_mtok": usd_per_mtok.to_list(),
            "usd_per_mtok_times": share.to_list(),
            "output_tokens_per_usd": (1e6 / usd_per_mtok).to_list(),
            "output_tokens_per_usd_times": (1 / share).to_list(),
        }
    )


def estimated_points(
    runs: pd.DataFrame, device: pd.DataFrame, prices: pd.DataFrame, *, utilisation: float
) -> pd.DataFrame:
    """What these models would need at most on another device: the roofline, one request at a time.

    Capability is the measured one. Times and costs are a floor: all of the device's published
    arithmetic and bandwidth, links between devices free, the KV cache not counted.

    Args:
        runs: With the columns of `retention.add_retention`; the first `MOST_ESTIMATES` measured
            ones of known size are estimated.
        device: One row of hardware_specs.csv.
        prices: Rows of the price book.
        utilisation: Share of the paid hours in which the device is busy.
    """
    prompt_tokens, output_tokens = unit_cost.common_lengths(runs)
    formats = candidates.formats(runs)
    known = runs[runs["basis"].eq("measured") & runs["num_parameters"].notna()]
    known = known[formats[known.index].isin(BITS)].head(MOST_ESTIMATES)
    parts = []
    for name, bits in BITS.items():
        own = known[formats[known.index] == name]
        if own.empty:
            continue
        models = pd.DataFrame(
            {
                "model": own["run_id"].to_list(),
                "params_b": (own["num_parameters"].astype(float) / 1e9).to_list(),
                "active_params_b": float("nan"),
                "kv_bytes_per_token": float("nan"),
            }
        )
        fitted = device_fit.device_fit(
            models,
            device,
            prices,
            bits=(bits,),
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            utilisation=utilisation,
        )
        parts.append(_points(own, fitted, output_tokens))
    if not parts:
        return pd.DataFrame()
    return _with_times(pd.concat(parts), runs)


def _points(runs: pd.DataFrame, fitted: pd.DataFrame, output_tokens: int) -> pd.DataFrame:
    """The estimates of runs of one format as points."""
    by_run = {row["model"]: row for row in row_dicts(fitted)}
    rows = [by_run[run_id] for run_id in runs["run_id"]]
    ttft = pd.Series([row["ttft_ms"] for row in rows], index=runs.index, dtype=float)
    tpot = pd.Series([row["tpot_ms"] for row in rows], index=runs.index, dtype=float)
    usd = pd.Series([row["usd_per_mtok"] for row in rows], index=runs.index, dtype=float)
    latency = ttft + tpot * (output_tokens - 1)
    kept = ["run_id", "teacher", "teacher_run_id", "label", "retention", "retention_low"]
    kept += ["retention_high", "raw_ratio", "raw_low", "raw_high", "num_parameters"]
    points = runs[kept].assign(
        of_run=runs["run_id"],
        # A star would look like a measured teacher.
        role="student",
        kind="estimated",
        basis="estimated",
        ttft_ms=ttft,
        tpot_ms=tpot,
        latency_ms=latency,
        output_tokens_per_s=1e3 * output_tokens / latency,
        usd_per_mtok=usd,
        output_tokens_per_usd=1e6 / usd,
        device_name=[row["hardware"] for row in rows],
    )
    points["label"] = points["label"] + " on " + points["device_name"]
    points["run_id"] = ESTIMATED + points["run_id"]
    return points


def _with_times(points: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The points with multiples of the teacher's estimate on the same device."""
    reference = dict(zip(runs["run_id"], baseline.baselines(runs, baseline.ORIGINAL), strict=True))
    teacher = points["of_run"].map(reference)
    for column in ESTIMATED_COLUMNS:
        own = dict(zip(points["of_run"], points[column], strict=True))
        points[f"{column}_times"] = points[column] / teacher.map(own).astype(float)
    return points.drop(columns="of_run").reset_index(drop=True)
