import numpy as np
import pandas as pd

from explorer.analysis import headline


def runs(*students, **teacher):
    """A teacher and students as (layers, retention, tpot_ratio)."""
    rows = [
        {
            "run_id": "t",
            "role": "teacher",
            "num_layers": 30,
            "retention": 1.0,
            "tpot_ms": 30.0,
            "num_parameters": 300.0,
            "usd_per_hour_at_load": 0.05,
            "teacher_run_id": None,
        }
        | teacher
    ]
    for layers, kept, ratio in students:
        rows.append(
            {
                "run_id": f"s{layers}",
                "role": "student",
                "num_layers": layers,
                "retention": kept,
                "retention_low": kept - 0.04,
                "retention_high": kept + 0.04,
                "tpot_ratio": ratio,
                "tpot_ms": 30 * ratio,
                "num_parameters": 10.0 * layers,
                "teacher_run_id": "t",
                "usd_per_hour_at_load": 0.05 * ratio,
                "kind": "depth",
            }
        )
    columns = ["tpot_ratio", "retention_low", "retention_high", "usd_per_mtok"]
    frame = pd.DataFrame(rows).assign(
        status="finished", teacher="starter", excluded_tasks="", format=None
    )
    return frame.assign(**{name: frame.get(name, np.nan) for name in columns})


def test_the_sentence_names_the_smallest_student_that_reaches_the_target():
    """Of two students above 95 % the smaller one is the news."""
    said = headline.headline(runs((24, 0.99, 0.8), (18, 0.96, 0.6), (10, 0.5, 0.35)))

    assert said == (
        "An 18-layer student keeps 96 % [92, 100] of the teacher's capability at 0.60 times its "
        "latency and 0.60 times its cost per hour."
    )


def test_where_no_student_reaches_the_target_the_sentence_says_so():
    """The closest is told without hiding that it misses the mark."""
    said = headline.headline(runs((20, 0.9, 0.72), (15, 0.83, 0.52), (6, 0.2, 0.3)))

    assert said.startswith(
        "No student reaches 95 %: the closest is a 20-layer student that keeps 90 % [86, 94] of "
        "the teacher's capability at 0.72 times its latency"
    )


def test_of_students_that_come_equally_close_the_smallest_is_told():
    """What reads alike is told apart by size, not by a tenth of a percent; 82 % is not 84 %."""
    frame = runs((24, 0.8357, 0.83), (24, 0.8355, 0.11), (24, 0.82, 0.1))
    frame["format"] = [None, None, "q8_0", "q4_k_m"]
    frame["runtime"] = ["transformers eager"] * 2 + ["llama.cpp"] * 2
    frame["weight_bytes"] = [538, 452, 120, 88]

    assert headline.headline(frame).startswith(
        "No student reaches 95 %: the closest is a 24-layer student as q8_0 that "
        "keeps 84 % [80, 88] of the teacher's capability at 0.11 times its latency"
    )


def test_quantising_the_teacher_has_a_sentence_of_its_own():
    """It is no student, and of its formats the smallest file that reaches the target is told."""
    frame = runs((30, 0.98, 0.17), (30, 0.96, 0.15), (24, 0.83, 0.14), (15, 0.6, 0.1))
    frame["kind"] = [None, None, None, "depth", "depth"]
    frame["format"] = [None, "q8_0", "q4_k_m", "q8_0", None]
    frame["runtime"] = ["transformers eager", *["llama.cpp"] * 3, "transformers eager"]
    frame["weight_bytes"] = [538, 143, 104, 120, 326]

    assert headline.headline(frame) == (
        "No student reaches 95 %: the closest is a 24-layer student as q8_0 that keeps 83 % "
        "[79, 87] of the teacher's capability at 0.14 times its latency and 0.14 times its cost "
        "per hour. The teacher itself as q4_k_m keeps 96 % [92, 100] at 0.15 times its own latency."
    )
    assert headline.headline(frame[:3]).startswith("The teacher itself as q4_k_m keeps")


def test_what_is_not_known_is_left_out_of_the_sentence():
    """Missing prices, intervals and times shorten it; nothing is made up."""
    frame = runs((15, 0.83, 0.52), usd_per_hour_at_load=np.nan)
    frame[["tpot_ratio", "retention_low", "usd_per_hour_at_load"]] = np.nan

    assert headline.headline(frame) == (
        "No student reaches 95 %: the closest is a 15-layer student that keeps 83 % of the "
        "teacher's capability."
    )
    assert "cost" not in headline.headline(frame.drop(columns="usd_per_hour_at_load"))


def test_without_runs_or_students_the_sentence_says_what_is_missing():
    """Every state of the store has its sentence."""
    assert headline.headline(runs().iloc[:0]) == "No finished runs yet."
    assert "No student has been measured yet" in headline.headline(runs())
    unknown = runs((15, np.nan, 0.5)).assign(excluded_tasks="a: the teacher is at chance")
    assert headline.headline(unknown) == (
        "The students' retention is not known yet (a: the teacher is at chance)."
    )


def test_with_several_teachers_the_sentence_says_whose_capability():
    """`The teacher` is a name where there are two."""
    frame = runs((15, 0.83, 0.52), (20, 0.8, 0.7))
    frame.loc[2, "teacher"] = "other"

    assert "of starter's capability" in headline.headline(frame)


def test_an_imported_student_is_not_named_as_its_own_teacher():
    """An earlier import has its own model where other students have their teacher's name."""
    frame = runs((24, 0.99, 0.8), (18, 0.96, 0.6))
    frame.loc[frame["run_id"] == "s18", "teacher"] = "acme/small"

    assert "of starter's capability" in headline.headline(frame)
