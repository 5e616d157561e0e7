"""What may be compared: the same questions, asked in the same way."""

import numpy as np
import pandas as pd
import pytest

from explorer.analysis.stats import pairing
from explorer.store import frames
from tests import records


def side(values, **changes):
    """Scores and answers of one run on one task."""
    row = {
        "run_id": "r",
        "task": "a",
        "metric": "acc",
        "score": np.mean(values),
        "chance": 0.5,
        "higher_is_better": True,
        "headline": True,
        "num_documents": len(values),
        "num_fewshot": 0,
        "task_version": "1",
        "lm_eval_version": "0.4.13",
        "chat_template": "off",
        "dtype": "float32",
    }
    answers = pd.DataFrame(
        {
            "task": "a",
            "metric": "acc",
            "doc_id": range(len(values)),
            "doc_hash": [f"h{i}" for i in range(len(values))],
            "value": np.asarray(values, float),
        }
    )
    return pd.DataFrame([row | changes]), answers


RIGHT = [1.0] * 90 + [0.0] * 10


def paired(own, other, **options):
    (one,) = pairing.pair_tasks(own[0], other[0], own[1], other[1], **options)
    return one


@pytest.mark.parametrize(
    ("field", "ours", "said"),
    [
        ("lm_eval_version", "0.4.9", "lm-eval versions differ (student 0.4.9, teacher 0.4.13)"),
        ("task_version", "2", "task versions differ (student 2, teacher 1)"),
        ("num_fewshot", 5, "numbers of shots differ (student 5, teacher 0)"),
        ("chat_template", "on", "chat templates differ (student on, teacher off)"),
        ("dtype", "bfloat16", "number formats differ (student bfloat16, teacher float32)"),
    ],
)
def test_a_field_that_differs_is_refused_by_its_name_and_both_values(field, ours, said):
    """Rows that were measured in another way are not compared, unless one says so."""
    own, other = side(RIGHT, **{field: ours}), side(RIGHT)

    refused = paired(own, other, allow=())
    allowed = paired(own, other, allow=(field,))

    assert refused.reason == said
    assert not len(refused.student_N)
    assert allowed.reason == ""
    assert allowed.note == said


def test_a_student_may_have_fewer_bits_than_its_teacher():
    """Retention of a bfloat16 student against a float32 teacher is given, and noted."""
    one = paired(side(RIGHT, dtype="bfloat16"), side(RIGHT))

    assert one.reason == ""
    assert one.note == "number formats differ (student bfloat16, teacher float32)"


def test_what_nobody_noted_down_is_not_held_against_a_row():
    """A row of unknown number format or template is compared with any other."""
    assert paired(side(RIGHT, dtype=None, chat_template=None), side(RIGHT), allow=()).reason == ""


def test_another_sample_is_refused_or_cut_to_what_both_answered():
    """`sample` pairs the documents that both answered; without it, other documents are refused."""
    own, other = side(RIGHT[:95]), side(RIGHT)

    refused = paired(own, other, allow=())
    cut = paired(own, other, allow=("sample",))

    assert refused.reason == "documents differ (student 95, teacher 100, 95 the same in both)"
    assert len(cut.student_N) == len(cut.teacher_N) == 95
    assert cut.note == "only the 95 documents that both answered"


def test_disjoint_samples_cannot_be_cut():
    """Where no document is shared there is nothing to compare, whatever is allowed."""
    own, other = side(RIGHT), side(RIGHT)
    own[1]["doc_hash"] = [f"other-{i}" for i in range(100)]

    assert paired(own, other, allow=("sample",)).reason.startswith("documents differ")


def test_passages_and_chances_come_with_the_answers():
    """Kept passages and chance levels reach the pair; a passage each is no clustering."""
    own, other = side(RIGHT), side(RIGHT)
    for _, answers in (own, other):
        answers["cluster"] = [f"text {i // 5}" for i in range(100)]
        answers["chance"] = [1 / 3] * 50 + [1 / 5] * 50

    one = paired(own, other)
    own[1]["cluster"] = other[1]["cluster"] = [f"text {i}" for i in range(100)]

    assert one.num_clusters == 20
    assert one.chance == pytest.approx((1 / 3 + 1 / 5) / 2)
    assert paired(own, other).clusters_N is None


def test_a_teacher_right_on_one_text_only_is_not_clearly_above_chance():
    """Twenty right answers to questions on one text are one piece of evidence."""
    own, other = side([1.0] * 20 + [0.0] * 12), side([1.0] * 20 + [0.0] * 12)
    assert paired(own, other).reason.startswith("the teacher")
    own, other = side([1.0] * 70 + [0.0] * 30), side([1.0] * 70 + [0.0] * 30)
    assert paired(own, other).reason == ""

    for _, answers in (own, other):
        answers["cluster"] = [f"text {i // 25}" for i in range(100)]

    assert "not clearly above chance" in paired(own, other).reason


def test_the_stores_scores_carry_the_conditions():
    """What rows must agree in is read from the record."""
    scores = frames.scores([records.make_record()])

    assert set(pairing.CONDITIONS) <= set(scores.columns)
    assert (scores["lm_eval_version"] == "0.4.13").all()
    assert (scores["chat_template"] == "off").all()
    assert (scores["dtype"] == "float32").all()


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (
            ("exact_match,loose", "loose"),
            ("exact_match,strict", "strict"),
            "filters differ (student loose, teacher strict)",
        ),
        (
            ("exact_match", "none"),
            ("exact_match,strict", "strict"),
            "filters differ (student none, teacher strict)",
        ),
        (("f1", "none"), ("acc", "none"), "metrics differ (student f1, teacher acc)"),
    ],
)
def test_a_metric_through_another_filter_is_another_metric(ours, theirs, said):
    """The reason names both filters."""
    own, other = (side_of(*each) for each in (ours, theirs))

    assert paired(own, other).reason == said


def test_an_older_record_that_states_no_filter_is_compared_with_a_note():
    """It was named by its metric alone if a task had one filter only."""
    old, new = side_of("exact_match", None), side_of("exact_match,strict", "strict")

    one = paired(new, old)

    assert one.reason == ""
    assert one.note == "the teacher's record does not say through which filter it was scored"
    assert paired(new, side_of("exact_match,strict", "strict")).note == ""
    assert paired(side_of("acc", "none"), side_of("acc", None)).note == ""


def side_of(metric, filter_name):
    """One run's scores and answers under a metric and a filter."""
    scores, answers = side(RIGHT, metric=metric, filter=filter_name)
    return scores, answers.assign(metric=metric)
