"""One run against another, task by task and for the suite."""

import numpy as np
import pytest

from explorer.analysis.stats import differences, pairing, retention
from explorer.analysis.stats.pairing import TaskPair
from explorer.store import disk, frames
from tests import records


def right(both, only_own, only_other, neither):
    own = [1] * both + [1] * only_own + [0] * only_other + [0] * neither
    other = [1] * both + [0] * only_own + [1] * only_other + [0] * neither
    return np.array(own, float), np.array(other, float)


def pair(task, *counts, **more):
    return TaskPair(task, "acc", 0.5, *right(*counts), **more)


def test_a_row_says_how_far_apart_and_how_sure():
    """Scores, difference, the documents that decide it, the test and its verdict."""
    row = differences.task_differences([pair("a", 60, 4, 20, 16)]).iloc[0]

    assert row["student"] == pytest.approx(0.64)
    assert row["teacher"] == pytest.approx(0.80)
    assert row["difference"] == pytest.approx(-0.16)
    assert row["difference_low"] < -0.16 < row["difference_high"] < 0
    assert (row["num_only_student"], row["num_only_teacher"]) == (4, 20)
    assert row["test"] == "McNemar, exact"
    assert row["verdict"] == "worse"


def test_verdicts_mind_how_many_tasks_are_asked():
    """A p-value of 0.022 is a difference on one task, and none among three."""
    clear = pair("a", 60, 2, 11, 27)

    alone = differences.task_differences([clear])
    among = differences.task_differences(
        [clear, pair("b", 60, 10, 10, 20), pair("c", 60, 9, 11, 20)]
    )

    assert alone["p_value"][0] == pytest.approx(0.0225, abs=1e-4)
    assert alone["verdict"].tolist() == ["worse"]
    assert among["p_holm"][0] == pytest.approx(3 * alone["p_value"][0])
    assert set(among["verdict"]) == {"inconclusive"}


def test_what_cannot_be_paired_has_a_reason_and_no_numbers():
    """A refused task is in the table with the reason, and out of the suite."""
    refused = TaskPair("b", "acc", 0.5, np.empty(0), np.empty(0), "task versions differ")
    pairs = [pair("a", 60, 4, 20, 16), refused]

    rows, suite = differences.task_differences(pairs), differences.suite_difference(pairs)

    assert rows["reason"].tolist() == ["", "task versions differ"]
    assert rows.loc[1, ["student", "difference", "p_value", "p_holm"]].isna().all()
    assert rows["verdict"][0] == "worse"
    assert rows["verdict"].isna()[1]
    assert suite["num_tasks"] == 1
    assert suite["difference"] == pytest.approx(-0.16)


def test_the_suite_weighs_tasks_alike():
    """The mean over tasks, whatever their size, with both kinds of error."""
    suite = differences.suite_difference([pair("a", 60, 4, 20, 16), pair("b", 600, 100, 60, 240)])

    assert suite["difference"] == pytest.approx((-0.16 + 0.04) / 2)
    assert suite["difference_low"] < suite["difference"] < suite["difference_high"]
    assert suite["stderr_tasks"] > suite["stderr"] > 0
    assert suite["num_documents"] == 1100


def test_a_suite_of_nothing_has_no_verdict():
    """Without a pair there is no number, rather than zero."""
    suite = differences.suite_difference([])

    assert suite["num_tasks"] == 0
    assert suite["verdict"] is suite["difference"] is suite["p_value"] is None


def test_exchanging_the_two_runs_turns_every_sign(store_root):
    """A against B is B against A with the other sign, the same p-values, the opposite verdict."""
    a, b = records.write_study(store_root, layers=(24, 10))[1:]
    found, _ = disk.load_records(store_root)
    scores = frames.scores(found)

    def against(one, other):
        return differences.compare_runs(
            scores[scores["run_id"] == one],
            scores[scores["run_id"] == other],
            disk.load_answers(store_root, one),
            disk.load_answers(store_root, other),
        )

    (rows, suite), (back, suite_back) = against(a, b), against(b, a)

    np.testing.assert_allclose(rows["difference"], -back["difference"])
    np.testing.assert_allclose(rows["difference_low"], -back["difference_high"], atol=1e-12)
    np.testing.assert_allclose(rows["p_holm"], back["p_holm"])
    assert suite["verdict"] == "better"
    assert suite_back["verdict"] == "worse"
    assert suite["p_value"] == pytest.approx(suite_back["p_value"])


def test_a_run_against_itself_is_inconclusive_everywhere(store_root):
    """No difference, p = 1, never a verdict."""
    run_id = records.write_study(store_root, layers=(24,))[1]
    found, _ = disk.load_records(store_root)
    scores = frames.scores(found)
    own = scores[scores["run_id"] == run_id], disk.load_answers(store_root, run_id)

    rows, suite = differences.compare_runs(own[0], own[0], own[1], own[1])

    assert (rows["difference"] == 0).all()
    assert (rows["p_holm"] == 1).all()
    assert set(rows["verdict"]) == {suite["verdict"]} == {"inconclusive"}


def test_on_the_committed_study_formula_and_bootstrap_agree():
    """The page's intervals and Fieller's differ by less than 0.02 at every end."""
    found, _ = disk.load_records(records.STUDY)
    scores = frames.scores(found)
    students = [record for record in found if record.teacher_run_id]
    assert len(students) >= 5
    for record in students:
        rows = retention.per_task(
            scores[scores["run_id"] == record.run_id],
            scores[scores["run_id"] == record.teacher_run_id],
            disk.load_answers(records.STUDY, record.run_id),
            disk.load_answers(records.STUDY, record.teacher_run_id),
        )
        np.testing.assert_allclose(rows["low"], rows["fieller_low"], atol=0.02)
        np.testing.assert_allclose(rows["high"], rows["fieller_high"], atol=0.02)


def test_every_condition_has_a_name_for_people():
    """What can be allowed is what can be refused, and the sample."""
    assert set(pairing.ALLOWED) == {*pairing.CONDITIONS, "sample"}
