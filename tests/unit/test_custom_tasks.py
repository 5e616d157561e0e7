"""A task of one's own: what a file may hold, what is refused, and that lm-eval asks it."""

import hashlib
import inspect
import json

import pytest
import torch

from explorer.errors import BadInput
from explorer.evaluate import capability
from explorer.files import durable_files
from explorer.models import loading
from explorer.specs import CapabilitySpec
from explorer.store.progress import Progress
from explorer.tasks import (
    code_policy,
    custom,
    question_columns,
    question_files,
    render_prompts,
    task_loading,
)
from explorer.tasks.answer_keys import AmbiguousAnswers
from explorer.tasks.starter import data

LOADER_SOURCE = "d84d2dbda71e87e396238d39ec29cd139376e2b0ecd0810393feb61dc6e56695"
"""SHA-256 of the function that lm-eval calls for the documents of the starter suite."""
CSV = b'question,a,b,c,answer\nWhat is 2+2?,3,4,5,B\n\nRed?,yes,no,,B\n"Two\nlines, here",x,y,z,a\n'


def questions(name, content, *, header=True, **changed):
    """How a file is understood; its columns are found by name unless they are given."""
    rows = question_files.read_rows(name, content, header=header)
    guess = question_columns.guess_columns(name, rows)
    columns = guess.columns.model_copy(update=changed)
    return custom.read_questions(name, rows, columns)


def documents(name, content, **changed):
    """The documents of a file."""
    return questions(name, content, **changed).documents


def keys(name, content, **changed):
    """The index of each question's right choice."""
    return [document["answer"] for document in documents(name, content, **changed)]


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def choice_rows(*answers, choices=("w", "x", "y", "z")):
    return jsonl(*({"question": "q", "choices": choices, "answer": each} for each in answers))


def test_a_csv_becomes_questions_with_choices():
    """A column a choice, an empty cell no choice."""
    assert documents("q.csv", CSV) == [
        {"question": "What is 2+2?", "choices": ["3", "4", "5"], "answer": 1},
        {"question": "Red?", "choices": ["yes", "no"], "answer": 1},
        {"question": "Two\nlines, here", "choices": ["x", "y", "z"], "answer": 0},
    ]


def test_jsonl_has_lists_of_choices_or_texts_to_write():
    """The names of columns say what they are, whatever their case."""
    rows = {"Question": "q", "Choices": ["a", "b"], "Label": 0}, {"Prompt": "p", "Target": 7}

    assert documents("q.jsonl", jsonl(rows[0])) == [
        {"question": "q", "choices": ["a", "b"], "answer": 0}
    ]
    assert documents("w.jsonl", jsonl(rows[1])) == [{"prompt": "p", "target": "7"}]


def test_texts_stay_as_the_file_has_them():
    """Digits after a point, zeros before it, spaces at the ends and other line ends."""
    line = '{"question": " a\u2028\u0085 ", "choices": [1.50, "007", 1e3], "answer": "1.50"}\n'
    assert documents("q.jsonl", line.encode()) == [
        {"question": " a\u2028\u0085 ", "choices": ["1.50", "007", "1e3"], "answer": 0}
    ]
    assert documents("w.csv", b'prompt,target\n"  x ",0123\n') == [
        {"prompt": "  x ", "target": "0123"}
    ]


@pytest.mark.parametrize(
    ("answers", "places"),
    [
        (["w", "z"], [0, 3]),
        (["a", "D"], [0, 3]),
        ([0, "1"], [0, 1]),
        (["3", 4], [2, 3]),
        ([" w ", "x"], [0, 1]),
    ],
)
def test_answers_are_texts_letters_or_numbers_throughout_the_file(answers, places):
    """Numbers count from 0 if there is a 0, from 1 if there is the number of choices."""
    assert keys("q.jsonl", choice_rows(*answers)) == places


@pytest.mark.parametrize("answers", [[1, 2, 3], ["2"], [3, "1"]])
def test_numbers_that_may_count_from_0_or_1_are_asked_for(answers):
    """Nothing in the file says which; the message shows what each way means."""
    with pytest.raises(AmbiguousAnswers, match=r"line 1, '\d' is .*from 0, .*from 1") as refused:
        keys("q.jsonl", choice_rows(*answers))

    assert refused.value.readings == ("from-0", "from-1")
    first = int(answers[0])
    assert keys("q.jsonl", choice_rows(*answers), answer_as="from-0")[0] == first
    assert keys("q.jsonl", choice_rows(*answers), answer_as="from-1")[0] == first - 1


def test_a_number_that_is_a_choice_is_read_like_the_others_of_its_file():
    """JSON and CSV alike: a choice's text if that fits every question, asked if numbers fit too."""
    table = b"question,A,B,C,D,answer\nSides?,1,2,3,4,3\nWheels?,1,2,3,4,2\n"
    lines = choice_rows(3, 2, choices=[1, 2, 3, 4])
    for name, content in (("q.csv", table), ("q.jsonl", lines)):
        assert keys(name, content, answer_as="text") == [2, 1]
        with pytest.raises(AmbiguousAnswers, match="texts of choices"):
            keys(name, content)
    # One question has numbers as choices, the others show how answers are written.
    mixed = choice_rows(0, 2) + choice_rows(1, choices=["3", "2", "1"])
    assert keys("q.jsonl", mixed) == [0, 2, 1]
    carbon = choice_rows("A", "D") + choice_rows("B", choices=["B", "C", "D", "O"])
    assert keys("q.jsonl", carbon) == [0, 3, 1]


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        (["A", "1", "B"], r"letters from A but also '1' in line 2"),
        (["w", "x", "C"], r"texts of choices but also 'C' in line 3"),
        ([0, 4, 1], r"found numbers from 0 but also '4' in line 2"),
        (
            ["w", 9, -1, "E", True, None, 1.0, "", "٢", []],
            r"line 2: has the answer '9'.*; and 4 more",
        ),
    ],
)
def test_answers_in_several_ways_are_refused(answers, says):
    """The lines that do not fit are named."""
    with pytest.raises(BadInput, match=says):
        keys("q.jsonl", choice_rows(*answers))


@pytest.mark.parametrize("labels", [["A", "B", "C"], ["1", "2", "3"], ["C", "A", "B"]])
def test_labelled_choices_are_read_by_their_labels(labels):
    """As ARC's files have them: an answer is a label, whatever order or number it suggests."""
    choices = {"text": ["red", "green", "blue"], "label": labels}
    rows = [{"question": "q", "choices": choices, "answerKey": label} for label in labels[:2]]

    assert keys("arc.jsonl", jsonl(*rows)) == [0, 1]
    for wrong in ({"text": ["red"], "label": labels}, {**choices, "label": ["A", "A", "B"]}):
        with pytest.raises(BadInput, match="label"):
            keys("arc.jsonl", jsonl(rows[0] | {"choices": wrong}))
    with pytest.raises(BadInput, match="labels of choices"):
        keys("arc.jsonl", jsonl(rows[0] | {"answerKey": "Z"}))


def test_letters_mean_columns_whatever_cells_are_empty():
    """Behind an empty cell, too; an answer that names an empty cell is refused."""
    table = b"question,A,B,C,answer\nx?,1st,,3rd,C\ny?,1st,2nd,,B\n"
    assert documents("q.csv", table)[0] == {
        "question": "x?",
        "choices": ["1st", "3rd"],
        "answer": 1,
    }
    with pytest.raises(BadInput, match="line 2: has the answer 'B'"):
        keys("q.csv", b"question,A,B,C,answer\nx?,1st,,3rd,B\n")
    named = b"question,choice_a,choice_b,answer\nx?,1st,2nd,choice_b\n"
    assert keys("q.csv", named) == [1]
    # Position and name disagree.
    with pytest.raises(AmbiguousAnswers, match="names of columns"):
        keys("q.csv", b"question,B,A,answer\nx?,1st,2nd,A\n")


@pytest.mark.parametrize(
    ("content", "role", "says"),
    [
        (b"What is 2 + 2?,4\nWhat is 3 + 3?,6\n", "header", "looks like a question itself"),
        (b"Capital of France?,Paris,Rome,A\nOf Italy?,Paris,Rome,B\n", "header", "first row"),
        (b"frage,wahl1,wahl2,loesung\nx?,1,2,1\n", "question", "No column is called question"),
        (b"frage,wahl1,wahl2,loesung\nx?,1,2,1\n", "answer", "No column is called answer"),
        (b"question,context,answer\nx?,c,y\n", "question", "'question', 'context' could each"),
        (b"question,answer,label\nx?,c,y\n", "answer", "'answer', 'label' could each hold"),
        (b"question,wahl1,wahl2,answer\nx?,c,y,c\n", "choices", "'wahl1', 'wahl2' could hold"),
        (b"question,one,other,answer\nx?,c,y,c\n", "choices", "'one', 'other' could hold"),
        (b"question,one,other,answer\nx?,c,y,B\n", "choices", "'one', 'other' could hold"),
        (b"question,choices,a,b,answer\nx?,c,y,B,c\n", "choices", "could all hold choices"),
    ],
)
def test_what_names_leave_open_is_a_doubt(content, role, says):
    """Nothing is guessed from a column's position."""
    rows = question_files.read_rows("q.csv", content)
    doubts = question_columns.guess_columns("q.csv", rows).doubts

    assert says in doubts[role]


def test_a_first_row_without_usual_names_may_be_a_question():
    """Also one that does not look like one; an object of JSON Lines has names."""
    table, lines = b"Paris,France\nRome,Italy\n", b'{"Paris": "France"}\n'
    for name, content, may in (
        ("q.csv", table, True),
        ("q.jsonl", lines, False),
        ("q.csv", b"question,b\nx,y\n", False),
    ):
        guess = question_columns.guess_columns(name, question_files.read_rows(name, content))
        assert question_columns.may_lack_header(name, guess) == may


def test_a_column_beside_the_roles_is_left_out_and_said():
    """An id or a subject raises no doubt."""
    content = b"id,question,subject,answer\nq1,x?,math,4\nq2,y?,art,blue\n"
    rows = question_files.read_rows("q.csv", content)
    assert not question_columns.guess_columns("q.csv", rows).doubts

    found = questions("q.csv", content)
    assert found.in_words() == (
        "Question from question, answer from answer. Not used: id, subject."
    )
    lists = b'{"question": "x", "endings": ["a", "b"], "answer": 0}\n'
    rows = question_files.read_rows("q.jsonl", lists)
    assert "'endings'" in question_columns.guess_columns("q.jsonl", rows).doubts["choices"]


def test_a_question_may_have_sixteen_choices():
    """A column a letter; none after J is left out."""
    letters = "ABCDEFGHIJKLMNOP"
    row = ",".join(f"choice {letter}" for letter in letters)
    content = f"q,{','.join(letters)},answer\nwhich?,{row},K\nwhich?,{row},P\n".encode()

    found = documents("q.csv", content)

    assert [len(document["choices"]) for document in found] == [16, 16]
    assert [document["answer"] for document in found] == [10, 15]


def test_a_file_without_a_header_has_numbered_columns():
    """So that each can be named."""
    found = documents(
        "q.csv",
        b"x?,1st,2nd,A\ny?,1st,2nd,B\n",
        header=False,
        way="choices",
        question="column 1",
        choices=("column 2", "column 3"),
        answer="column 4",
    )

    assert [document["answer"] for document in found] == [0, 1]


@pytest.mark.parametrize(
    "content",
    [
        b"question;choice_a;choice_b;answer\nHow long, in m?;1,5;2,5;1,5\n",
        b"question\tchoice_a\tchoice_b\tanswer\r\nHow long, in m?\t1,5\t2,5\t1,5\r\n",
        b"sep=;\r\nquestion;choice_a;choice_b;answer\r\nHow long, in m?;1,5;2,5;1,5\r\n",
        b'"sep=|"\nquestion|choice_a|choice_b|answer\nHow long, in m?|1,5|2,5|1,5\n',
        b'question, choice_a, choice_b, answer\n"How long, in m?", "1,5", "2,5", "1,5"\n',
        "question;choice_a;choice_b;answer\nHow long, in m?;1,5;2,5;1,5\n".encode("utf-16"),
        b"\xef\xbb\xbfquestion;choice_a;choice_b;answer\nHow long, in m?;1,5;2,5;1,5\n",
    ],
)
def test_a_table_is_separated_as_spreadsheets_do(content):
    """By commas, semicolons or tabs, with a sep= line or a byte order mark."""
    assert documents("q.csv", content) == [
        {"question": "How long, in m?", "choices": ["1,5", "2,5"], "answer": 0}
    ]
    with pytest.raises(BadInput, match=r"could be separated by commas or semicolons.*sep=;$"):
        documents("q.csv", b"question,a;answer\n1,2;3\n")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("q.txt", b"x", r"\.jsonl, \.csv or \.tsv file, got 'q\.txt'"),
        ("q.csv", b"", "has no rows"),
        ("q.csv", b"question,answer\n", "has no rows"),
        ("q.csv", b"question,answer\ncaf\xe9,1\n", "line 2: expected UTF-8.*iconv"),
        ("q.csv", b"a,a\n1,2\n", "name each column once"),
        (
            "q.csv",
            b"question,answer\n\nx\ny,1\nz,1,2\n",
            r"line 3: has 1 columns.*; line 5: has 3 ",
        ),
        ("q.csv", b"sep=x\nquestionxanswer\n", "separated by 'x'"),
        ("q.csv", b'question,answer\n"x,1\n', "not CSV.*line 2"),
        ("q.jsonl", b'{"question": 1}\n{"a": \n[1]\n', r"line 2: .*not JSON.*; line 3: expected"),
        ("q.jsonl", b'{"question": 1, "question": 2}\n', "'question' twice"),
        ("q.jsonl", b"nonsense\n" * 9, r"line 5: .*not JSON.*; and 4 more"),
        ("q.jsonl", b"[" * 100_000, "line 1: "),
        ("q.jsonl", b'[\n{"question": "q"}\n]\n', r"line 1: .*found a list.*one JSON array.*jq"),
        ("q.csv", "question,answer\ncafé,1\n".encode("utf-16-le"), "line 1: .*null byte"),
        ("q.jsonl", jsonl({"question": "q", "choices": "ab", "answer": 0}), "list in 'choices'"),
        ("q.jsonl", jsonl({"question": "q", "choices": ["a"], "answer": 0}), "two or more"),
        ("q.jsonl", jsonl({"question": "q", "choices": ["a", "a"], "answer": 0}), "two or more"),
        ("q.jsonl", jsonl({"question": "q", "choices": ["a", ""], "answer": 0}), "text in each"),
        ("q.jsonl", jsonl({"question": " ", "choices": ["a", "b"], "answer": 0}), "text in 'que"),
        (
            "q.jsonl",
            jsonl({"question": "q", "choices": ["a", "b"], "answer": "d"}),
            "line 1: has the answer 'd', which is not among its 2 choices",
        ),
        ("q.jsonl", b'{"prompt": "\\ud800", "target": "x"}', "half a character"),
        ("q.jsonl", b'{"prompt": "x", "target": "y", "\\ud800": 1}', "half a character"),
        ("q.jsonl", jsonl({"prompt": True, "target": "x"}), "text in 'prompt', got True"),
        ("q.jsonl", jsonl({"prompt": "p", "target": "two\nlines"}), "an answer of one line"),
        ("q.jsonl", jsonl({"prompt": "p", "target": "x" * 513}), "at most 512 bytes"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_by_line(name, content, says):
    """One sentence with the first lines that do not fit, so that all can be corrected at once."""
    with pytest.raises(BadInput, match=says) as refused:
        documents(name, content)
    assert "\n" not in str(refused.value)


def test_a_column_that_is_not_there_is_named():
    """With those that are."""
    with pytest.raises(BadInput, match=r"no column 'gold'; it has question, a, b, c, answer"):
        documents("q.csv", CSV, answer="gold")
    with pytest.raises(BadInput, match="needs a column with lists"):
        documents("q.csv", CSV, choices=())
    with pytest.raises(BadInput, match="'a' can't have two roles"):
        documents("q.csv", CSV, answer="a")
    with pytest.raises(BadInput, match="larger than 50 MB"):
        question_files.read_rows("q.csv", b"x" * (question_files.MAX_MB * 2**20 + 1))


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
    write_text = durable_files.write_text

    def killed(target, text):
        if target == path:
            raise KeyboardInterrupt
        write_text(target, text)

    monkeypatch.setattr(durable_files, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        custom.add_task("mine", second, origin="q.jsonl", replace=True)
    monkeypatch.setattr(durable_files, "write_text", write_text)
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


AS_PYTHON = ["[1,2,3]", "[]", "[Paris]", '["yes","no"]', "12", "007", "1e3", "{{x}}", "None", "'a'"]
"""Texts that lm-eval would evaluate, or that look so."""


@pytest.mark.parametrize("first", AS_PYTHON[:6])
def test_texts_that_look_like_python_reach_the_model_as_they_are(first, store_root):
    """lm-eval evaluates rendered templates; a custom task has none, whichever text comes first."""
    texts = [first, *(text for text in AS_PYTHON if text != first)]
    written = documents("w.jsonl", jsonl(*({"prompt": text, "target": text} for text in texts)))
    chosen = documents(
        "c.jsonl", jsonl(*({"question": t, "choices": [*texts], "answer": t} for t in texts))
    )
    custom.add_task("written", written, origin="w.jsonl")
    custom.add_task("chosen", chosen, origin="c.jsonl")

    for name, found in (("written", written), ("chosen", chosen)):
        shown = render_prompts.render_preview(name, num=len(texts)).questions
        assert shown == custom.preview_questions(found, len(texts))
    task = task_loading.load_task("written", None, "")
    scores = [task.process_results(doc, [doc["target"]])["exact_match"] for doc in task.eval_docs]
    assert scores == [1.0] * len(texts)


def test_a_task_with_templates_of_an_earlier_version_is_read_as_it_is_meant(store_root):
    """By fields if a text looks like Python; else the templates stay, and so do stored answers."""
    for name, target in (("plain", "x"), ("lists", "[1,2]")):
        found = documents("q.jsonl", jsonl({"prompt": "a", "target": target}))
        path = custom.add_task(name, found, origin="q.jsonl")
        text = path.read_text(encoding="utf-8")
        text = text.replace("doc_to_text: prompt", "doc_to_text: '{{prompt}}'")
        path.write_text(
            text.replace("doc_to_target: target", "doc_to_target: '{{target}}'"), encoding="utf-8"
        )
        task = task_loading.load_task(name, None, "")
        assert task.doc_to_target(task.eval_docs[0]) == target
        assert (task.config.doc_to_target == "target") == (name == "lists")


@pytest.mark.parametrize("name", ["no", "123", "null", "1e5", "on"])
def test_a_name_that_yaml_reads_as_something_else_is_a_name(name, store_root):
    """It is quoted in the task's file."""
    custom.add_task(name, [{"prompt": "p", "target": "x"}], origin="q.csv")

    assert list(task_loading.load_tasks([name])) == [name]


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
