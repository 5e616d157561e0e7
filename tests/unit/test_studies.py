"""Runs that belong together."""

import pandas as pd
import pytest

from explorer.analysis import studies


@pytest.mark.parametrize(
    ("name", "study"),
    [
        ("starter-24l", "starter"),
        ("my-study-24l-q4_k_m", "my-study"),
        ("my-study-24l-int8", "my-study"),
        ("my-study-24l-labels", "my-study"),
        ("alone", "alone"),
    ],
)
def test_a_runs_name_begins_with_its_study(name, study):
    """Without what a sweep adds: the size, the format, the control arm."""
    assert studies.study_of(name) == study


def runs():
    """Two studies of one teacher, which was also measured in another number format."""
    rows = [
        ("t", "teacher", None, "teacher-starter", None, None),
        ("t8", "student", "t", "teacher-starter-q8_0", "q8_0", None),
        ("a24", "student", "t", "a-24l", None, "depth"),
        ("a10", "student", "t", "a-10l", None, "depth"),
        ("b24", "student", "t", "b-24l", None, "depth"),
    ]
    columns = ["run_id", "role", "teacher_run_id", "name", "format", "kind"]
    return pd.DataFrame(rows, columns=columns).assign(label="same")


def test_a_study_has_its_teacher_in_all_formats_and_no_other_students():
    """Whichever of its runs is chosen."""
    finished = runs()

    beside = studies.same_studies(finished, finished[finished["run_id"] == "a10"])

    assert list(beside["run_id"]) == ["t", "t8", "a24", "a10"]
    none = studies.same_studies(finished, finished.iloc[:0])
    assert none.empty


def test_a_file_is_named_after_one_study_and_otherwise_says_comparison():
    """The study of its students counts."""
    finished = runs()

    assert studies.name_of(finished.iloc[2:4]) == "a"
    assert studies.name_of(finished.iloc[2:]) == "comparison"


def test_labels_that_are_shared_give_way_to_ids():
    """Two candidates of one name could not be told apart."""
    finished = runs()

    assert studies.unique_labels(finished.iloc[:1]) == {"t": "same"}
    assert set(studies.unique_labels(finished).values()) == set(finished["run_id"])


def test_equal_names_are_told_apart_by_the_end_of_their_ids():
    """The short part of the id where it differs, else the whole id; other names stay short."""
    finished = pd.DataFrame(
        {
            "run_id": ["a-24l-0a1b2c3d", "b-24l-11111111", "a-20l-22222222", "t-33333333"],
            "label": ["24 layers", "24 layers", "20 layers", "teacher"],
            "role": ["student", "student", "student", "teacher"],
            "teacher": "starter",
        }
    )

    assert studies.names_of(finished) == [
        "24 layers (0a1b2c3d)",
        "24 layers (11111111)",
        "20 layers",
        "starter (teacher)",
    ]
    same_end = finished.assign(run_id=["a-1", "b-1", "c-1", "t-1"])
    assert studies.names_of(same_end)[:2] == ["24 layers (a-1)", "24 layers (b-1)"]
    assert studies.names_of(finished.iloc[:0]) == []
