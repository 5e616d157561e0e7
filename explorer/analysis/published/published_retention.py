"""What published students keep of the models they are compared with.

A ratio is taken only within one table of one publisher, on one benchmark, in one setting: two
papers' MMLU are two different tests. Published scores have no intervals, so the ratios have none.
"""

import dataclasses
from collections.abc import Mapping

import pandas as pd

from explorer.analysis import numbers
from explorer.analysis.planning import device_fit
from explorer.records.rows import row_dicts

LEAST_ABOVE_CHANCE = 0.05
"""Closer to chance than this, a teacher's corrected ratio would be noise."""

RELATIONS = (
    "distilled from it",
    "distilled, teacher not exactly this one",
    "distilled, teacher not fully disclosed",
    "smaller sibling",
    "not distilled",
)
"""How a student relates to the model that it is compared with, the closest first."""

MEANS = [
    "raw_ratio",
    "raw_median",
    "raw_min",
    "worst",
    "raw_max",
    "best",
    "num_benchmarks",
    "num_at_least_95",
    "retention",
    "num_corrected",
    "left_out",
]
COLUMNS = [
    "family",
    "student",
    "compared_to",
    "relation",
    "method",
    "teacher_named",
    "teacher_disclosed",
    "table_id",
    "publisher",
    *MEANS,
    "params_b",
    "active_params_b",
    "teacher_params_b",
    "shrink",
    "released",
    "source_title",
    "source_url",
    "date_seen",
]


@dataclasses.dataclass(frozen=True)
class Published:
    """What the catalogue says about students, as frames."""

    rows: pd.DataFrame
    """One row per student and table, indexed by `point_label`, with prices and estimated rent."""
    detail: pd.DataFrame
    """One row per student, table and benchmark: see `benchmark_pairs`."""
    fitted: pd.DataFrame
    """The devices that hold these models: see `device_fit`."""


def collect_published(
    tables: Mapping[str, pd.DataFrame], *, bits: int = 16, concurrency: int = 8
) -> Published:
    """Join the catalogue's tables.

    Args:
        tables: Every table of the catalogue by its name.
        bits: Bits of a weight, for the estimated rent.
        concurrency: Requests in memory at once, for the estimated rent.
    """
    pairs, scores, chance = tables["pairs"], tables["scores"], tables["chance"]
    rows = published_retention(pairs, scores, chance, tables["models"], tables["tables"])
    sized = device_fit.sized_models(tables["models"], tables["shapes"])
    wanted = set(rows["student"]) | set(rows["compared_to"])
    fitted = device_fit.device_fit(
        sized[sized["model"].isin(wanted)],
        tables["hardware_specs"],
        tables["hardware"],
        concurrency=concurrency,
    )
    rows = add_api_prices(rows, tables["api_prices"])
    rows = add_estimated_rent(rows, fitted, bits)
    rows.index = pd.Index(
        [point_label(*names) for names in zip(rows["student"], rows["table_id"], strict=True)],
        name="point",
    )
    return Published(rows, benchmark_pairs(pairs, scores, chance), fitted)


def relation(method: str, disclosed: str, declared: str) -> str:
    """How a student relates to the model that it is compared with: one of `RELATIONS`.

    The method decides first: a model whose publisher does not mention distillation counts as a
    smaller sibling.
    """
    if method.startswith("none"):
        return "not distilled"
    if method == "undisclosed":
        return "smaller sibling"
    if disclosed != "yes":
        return "distilled, teacher not fully disclosed"
    return "distilled from it" if declared == "yes" else "distilled, teacher not exactly this one"


def is_distilled(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each row's student was distilled, from whichever teacher."""
    return rows["relation"].str.startswith("distilled")


def benchmark_pairs(
    pairs: pd.DataFrame, scores: pd.DataFrame, chance: pd.DataFrame
) -> pd.DataFrame:
    """One row per pair and benchmark on which both were scored in the pair's table.

    Args:
        pairs: student, compared_to, table_id.
        scores: The catalogue's table of scores, in percent where the unit is %.
        chance: benchmark, chance in [0, 1).

    Returns:
        `student_score`, `teacher_score`, `raw_ratio` (inverted where lower is better),
        `chance`, `retention` (corrected for guessing; missing if chance is unknown or the
        teacher is not clearly above it) and `left_out`, the reason why a row does not count in
        the mean, empty if it counts.
    """
    columns = ["table_id", "benchmark", "score", "setting", "unit", "higher_is_better", "model"]
    own = pairs[["student", "compared_to", "table_id"]].merge(
        scores[columns].rename(columns={"model": "student"}), on=["table_id", "student"]
    )
    both = own.merge(
        scores[["table_id", "benchmark", "score", "setting", "model"]].rename(
            columns={"model": "compared_to"}
        ),
        on=["table_id", "benchmark", "compared_to"],
        suffixes=("", "_teacher"),
    ).merge(chance[["benchmark", "chance"]], on="benchmark", how="left")
    both = both.rename(columns={"score": "student_score", "score_teacher": "teacher_score"})
    ratio = both["student_score"] / both["teacher_score"].where(both["teacher_score"] > 0)
    both["raw_ratio"] = ratio.where(both["higher_is_better"].astype(bool), 1 / ratio)
    student, teacher = both["student_score"] / 100, both["teacher_score"] / 100
    above = teacher - both["chance"]
    sound = (both["unit"] == "%") & (above >= LEAST_ABOVE_CHANCE)
    both["retention"] = ((student - both["chance"]) / above).where(sound)
    both["left_out"] = ""
    differ = both["setting"] != both["setting_teacher"]
    both.loc[differ, "left_out"] = "the settings differ"
    both.loc[both["unit"] == "Elo", "left_out"] = "a rating has no ratio"
    return both


def published_retention(
    pairs: pd.DataFrame,
    scores: pd.DataFrame,
    chance: pd.DataFrame,
    models: pd.DataFrame,
    tables: pd.DataFrame,
) -> pd.DataFrame:
    """One row per pair and table: the means over its benchmarks, and facts about both models.

    All arguments are tables of the catalogue. `raw_ratio` and `retention` are plain means, where
    1.0 is the teacher; a student may exceed it. Pairs that share no benchmark are left out.
    """
    detail = benchmark_pairs(pairs, scores, chance)
    keys = ["student", "compared_to", "table_id"]
    rows = []
    for key, group in detail.groupby(keys, sort=False):
        counted = group[group["left_out"] == ""]
        if counted.empty:
            continue
        counted = counted.sort_values("raw_ratio", kind="stable")
        worst, best = counted.iloc[0], counted.iloc[-1]
        corrected = counted["retention"].dropna()
        out = group[group["left_out"] != ""]
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
                "raw_ratio": counted["raw_ratio"].mean(),
                "raw_median": counted["raw_ratio"].median(),
                "raw_min": worst["raw_ratio"],
                "worst": worst["benchmark"],
                "raw_max": best["raw_ratio"],
                "best": best["benchmark"],
                "num_benchmarks": len(counted),
                "num_at_least_95": int((counted["raw_ratio"] >= 0.95).sum()),
                "retention": corrected.mean() if len(corrected) else None,
                "num_corrected": len(corrected),
                "left_out": "; ".join(
                    f"{row['benchmark']}: {row['left_out']}" for row in row_dicts(out)
                ),
            }
        )
    means = pd.DataFrame(rows, columns=[*keys, *MEANS])
    facts = {
        "model": "student",
        "teacher": "teacher_named",
        "params_total_b": "params_b",
        "params_active_b": "active_params_b",
        "released": "released",
    }
    known = models[list(facts)].rename(columns=facts)
    teachers = models[["model", "params_total_b"]].set_axis(
        ["compared_to", "teacher_params_b"], axis=1
    )
    about = pairs[[*keys, "family", "method", "teacher_disclosed", "is_declared_teacher"]]
    joined = about.merge(means, on=keys).merge(known, on="student").merge(tables, on="table_id")
    joined = joined.merge(teachers, on="compared_to", how="left")
    joined["shrink"] = joined["teacher_params_b"] / joined["params_b"]
    joined["relation"] = [
        relation(*row)
        for row in zip(
            joined["method"],
            joined["teacher_disclosed"],
            joined["is_declared_teacher"],
            strict=True,
        )
    ]
    return joined[COLUMNS]


def add_api_prices(rows: pd.DataFrame, api_prices: pd.DataFrame) -> pd.DataFrame:
    """Add the student's API price, from a seller that also sells the teacher if there is one.

    Args:
        rows: As from `published_retention`.
        api_prices: The catalogue's table of API prices.

    Returns:
        The rows with `api_usd_per_mtok_output`, `api_usd_per_mtok_input`, `seller`,
        `price_date` and, where one seller has both, `price_share` and `price_share_input`: the
        student's price over the teacher's. Missing if no price is known.
    """
    priced = api_prices.sort_values("output_usd_per_m", kind="stable")
    by_model = {str(name): group for name, group in priced.groupby("catalogue_model")}
    added = [
        _api_price(by_model.get(row["student"]), by_model.get(row["compared_to"]))
        for row in row_dicts(rows)
    ]
    columns = [
        "api_usd_per_mtok_output",
        "api_usd_per_mtok_input",
        "seller",
        "price_date",
        "price_share",
        "price_share_input",
        "price_url",
    ]
    return rows.join(pd.DataFrame(added, columns=columns, index=rows.index))


def _api_price(own: pd.DataFrame | None, teacher: pd.DataFrame | None) -> dict[str, object]:
    """A student's cheapest offer, preferably from a seller that also has the teacher."""
    if own is None:
        return {}
    offers = {} if teacher is None else teacher.set_index("provider").to_dict("index")
    rows = row_dicts(own)
    offer = next((row for row in rows if row["provider"] in offers), rows[0])
    teacher_offer = offers.get(offer["provider"])
    price: dict[str, object] = {
        "api_usd_per_mtok_output": offer["output_usd_per_m"],
        "api_usd_per_mtok_input": offer["input_usd_per_m"],
        "seller": offer["provider"],
        "price_date": offer["vendor_page_checked_on"] or offer["price_as_of"],
        "price_url": offer["source_url"],
    }
    if teacher_offer:
        price["price_share"] = offer["output_usd_per_m"] / teacher_offer["output_usd_per_m"]
        price["price_share_input"] = offer["input_usd_per_m"] / teacher_offer["input_usd_per_m"]
    return price


def point_label(student: str, table_id: str) -> str:
    """The name of a point, which is one student in one table."""
    return f"{student} · {table_id}"


def add_estimated_rent(rows: pd.DataFrame, fitted: pd.DataFrame, bits: int) -> pd.DataFrame:
    """Add the estimated rent per hour of the cheapest devices that hold each student.

    Args:
        rows: As from `published_retention`.
        fitted: As from `device_fit.device_fit`.
        bits: Bits of a weight.

    Returns:
        The rows with `usd_per_hour`, `usd_per_hour_high` and `devices`, in words; missing
        if the size is not published or no device with a price holds it.
    """
    offers = fitted[fitted["bits"] == bits].dropna(subset=["usd_per_hour"])
    cheapest = offers.sort_values("usd_per_hour", kind="stable").drop_duplicates("model")
    words = [
        f"{count:.0f} {hardware} at {bits} bits"
        for count, hardware in zip(cheapest["num_devices"], cheapest["hardware"], strict=True)
    ]
    added = cheapest[["model", "usd_per_hour", "usd_per_hour_high"]].assign(devices=words)
    merged = rows.merge(added.rename(columns={"model": "student"}), on="student", how="left")
    merged.index = rows.index
    return merged


def published_headline(rows: pd.DataFrame, target: float = 0.95) -> str:
    """One sentence on what these rows show.

    Args:
        rows: As from `published_retention`.
        target: Share of the larger model's raw score.
    """
    if rows.empty:
        return "No published comparison matches the filters."
    reaching = rows[rows["raw_ratio"] >= target]
    share = numbers.percent(target, digits=2)
    if reaching.empty:
        best = rows.sort_values("raw_ratio", kind="stable").iloc[-1]
        return (
            f"None of {len(rows)} published comparisons keeps {share} of the larger model's raw "
            f"score: {best['student']} comes closest with {numbers.percent(best['raw_ratio'])}."
        )
    sized = reaching.dropna(subset=["shrink"]).sort_values("shrink")
    most = ""
    if len(sized):
        smallest = sized.iloc[-1]
        most = (
            f"; the smallest for its teacher is {smallest['student']}, "
            f"{numbers.significant(smallest['shrink'], 2)} times smaller than "
            f"{smallest['compared_to']}"
        )
    return (
        f"{len(reaching)} of {len(rows)} published comparisons keep {share} or more of the larger "
        f"model's raw score{most}."
    )
