"""YAML that people write: nothing is read as another type, and each error says where."""

import datetime

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer import specs
from explorer.errors import BadInput
from explorer.files import yaml_files
from explorer.specs import RunSpec
from explorer.tasks import code_policy


def read(text):
    return yaml_files.parse(text, "x.yaml").data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("0123", "0123"),
        ("12:30", "12:30"),
        ("2026-11-24", "2026-11-24"),
        ("0x1f", "0x1f"),
        ("=", "="),
        ("1e-4", 1e-4),
        ("1_000", 1000),
        ("-7", -7),
        (".5", 0.5),
        ("3.", 3.0),
        ("1.0e+3", 1000.0),
        ("true", True),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("-.inf", float("-inf")),
        ("1" * 301, None),
    ],
)
def test_a_plain_scalar_is_what_it_looks_like(text, value):
    """As in YAML 1.2; PyYAML reads several of these as a truth value, a day or octal digits."""
    if len(text) > 300:
        with pytest.raises(BadInput, match="not plain data"):
            read(f"key: {text}")
    else:
        found = read(f"key: {text}")["key"]
        assert (found, type(found)) == (value, type(value))


def test_keys_are_text_as_it_is_written():
    """A device may be called 4090, no or 1.10."""
    assert read("4090: 1\nno: 2\n1.10: 3\nnull: 4\n") == {"4090": 1, "no": 2, "1.10": 3, "null": 4}


def test_anchors_and_merges_are_read():
    """A key of one's own counts before a merged one, the first merged one before the next."""
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], x: 3}\nd: *a\n"

    assert read(text)["c"] == {"x": 3, "y": 1, "z": 2}
    assert read(text)["d"] == {"x": 1, "y": 1}


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
CHAIN = "a0: &a0 []\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 2000))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", r"line 3, column 1: expected each key once.*'a' again.* line 1 "),
        ("a:\n  b: {c: 1, c: 2}\n", r"line 2, column 13: .*'c' again"),
        ("- {x: 1, 'x': 2}\n", "'x' again"),
        (LAUGHS, "more than 100,000 values"),
        ("a: &a [*a]\n", "line 1, column 4: found an anchor that contains itself"),
        (CHAIN, "aliases that nest more than 100 levels"),
        ("a: *b\n", "line 1, column 4: .*undefined alias"),
        ("a: !!python/object:os.system {}\n", "line 1, column 4: found .*not plain data"),
        ("a: !!timestamp 2026-01-01\n", "not plain data"),
        ("a: !!int x\n", "not plain data"),
        ("? [1]\n: 2\n", "a list or mapping as a key"),
        ("a: {<<: 3}\n", "<< without a mapping"),
        ("a: b: c\n", "line 1, column 5: expected YAML.*colon in quotes"),
        ("a:\n\tb: 1\n", "line 2, column 1: expected YAML.*Indent with spaces"),
        ("a: *.gguf\n", "line 1, column 5: expected YAML.*begins with a sign in quotes"),
        ("a: @me\n", "line 1, column 4: expected YAML.*begins with a sign in quotes"),
        ("a: !!set {b}\n", "line 1, column 4: found !!set, which is not plain data"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: expected one document, found a second"),
        ("a: \x00\n", "expected YAML"),
        ("\n- " + "[" * 101 + "]" * 101, "line 2: nested more than 100 levels"),
        ("[" * 100_000, "nested more than"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_its_place(text, says):
    """File, line and column."""
    with pytest.raises(BadInput, match=says) as refused:
        read(text)
    assert str(refused.value).startswith("x.yaml")
    assert "\n" not in str(refused.value)


STUDENT = "student: {num_layers: 2}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            STUDENT + "distill:\n  kd_wieght: 1\n",
            r"line 3, column 3: unknown key distill\.kd_wieght; did you mean distill\.kd_weight\?",
        ),
        ("kd_weight: 1\n", r"did you mean distill\.kd_weight\?"),
        ("latency:\n  device: cpu\n", "did you mean device at the top"),
        ("Teacher: starter\n", r"did you mean teacher\?"),
        (STUDENT + "distill:\n  kd_weight: 7\n", r"line 3, column 14: distill\.kd_weight"),
        (STUDENT + "distill: {learning_rate: .inf}\n", "line 2, column 26: .*finite number"),
        ("student:\n  kind: dept\n", r"got 'dept'\. Did you mean depth\?"),
        ("student: {kind: width}\n", "line 1, column 10: student takes either"),
        ("dtype: bfloat_16\n", r"line 1, column 8: dtype .*Did you mean bfloat16\?"),
        ("teacher: 7\n", r"line 1, column 10: teacher .*Put it in quotes"),
        ("capability: {tasks: starter}\n", r"tasks should be a list, got 'starter'.*\[a, b\]"),
        (STUDENT + "distill: {}\n" + STUDENT, "line 3, column 1: .* 'student' again"),
    ],
)
def test_a_specs_errors_say_where_and_what_was_meant(text, says):
    """Line and column of the value, or of a key that is not known."""
    with pytest.raises(BadInput, match=says):
        RunSpec.from_yaml(text, "x.yaml")


def test_a_spec_is_read_in_any_encoding_with_a_mark(tmp_path):
    """UTF-8 and UTF-16, as editors on Windows write them; a file that is no spec is not read."""
    path = tmp_path / "spec.yaml"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_text("name: n\ngguf: q8_0\ndevice: cpu\n", encoding=encoding)
        assert specs.read_run_or_sweep(path).name == "n"
    path.write_bytes(b"name: caf\xe9\n")
    with pytest.raises(BadInput, match="line 1: expected UTF-8"):
        specs.read_run_or_sweep(path)
    path.write_bytes(b" " * (yaml_files.MAX_BYTES + 1))
    with pytest.raises(BadInput, match="larger than"):
        specs.read_run_or_sweep(path)


def test_a_task_file_with_a_key_twice_is_refused(tmp_path):
    """lm-eval would take the last of the two."""
    path = tmp_path / "quiz.yaml"
    path.write_text("task: quiz\ndoc_to_text: a\nfunction: !function x.y\ndoc_to_text: b\n")

    with pytest.raises(BadInput, match=r"line 4, column 1: .*'doc_to_text' again"):
        yaml_files.refuse_unsafe(path.read_bytes(), str(path))
    path.write_text("task: quiz\ndoc_to_text: a\ndoc_to_text: b\n")
    with pytest.raises(BadInput, match="'doc_to_text' again"):
        code_policy.refuse_code(path)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["no", "1e5", "0123", "2026-11-24", "~", "<<", "1:30", "1_0", ".5", "", "="])
)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=5) | st.sampled_from(["no", "1", "<<"]),
        scalars | st.lists(scalars, max_size=3),
        max_size=4,
    )
)
def test_what_is_written_is_read_back_by_old_and_new_readers(data):
    """Texts that either would read as something else are quoted."""
    text = yaml_files.dump(data)

    assert read(text) == data
    assert yaml.safe_load(text) == data


def test_a_day_that_is_a_date_is_not_written_as_text():
    """Only plain data is dumped, so a date is an error of ours."""
    assert yaml_files.dump({"day": str(datetime.date(2026, 11, 24))}) == "day: '2026-11-24'\n"
