"""Four widespread claims about distillation, each with a verdict and the points for and against.

A claim is about many models at once. It holds if every published point agrees, holds in part if
some do, and is not supported if none does.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pandas as pd

from explorer.analysis import numbers
from explorer.analysis.planning.device_fit import cheapest_devices
from explorer.analysis.published import published_retention
from explorer.records.rows import row_dicts

KEPT, SHARE, RENT_USD, GEMINI_KEPT, TENTH = 0.95, 0.10, 2.0, 0.90, 0.10
"""95 % kept; 10 % of the cost; $2 an hour; 90 % kept; a tenth of the latency."""
LARGE_TEACHER = "DeepSeek-R1"
"""The open model closest to 700 B: 671 B, of which 37 B are active per token."""
LARGE_SHRINK = 5.0
"""From this factor on, a student counts as much smaller."""
SEVENTY = "DeepSeek-R1-Distill-Llama-70B"
CONSUMER = ("RTX 4090", "RTX 5090")
"""The consumer cards in the price book."""
POINT_COLUMNS = ["point", "value", "basis", "source_url"]


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim, its verdict and its evidence."""

    key: str
    text: str
    """The claim as it is usually stated."""
    verdict: str
    """Holds, Holds in part, Not supported or Not known."""
    why: str
    """The reason for the verdict, with numbers."""
    supporting: pd.DataFrame
    """Points that agree: point, value, basis (published or estimated), source_url."""
    opposing: pd.DataFrame
    """Points that disagree."""


def check_claims(
    rows: pd.DataFrame,
    fitted: pd.DataFrame,
    speeds: pd.DataFrame,
    deployments: pd.DataFrame,
) -> list[Claim]:
    """The four claims with their verdicts.

    Args:
        rows: As from `published_retention.published_retention` with `add_api_prices`.
        fitted: As from `device_fit.device_fit`, for the models of `rows` whose size is known.
        speeds: The catalogue's table of speeds.
        deployments: The catalogue's table of deployments.
    """
    return [
        capability_claim(rows),
        cost_claim(rows, fitted, deployments),
        consumer_rent_claim(fitted),
        gemini_claim(rows, speeds),
    ]


def capability_claim(rows: pd.DataFrame) -> Claim:
    """A distilled student keeps 95 % of its teacher."""
    distilled = rows[published_retention.is_distilled(rows)]
    points = _points(
        _pairs_in_words(distilled),
        [_kept_text(row) for row in row_dicts(distilled)],
        distilled["source_url"],
    )
    reaching = distilled["raw_ratio"] >= KEPT
    small = distilled["shrink"] >= LARGE_SHRINK
    corrected = distilled["retention"].dropna()
    why = (
        f"{int(reaching.sum())} of {len(distilled)} published comparisons of a distilled model "
        f"reach 95 % of the raw score; corrected for guessing, "
        f"{int((corrected >= KEPT).sum())} of {len(corrected)}. Of those at least "
        f"{LARGE_SHRINK:.0f} times smaller, {int((reaching & small).sum())} of {int(small.sum())}."
    )
    ordered = distilled["raw_ratio"].sort_values(ascending=False).index
    return Claim(
        "kept",
        "A student keeps 95 % or more of its teacher's capability.",
        _verdict(reaching),
        why,
        points.loc[[i for i in ordered if reaching[i]]],
        points.loc[[i for i in ordered[::-1] if not reaching[i]]],
    )


def cost_claim(rows: pd.DataFrame, fitted: pd.DataFrame, deployments: pd.DataFrame) -> Claim:
    """A 7B to 70B student of a 700B teacher costs a tenth."""
    students = rows[rows["compared_to"] == LARGE_TEACHER].drop_duplicates("student")
    students = students[students["params_b"].between(7, 70)]
    points: list[tuple[str, float, str, str]] = []
    for row in row_dicts(students.dropna(subset=["price_share"])):
        points.append(
            (
                f"{row['student']}: a million output tokens at {row['seller']}",
                row["price_share"],
                "published",
                row["price_url"],
            )
        )
        points.append(
            (
                f"{row['student']}: a million input tokens at {row['seller']}",
                row["price_share_input"],
                "published",
                row["price_url"],
            )
        )
    teacher = _deployed(LARGE_TEACHER, fitted, deployments)
    for row in row_dicts(students):
        for bits in (16, 4):
            own = cheapest_devices(fitted, row["student"], bits)
            if own is not None and teacher is not None:
                points.append(
                    (
                        f"{row['student']}: rent per hour of {own['num_devices']:.0f} "
                        f"{own['hardware']} at {bits} bits, of {teacher['num_devices']:.0f} "
                        f"{teacher['hardware']} for the teacher",
                        own["usd_per_hour"] / teacher["usd_per_hour"],
                        "estimated",
                        own["price_url"],
                    )
                )
    frame = pd.DataFrame(points, columns=["point", "share", "basis", "source_url"])
    reaching = frame["share"] <= SHARE
    api, rent = frame["basis"] == "published", frame["basis"] == "estimated"
    keeps = rows.loc[rows["student"].isin(students["student"]), "raw_ratio"]
    why = (
        f"By API price {int((reaching & api).sum())} of {int(api.sum())} figures are a tenth or "
        f"less; by rented hour, estimated, {int((reaching & rent).sum())} of {int(rent.sum())}. "
        f"These students keep {_range(keeps)} of the raw score. A cheaper hour does not mean a "
        "cheaper token: the teacher is a mixture of experts with 37 B of 671 B parameters active "
        "per token."
    )
    frame["value"] = [numbers.percent(share) for share in frame["share"]]
    frame = frame.sort_values("share")
    return Claim(
        "cost",
        "A student of 7 to 70 billion parameters costs 10 % of its 700-billion teacher.",
        _verdict(reaching),
        why if len(frame) else "No price of such a pair is known.",
        frame.loc[reaching[frame.index], POINT_COLUMNS],
        frame.loc[~reaching[frame.index], POINT_COLUMNS].iloc[::-1],
    )


def consumer_rent_claim(fitted: pd.DataFrame) -> Claim:
    """A 70B model on consumer hardware costs $2 an hour."""
    rows = fitted[(fitted["model"] == SEVENTY) & fitted["hardware"].isin(CONSUMER)]
    words = [
        f"{row['bits']} bits on {row['num_devices']:.0f} {row['hardware']} "
        f"({row['memory_gb']:.0f} GB)"
        if pd.notna(row["num_devices"])
        else f"{row['bits']} bits on {row['hardware']}: {row['missing']}"
        for row in row_dicts(rows)
    ]
    values = [
        f"{numbers.dollars(low)} to {numbers.dollars(high)} per hour"
        for low, high in zip(rows["usd_per_hour"], rows["usd_per_hour_high"], strict=True)
    ]
    points = pd.DataFrame(
        {
            "point": words,
            "value": values,
            "basis": "estimated",
            "source_url": rows["price_url"].tolist(),
        },
        index=rows.index,
    )
    # The dearest offer decides: the claim is about $2, not about the luckiest price.
    reaching = rows["usd_per_hour_high"] <= RENT_USD
    on_one_card = rows["num_devices"] == 1
    cheap = rows[reaching].sort_values("usd_per_hour")
    why = "No consumer card with a price holds it."
    if len(rows):
        why = ("No precision fits on one card. " if not on_one_card.any() else "") + (
            f"The cheapest that fits is {cheap['bits'].iloc[0]} bits on "
            f"{cheap['num_devices'].iloc[0]:.0f} {cheap['hardware'].iloc[0]}, "
            f"{numbers.dollars(cheap['usd_per_hour'].iloc[0])} to "
            f"{numbers.dollars(cheap['usd_per_hour_high'].iloc[0])} per hour. "
            if len(cheap)
            else "No precision stays below $2 at every offer. "
        )
        why += (
            f"{int(reaching.sum())} of {len(rows)} combinations of card and precision stay at or "
            "below $2 at every offer in the price book. The price of an hour says nothing about "
            "the price of a token; the Economics page estimates both."
        )
    order = rows["usd_per_hour"].sort_values().index
    return Claim(
        "consumer",
        "A 70-billion model on consumer hardware costs about $2 per hour.",
        _verdict(reaching),
        why,
        points.loc[[i for i in order if reaching[i]]],
        points.loc[[i for i in order if not reaching[i]]],
    )


def gemini_claim(rows: pd.DataFrame, speeds: pd.DataFrame) -> Claim:
    """A distilled Gemini keeps 90 % at a tenth of the latency."""
    pairs = rows[(rows["family"] == "Gemini") & rows["student"].str.contains("Flash")]
    reaching = pairs["raw_ratio"] >= GEMINI_KEPT
    capable = _points(
        _pairs_in_words(pairs),
        [_kept_text(row) for row in row_dicts(pairs)],
        pairs["source_url"],
    )
    slow = speeds.assign(
        share=[
            row["teacher_value"] / row["student_value"]
            if row["higher_is_faster"]
            else row["student_value"] / row["teacher_value"]
            for row in row_dicts(speeds)
        ]
    )
    fast = slow["share"] <= TENTH
    timed = _points(
        [
            f"{s} to {t}, {w}"
            for s, t, w in zip(slow["student"], slow["teacher"], slow["what"], strict=True)
        ],
        [f"{numbers.significant(share, 2)} of the time" for share in slow["share"]],
        slow["source_url"],
    )
    verdict = _verdict(fast)
    if verdict == "Holds" and not reaching.all():
        verdict = "Holds in part"
    cheap = pairs["price_share"].dropna()
    why = (
        f"{int(reaching.sum())} of {len(pairs)} published comparisons keep 90 %, and "
        f"{int(fast.sum())} of {len(slow)} published speeds are a tenth: they are "
        f"{_range(slow['share'], percent=False)} of the time. "
    )
    if (cheap <= TENTH).any():
        why += (
            f"A tenth is closer to the price: output tokens cost {_range(cheap)} of the larger "
            "model's price."
        )
    return Claim(
        "gemini",
        "A distilled Gemini keeps 90 % of the capability at a tenth of the latency.",
        verdict,
        why,
        pd.concat([timed[fast], capable[reaching]]),
        pd.concat([timed[~fast], capable[~reaching]]),
    )


def _verdict(reaching: "pd.Series[bool]") -> str:
    if reaching.empty:
        return "Not known"
    if reaching.all():
        return "Holds"
    return "Holds in part" if reaching.any() else "Not supported"


def _points(words: list[str], values: list[str], urls: pd.Series) -> pd.DataFrame:
    return pd.DataFrame(
        {"point": words, "value": values, "basis": "published", "source_url": urls},
        index=urls.index,
    )


def _pairs_in_words(rows: pd.DataFrame) -> list[str]:
    """`R1-Distill-Qwen-7B to DeepSeek-R1, 96 times smaller (deepseek-r1-readme)`."""
    words = []
    for row in row_dicts(rows):
        smaller = (
            ""
            if numbers.missing(row["shrink"])
            else f", {numbers.significant(row['shrink'], 2)} times smaller"
        )
        words.append(f"{row['student']} to {row['compared_to']}{smaller} ({row['table_id']})")
    return words


def _kept_text(row: Mapping[Any, Any]) -> str:
    raw = numbers.percent(row["raw_ratio"])
    if numbers.missing(row["retention"]):
        return f"{raw} raw"
    return f"{raw} raw, {numbers.percent(row['retention'])} corrected"


def _deployed(
    model: str, fitted: pd.DataFrame, deployments: pd.DataFrame
) -> "pd.Series[float] | None":
    """The devices on which others run a model, with their price as in `fitted`."""
    rows = deployments[deployments["model"] == model].merge(
        fitted.assign(bits=fitted["bits"].astype(str)),
        on=["model", "hardware", "bits", "num_devices"],
    )
    rows = rows.dropna(subset=["usd_per_hour"])
    return None if rows.empty else rows.iloc[0]


def _range(values: "pd.Series[float]", *, percent: bool = True) -> str:
    low, high = float(values.min()), float(values.max())
    if percent:
        return f"{numbers.significant(100 * low, 2)} to {numbers.significant(100 * high, 2)} %"
    return f"{numbers.significant(low, 2)} to {numbers.significant(high, 2)}"
