"""A task of one's own: what a file may hold, what is refused, and that lm-eval asks it."""

import hashlib
import inspect
import json

import pytest
import torch

from explorer.errors import BadInput
from explorer.evaluate import capability
from explorer.models import loading
from explorer.specs import CapabilitySpec
from explorer.store import atomic
from explorer.store.progress import Progress
from explorer.tasks import code_policy, custom, render_prompts, task_loading
from explorer.tasks.starter import data

LOADER_SOURCE = "d84d2dbda71e87e396238d39ec29cd139376e2b0ecd0810393feb61dc6e56695"
"""SHA-256 of the function that lm-eval calls for the documents of the starter suite."""
CSV = b'question,a,b,c,answer\nWhat is 2+2?,3,4,5,4\n\nRed?,yes,no,,B\n"Two\nlines, here",x,y,z,0\n'


def documents(name, content, **changed):
    """The documents of a file, its columns guessed unless they are given."""
    rows = custom.read_rows(name, content)
    columns = custom.guess_columns(custom.columns_of(rows)).model_copy(update=changed)
    return custom.documents(name, rows, columns)


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_a_csv_becomes_questions_with_choices():
    """A column a choice, an empty cell no choice; the answer is text, letter or number."""
    assert documents("q.csv", CSV) == [
        {"question": "What is 2+2?", "choices": ["3", "4", "5"], "answer": 1},
        {"question": "Red?", "choices": ["yes", "no"], "answer": 1},
        {"question": "Two\nlines, here", "choices": ["x", "y", "z"], "answer": 0},
    ]


def test_jsonl_has_lists_of_choices_or_texts_to_write():
    """The names of columns say what they are, whatever their case."""
    rows = {"Question": "q", "Choices": ["a", "b"], "Label": 1}, {"Prompt": "p", "Target": 7}

    assert documents("q.jsonl", jsonl(rows[0])) == [
        {"question": "q", "choices": ["a", "b"], "answer": 1}
    ]
    assert documents("w.jsonl", jsonl(rows[1])) == [{"prompt": "p", "target": "7"}]


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("b", 1),
        ("B", 1),
        ("1", 1),
        (1, 1),
        (0, 0),
        (" a ", 0),
        ("c", None),
        (2, None),
        (-1, None),
        (True, None),
        (None, None),
        ("", None),
        (1.0, None),
        ("٢", None),
        ([], None),
    ],
)
def test_the_right_choice_by_text_letter_or_number(answer, place):
    """The text goes first, letters and numbers count from the first choice, else it is None."""
    assert custom.choice_index(answer, ["a", "b"]) == place
    assert custom.choice_index("0", ["1", "0"]) == 1


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("q.txt", b"x", r"\.jsonl or \.csv file, got 'q\.txt'"),
        ("q.csv", b"", "has no rows"),
        ("q.csv", b"question,answer\n", "has no rows"),
        ("q.csv", b"\xff\xfe", "not UTF-8"),
        ("q.csv", b"a,a\n1,2\n", "name each column once"),
        ("q.csv", b"question,answer\nx\ny,1\nz,1,2\n", r"row 2 has 1 columns.*; row 4 has 3 "),
        ("q.csv", b'question,answer\n"x,1\n', "not CSV"),
        ("q.jsonl", b'{"question": 1}\n{"a": \n[1]\n', r"line 2 is not JSON.*; line 3 should"),
        ("q.jsonl", b"nonsense\n" * 9, r"line 5 is not JSON \(Expecting value\); and 4 more"),
        ("q.jsonl", b"[" * 100_000, "line 1 is not JSON"),
        ("q.jsonl", jsonl({"x": 1}, {"y": 2}), "document 1 should have text in 'y', got None"),
        ("q.jsonl", jsonl({"question": "q", "choices": "ab", "answer": 0}), "list in 'choices'"),
        ("q.jsonl", jsonl({"question": "q", "choices": ["a"], "answer": 0}), "two or more"),
        ("q.jsonl", jsonl({"question": "q", "choices": ["a", "a"], "answer": 0}), "two or more"),
        ("q.jsonl", jsonl({"question": " ", "choices": ["a", "b"], "answer": 0}), "text in 'que"),
        (
            "q.jsonl",
            jsonl({"question": "q", "choices": ["a", "b"], "answer": "d"}),
            "document 1 has the answer 'd', which is not among its 2 choices",
        ),
        ("q.jsonl", b'{"prompt": "\\ud800", "target": "x"}', "half a character"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_by_row(name, content, says):
    """One sentence with the first rows that do not fit, so that all can be corrected at once."""
    with pytest.raises(BadInput, match=says) as refused:
        documents(name, content)
    assert "\n" not in str(refused.value)


def test_a_column_that_is_not_there_is_named():
    """With those that are."""
    with pytest.raises(BadInput, match=r"no column 'gold'; it has question, a, b, c, answer"):
        documents("q.csv", CSV, answer="gold")
    with pytest.raises(BadInput, match="needs a column with lists"):
        documents("q.csv", CSV, choices=())
    with pytest.raises(BadInput, match="larger than 50 MB"):
        custom.read_rows("q.csv", b"x" * (custom.MAX_MB * 2**20 + 1))


def test_a_task_is_never_replaced_unasked():
    """A taken name is refused; a replacement gets the next version."""
    found = documents("q.csv", CSV)
    path = custom.add_task("mine", found, origin="q.csv", taken={"piqa"})

    with pytest.raises(BadInput, match=r"already have a task 'mine'"):
        custom.add_task("mine", found, origin="q.csv")
    with pytest.raises(BadInput, match=r"has a task 'piqa'"):
        custom.add_task("piqa", found, origin="q.csv", taken={"piqa"})
    for name in ("Mine", "../mine", "", "a b", "-a", "x" * 61):
        with pytest.raises(BadInput, match="lower-case letters"):
            custom.add_task(name, found, origin="q.csv")
    before = path.read_text(encoding="utf-8")
    assert custom.add_task("mine", found, origin="q.csv", taken={"mine"}, replace=True) == path
    assert path.read_text(encoding="utf-8") == before.replace("version: 1.0", "version: 2.0")


def test_a_replacement_that_is_killed_leaves_the_old_task_whole(store_root, monkeypatch):
    """Documents and version change in one rename: no task has the one without the other."""
    first = documents("q.jsonl", jsonl({"prompt": "a", "target": "x"}))
    second = documents("q.jsonl", jsonl({"prompt": "b", "target": "y"}))
    path = custom.add_task("mine", first, origin="q.jsonl")
    before = render_prompts.render_preview("mine").questions
    write_text = atomic.write_text

    def killed(target, text):
        if target == path:
            raise KeyboardInterrupt
        write_text(target, text)

    monkeypatch.setattr(atomic, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        custom.add_task("mine", second, origin="q.jsonl", replace=True)
    monkeypatch.setattr(atomic, "write_text", write_text)
    assert (
        render_prompts.render_preview("mine").questions == before == custom.preview_questions(first)
    )

    custom.add_task("mine", second, origin="q.jsonl", replace=True)
    assert render_prompts.render_preview("mine").questions == custom.preview_questions(second)
    assert "version: 2.0" in path.read_text(encoding="utf-8")
    assert len(list(path.parent.glob("mine.*.jsonl"))) == 1


def test_a_task_that_an_earlier_version_wrote_is_still_read(store_root):
    """Its copy of the loader differs from ours by now, and its documents have the task's name."""
    found = documents("q.jsonl", jsonl({"prompt": "a", "target": "x"}))
    path = custom.add_task("mine", found, origin="q.jsonl")
    (written,) = path.parent.glob("mine.*.jsonl")
    written.rename(path.with_suffix(".jsonl"))
    text = path.read_text(encoding="utf-8").replace(written.name, "mine.jsonl")
    path.write_text(text, encoding="utf-8")
    loader = path.parent / "data.py"
    old = loader.read_text(encoding="utf-8")
    start = old.index("# lm-eval puts")
    old = old[:start] + old[old.index("def load") :]
    loader.write_text(old, encoding="utf-8")
    assert hashlib.sha256(old.encode()).hexdigest() in code_policy.EARLIER_LOADERS

    task_loading.check_tasks(["mine"])
    assert render_prompts.render_preview("mine").questions == custom.preview_questions(found)

    loader.write_text(old + "print('not ours')", encoding="utf-8")
    with pytest.raises(BadInput, match="would run Python code"):
        task_loading.check_tasks(["mine"])


def test_the_loaders_source_and_documents_are_what_stored_answers_rest_on():
    """lm-eval hashes the function's source; its documents end lines by a line feed alone."""
    source = inspect.getsource(data.load)
    assert hashlib.sha256(source.encode()).hexdigest() == LOADER_SOURCE
    files = sorted(code_policy.SHIPPED.glob("*.jsonl"))
    assert files
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert text.splitlines() == text.removesuffix("\n").split("\n")


def test_lm_eval_asks_the_task_and_scores_it(tiny_llama, tmp_path, store_root):
    """Found without an include_path, previewed as the form showed it, scored with its chance."""
    choices = documents("q.csv", CSV)
    # A character that splits lines in some readers must not split a document.
    written = documents(
        "w.jsonl", jsonl({"prompt": "a\u2028b", "target": "x"}, {"prompt": "c", "target": "y"})
    )
    custom.add_task("mine", choices, origin="q.csv")
    custom.add_task("written", written, origin="w.jsonl")
    task_loading.check_tasks(["mine", "written"])

    for name, found in (("mine", choices), ("written", written)):
        assert render_prompts.render_preview(name).questions == custom.preview_questions(found)
    capability_, _ = capability.evaluate(
        loading.load(str(tiny_llama(num_layers=2))),
        CapabilitySpec(tasks=("mine", "written"), batch_size=4),
        tmp_path / "capability",
        Progress(store_root, "run-1"),
        fingerprint="f",
        device=torch.device("cpu"),
    )

    headline = {score.task: score for score in capability_.scores if score.headline}
    assert headline["mine"].metric == "acc_norm"
    assert headline["mine"].chance == pytest.approx((1 / 3 + 1 / 2 + 1 / 3) / 3)
    assert (headline["written"].metric, headline["written"].chance) == ("exact_match", 0.0)
    assert headline["mine"].num_documents == 3
