"""Prompts as a model gets them, and what a task's file can have wrong."""

import json

import pytest
import yaml

from explorer.errors import BadInput
from explorer.tasks import render_prompts, task_loading

ROWS = [{"q": f"Question {i}?", "c": ["yes", "no"], "a": i % 2} for i in range(5)]
CHOICE = {
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "q",
    "doc_to_choice": "c",
    "doc_to_target": "a",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for tasks with one good file of documents, and a cache of its own."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


def add(folder, file="d.jsonl", **config):
    """Write the task t."""
    config = {
        **CHOICE,
        "task": "t",
        "dataset_kwargs": {"data_files": {"test": str(folder / file)}},
        **config,
    }
    path = folder / "t.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return str(path)


def test_choices_follow_the_prompt_and_the_right_one_is_known(folder):
    """The text is what lm-eval sends: shots before it, a space before the choice."""
    source = add(folder, num_fewshot=1, fewshot_split="test")

    found = render_prompts.render_preview("t", str(folder), source=source)

    assert (found.num_documents, found.num_fewshot, len(found.questions)) == (5, 1, 3)
    second = found.questions[1]
    assert second.prompt.endswith("\n\nQuestion 1?")
    assert second.choices == [" yes", " no"]
    assert second.right == [1]


@pytest.mark.parametrize(
    ("config", "prompt", "choices", "right", "target"),
    [
        (
            {"output_type": "loglikelihood", "doc_to_target": "{{c[0]}}"},
            "Question 0?",
            ["yes"],
            [0],
            "",
        ),
        (
            {
                "output_type": "generate_until",
                "doc_to_target": "{{c[a]}}",
                "generation_kwargs": {"until": ["\n"]},
            },
            "Question 0?",
            [],
            [],
            "yes",
        ),
        (
            {"output_type": "loglikelihood_rolling", "doc_to_target": "q", "doc_to_text": ""},
            "Question 0?",
            [],
            [],
            "",
        ),
        ({"doc_to_target": "{{c[a]}}"}, "Question 0?", [" yes", " no"], [0], ""),
        (
            {"doc_to_choice": "{{['A', 'B']}}", "doc_to_target": "B"},
            "Question 0?",
            [" A", " B"],
            [1],
            "",
        ),
    ],
)
def test_every_way_of_answering_has_a_preview(folder, config, prompt, choices, right, target):
    """Continuations, written answers, whole texts, and targets given as text."""
    one = render_prompts.render_preview("t", str(folder), source=add(folder, **config)).questions[0]

    assert (one.prompt, one.choices, one.right, one.target) == (prompt, choices, right, target)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"doc_to_tetx": "q"}, r"task t has the key 'doc_to_tetx', .*it knows doc_to_text"),
        ({"file": "bad.jsonl"}, r"task t could not be read from .*bad\.jsonl: JSON parse error"),
        ({"file": "gone.jsonl"}, r"There is no file .*gone\.jsonl.*working directory"),
        ({"metric_list": [{"metric": "accc"}]}, r"task t names the metric 'accc'.* knows acc"),
        ({"metric_list": "acc"}, r"could not load the task t .*metric"),
        ({"metadata": {"headline_metric": "f7"}}, r"headline_metric 'f7', but its metrics are acc"),
        ({"output_type": "essay"}, r"task t from its file: ValueError: .*'essay'"),
        ({"doc_to_text": "{{ a b }}"}, r"document 0 has no question: expected token"),
        (
            {"dataset_path": None, "dataset_kwargs": None},
            r"task t, which has no dataset_path, could not be made",
        ),
        ({"test_split": "nope"}, r"task t reads the split 'nope', but its data has test"),
    ],
)
def test_what_is_wrong_with_a_task_is_one_sentence(folder, config, says):
    """A mistake in a task's file or data names the task and the fault, never a traceback."""
    (folder / "bad.jsonl").write_text("this is { no json\n")
    source = add(folder, **config)

    with pytest.raises(BadInput, match=says) as refused:
        task_loading.load_task("t", str(folder), source)
    assert "\n" not in str(refused.value)
