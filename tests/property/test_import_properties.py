"""Malformed result files: a clear sentence, the good part kept, never a traceback."""

import copy
import json
import math
import random
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from explorer.analysis.stats import differences
from explorer.errors import BadInput
from explorer.lm_eval_io import import_run, results, samples
from explorer.store import disk, frames

SAMPLE = {
    "doc_id": 0,
    "doc": {"passage": "A text."},
    "target": "1",
    "filter": "none",
    "arguments": {
        "gen_args_0": {"arg_0": "The sky is", "arg_1": " green"},
        "gen_args_1": {"arg_0": "The sky is", "arg_1": " blue"},
    },
    "filtered_resps": [["-4.5", "False"], ["-1.25", "True"]],
    "metrics": ["acc"],
    "doc_hash": "0" * 64,
    "acc": 1.0,
}
RESULTS = {
    "results": {"boolq": {"acc,none": 1.0, "acc_stderr,none": 0.0, "alias": "boolq"}},
    "group_subtasks": {"boolq": []},
    "n-samples": {"boolq": {"original": 2, "effective": 2}},
    "configs": {"boolq": {"output_type": "multiple_choice", "metadata": {"version": 2.0}}},
    "versions": {"boolq": 2.0},
    "n-shot": {"boolq": 0},
    "task_hashes": {"boolq": "ab"},
    "higher_is_better": {"boolq": {"acc": True}},
    "date": 1.7e9,
    "lm_eval_version": "0.4.9",
    "config": {"model": "hf", "model_args": {"pretrained": "gpt2"}, "model_dtype": "torch.float32"},
    "model_name": "gpt2",
    "chat_template": None,
    "total_evaluation_time_seconds": "5.1",
}
odd = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["\ud800", "acc,none", 1e400, -1, 10**400, "nan", "a/../b", "x" * 300]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def paths(value, path=()):
    """Every place in a document."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, (*path, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from paths(inner, (*path, place))


@st.composite
def damaged(draw, document):
    """The document with one to three places taken away, replaced or renamed."""
    made = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = [path for path in paths(made) if path]
        if not places:
            break
        *way, last = draw(st.sampled_from(places))
        inner = made
        for key in way:
            inner = inner[key]
        kind = draw(st.sampled_from(["replace", "remove", "rename"]))
        if kind == "replace" or isinstance(inner, list):
            inner[last] = draw(odd)
        else:
            old = inner.pop(last)
            if kind == "rename":
                inner[draw(st.text(max_size=8))] = old
    return made


HALF_A_PAIR = RESULTS | {"versions": {"boolq": "\ud800"}}
"""Half of a surrogate pair, which JSON can write and no text can hold."""


@settings(max_examples=150, deadline=None)
@example(HALF_A_PAIR, [SAMPLE | {"target": "\udc00"}], None)
@given(
    results=damaged(RESULTS) | odd,
    lines=st.lists(damaged(SAMPLE) | odd | st.just(SAMPLE), max_size=4),
    cut=st.none() | st.integers(0, 400),
)
def test_any_damage_is_a_sentence_or_a_readable_run(results, lines, cut):
    """What can be read is a whole record and whole samples; what cannot is said."""
    with tempfile.TemporaryDirectory() as made:
        folder, root = Path(made) / "out", Path(made) / "store"
        folder.mkdir()
        root.mkdir()
        (folder / "results_2026-01-01T00-00-00.000001.json").write_text(json.dumps(results)[:cut])
        (folder / "samples_boolq_2026-01-01T00-00-00.000001.jsonl").write_text(
            "\n".join(json.dumps(line) for line in lines)
        )
        try:
            run_id, problems = import_run.import_folder(root, folder, "fuzz")
        except BadInput as error:
            refused = str(error)
        else:
            refused = ""
        if refused:
            assert refused.endswith(".")
            assert not list(root.iterdir())
            return
        record = disk.load(root, run_id)
        scores, answers = frames.scores([record]), disk.load_answers(root, run_id)
        rows, _ = differences.compare_runs(scores, scores, answers, answers)
        assert len(rows) == scores["headline"].sum()
        assert all(problem.endswith(".") for problem in problems)
        for path in samples.newest_files(root / run_id / "capability").values():
            for sample in samples.read_lines(path, samples.line_offsets(path).values()):
                assert isinstance(samples.parse_answer(sample, "acc_norm"), samples.SampleAnswer)


def test_ten_thousand_damaged_files_are_read_or_refused_in_a_sentence(tmp_path):
    """Cut, overwritten, shuffled: what a file lacks is said in a sentence, and the rest is read."""
    draw, whole = random.Random(0), json.dumps(RESULTS).encode()

    def damage() -> bytes:
        start, stop = sorted(draw.choices(range(len(whole)), k=2))
        return draw.choice(
            (
                whole[:start],
                whole[:start] + whole[stop:],
                whole[:start] + draw.randbytes(draw.randint(1, 9)) + whole[start + 3 :],
                whole[:start] + whole[start:stop][::-1] + whole[stop:],
                whole.replace(
                    draw.choice((b"1.0", b"2", b'"boolq"', b"{}")),
                    draw.choice((b"null", b"-1e999", b"[[[", b"{}", b'"\\ud800"', b"9" * 400)),
                ),
            )
        )

    counts, said = {"read": 0, "refused": 0}, []
    for _ in range(10_000):
        path = tmp_path / "results_2026-01-01T00-00-00.000001.json"
        path.write_bytes(damage())
        try:
            found = results.read_output_folder(path)
        except BadInput as error:
            said.append(str(error))
            counts["refused"] += 1
            continue
        counts["read"] += 1
        assert all(math.isfinite(one.score) for one in found.scores)
        assert all(problem.endswith(".") for problem in found.problems)
    assert min(counts.values()) > 500, counts
    assert all(sentence.endswith(".") for sentence in said)


def test_damaged_files_keep_nobody_from_the_good_one(tmp_path):
    """Files that are cut are said in a sentence each, and the evaluation beside them is read."""
    whole = json.dumps(RESULTS).encode()
    for number in range(20):
        path = tmp_path / f"results_2026-01-01T00-00-00.{number:06}.json"
        path.write_bytes(whole[: 30 * number])
    good = json.loads(whole.replace(b"boolq", b"piqa"))
    (tmp_path / "results_2025-01-01T00-00-00.000001.json").write_text(json.dumps(good))

    found = results.read_output_folder(tmp_path)

    (score,) = found.scores
    assert (score.score, score.num_documents, score.task_hash) == (1.0, 2, "ab")
    assert len(found.problems) == 20
