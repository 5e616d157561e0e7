"""lm-eval's samples files: what a model was asked and what it said."""

import json

import pytest

from explorer.lm_eval_io import samples
from explorer.store import disk
from tests import records

TEACHER = records.committed()


def test_chosen_is_right_exactly_where_lm_eval_says_so():
    """On every document of the committed teacher, our reading agrees with lm-eval's score."""
    record = disk.load(records.STUDY, TEACHER)
    answers = disk.load_answers(records.STUDY, TEACHER)
    kept = samples.newest_files(records.STUDY / TEACHER / "capability")
    tasks = {s.task: s.metric for s in record.capability.scores if s.headline}
    assert len(tasks) == 5
    for task, metric in tasks.items():
        path = kept[samples.file_part(task)]
        places = samples.line_offsets(path)
        of_task = answers[(answers["task"] == task) & (answers["metric"] == metric)]
        assert set(places) == set(of_task["doc_id"])
        for doc_id, value in zip(of_task["doc_id"], of_task["value"], strict=True):
            (sample,) = samples.read_lines(path, [places[doc_id]])
            read = samples.parse_answer(sample, metric)
            right = any(choice.right and choice.chosen for choice in read.choices)
            assert right == (value == 1), (task, doc_id)
            assert read.margin is None or (read.margin > 0) == right


def multiple_choice(**changes):
    return {
        "doc_id": 3,
        "doc": {"question": "Sky?"},
        "target": "1",
        "arguments": {
            "gen_args_0": {"arg_0": "The sky is", "arg_1": " green"},
            "gen_args_1": {"arg_0": "The sky is", "arg_1": " blue"},
        },
        "filtered_resps": [["-4.5", "False"], ["-1.25", "True"]],
        "filter": "none",
        "metrics": ["acc"],
        "acc": 1.0,
    } | changes


def test_a_choice_carries_its_likelihood_and_the_margin():
    """The right one's log-likelihood less the best wrong one's, in nats."""
    read = samples.parse_answer(multiple_choice(), "acc")

    assert read.prompt == "The sky is"
    assert [choice.text for choice in read.choices] == ["green", "blue"]
    assert read.target == read.response == "blue"
    assert read.margin == pytest.approx(3.25)


def test_normalised_metrics_choose_by_length():
    """`acc_norm` divides by characters, so a long answer can win."""
    long = multiple_choice(filtered_resps=[["-4.5", "False"], ["-4.0", "False"]])
    long["arguments"]["gen_args_0"]["arg_1"] = " green as grass"

    assert samples.parse_answer(long, "acc").response == "blue"
    assert samples.parse_answer(long, "acc_norm").response == "green as grass"


def test_older_files_have_lists_for_arguments():
    """Before 0.4.3 arguments are a list of lists and numbers are numbers."""
    old = multiple_choice(
        arguments=[["The sky is", " green"], ["The sky is", " blue"]],
        filtered_resps=[[-4.5, False], [-1.25, True]],
        target=1,
    )

    assert samples.parse_answer(old, "acc") == samples.parse_answer(multiple_choice(), "acc")


def test_free_text_is_shown_as_written():
    """A generation has no choices and no margin."""
    free = multiple_choice(
        arguments={"gen_args_0": {"arg_0": "2 + 2 =", "arg_1": {"until": ["\n"]}}},
        filtered_resps=["4"],
        target="4",
    )

    read = samples.parse_answer(free, "exact_match")

    assert (read.prompt, read.response, read.target, read.choices) == ("2 + 2 =", "4", "4", ())


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"arguments": 3, "filtered_resps": "x"},
        {"arguments": {"a": None}, "target": None},
        {"arguments": [[1, 2]], "filtered_resps": [[None, None]]},
        {"arguments": [["p", "a"], ["p", "b"]], "filtered_resps": [["nan", "x"], ["-1", "True"]]},
    ],
)
def test_an_odd_sample_is_shown_as_far_as_it_goes(odd):
    """A line of another tool's making is no reason for a page to break."""
    assert isinstance(samples.parse_answer(odd, "acc"), samples.SampleAnswer)
    assert isinstance(samples.searchable_text(odd), str)


def test_lines_are_found_again_and_damaged_ones_passed_over(tmp_path):
    """Only whole samples have a place, of the filter that counts; the newest file is taken."""
    path = tmp_path / "samples_a_task_2026-11-24T05-00-00.000001.jsonl"
    lines = [
        json.dumps({"doc_id": 0, "filter": "strict", "n": "é"}, ensure_ascii=False),
        "{nonsense",
        "[1]",
        *(json.dumps({"doc_id": doc_id, "filter": "loose"}) for doc_id in (0, 7)),
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "samples_a_task_2025-11-24T05-00-00.jsonl").write_text("")
    (tmp_path / "samples_else.jsonl").write_text("")

    assert samples.newest_files(tmp_path) == {"a_task": path}
    assert set(samples.line_offsets(path)) == {0, 7}
    loose = samples.line_offsets(path, "loose")
    assert [one["doc_id"] for one in samples.read_lines(path, [loose[7], loose[0]])] == [7, 0]
    assert samples.read_lines(path, [loose[0]])[0]["filter"] == "loose"
