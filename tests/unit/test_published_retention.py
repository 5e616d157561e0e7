"""What published students keep: the arithmetic, and the catalogue that it is done on."""

import pandas as pd
import pytest

from explorer.analysis.published import published_retention
from tests import facts


@pytest.fixture(scope="module")
def found():
    return facts.found()


def scores(*rows):
    columns = ["model", "benchmark", "score", "setting", "unit", "higher_is_better"]
    return pd.DataFrame(rows, columns=columns).assign(table_id="t")


PAIRS = pd.DataFrame({"student": ["s"], "compared_to": ["b"], "table_id": ["t"]})
CHANCE = pd.DataFrame({"benchmark": ["MMLU", "hard"], "chance": [0.25, 0.25]})


def test_the_ratio_is_raw_and_corrected_where_chance_is_known():
    """55 of 85 with a chance of 25: 64.7 % raw, (0.55 - 0.25) / (0.85 - 0.25) = 50 % above."""
    rows = scores(
        ("s", "MMLU", 55.0, "5-shot", "%", 1),
        ("b", "MMLU", 85.0, "5-shot", "%", 1),
        ("s", "free", 30.0, "0-shot", "%", 1),
        ("b", "free", 60.0, "0-shot", "%", 1),
    )

    detail = published_retention.benchmark_pairs(PAIRS, rows, CHANCE).set_index("benchmark")

    assert detail.loc["MMLU", "raw_ratio"] == pytest.approx(55 / 85)
    assert detail.loc["MMLU", "retention"] == pytest.approx(0.5)
    assert detail.loc["free", "raw_ratio"] == pytest.approx(0.5)
    assert pd.isna(detail.loc["free", "retention"])


def test_less_perplexity_is_more_kept():
    """A perplexity of 20 against 15 keeps 75 %."""
    rows = scores(("s", "ppl", 20.0, "", "ppl", 0), ("b", "ppl", 15.0, "", "ppl", 0))

    assert published_retention.benchmark_pairs(PAIRS, rows, CHANCE)["raw_ratio"].tolist() == [0.75]


def test_another_setting_another_table_or_a_rating_does_not_count():
    """Only the same benchmark in the same setting of one table has a ratio that counts."""
    rows = scores(
        ("s", "MMLU", 55.0, "5-shot", "%", 1),
        ("b", "MMLU", 85.0, "0-shot", "%", 1),
        ("s", "code", 900.0, "", "Elo", 1),
        ("b", "code", 1800.0, "", "Elo", 1),
    )
    elsewhere = scores(("b", "free", 60.0, "", "%", 1)).assign(table_id="other")
    rows = pd.concat([rows, elsewhere, scores(("s", "free", 30.0, "", "%", 1))])

    detail = published_retention.benchmark_pairs(PAIRS, rows, CHANCE).set_index("benchmark")

    assert detail.loc["MMLU", "left_out"] == "the settings differ"
    assert detail.loc["code", "left_out"] == "a rating has no ratio"
    assert "free" not in detail.index


def test_a_larger_model_that_guesses_has_nothing_to_keep():
    """Four points above chance are too few to divide by."""
    rows = scores(("s", "hard", 27.0, "", "%", 1), ("b", "hard", 29.0, "", "%", 1))

    assert published_retention.benchmark_pairs(PAIRS, rows, CHANCE)["retention"].isna().all()


@pytest.mark.parametrize(
    ("method", "disclosed", "declared", "expected"),
    [
        ("sequence-level KD", "yes", "yes", "distilled from it"),
        ("prune + logit KD", "yes", "no", "distilled, teacher not exactly this one"),
        ("logit KD in pretraining", "no", "no", "distilled, teacher not fully disclosed"),
        ("undisclosed", "no", "no", "smaller sibling"),
        ("none (not distilled)", "no", "yes", "not distilled"),
    ],
)
def test_a_smaller_sibling_is_not_called_distilled(method, disclosed, declared, expected):
    """The method decides, whatever the pair's flag says."""
    assert published_retention.relation(method, disclosed, declared) == expected


def test_the_families_that_people_quote_are_all_there(found):
    """R1 from 671 B down to 1.5 B, Gemini Flash, OpenAI's minis, students of Llama and Mistral."""
    rows = found.rows
    r1 = set(rows.loc[rows["family"] == "DeepSeek-R1", "params_b"])

    assert r1 == {1.5, 7, 8, 14, 32, 70}
    assert (rows.loc[rows["family"] == "DeepSeek-R1", "teacher_params_b"] == 671).all()
    students = set(rows["student"])
    assert {"Gemini 1.5 Flash", "Gemini 2.5 Flash", "OpenAI o1-mini", "OpenAI o4-mini"} <= students
    assert {"Llama 3.2 1B", "Mistral-NeMo-Minitron-8B-Base", "Ministral 3 3B Base"} <= students
    assert len(rows) == 74


def test_a_point_has_one_name(found):
    """A student is in a table once, so the name finds its row."""
    assert found.rows.index.is_unique


def test_r1_distill_qwen_7b_by_hand(found):
    """AIME 55.5 of 79.8, MATH 92.8 of 97.3, GPQA 49.1 of 71.5; LiveCodeBench is not counted."""
    one = found.rows.loc["DeepSeek-R1-Distill-Qwen-7B · deepseek-r1-readme"]

    assert one["raw_ratio"] == pytest.approx((55.5 / 79.8 + 92.8 / 97.3 + 49.1 / 71.5) / 3)
    above = (55.5 / 79.8 + 92.8 / 97.3 + (49.1 - 25) / (71.5 - 25)) / 3
    assert one["retention"] == pytest.approx(above)
    assert "LiveCodeBench: the settings differ" in one["left_out"]
    assert one["worst"] == "GPQA Diamond"
    assert one["shrink"] == pytest.approx(671 / 7)


def test_a_seller_of_both_comes_before_a_cheaper_one():
    """The share compares two prices of one seller: a reseller's discount is no saving."""
    rows = pd.DataFrame({"student": ["s"], "compared_to": ["b"]})
    offers = pd.DataFrame(
        {
            "catalogue_model": ["s", "s", "b"],
            "provider": ["cheap", "both", "both"],
            "input_usd_per_m": [0.1, 0.2, 1.0],
            "output_usd_per_m": [0.1, 0.5, 2.0],
            "vendor_page_checked_on": [None, "2026-01-02", None],
            "price_as_of": "2026-11-24",
            "source_url": "https://x.org/p",
        }
    )

    one = published_retention.add_api_prices(rows, offers).iloc[0]

    assert (one["seller"], one["api_usd_per_mtok_output"], one["price_date"]) == (
        "both",
        0.5,
        "2026-01-02",
    )
    assert one["price_share"] == pytest.approx(0.25)
    assert one["price_share_input"] == pytest.approx(0.2)


def test_a_model_without_a_price_or_a_size_has_blanks(found):
    """Nothing is invented: Gemini has no size, so no estimated rent."""
    gemini = found.rows[found.rows["family"] == "Gemini"]

    assert gemini["params_b"].isna().all()
    assert gemini["usd_per_hour"].isna().all()


def test_the_sentence_speaks_of_what_is_shown(found):
    """How many reach 95 %, the smallest of them; the best one where none does; none at all."""
    rows = found.rows

    assert published_retention.published_headline(rows).startswith(
        "14 of 74 published comparisons keep 95 % or more"
    )
    r1 = published_retention.published_headline(rows[rows["family"] == "DeepSeek-R1"])
    assert "DeepSeek-R1-Distill-Llama-70B comes closest with 92.0 %" in r1
    assert "No published comparison" in published_retention.published_headline(rows.iloc[:0])
