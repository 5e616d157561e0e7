"""The preview's arithmetic: only what was measured, scaled by the number of layers."""

import pandas as pd
import pytest

from explorer.analysis.planning.run_time import estimate_runs
from explorer.specs import (
    BothStudent,
    CapabilitySpec,
    CheckpointStudent,
    DepthStudent,
    DistillSpec,
    FreshStudent,
    LatencySpec,
    WidthStudent,
)
from explorer.store import disk, frames
from tests import records


@pytest.fixture
def past(root, study):
    """Frames of a finished study."""
    found, _ = disk.load_records(root)
    return frames.runs(found), frames.scores(found)


def planned(**changes):
    """A run of a size that nobody has trained."""
    return records.study("planned", layers=(12,))[1].with_(**changes)


def test_without_an_earlier_run_nothing_is_said(past):
    """No run of this teacher means no number, but a reason."""
    runs, scores = past
    found = estimate_runs([planned(teacher="org/other")], runs, scores)

    assert found.seconds is None
    assert "No earlier run" in found.basis


def test_a_size_between_two_measured_ones_costs_between_them(past):
    """Training 12 layers takes longer than 10 and less than 15, per token."""
    runs, scores = past
    only_training = {"capability": None, "latency": None}
    found = estimate_runs([planned(**only_training)], runs, scores)

    seconds = runs.set_index("label")["train_seconds"]
    assert seconds["10 layers"] < found.seconds < seconds["15 layers"]


def test_twice_the_tokens_take_twice_the_time(past):
    """Training time is proportional to the budget."""
    runs, scores = past
    once, twice = (
        estimate_runs(
            [planned(capability=None, latency=None, distill=DistillSpec(max_tokens=tokens))],
            runs,
            scores,
        )
        for tokens in (10_000, 20_000)
    )

    assert twice.seconds == pytest.approx(2 * once.seconds)


@pytest.mark.parametrize("shortcut", [{"vocab_sample": 4096}, {"precision": "bfloat16"}])
def test_a_shortcut_is_judged_by_students_that_took_it(past, shortcut):
    """Where there are such; else by all, and the basis says that this is a rough guess."""
    runs, scores = past
    exact = planned(capability=None, latency=None, distill={"max_tokens": 10_000})
    quick = exact.with_(distill={"max_tokens": 10_000, **shortcut})
    guess = estimate_runs([quick], runs, scores)
    before = guess.seconds
    ten = runs[runs["label"] == "10 layers"].assign(
        run_id="quick",
        train_seconds=lambda rows: rows["train_seconds"] / 4,
        vocab_sample=shortcut.get("vocab_sample"),
        train_dtype=shortcut.get("precision", "float32"),
    )
    more = pd.concat([runs, ten], ignore_index=True)

    assert (
        before
        == estimate_runs([exact], runs, scores).seconds
        == estimate_runs([exact], more, scores).seconds
    )
    known = estimate_runs([quick], more, scores)
    assert known.seconds == pytest.approx(
        10_000 * float((ten["train_seconds"] / ten["scored_tokens"]).iloc[0])
    )
    assert "rough guess" in guess.basis
    assert "rough guess" not in known.basis
    assert "rough guess" not in estimate_runs([exact], runs, scores).basis


def test_a_limit_shortens_the_test(past):
    """Eight documents per task are 32 of 1,080."""
    runs, scores = past
    whole, part = (
        estimate_runs(
            [planned(distill=None, latency=None, capability=CapabilitySpec(limit=limit))],
            runs,
            scores,
        )
        for limit in (None, 8)
    )

    assert part.seconds == pytest.approx(whole.seconds * 32 / 1080)


def test_an_unknown_task_is_named_as_missing(past):
    """A task that never ran here is said to be left out, not guessed."""
    runs, scores = past
    found = estimate_runs([planned(capability=CapabilitySpec(tasks=("mmlu",)))], runs, scores)

    assert found.unknown == ("evaluation",)
    assert found.seconds > 0


def test_a_finished_run_takes_nothing(root, study, past):
    """What the store has already is not counted again."""
    runs, scores = past
    done = disk.read_spec(root, study[1])

    assert estimate_runs([done], runs, scores).seconds == 0


def test_timing_counts_student_and_teacher(past):
    """A student's turns alternate with its teacher's, so both are counted."""
    runs, scores = past
    asked = LatencySpec(repeats=10, warmup=2)
    found = estimate_runs([planned(distill=None, capability=None, latency=asked)], runs, scores)

    teacher_ms = runs["teacher_latency_ms"].median()
    assert found.seconds > 12 * teacher_ms / 1e3


@pytest.mark.parametrize("kind", [WidthStudent, BothStudent, FreshStudent])
def test_a_student_of_a_size_costs_what_a_depth_student_of_that_size_does(past, kind):
    """Of 12 layers or of as many parameters: the same time."""
    runs, scores = past
    parameters = runs.set_index("label")["num_parameters"].astype(float)
    per_layer = (parameters["20 layers"] - parameters["10 layers"]) / 10
    size = round(parameters["10 layers"] + 2 * per_layer)
    name = {WidthStudent: "width", BothStudent: "both", FreshStudent: "fresh"}[kind]

    by_layers = estimate_runs([planned()], runs, scores)
    by_size = estimate_runs([planned(student=kind(kind=name, num_parameters=size))], runs, scores)

    assert by_size.seconds == pytest.approx(by_layers.seconds, rel=1e-3)


def test_a_measured_checkpoint_is_known_by_its_name(past):
    """A student of an earlier run has that run's size; an unknown one counts as its teacher."""
    runs, scores = past
    only = {"capability": None, "latency": None}
    ten = runs.loc[runs["label"] == "10 layers", "run_id"].iloc[0]

    def seconds(student):
        return estimate_runs([planned(student=student, **only)], runs, scores).seconds

    measured = seconds(CheckpointStudent(kind="checkpoint", model=f"run:{ten}"))
    unknown = seconds(CheckpointStudent(kind="checkpoint", model="org/small"))

    assert measured == pytest.approx(seconds(DepthStudent(num_layers=10)), rel=0.02)
    assert unknown > measured


def test_the_greedy_choice_is_named_as_not_estimated(past):
    """How long it takes no record tells."""
    runs, scores = past
    student = DepthStudent(num_layers=12, choice="greedy")

    assert (
        "the greedy choice of layers"
        in estimate_runs([planned(student=student)], runs, scores).unknown
    )


def test_an_arm_shares_the_choice_of_layers(past):
    """The layers are chosen before anything is taught, so the control arm finds them chosen."""
    runs, scores = past
    taught = planned(student=DepthStudent(num_layers=12, choice="greedy"))
    arm = taught.with_(distill=taught.distill.control().model_dump())

    assert estimate_runs([arm], runs, scores, before=[taught]).unknown == ()
    assert estimate_runs([taught, arm], runs, scores).unknown == ("the greedy choice of layers",)


def test_quantised_weights_are_estimated_from_such(past):
    """The pace in float32 tells nothing of 8 bits."""
    runs, scores = past
    quantised = planned().with_(name="planned-int8", torch_bits=8)
    measured = runs.assign(dtype=runs["dtype"].where(runs["role"] == "teacher", "int8 + float32"))

    assert estimate_runs([quantised], runs, scores).unknown == ("evaluation", "timing")
    assert estimate_runs([quantised], measured, scores).unknown == ()


def test_gguf_is_estimated_from_gguf_and_taught_once(past):
    """Torch's pace tells nothing of llama.cpp; a student that is converted is not taught again."""
    runs, scores = past
    plain = planned()
    converted = plain.with_(name="planned-q8", gguf="q8_0")

    without = estimate_runs([plain], runs, scores)
    both = estimate_runs([plain, converted], runs, scores)
    measured = runs.assign(runtime=runs["runtime"].where(runs["role"] == "teacher", "llama.cpp"))
    told = estimate_runs([plain, converted], measured, scores)

    assert both.seconds == pytest.approx(without.seconds)
    assert both.unknown == ("evaluation", "timing")
    assert told.unknown == ()
    assert told.seconds > without.seconds


def test_one_slow_run_of_a_size_changes_little(past):
    """Of several runs of a size the median counts."""
    runs, scores = past
    only_training = planned(capability=None, latency=None)
    ten = runs[runs["label"] == "10 layers"]
    slow = ten.assign(run_id="slow", train_seconds=50 * ten["train_seconds"])
    again = ten.assign(run_id="again")

    before = estimate_runs([only_training], runs, scores).seconds
    after = estimate_runs(
        [only_training], pd.concat([runs, slow, again], ignore_index=True), scores
    ).seconds

    assert after == pytest.approx(before, rel=0.01)
