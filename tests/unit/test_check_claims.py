"""The four claims: verdicts follow from the points."""

import pandas as pd
import pytest

from explorer.analysis.published import check_claims
from explorer.catalogue import load
from tests import facts


@pytest.fixture(scope="module")
def found():
    return facts.found()


@pytest.fixture(scope="module")
def judged(found):
    return {
        one.key: one
        for one in check_claims.check_claims(
            found.rows, found.fitted, load.load_table("speeds"), load.load_table("deployments")
        )
    }


def test_the_verdicts_on_what_is_published(judged):
    """Three hold in part; a tenth of the latency is published by nobody."""
    assert {key: one.verdict for key, one in judged.items()} == {
        "kept": "Holds in part",
        "cost": "Holds in part",
        "consumer": "Holds in part",
        "gemini": "Not supported",
    }


def test_every_point_of_a_claim_has_a_source(judged):
    """For and against, published and estimated."""
    for one in judged.values():
        points = pd.concat([one.supporting, one.opposing])
        assert len(points) >= 5
        assert points["source_url"].str.startswith("https://").all()


def test_the_points_say_what_the_verdict_counts(judged):
    """14 of 58 distilled comparisons reach 95 % of the raw score."""
    one = judged["kept"]

    assert (len(one.supporting), len(one.opposing)) == (14, 44)
    assert "14 of 58" in one.why
    assert "4 of 34" in one.why


def test_a_smaller_sibling_is_no_evidence_for_distillation(judged):
    """OpenAI's minis are in neither list: nobody says that they were distilled."""
    points = pd.concat([judged["kept"].supporting, judged["kept"].opposing])

    assert not points["point"].str.contains("o4-mini").any()


def test_a_70b_costs_two_dollars_only_at_four_bits_on_two_cards(judged):
    """$0.58 to $1.48 on two RTX 4090; eight of them at 16 bits cost more than $2."""
    one = judged["consumer"]

    assert "No precision fits on one card." in one.why
    assert one.supporting["point"].tolist()[0].startswith("4 bits on 2 RTX 4090")
    assert any(point.startswith("16 bits on 8 RTX 4090") for point in one.opposing["point"])


def test_a_claim_that_every_point_agrees_with_holds(found):
    """Where every point reaches 95 % it holds; without any point nothing is known."""
    best = found.rows[found.rows["raw_ratio"] > 0.98]

    assert check_claims.capability_claim(best).verdict == "Holds"
    assert check_claims.capability_claim(best.iloc[:0]).verdict == "Not known"


def test_a_tenth_of_the_latency_would_be_believed(found):
    """The verdict is computed: with such a speed the claim would hold in part."""
    speeds = load.load_table("speeds").iloc[[0]].assign(student_value=0.4, teacher_value=4.3)

    assert check_claims.gemini_claim(found.rows, speeds).verdict == "Holds in part"


def test_a_cheap_student_of_everything_would_hold(found):
    """With rents and prices all under a tenth the claim on cost holds."""
    rows = found.rows.assign(price_share=0.05, price_share_input=0.05)

    one = check_claims.cost_claim(rows, found.fitted, load.load_table("deployments"))

    assert one.verdict == "Holds"
    assert one.opposing.empty
