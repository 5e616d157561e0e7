"""Documents that lm-eval can't ask or score are named before a model runs."""

import json

import pytest
import torch
import yaml

from explorer.errors import BadInput, RunFailed
from explorer.evaluate import capability
from explorer.models import loading
from explorer.specs import CapabilitySpec
from explorer.store.progress import Progress
from explorer.tasks import document_checks, task_loading

FINE = {"text": "It rains", "choices": ["!", "?"], "right": 0}
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{text}}",
    "doc_to_choice": "choices",
    "doc_to_target": "right",
    "target_delimiter": "",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
WRITTEN = {"output_type": "generate_until", "doc_to_text": "{{text}}", "doc_to_target": "right"}


@pytest.fixture
def folder(tmp_path):
    """Writes a task `marks` on these documents; its folder."""

    def write(documents, config=CHOICE, **changed):
        lines = "".join(json.dumps(document) + "\n" for document in documents)
        (tmp_path / "marks.jsonl").write_text(lines, encoding="utf-8")
        whole = {
            "task": "marks",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(tmp_path / "marks.jsonl")}},
            "test_split": "test",
            **config,
            **changed,
        }
        text = yaml.safe_dump({key: value for key, value in whole.items() if value is not None})
        (tmp_path / "marks.yaml").write_text(text, encoding="utf-8")
        return str(tmp_path)

    return write


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("document", "config", "changed", "says"),
    [
        ({"choices": ["", "?"]}, CHOICE, {}, "has an empty choice among"),
        ({"choices": []}, CHOICE, {}, r"has the choices \[\], which should be a list"),
        ({"right": 2}, CHOICE, {}, "has the right answer 2, which is neither one of its 2 choices"),
        ({"right": -1}, CHOICE, {}, "has the right answer -1"),
        ({}, CHOICE, {"doc_to_target": "{{wrong}}"}, "has no right answer: 'wrong' is undefined"),
        ({}, CHOICE, {"doc_to_text": "{{wrong}}"}, "has no question: 'wrong' is undefined"),
        ({}, CHOICE, {"doc_to_choice": "{{choices[0]}}"}, "has no choices: SyntaxError"),
        ({}, CHOICE, {"doc_to_choice": "{{[1, 2]}}"}, "has the choice 1, which is no text"),
        ({"text": "7"}, CHOICE, {}, "has the question 7, which is no text"),
        ({"text": "007"}, CHOICE, {}, "has no question: SyntaxError"),
        ({"right": None}, WRITTEN, {}, "has no right answer"),
        ({"text": ""}, {**WRITTEN, "output_type": "loglikelihood", "doc_to_target": "text"}, {},
         "has the text '' to score"),
    ],
)  # fmt: skip
def test_a_document_that_cannot_be_asked_or_scored_is_named(
    folder, document, config, changed, says, first, store_root
):
    """As lm-eval's first document, on which loading fails, and as a later one."""
    documents = [FINE | document, FINE] if first else [FINE, FINE | document]
    include = folder(documents, config, **changed)
    number = 0 if first or changed else 1

    def check():
        for name, task in task_loading.load_tasks(["marks"], include).items():
            document_checks.check_documents(name, task, range(2))

    with pytest.raises(BadInput, match=rf"marks can't be evaluated: document {number} {says}"):
        check()


def test_only_the_documents_of_the_sample_are_looked_at_and_few_are_named(folder, store_root):
    """The rest is counted; a task that is fine is fine."""
    include = folder([FINE, *[FINE | {"right": 9}] * 5])
    (task,) = task_loading.load_tasks(["marks"], include).values()

    document_checks.check_documents("marks", task, [0])
    with pytest.raises(BadInput, match="document 1 .*document 3 .*; and 2 more"):
        document_checks.check_documents("marks", task, range(6))


def test_a_task_without_documents_is_a_sentence(folder, store_root):
    """Its data file is named."""
    with pytest.raises(
        BadInput, match=r"documents of the task marks could not be read from .*marks"
    ):
        task_loading.load_tasks(["marks"], folder([]))


def test_a_failure_of_lm_eval_names_task_and_document(folder, tiny_llama, tmp_path, store_root):
    """A metric that fails at one answer; what a back end raises keeps its traceback."""
    include = folder([FINE, FINE, FINE])

    def ask(**failing):
        loaded = loading.load(str(tiny_llama(num_layers=2)))
        capability.evaluate(
            loaded,
            CapabilitySpec(tasks=("marks",), include_path=include, limit=2),
            tmp_path / "capability",
            Progress(store_root, "run-1"),
            fingerprint="f",
            device=torch.device("cpu"),
        )

    with pytest.MonkeyPatch.context() as patched:
        original = task_loading.ConfigurableTask.construct_requests

        def fails_at_the_last(self, doc, ctx, **more):
            if more["metadata"][1] == 1:
                return self.doc_to_choice({})
            return original(self, doc, ctx, **more)

        patched.setattr(task_loading.ConfigurableTask, "construct_requests", fails_at_the_last)
        with pytest.raises(RunFailed, match=r"task marks, document \d: KeyError in doc_to_choice"):
            ask()
