"""Files for a task of one's own: whatever they hold, rows or one clear sentence."""

import csv
import io
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.errors import BadInput
from explorer.tasks import custom, question_columns, question_files
from tests.property.strategies import texts

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
columns = st.sampled_from(["question", "choices", "answer", "prompt", "target", "a", "b", "x"])
words = texts.map(str.strip).filter(bool)


def outcome(name, content):
    """The documents, or the sentence that refuses the file."""
    try:
        rows = question_files.read_rows(name, content)
        guess = question_columns.guess_columns(name, rows)
        return custom.read_questions(name, rows, guess.columns).documents
    except BadInput as error:
        said = str(error)
        assert said
        assert "\n" not in said
        assert len(said) < 3000
        return None


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["t.csv", "t.jsonl"]),
    st.binary() | st.text().map(lambda said: said.encode("utf-8", "surrogatepass")),
)
def test_any_bytes_are_rows_or_a_sentence(name, content):
    """Nothing that a person may drop on the page ends in a traceback."""
    outcome(name, content)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(columns, values, max_size=5), min_size=1, max_size=6))
def test_any_json_is_documents_or_a_sentence(rows):
    """Lines that are JSON of any shape either fit or are named; what fits can be asked."""
    found = outcome("t.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())

    for one in found or []:
        if "choices" in one:
            assert 0 <= one["answer"] < len(one["choices"])
            assert len(set(one["choices"])) == len(one["choices"]) >= 2
            assert one["question"]
        else:
            assert one["prompt"]
            assert one["target"]
        assert json.loads(json.dumps(one)) == one


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(words, st.lists(words, min_size=2, max_size=4, unique=True), st.integers(0, 1)),
        min_size=1,
        max_size=5,
    )
)
def test_the_same_questions_from_csv_and_jsonl(asked):
    """A table with a column a choice and lines with lists of them give the same documents."""
    width = max(len(choices) for _, choices, _ in asked)
    heads = [f"choice {i}" for i in range(width)]
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(["question", *heads, "answer"])
    for question, choices, answer in asked:
        writer.writerow([question, *choices, *[""] * (width - len(choices)), choices[answer]])
    lines = [
        json.dumps({"question": question, "choices": choices, "answer": choices[answer]})
        for question, choices, answer in asked
    ]

    found = outcome("t.csv", table.getvalue().encode())

    assert found == [{"question": q, "choices": c, "answer": a} for q, c, a in asked]
    assert outcome("t.jsonl", "\n".join(lines).encode()) == found
