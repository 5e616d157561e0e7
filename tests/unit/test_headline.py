import numpy as np
import pandas as pd

from explorer.analysis import baseline, headline


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


def test_a_student_above_the_target_that_may_be_below_it_does_not_surely_reach_it():
    """As with five documents, all right: the sentence does not contradict its own numbers."""
    said = headline.headline(runs((20, 0.99, 0.72)), reaching=set())

    assert said.startswith("No student surely reaches 95 %: the closest is a 20-layer student")


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
    """It is no student; the smallest file that reaches the target wins, students must beat it."""
    frame = runs((30, 0.98, 0.17), (30, 0.96, 0.15), (24, 0.83, 0.14), (15, 0.6, 0.1))
    frame["kind"] = [None, None, None, "depth", "depth"]
    frame["format"] = [None, "q8_0", "q4_k_m", "q8_0", None]
    frame["runtime"] = ["transformers eager", *["llama.cpp"] * 3, "transformers eager"]
    frame["weight_bytes"] = [538, 143, 104, 120, 326]

    assert headline.headline(frame) == (
        "Quantising wins here: the teacher as q4_k_m keeps 96 % [92, 100] in 104 B. Distilling "
        "does not pay here: no student is smaller than a format that keeps more."
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


def in_formats(**changes):
    """The teacher in torch and as q8_0 and q4_k_m, a student in each; sizes in MB."""
    frame = runs(
        (30, 0.98, 0.14), (31, 0.95, 0.13), (24, 0.83, 0.82), (25, 0.83, 0.11), (26, 0.82, 0.10)
    )
    frame["run_id"] = ["t", "t8", "t4", "s", "s8", "s4"]
    frame["num_layers"] = [30, 30, 30, 24, 24, 24]
    frame["num_parameters"] = [135e6, 135e6, 135e6, 113e6, 113e6, 113e6]
    frame["kind"] = [None, None, None, "depth", "depth", "depth"]
    frame["format"] = [None, "q8_0", "q4_k_m", None, "q8_0", "q4_k_m"]
    frame["runtime"] = ["torch", "llama.cpp", "llama.cpp", "torch", "llama.cpp", "llama.cpp"]
    frame["weight_bytes"] = [538e6, 143e6, 104e6, 452e6, 120e6, 89e6]
    return frame.assign(**changes)


def test_two_sentences_say_what_wins_and_where_distilling_pays():
    """The limit is the smallest format that keeps as much; the ratio is to the same format."""
    said = headline.headline(in_formats())

    assert said == (
        "Quantising wins here: the teacher as q4_k_m keeps 95 % [91, 99] in 104 MB. Distilling "
        "pays below 104 MB: a 24-layer student as q4_k_m keeps 82 % [78, 86] in 89.0 MB at 0.77 "
        "times the latency of the teacher as q4_k_m."
    )


def test_the_baseline_changes_the_ratio_and_says_so():
    """Against the teacher as it is, most of the gain is the runtime's, and the words say torch."""
    said = headline.headline(in_formats(), against=baseline.ORIGINAL)

    assert "at 0.10 times the latency of the teacher in torch" in said


def test_the_winner_is_the_one_that_the_pick_accepts():
    """Where the draws refuse q4_k_m, the next larger file wins; distilling pays below q4_k_m."""
    said = headline.headline(in_formats(), reaching={"t8"})

    assert said.startswith("Quantising wins here: the teacher as q8_0 keeps 98 % [94, 102] in 143")
    assert "Distilling pays below 104 MB" in said


def test_a_student_that_is_small_and_good_enough_wins():
    """Distilling wins where the smallest model that reaches the target is a student."""
    said = headline.headline(in_formats(), target=0.8)

    assert said == (
        "Distilling wins here: a 24-layer student as q4_k_m keeps 82 % [78, 86] in 89.0 MB at "
        "0.77 times the latency of the teacher as q4_k_m."
    )


def test_where_nothing_reaches_the_target_the_closest_is_named():
    """Neither a student nor a format: both sentences stay true."""
    said = headline.headline(in_formats(), target=0.99)

    assert said.startswith("Nothing here reaches 99 %: the teacher as q8_0 comes closest and keeps")


def test_without_sizes_nothing_is_said_of_where_distilling_pays():
    """No size is made up."""
    said = headline.headline(in_formats(weight_bytes=np.nan))

    assert "the sizes of the models are not known" in said


def test_like_is_compared_with_like():
    """A converted student's baseline is the teacher in its format; torch's is the teacher."""
    frame = in_formats()

    same = dict(zip(frame["run_id"], baseline.baselines(frame), strict=True))
    assert same == {"t": "t", "t8": "t8", "t4": "t4", "s": "t", "s8": "t8", "s4": "t4"}
    assert set(baseline.baselines(frame, baseline.ORIGINAL)) == {"t"}
    without = frame[frame["run_id"] != "t4"]
    assert dict(zip(without["run_id"], baseline.baselines(without), strict=True))["s4"] == "t"
    assert baseline.baseline_name(frame, "s4") == "the teacher as q4_k_m"
    assert baseline.baseline_name(without, "s4") == "the teacher"


def test_times_are_ratios_measured_in_turns():
    """0.10 of the teacher over 0.13 of the teacher, not 3.0 ms over 3.9 ms of other days."""
    frame = in_formats()
    frame["tpot_ms"] = [30.0, 9.0, 9.0, 9.0, 9.0, 9.0]

    ratio = baseline.times(frame, "tpot_ms")

    assert dict(zip(frame["run_id"], ratio.round(3), strict=True)) == {
        "t": 1.0,
        "t8": 1.0,
        "t4": 1.0,
        "s": 0.82,
        "s8": 0.786,
        "s4": 0.769,
    }
    assert baseline.times(frame, "weight_bytes")[5] == 89 / 104
