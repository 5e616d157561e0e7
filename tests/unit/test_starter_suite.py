"""The starter suite is fair, complete and loads from anywhere; no model needed."""

import json
import math
import string
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lm_eval.tasks import TaskManager

TASKS_DIR = Path(__file__).parents[2] / "explorer" / "tasks" / "starter"
CHOICE_TASKS = ["starter_cause", "starter_facts", "starter_grammar", "starter_physical"]
ALL_TASKS = sorted([*CHOICE_TASKS, "starter_last_word"])
ALLOWED = set(string.ascii_letters + string.digits + " .,:;?!'\"-_")
PROMPT_FIELD = {
    "starter_cause": "premise",
    "starter_facts": "stem",
    "starter_last_word": "passage",
    "starter_physical": "goal",
}


def documents(task: str) -> list[dict[str, Any]]:
    text = (TASKS_DIR / f"{task}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def texts(document: dict[str, Any]) -> list[str]:
    """Every string of a document, its choices included."""
    found: list[str] = []
    for value in document.values():
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, list):
            found.extend(value)
    return found


def three_standard_errors(share: float, num_documents: int) -> float:
    """How far a guesser may stray from `share` by luck alone."""
    return 3 * math.sqrt(share * (1 - share) / num_documents)


@pytest.fixture
def loaded_tasks(tmp_path, monkeypatch) -> dict[str, Any]:
    """The group as lm-eval loads it, offline and from an unrelated working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    manager = TaskManager(include_path=str(TASKS_DIR), include_defaults=False)
    return manager.load("starter")["tasks"]


def test_the_group_loads_from_any_working_directory(loaded_tasks):
    """`starter` is five tasks, and all documents of each reach lm-eval."""
    assert sorted(loaded_tasks) == ALL_TASKS
    for name, task in loaded_tasks.items():
        assert list(task.test_docs()) == documents(name)


def test_files_and_tasks_match_one_to_one():
    """Each task has one YAML and one JSONL of its name, and no data file is left over."""
    assert sorted(path.stem for path in TASKS_DIR.glob("*.jsonl")) == ALL_TASKS
    assert sorted(path.stem for path in TASKS_DIR.glob("starter_*.yaml")) == ALL_TASKS


def test_the_suite_has_at_least_a_thousand_documents():
    """At least four tasks, none under 150 documents, 1,000 in all."""
    counts = [len(documents(task)) for task in ALL_TASKS]

    assert len(counts) >= 4
    assert min(counts) >= 150
    assert sum(counts) >= 1_000


def test_metadata_states_the_chance_level_and_the_headline_metric(loaded_tasks):
    """Chance is one over the number of choices, 0 for last words; the headline is measured."""
    for name, task in loaded_tasks.items():
        metadata = task.config.metadata
        metrics = {entry["metric"] for entry in task.config.metric_list}
        sizes = {len(document.get("choices", [])) for document in documents(name)}

        assert len(sizes) == 1, f"{name} mixes numbers of choices"
        num_choices = sizes.pop()
        assert metadata["chance"] == pytest.approx(1 / num_choices if num_choices else 0.0)
        assert metadata["headline_metric"] in metrics
        assert metadata["version"]
        assert "Apache-2.0" in metadata["origin"]


def test_the_doc_names_each_task_with_its_size_and_headline(loaded_tasks):
    """docs/starter_suite.md states every task's documents and headline metric as they are."""
    page = (TASKS_DIR.parents[2] / "docs" / "starter_suite.md").read_text(encoding="utf-8")
    for name, task in loaded_tasks.items():
        headline = task.config.metadata["headline_metric"]
        assert f"| `{name}` | {len(documents(name))} | `{headline}` |" in page


def test_no_document_occurs_twice():
    """Neither within a task nor across tasks, whatever the case, spacing or order of choices."""
    seen = Counter(
        tuple(sorted(" ".join(text.lower().split()) for text in texts(document)))
        for task in ALL_TASKS
        for document in documents(task)
    )

    assert [key for key, count in seen.items() if count > 1] == []


@pytest.mark.parametrize("task", sorted(PROMPT_FIELD))
def test_no_prompt_occurs_twice(task):
    """Two questions of one task never share their prompt."""
    prompts = Counter(document[PROMPT_FIELD[task]].lower() for document in documents(task))

    assert [prompt for prompt, count in prompts.items() if count > 1] == []


@pytest.mark.parametrize("task", ALL_TASKS)
def test_texts_are_clean(task):
    """Every text is trimmed plain English in ASCII and starts with a letter, digit or quote."""
    for document in documents(task):
        for text in texts(document):
            assert text, document
            assert text == " ".join(text.split()), document
            assert set(text) <= ALLOWED, document
            assert text[0].isalnum() or text[0] == '"', document


@pytest.mark.parametrize("task", CHOICE_TASKS)
def test_choices_differ_and_the_answer_is_one_of_them(task):
    """No two choices of a document are the same, and the answer points at one."""
    for document in documents(task):
        assert len(set(document["choices"])) == len(document["choices"]), document
        assert 0 <= document["answer"] < len(document["choices"]), document


@pytest.mark.parametrize("task", CHOICE_TASKS)
def test_answer_positions_are_balanced(task):
    """Always guessing one position scores chance, to within one document."""
    items = documents(task)
    num_choices = len(items[0]["choices"])
    positions = Counter(document["answer"] for document in items)

    assert len(positions) == num_choices
    assert max(positions.values()) - min(positions.values()) <= 1


@pytest.mark.parametrize("task", CHOICE_TASKS)
@pytest.mark.parametrize("pick", [max, min], ids=["longest", "shortest"])
def test_guessing_by_length_scores_chance(task, pick):
    """Taking the longest or the shortest choice stays within 3 standard errors of chance."""
    items = documents(task)
    chance = 1 / len(items[0]["choices"])
    hits = 0.0
    for document in items:
        lengths = [len(choice) for choice in document["choices"]]
        if lengths[document["answer"]] == pick(lengths):
            hits += 1 / lengths.count(pick(lengths))  # ties are broken by a fair guess

    assert hits / len(items) == pytest.approx(chance, abs=three_standard_errors(chance, len(items)))


@pytest.mark.parametrize("task", CHOICE_TASKS)
def test_right_and_wrong_choices_are_equally_long(task):
    """Mean lengths of right and wrong choices differ by less than 5 percent."""
    right: list[int] = []
    wrong: list[int] = []
    for document in documents(task):
        for index, choice in enumerate(document["choices"]):
            (right if index == document["answer"] else wrong).append(len(choice))

    assert sum(right) / len(right) == pytest.approx(sum(wrong) / len(wrong), rel=0.05)


def test_grammar_covers_many_phenomena():
    """At least 12 phenomena, each with at least 15 pairs."""
    counts = Counter(document["phenomenon"] for document in documents("starter_grammar"))

    assert len(counts) >= 12
    assert min(counts.values()) >= 15


def test_grammar_pairs_are_minimal():
    """The sentences of a pair are whole, and share their first or their last word."""
    for document in documents("starter_grammar"):
        first, second = document["choices"]
        assert (first[0] + second[0]).isupper(), document
        assert first[-1] in ".?!", document
        assert first[-1] == second[-1], document
        words, others = first.lower().split(), second.lower().split()
        assert words[0] == others[0] or words[-1] == others[-1], document


@pytest.mark.parametrize("task", ["starter_cause", "starter_facts", "starter_physical"])
def test_prompts_read_on_into_their_choices(task):
    """A prompt is an unfinished sentence, so each choice can follow after one space."""
    for document in documents(task):
        assert document[PROMPT_FIELD[task]][-1] not in ".?!:", document


def test_last_word_targets_are_one_plain_word():
    """The target is one word of letters, and the passage stops right before it."""
    for document in documents("starter_last_word"):
        assert document["target"].isalpha(), document
        assert len(document["passage"].split()) >= 2, document
        assert not document["passage"].endswith(" "), document


def test_last_word_is_scored_with_its_leading_space(loaded_tasks):
    """The model is asked for ' word', as it would write it after the passage."""
    task = loaded_tasks["starter_last_word"]
    document = documents("starter_last_word")[0]

    assert task.doc_to_text(document) == document["passage"]
    assert task.doc_to_target(document) == " " + document["target"]
